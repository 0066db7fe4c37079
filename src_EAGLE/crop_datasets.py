"""Cut datasets into training crops: ``python crop_datasets.py dataset_name=cocostuff27 [key=value …]``."""

from eagle.commands.provisions import crop_datasets_main

if __name__ == "__main__":
    crop_datasets_main()
