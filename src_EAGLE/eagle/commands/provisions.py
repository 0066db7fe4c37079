"""Commands about models and datasets: download, crop, check."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from eagle.config.application import run_command
from eagle.config.schema import BadImageConfig, DatasetConfig, DatasetFolderConfig, option
from eagle.config.validation import refuse_unknown, validated
from eagle.console import text_table
from eagle.data.check import Inspection, class_shares_table, inspect_dataset, readable_part, summary_table
from eagle.data.datasets.base import SPLITS
from eagle.data.datasets.catalog import crop_set, open_dataset, open_whole_dataset
from eagle.data.datasets.cropped import CROPS_PER_IMAGE, crop_split
from eagle.data.publishers import DATASETS, MIRRORED_DATASETS, fetch_dataset
from eagle.downloads.catalog import DINO_URL, MODELS, local_weights
from eagle.downloads.fetching import fetch_model
from eagle.errors import DataError, DownloadError, EagleError
from eagle.files import default_folder, only_writer


@dataclass
class DownloadModelsConfig:
    """Every key of ``download_models.py``."""

    models: list[str] = option(
        ["dino_vits8", "dino_vitb8", "eagle_cocostuff_vits8", "eagle_cityscapes_vitb8"],
        "Models to fetch; --list shows all names",
    )
    output_dir: str = option(default_folder("models"), "Folder to write to", path=True)
    base_url: str = option(DINO_URL, "Base address of the DINO and DINOv2 weights; set it to use a mirror")
    list: bool = option(False, "List the models that can be fetched and those already fetched, then stop")


def download_models(config: DictConfig) -> None:
    """Fetch pretrained backbones and the released EAGLE checkpoints; existing files are kept."""
    if config.list:
        rows = []
        for name, model in MODELS.items():
            file = str(local_weights(config.output_dir, name) or "not fetched")
            source = model.address() or f"Hugging Face timm/{model.timm_name}"
            rows.append((name, model.what, model.size, file, source))
        table = text_table(("name", "model", "size", "file", "source"), rows, numbers=False)
        print(f"{table}\n\nfolder: {Path(config.output_dir).resolve()}")
        return
    refuse_unknown("model", config.models, MODELS)
    _fetch_all(config.models, lambda name: fetch_model(name, config.output_dir, config.base_url))


def _fetch_all(names: Iterable[str], fetch: Callable[[str], Path]) -> None:
    """Fetch all that can be fetched and print where it lies; raises DownloadError with the reasons for the rest."""
    available: list[str] = []
    failed: list[str] = []
    for name in dict.fromkeys(names):
        try:
            available.append(f"{name} -> {fetch(name)}")
        except EagleError as error:
            failed.append(f"{name} ({error})")
    print(f"available: {'; '.join(available) or 'nothing'}")
    if failed:
        raise DownloadError(f"not fetched: {'; '.join(failed)}")


download_models_main = partial(run_command, DownloadModelsConfig, download_models)


# Datasets whose publishers hand out the archives on request; each has a key of its own.
_GIVEN = ("cityscapes", "potsdam")


@dataclass
class DownloadDatasetsConfig:
    """Keys of this command."""

    datasets: list[str] = option(
        [],
        "Names of datasets to download; --list shows all. None = the three on STEGO's mirror, or only those "
        "whose archives you give",
    )
    source: str = option(
        "mirror",
        "mirror = STEGO's archives; originals = the publishers' archives, kept in pytorch_data_dir/originals, from "
        "which the folder is built (cocostuff, camvid). camvid always comes from its publisher",
        choices=("mirror", "originals"),
    )
    cityscapes: list[str] = option(
        [], "Archives of Cityscapes to build it from: leftImg8bit_trainvaltest.zip,gtFine_trainvaltest.zip", path=True
    )
    potsdam: list[str] = option(
        [], "Archives of the ISPRS Potsdam benchmark to cut it from: 2_Ortho_RGB.zip,5_Labels_all.zip", path=True
    )
    pytorch_data_dir: str = option(default_folder("datasets"), "Output folder", path=True)
    base_url: str | None = option(
        None, "URL of a folder that contains all archives, e.g. a mirror of your own; none = the source's own addresses"
    )
    unzip: bool = option(False, "Unpack each of STEGO's archives after the download; the archive is kept")
    list: bool = option(False, "List the datasets and which are already present; download nothing")


def download_datasets(config: DictConfig) -> None:
    """Download the datasets: STEGO's as zip archives, their publishers' as folders; existing ones are kept."""
    data_dir = Path(config.pytorch_data_dir)
    if config.list:
        rows = []
        for name, dataset in DATASETS.items():
            present = [str(path) for path in (data_dir / name, data_dir / f"{name}.zip") if path.exists()]
            rows.append((name, dataset.what, present[0] if present else "no"))
        table = text_table(("name", "description", "present"), rows, numbers=False)
        print(f"{table}\n\nfolder: {data_dir.resolve()}")
        return
    refuse_unknown("dataset", config.datasets, DATASETS)
    # `cityscapes=a.zip,b.zip` arrives as one value.
    typed = {name: [path.strip() for path in ",".join(config[name]).split(",")] for name in _GIVEN if config[name]}
    given = {name: [Path(path).expanduser() for path in paths if path] for name, paths in typed.items()}

    def fetch(name: str) -> Path:
        return fetch_dataset(name, data_dir, config.source, config.base_url, config.unzip, given.get(name, ()))

    _fetch_all([*given, *config.datasets] or MIRRORED_DATASETS, fetch)


download_datasets_main = partial(run_command, DownloadDatasetsConfig, download_datasets)


@dataclass
class CropConfig(DatasetFolderConfig, BadImageConfig):
    """Every key of this command."""

    dataset_name: list[str] = option(
        ["cocostuff27", "cityscapes"], "Datasets to crop: names in eagle.data.datasets.catalog"
    )
    crop_type: str = option(
        "five", "five = the four corners and the centre, random = five random positions", choices=("five", "random")
    )
    splits: list[str] = option([*SPLITS], "Splits to crop; training uses only crops of train")
    jpeg_quality: int = option(
        75, "JPEG quality of the crops; 75 = released code, 95 loses little", minimum=1, maximum=100
    )
    seed: int = option(0, "Seed of random crops; equal seeds give equal crops", minimum=0)
    num_processes: int | None = option(None, "Number of images cropped at once; none = one per core", minimum=1)


def crop_datasets(config: DictConfig) -> None:
    """Cut every image of the datasets into five crops; run the command again to continue an interrupted run."""
    refuse_unknown("value of splits", config.splits, SPLITS)
    shared = {field.name: config[field.name] for field in fields(DatasetConfig)}
    datasets = [validated(DatasetConfig, {**shared, "dataset_name": name}) for name in config.dataset_name]
    # Open all datasets first, so that missing files are reported before any cropping.
    opened = [(cfg, split, open_whole_dataset(cfg, split)) for cfg in datasets for split in config.splits]
    summary = []
    for cfg, split, whole in opened:
        crops = crop_set(cfg)
        dataset = readable_part(whole, config.on_bad_image, f"{split} images")
        with only_writer(crops.folder):
            n_written = crop_split(dataset, split, crops, config)
        left_out = f"; bad images left out: {len(dataset.skipped)}" if dataset.skipped else ""
        summary.append(f"{crops.folder} {split}: {CROPS_PER_IMAGE * len(dataset)} crops, {n_written} written{left_out}")
    print("\n".join(summary))


crop_datasets_main = partial(run_command, CropConfig, crop_datasets, default_config="crop_config")


def check_data(cfg: DictConfig) -> None:
    """Decode every image and label of a dataset, print a summary and list bad files; exits 1 if any are bad."""
    found: dict[str, Inspection] = {}
    problems: list[str] = []
    for split in SPLITS:
        try:
            found[split] = inspect_dataset(open_dataset(cfg, split), f"{split} images")
            problems += found[split].bad
        except DataError as error:
            problems.append(str(error))
    # A split that is missing or empty cannot be trained on, whatever is skipped.
    remedy = "repair them, or train with on_bad_image=skip" if len(found) == len(SPLITS) else "repair them"
    if found:
        print(summary_table(found))
        print(f"\n{class_shares_table(found)}")
    for problem in problems:
        print(f"bad: {problem}")
    if problems:
        raise DataError(f"bad files or splits: {len(problems)}, listed above; {remedy}")


check_data_main = partial(run_command, DatasetConfig, check_data)
