"""Cut datasets into training crops: ``python crop_datasets.py dataset_name=cocostuff27 [key=value …]``."""

from dataclasses import dataclass, fields

from omegaconf import DictConfig

from eagle.config.application import run_command
from eagle.config.schema import BadImageConfig, DatasetConfig, DatasetFolderConfig, key
from eagle.config.validation import refuse_unknown, validated
from eagle.data.check import readable_part
from eagle.data.crops import crop_split
from eagle.data.datasets.base import SPLITS
from eagle.data.datasets.catalog import crop_set, open_whole_dataset
from eagle.data.datasets.cropped import CROPS_PER_IMAGE, JpegSettings


@dataclass
class CropConfig(DatasetFolderConfig, BadImageConfig):
    """Every key of this command."""

    dataset_name: list[str] = key(
        ["cocostuff27", "cityscapes"], "Datasets to crop: names in eagle.data.datasets.catalog"
    )
    crop_type: str = key(
        "five", "five = the four corners and the centre, random = five random positions", choices=("five", "random")
    )
    splits: list[str] = key([*SPLITS], "Splits to crop; training uses only crops of train")
    jpeg_quality: int = key(
        75, "JPEG quality of the crops; 75 = released code, 95 loses little", minimum=1, maximum=100
    )
    jpeg_subsampling: str = key(
        "4:2:0",
        "JPEG chroma subsampling of the crops: 4:2:0 = released code, 4:4:4 = none",
        choices=("4:2:0", "4:2:2", "4:4:4"),
    )
    seed: int = key(0, "Seed of random crops; equal seeds give equal crops", minimum=0)
    num_processes: int | None = key(None, "Number of images cropped at once; none = one per core", minimum=1)


def crop_datasets(config: DictConfig) -> None:
    """Cut every image of the datasets into five crops; run the command again to continue an interrupted run."""
    refuse_unknown("value of splits", config.splits, SPLITS)
    shared = {field.name: config[field.name] for field in fields(DatasetConfig)}
    datasets = [validated(DatasetConfig, {**shared, "dataset_name": name}) for name in config.dataset_name]
    # Open all datasets first, so that missing files are reported before any cropping.
    opened = [(cfg, split, open_whole_dataset(cfg, split)) for cfg in datasets for split in config.splits]
    jpeg = JpegSettings(config.jpeg_quality, config.jpeg_subsampling)
    summary = []
    for cfg, split, whole in opened:
        crops = crop_set(cfg)
        dataset = readable_part(whole, config.on_bad_image, f"{split} images")
        n_written = crop_split(dataset, split, crops, jpeg, config.seed, config.num_processes)
        left_out = f"; bad images left out: {len(dataset.skipped)}" if dataset.skipped else ""
        summary.append(f"{crops.folder} {split}: {CROPS_PER_IMAGE * len(dataset)} crops, {n_written} written{left_out}")
    print("\n".join(summary))


if __name__ == "__main__":
    run_command(CropConfig, crop_datasets, default_config="crop_config")
