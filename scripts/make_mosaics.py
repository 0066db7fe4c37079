"""Write the ``mosaics`` dataset: labelled scenes made from photographs in installed packages; no download."""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from eagle.config.command_line import run_command
from eagle.config.schema import key
from eagle.data.mosaics.writing import MIN_SIZE, write_mosaics
from eagle.files import default_folder


@dataclass
class MosaicsConfig:
    """Every key of ``make_mosaics.py``."""

    output_dir: str = key(default_folder("datasets/mosaics"), "Output folder", path=True)
    n_train: int = key(160, "Number of training scenes", minimum=0)
    n_val: int = key(40, "Number of validation scenes", minimum=0)
    size: int = key(256, "Side of a scene in pixels", minimum=MIN_SIZE)
    seed: int = key(0, "Random seed; equal seeds give equal files", minimum=0)


def make_mosaics(config: DictConfig) -> None:
    """Write labelled scenes for a first training run; an existing set with the same values is kept."""
    write_mosaics(Path(config.output_dir), config.n_train, config.n_val, config.size, config.seed)


if __name__ == "__main__":
    run_command(MosaicsConfig, make_mosaics)
