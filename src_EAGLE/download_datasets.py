"""Download the datasets in the form that STEGO distributes: ``python download_datasets.py --list`` shows them."""

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

    datasets: list[str] = key([*DATASETS], "Names of datasets to download; --list shows all")
    pytorch_data_dir: str = key(default_folder("datasets"), "Output folder", path=True)
    base_url: str = key(STEGO_DATA_URL, "URL of the folder that contains NAME.zip for each dataset, e.g. a mirror")
    unzip: bool = key(False, "Unpack each archive after the download; the archive is kept")
    list: bool = key(False, "List the datasets and which are already present; download nothing")


def download_datasets(config: DictConfig) -> None:
    """Download the datasets as zip archives; existing archives and folders are kept."""
    if config.list:
        print(overview(config))
        return
    refuse_unknown("dataset", config.datasets, DATASETS)
    present: list[str] = []
    failed: list[str] = []
    for name in config.datasets:
        try:
            present.append(f"{name} -> {fetch_dataset(name, config)}")
        except DownloadError as error:
            failed.append(f"{name} ({error})")
    print(f"available: {'; '.join(present) or 'nothing'}")
    if failed:
        raise DownloadError(f"not fetched: {'; '.join(failed)}")


def fetch_dataset(name: str, config: DictConfig) -> Path:
    """Download a dataset if needed; return its folder if it exists or ``unzip`` is set, else its archive.

    Raises:
        DownloadError: the download fails, or the archive does not contain the dataset's folder.
    """
    folder = Path(config.pytorch_data_dir) / name
    if folder.is_dir():
        return folder
    archive = download(f"{config.base_url.rstrip('/')}/{name}.zip", folder.with_name(f"{name}.zip"))
    if not config.unzip:
        return archive
    extract_archive(archive, folder.parent)
    if not folder.is_dir():
        raise DownloadError(f"{archive}: contains no folder '{name}'; inspect what was unpacked to {folder.parent}")
    return folder


def overview(config: DictConfig) -> str:
    """Table of all downloadable datasets."""
    heading = ("name", "description", "present", "source")
    rows = []
    for name, description in DATASETS.items():
        folder = Path(config.pytorch_data_dir) / name
        present = next((str(path) for path in (folder, folder.with_name(f"{name}.zip")) if path.exists()), "no")
        rows.append((name, description, present, f"{config.base_url.rstrip('/')}/{name}.zip"))
    return f"{text_table(heading, rows, numbers=False)}\n\nfolder: {Path(config.pytorch_data_dir).resolve()}"


def main() -> None:
    """Run the command."""
    run_command(DownloadDatasetsConfig, download_datasets)


if __name__ == "__main__":
    main()
