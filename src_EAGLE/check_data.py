"""Check a whole dataset and list its bad files: ``python check_data.py dataset_name=cocostuff27 [key=value …]``."""

from dataclasses import dataclass

from omegaconf import DictConfig

from eagle.config.application import run_command
from eagle.config.schema import DatasetConfig, key
from eagle.config.validation import refuse_unknown
from eagle.data.check import Inspection, class_shares_table, inspect_dataset, summary_table
from eagle.data.datasets.base import SPLITS
from eagle.data.datasets.catalog import open_dataset
from eagle.errors import DataError


@dataclass
class CheckConfig(DatasetConfig):
    """Every key of this command."""

    splits: list[str] = key([*SPLITS], "Splits to check")
    res: int | None = key(
        None, "Count label pixels after resizing and centre-cropping to this size; none = whole label maps", minimum=1
    )
    num_threads: int | None = key(None, "Number of decoding threads; none = Python's default", minimum=1)


def check_data(cfg: DictConfig) -> None:
    """Decode every image and label of a dataset, print a summary and list bad files; exits 1 if any are bad."""
    refuse_unknown("value of splits", cfg.splits, SPLITS)
    found: dict[str, Inspection] = {}
    problems: list[str] = []
    for split in cfg.splits:
        try:
            dataset = open_dataset(cfg, split)
        except DataError as error:
            problems.append(str(error))
            continue
        found[split] = inspect_dataset(dataset, f"{split} images", None, cfg.res, cfg.num_threads)
        problems += found[split].bad.values()
    if found:
        print(summary_table(found))
        print(f"\n{class_shares_table(found)}")
    for problem in problems:
        print(f"bad: {problem}")
    if problems:
        raise DataError(
            f"bad files or splits: {len(problems)}, listed above; repair them, or train with on_bad_image=skip"
        )


if __name__ == "__main__":
    run_command(CheckConfig, check_data)
