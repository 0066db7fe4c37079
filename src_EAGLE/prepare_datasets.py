"""Prepare datasets from archives that you asked their publishers for: ``python prepare_datasets.py --help``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from eagle.config.command_line import run_command
from eagle.config.schema import key
from eagle.data.preparation.cityscapes import prepare_cityscapes
from eagle.data.preparation.potsdam import prepare_potsdam
from eagle.errors import ConfigError, DataError
from eagle.files import default_folder

PREPARERS: dict[str, Callable[[Sequence[Path], Path], str]] = {
    "cityscapes": prepare_cityscapes,
    "potsdam": prepare_potsdam,
}


@dataclass
class PrepareConfig:
    """Keys of this command."""

    cityscapes: list[str] = key([], "leftImg8bit_trainvaltest.zip,gtFine_trainvaltest.zip", path=True)
    potsdam: list[str] = key([], "2_Ortho_RGB.zip,5_Labels_all.zip of the ISPRS Potsdam benchmark", path=True)
    pytorch_data_dir: str = key(default_folder("datasets"), "Output folder", path=True)


def prepare_datasets(config: DictConfig) -> None:
    """Unpack Cityscapes, and cut Potsdam, into what training reads; an existing folder is kept as it is."""
    given = {name: archive_paths(config[name]) for name in PREPARERS if config[name]}
    if not given:
        raise ConfigError("nothing to do: set cityscapes or potsdam to the archives, see --help")
    for archive in (archive for archives in given.values() for archive in archives):
        if not archive.is_file():
            raise DataError(f"{archive}: no such file")
    for name, archives in given.items():
        root = Path(config.pytorch_data_dir) / name
        done = "already there" if root.is_dir() else PREPARERS[name](archives, root)
        print(f"{name} -> {root}: {done}")


def archive_paths(values: Sequence[str]) -> list[Path]:
    """The paths of a list; ``a.zip,b.zip`` arrives as one value."""
    return [Path(path.strip()).expanduser() for value in values for path in value.split(",") if path.strip()]


if __name__ == "__main__":
    run_command(PrepareConfig, prepare_datasets)
