"""Fetch the datasets as STEGO published them: ``python download_datasets.py --list`` shows them."""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from eagle.config.command_line import run_command
from eagle.config.schema import key
from eagle.config.validation import refuse_unknown
from eagle.console import text_table
from eagle.default_folders import default_folder
from eagle.downloads.archives import extract_archive
from eagle.downloads.catalog import DATASETS, STEGO_DATA_URL
from eagle.downloads.http import download
from eagle.errors import DownloadError


@dataclass
class DownloadDatasetsConfig:
    """Keys of this command."""

    datasets: list[str] = key([*DATASETS], "Names to fetch; --list shows them all")
    pytorch_data_dir: str = key(default_folder("datasets"), "Folder to write to", path=True)
    base_url: str = key(STEGO_DATA_URL, "Folder of the archives, NAME.zip each, e.g. a mirror")
    unzip: bool = key(False, "Also unpack each archive, which stays where it is")
    list: bool = key(False, "Show what can be fetched and what is there already, and fetch nothing")


def download_datasets(config: DictConfig) -> None:
    """Fetch the datasets as zip archives; archives and folders already there are left alone."""
    if config.list:
        print(overview(config))
        return
    refuse_unknown("dataset", config.datasets, DATASETS)
    there: list[str] = []
    failed: list[str] = []
    for name in config.datasets:
        try:
            there.append(f"{name} -> {fetch_dataset(name, config)}")
        except DownloadError as error:
            failed.append(f"{name} ({error})")
    print(f"there: {'; '.join(there) or 'nothing'}")
    if failed:
        raise DownloadError(f"not fetched: {'; '.join(failed)}")


def fetch_dataset(name: str, config: DictConfig) -> Path:
    """The dataset's folder where it is there or ``unzip`` is on, else its archive; raises DownloadError."""
    folder = Path(config.pytorch_data_dir) / name
    if folder.is_dir():
        return folder
    archive = download(f"{config.base_url.rstrip('/')}/{name}.zip", folder.with_name(f"{name}.zip"))
    if not config.unzip:
        return archive
    extract_archive(archive, folder.parent)
    if not folder.is_dir():
        raise DownloadError(f"{archive}: unpacked, but it has no folder '{name}'; look into {folder.parent}")
    return folder


def overview(config: DictConfig) -> str:
    """The table of every dataset that can be fetched."""
    heading = ("name", "what it is", "there", "where it comes from")
    rows = []
    for name, what in DATASETS.items():
        folder = Path(config.pytorch_data_dir) / name
        present = next((str(path) for path in (folder, folder.with_name(f"{name}.zip")) if path.exists()), "no")
        rows.append((name, what, present, f"{config.base_url.rstrip('/')}/{name}.zip"))
    return f"{text_table(heading, rows, numbers=False)}\n\nfolder: {Path(config.pytorch_data_dir).resolve()}"


if __name__ == "__main__":
    run_command(DownloadDatasetsConfig, download_datasets)
