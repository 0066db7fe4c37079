"""Download the datasets, from STEGO's mirror or their publishers: ``python download_datasets.py --list`` shows them."""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from eagle.config.command_line import run_command
from eagle.config.schema import key
from eagle.config.validation import refuse_unknown
from eagle.console import text_table
from eagle.data.preparation.fetching import DatasetSource, fetch_dataset
from eagle.downloads.catalog import DATASETS, MIRRORED_DATASETS
from eagle.errors import DataError, DownloadError
from eagle.files import default_folder


@dataclass
class DownloadDatasetsConfig:
    """Keys of this command."""

    datasets: list[str] = key([*MIRRORED_DATASETS], "Names of datasets to download; --list shows all")
    source: str = key(
        "mirror",
        "mirror = STEGO's archives; originals = the publishers' archives, kept in pytorch_data_dir/originals, from "
        "which the folder is built (cocostuff, camvid). camvid always comes from its publisher",
        choices=("mirror", "originals"),
    )
    pytorch_data_dir: str = key(default_folder("datasets"), "Output folder", path=True)
    base_url: str | None = key(
        None, "URL of a folder that contains all archives, e.g. a mirror of your own; none = the source's own addresses"
    )
    unzip: bool = key(False, "Unpack each of STEGO's archives after the download; the archive is kept")
    list: bool = key(False, "List the datasets and which are already present; download nothing")


def download_datasets(config: DictConfig) -> None:
    """Download the datasets: STEGO's as zip archives, their publishers' as folders; existing ones are kept."""
    if config.list:
        print(overview(config))
        return
    refuse_unknown("dataset", config.datasets, DATASETS)
    source = DatasetSource(config.source, config.base_url)
    present: list[str] = []
    failed: list[str] = []
    for name in config.datasets:
        try:
            present.append(f"{name} -> {fetch_dataset(name, Path(config.pytorch_data_dir), source, config.unzip)}")
        except (DownloadError, DataError) as error:
            failed.append(f"{name} ({error})")
    print(f"available: {'; '.join(present) or 'nothing'}")
    if failed:
        raise DownloadError(f"not fetched: {'; '.join(failed)}")


def overview(config: DictConfig) -> str:
    """Table of all downloadable datasets."""
    heading = ("name", "description", "present", "source")
    source = DatasetSource(config.source, config.base_url)
    rows = []
    for name, description in DATASETS.items():
        folder = Path(config.pytorch_data_dir) / name
        present = next((str(path) for path in (folder, folder.with_name(f"{name}.zip")) if path.exists()), "no")
        first, *others = source.addresses(name) or ["on request"]
        rows.append((name, description, present, f"{first} and {len(others)} more" if others else first))
    return f"{text_table(heading, rows, numbers=False)}\n\nfolder: {Path(config.pytorch_data_dir).resolve()}"


def main() -> None:
    """Run the command."""
    run_command(DownloadDatasetsConfig, download_datasets)


if __name__ == "__main__":
    main()
