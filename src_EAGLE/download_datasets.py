"""Download datasets or build them from publishers' archives: ``python download_datasets.py --list`` shows them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from eagle.config.application import run_command
from eagle.config.schema import key
from eagle.config.validation import refuse_unknown
from eagle.console import text_table
from eagle.data.preparation.publishers import archive_addresses, fetch_dataset, prepare_dataset
from eagle.downloads.catalog import DATASETS, MIRRORED_DATASETS
from eagle.errors import DataError, DownloadError
from eagle.files import default_folder

# Datasets whose publishers hand out the archives on request; each has a key of its own.
_GIVEN = ("cityscapes", "potsdam")


@dataclass
class DownloadDatasetsConfig:
    """Keys of this command."""

    datasets: list[str] = key(
        [],
        "Names of datasets to download; --list shows all. None = the four on STEGO's mirror, or only those whose "
        "archives you give",
    )
    source: str = key(
        "mirror",
        "mirror = STEGO's archives; originals = the publishers' archives, kept in pytorch_data_dir/originals, from "
        "which the folder is built (cocostuff, camvid). camvid always comes from its publisher",
        choices=("mirror", "originals"),
    )
    cityscapes: list[str] = key(
        [], "Archives of Cityscapes to build it from: leftImg8bit_trainvaltest.zip,gtFine_trainvaltest.zip", path=True
    )
    potsdam: list[str] = key(
        [], "Archives of the ISPRS Potsdam benchmark to cut it from: 2_Ortho_RGB.zip,5_Labels_all.zip", path=True
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
    data_dir = Path(config.pytorch_data_dir)
    given = {name: archive_paths(config[name]) for name in _GIVEN if config[name]}
    wanted = [*given, *config.datasets] or [*MIRRORED_DATASETS]
    present: list[str] = []
    failed: list[str] = []
    for name in dict.fromkeys(wanted):
        try:
            if name in given:
                path = prepare_dataset(name, data_dir, given[name])
            else:
                addresses = archive_addresses(name, config.source, config.base_url)
                path = fetch_dataset(name, data_dir, addresses, config.unzip)
            present.append(f"{name} -> {path}")
        except (DownloadError, DataError) as error:
            failed.append(f"{name} ({error})")
    print(f"available: {'; '.join(present) or 'nothing'}")
    if failed:
        raise DownloadError(f"not fetched: {'; '.join(failed)}")


def archive_paths(values: Sequence[str]) -> list[Path]:
    """The paths of a list; ``a.zip,b.zip`` arrives as one value."""
    return [Path(path.strip()).expanduser() for value in values for path in value.split(",") if path.strip()]


def overview(config: DictConfig) -> str:
    """Table of all downloadable datasets."""
    heading = ("name", "description", "present", "source")
    rows = []
    for name, description in DATASETS.items():
        folder = Path(config.pytorch_data_dir) / name
        present = next((str(path) for path in (folder, folder.with_name(f"{name}.zip")) if path.exists()), "no")
        first, *others = archive_addresses(name, config.source, config.base_url).values() or ["on request"]
        rows.append((name, description, present, f"{first} and {len(others)} more" if others else first))
    return f"{text_table(heading, rows, numbers=False)}\n\nfolder: {Path(config.pytorch_data_dir).resolve()}"


def main() -> None:
    """Run the command."""
    run_command(DownloadDatasetsConfig, download_datasets)


if __name__ == "__main__":
    main()
