"""Hydra's own options on a command line: ``--multirun``, ``--cfg``, ``--config-dir``, ``--info``, tab completion."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from eagle.config.parsing import is_hydra_key
from eagle.errors import ConfigError


@dataclass(frozen=True)
class HydraOptions:
    """Hydra's options on a command line.

    Attributes:
        words: options by which Hydra prints something instead of running the command.
        multirun: whether to sweep.
        config_dir: a folder of further configurations.
    """

    words: list[str] = field(default_factory=list)
    multirun: bool = False
    config_dir: Path | None = None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def split_hydra_options(arguments: Sequence[str]) -> tuple[HydraOptions | None, list[str]]:
    """Split a command line into Hydra's options (None without) and all other words.

    Raises:
        ConfigError: an option lacks its value, or the value is none of its choices.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--config-dir", "-cd", type=Path)
    parser.add_argument("--config-name", "--config_name", "-cn")
    parser.add_argument("--cfg", "-c", choices=("job", "hydra", "all"))
    parser.add_argument("--package", "-p")
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("--info", "-i", nargs="?", const="all")
    parser.add_argument("--hydra-help", action="store_true")
    parser.add_argument("--shell-completion", "-sc")
    found, words = parser.parse_known_args(list(arguments))
    passed = [f"--{name}={value}" for name in ("cfg", "package", "info") if (value := getattr(found, name))]
    passed += [f"--{name.replace('_', '-')}" for name in ("resolve", "hydra_help") if getattr(found, name)]
    if found.shell_completion:
        passed += ["--shell-completion", found.shell_completion]
    if found.config_name:
        words = [*words, "--config-name", found.config_name]
    if not (passed or found.multirun or found.config_dir or any(is_hydra_key(word) for word in words)):
        return None, words
    if found.config_dir and not found.config_dir.is_dir():
        raise ConfigError(f"--config-dir {found.config_dir}: no such folder")
    return HydraOptions(passed, found.multirun, found.config_dir), words
