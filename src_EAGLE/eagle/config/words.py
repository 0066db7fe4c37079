"""Read a command line's words: the YAML file, overrides as Hydra takes them, and Hydra's own options."""

import dataclasses
import logging
import re
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ValueType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from eagle.config.validation import CONFIG_DIR, absolute_paths, plain, refuse_unknown, retired_keys_in, takes
from eagle.errors import ConfigError

# Hydra's options, without and with a value.
MULTIRUN = ("--multirun", "-m")
FLAGS = (*MULTIRUN, "--shell-completion", "-sc", "--run", "-r", "--resolve", "--hydra-help")
CONFIG_NAME, CONFIG_DIRECTORY = ("--config-name", "--config_name", "-cn"), ("--config-dir", "-cd")
WITH_VALUE = ("--cfg", "-c", "--package", "-p", "--info", "-i", *CONFIG_DIRECTORY)

# An option, or key=value. Only names of Hydra's groups have a slash: other words with one are paths.
_OPTION = re.compile(r"--?[A-Za-z]|(\+*[A-Za-z_][\w.@-]*|(\++|hydra/)[\w./@-]*)=")

logger = logging.getLogger(__name__)


class CommandLine(NamedTuple):
    """A command line, ready for Hydra."""

    yaml: dict[str, Any]  # content of the YAML file, without retired keys
    overrides: list[str]  # of keys and of Hydra's own configuration
    options: list[str]  # Hydra's, except for --config-name
    config_name: str | None  # of the YAML file


def read_command_line(
    schema: type, arguments: Sequence[str], default_config: str | None = None, positional: str | None = None
) -> CommandLine:
    """Read the words after a command's name.

    Without ``--config-name``, ``default_config`` names a file of ``configs/``; None uses the schema's defaults.
    ``positional`` is the list key that takes the words before the first option.

    Raises:
        ConfigError: a word is neither an override nor an option, or the YAML file cannot be read or has an unknown key.
    """
    listed = list(takewhile(lambda word: not _OPTION.match(word), arguments)) if positional else []
    overrides = [f"{positional}=[{','.join(map(quoted, listed))}]"] if listed else []
    options: list[str] = []
    config_name, config_dir = default_config, None
    sweeps = any(word in MULTIRUN for word in arguments)
    for name, value in _pairs(arguments[len(listed) :]):
        if name in CONFIG_NAME:
            config_name = value
        elif name in FLAGS + WITH_VALUE:
            options += [name] if value is None else [name, value]
            config_dir = Path(value or "") if name in CONFIG_DIRECTORY else config_dir
        else:
            overrides.append(_override(schema, name, value, sweeps))
    if config_dir and not config_dir.is_dir():
        raise ConfigError(f"--config-dir {config_dir}: no such folder")
    return CommandLine(_read_yaml(schema, config_name, config_dir), overrides, options, config_name)


def quoted(value: str) -> str:
    """Quote a value for Hydra's grammar."""
    # Hydra takes backslashes literally, except directly before a quote.
    escaped = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + match[2].replace("'", "\\'"), value)
    return f"'{escaped}'"


def _pairs(words: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Names and values of ``key=value``, ``--key=value``, ``--key value``; the value of ``--flag`` alone is None."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not _OPTION.match(word):
            raise ConfigError(f"cannot read '{word}': write key=value or --key value; a list is key=[a,b], no spaces")
        name, separator, value = word.partition("=")
        if separator:
            yield name, value
        else:
            follows = name not in FLAGS and rest and not _OPTION.match(rest[0])
            yield name, rest.pop(0) if follows else None


def _override(schema: type, name: str, value: str | None, sweeps: bool) -> str:
    """An override that Hydra's grammar can read: odd values are quoted, ``a,b`` of a list key becomes a list."""
    name = name.lstrip("-").replace("-", "_")
    readable = "true" if value is None else value
    try:
        parsed = OverridesParser.create().parse_override(f"{name}={readable}")
        value_type = parsed.value_type
        if name == "fidelity" and isinstance(parsed.value(), list):
            readable = quoted(readable)  # Hydra takes no list as a group's choice, and says so in a traceback
    except HydraException:
        readable, value_type = quoted(readable), ValueType.ELEMENT
    if value_type == ValueType.SIMPLE_CHOICE_SWEEP and takes(schema, name, list) and not sweeps:
        readable = f"[{readable}]"
    # Hydra adds entries to a mapping only if told to.
    return f"++{name.lstrip('+')}={readable}" if takes(schema, name, dict) else f"{name}={readable}"


def _read_yaml(schema: type, config_name: str | None, config_dir: Path | None) -> dict[str, Any]:
    """Read a YAML file: keys of the schema, and ``hydra``; say which released keys are ignored.

    Paths in files of ``configs/`` are relative to that folder, all others to the working directory.
    """
    if config_name is None:
        return {}
    path = _locate(config_name, config_dir)
    try:
        content = OmegaConf.load(path)
        if not isinstance(content, DictConfig):
            raise ConfigError(f"{path}: holds no keys")
        if path.parent == CONFIG_DIR:
            content.update(absolute_paths(schema, content, CONFIG_DIR))
        if retired := retired_keys_in(content, schema):
            logger.warning("%s: published keys without effect here (docs/differences.md): %s", path, " ".join(retired))
        for name in retired:
            del content[name]
        values = plain(content)  # without resolving interpolations, which may need an override
    except (OSError, ValueError, RecursionError, OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from error
    refuse_unknown("key", values, [item.name for item in dataclasses.fields(schema)] + ["hydra"])
    return values


def _locate(config_name: str, config_dir: Path | None) -> Path:
    """Find a YAML file by name, in ``config_dir``, ``configs/`` or the working directory, or by path (``./NAME``)."""
    is_path = config_name.startswith((".", "/", "~"))
    for folder in [Path.cwd()] if is_path else [*([config_dir] if config_dir else []), CONFIG_DIR, Path.cwd()]:
        for suffix in ("", ".yml", ".yaml"):
            path = (folder / Path(config_name + suffix).expanduser()).resolve()
            if path.is_file():
                return path
    available = ", ".join(sorted(file.stem for file in CONFIG_DIR.glob("*.yml")))
    raise ConfigError(
        f"--config-name {config_name}: no such file; configs/ has {available or 'nothing in an installed copy'}"
    )
