"""Download datasets or build them from publishers' archives: ``python download_datasets.py --list`` shows them."""

from eagle.commands.provisions import download_datasets_main

if __name__ == "__main__":
    download_datasets_main()
