"""Check a whole dataset and list its bad files: ``python check_data.py dataset_name=cocostuff27 [key=value …]``."""

from eagle.commands.provisions import check_data_main

if __name__ == "__main__":
    check_data_main()
