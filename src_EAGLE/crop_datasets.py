"""Cut datasets into crops to train on: ``python crop_datasets.py dataset_name=cocostuff27 [key=value …]``."""

from dataclasses import dataclass, fields
from pathlib import Path

from omegaconf import DictConfig

from eagle.config.command_line import run_command
from eagle.config.schema import BadImageConfig, DatasetConfig, key
from eagle.config.validation import refuse_unknown, validated
from eagle.data.crops.cropping import SPLITS, crop_split
from eagle.data.crops.manifest import JpegSettings
from eagle.data.datasets.catalog import crop_source, open_whole_dataset
from eagle.data.loading.bad_images import readable_part
from eagle.default_folders import default_folder


@dataclass
class CropConfig(BadImageConfig):
    """Every key of this command."""

    dataset_name: list[str] = key(["cocostuff27", "cityscapes"], "Datasets, names of eagle.data.datasets.catalog")
    pytorch_data_dir: str = key(default_folder("datasets"), "Folder that holds the datasets", path=True)
    dir_dataset_name: str | None = key(None, "Sub-folder of pytorch_data_dir, for dataset_name=directory")
    dir_dataset_n_classes: int | None = key(
        None, "Number of classes of a directory dataset; none: the lines of its classes.txt", minimum=1
    )
    crop_type: str = key(
        "five", "five = the four corners and the centre, random = five drawn places", choices=("five", "random")
    )
    crop_ratio: float = key(0.5, "Side of a crop by side of its image", above=0, maximum=1)
    splits: list[str] = key([*SPLITS], "Splits to crop; training reads crops of train only")
    potsdam_unlabelled: bool = key(False, "Potsdam: also crop the tiles of unlabelled_train.txt")
    jpeg_quality: int = key(75, "JPEG quality of the crops; 75 as released, 95 loses little", minimum=1, maximum=100)
    jpeg_subsampling: str = key(
        "4:2:0",
        "Colour resolution of the crops: 4:2:0 as released, 4:4:4 keeps all of it",
        choices=("4:2:0", "4:2:2", "4:4:4"),
    )
    seed: int = key(0, "Seed of random crops; same seed, same crops", minimum=0)
    num_processes: int | None = key(None, "Processes that crop; none = one for each core", minimum=1)


def crop_datasets(config: DictConfig) -> None:
    """Cut every image of datasets into five crops; a run that was cut short is continued by the same command."""
    refuse_unknown("value of splits", config.splits, SPLITS)
    shared = {field.name: config[field.name] for field in fields(DatasetConfig)}
    datasets = [validated(DatasetConfig, {**shared, "dataset_name": name}) for name in config.dataset_name]
    # All are opened before the first image is cropped: what is missing is said at once.
    opened = [(cfg, split, open_whole_dataset(cfg, split)) for cfg in datasets for split in config.splits]
    root = Path(config.pytorch_data_dir)
    jpeg = JpegSettings(config.jpeg_quality, config.jpeg_subsampling)
    summary = []
    for cfg, split, whole in opened:
        source = crop_source(cfg)
        dataset = readable_part(whole, config.on_bad_image, f"{split} images")
        made = crop_split(dataset, split, source, root, jpeg, config.seed, config.num_processes)
        left_out = f"; {len(dataset.skipped)} bad images left out" if dataset.skipped else ""
        summary.append(f"{source.folder(root)} {split}: {5 * len(dataset)} crops, {made} made now{left_out}")
    print("\n".join(summary))


if __name__ == "__main__":
    run_command(CropConfig, crop_datasets, default_config="crop_config")
