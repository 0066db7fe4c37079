"""Read a command line's words: the YAML file, overrides as Hydra takes them, and Hydra's own options."""

import dataclasses
import hashlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from eagle.config.schema import TrainConfig
from eagle.config.validation import (
    CONFIG_DIR,
    absolute_paths,
    fidelity_defaults,
    is_scalar,
    plain,
    refuse_unknown,
    retired_keys_in,
    takes,
    validated,
)
from eagle.errors import ConfigError

# Hydra's options, without and with a value.
COMPLETION, MULTIRUN = ("--shell-completion", "-sc"), ("--multirun", "-m")
FLAGS = (*COMPLETION, *MULTIRUN, "--run", "-r", "--resolve", "--hydra-help")
WITH_VALUE = ("--cfg", "-c", "--package", "-p", "--info", "-i")
CONFIG_NAME, CONFIG_DIRECTORY = ("--config-name", "--config_name", "-cn"), ("--config-dir", "-cd")

_OVERRIDE = re.compile(r"\+*[A-Za-z_][\w./@-]*=")
_LONGEST_NAME = 150

logger = logging.getLogger(__name__)


class CommandLine(NamedTuple):
    """A command line, ready for Hydra."""

    yaml: DictConfig  # content of the YAML file, without retired keys, over the defaults that fidelity sets
    overrides: list[str]  # of keys and of Hydra's own configuration
    options: list[str]  # Hydra's, except for --config-name
    config_options: list[str]  # those that find the same file in the process of a sweep's job
    fixed: set[str]  # keys with one value in overrides, which do not tell the jobs of a sweep apart


def read_command_line(
    schema: type, arguments: Sequence[str], default_config: str | None = None, positional: str | None = None
) -> CommandLine:
    """Read the words after a command's name.

    Without ``--config-name``, ``default_config`` names a file of ``configs/``; None uses the schema's defaults.
    ``positional`` is the list key that takes the words before the first option.

    Raises:
        ConfigError: a word is neither an override nor an option, a key is unknown, the YAML file cannot be read, or a
            sweep has an invalid value.
    """
    listed = list(takewhile(lambda word: not _is_option(word), arguments)) if positional else []
    overrides = [f"{positional}=[{','.join(map(quoted, listed))}]"] if listed else []
    options: list[str] = []
    config_name, config_dir = None, None
    completes = any(word in COMPLETION for word in arguments)
    sweeps = any(word in MULTIRUN for word in arguments)
    for name, value in _pairs(arguments[len(listed) :]):
        if name in CONFIG_NAME:
            config_name = value
        elif name in CONFIG_DIRECTORY:
            config_dir = Path(value or "")
        elif name in FLAGS + WITH_VALUE:
            options += [name] if value is None else [name, value]
        else:
            overrides.append(f"{name}={value}" if completes else _override(schema, name, value, sweeps))
    if config_dir and not config_dir.is_dir():
        raise ConfigError(f"--config-dir {config_dir}: no such folder")
    directory = ["--config-dir", str(config_dir)] if config_dir else []
    yaml = _read_yaml(schema, config_name or default_config, config_dir)
    parsed = [] if completes else _parsed([word for word in overrides if not _is_hydra_key(word)])
    groups = [path.name for path in config_dir.iterdir() if path.is_dir()] if config_dir else []
    known = [item.name for item in dataclasses.fields(schema)]
    first_names = [override.key_or_group.partition(".")[0] for override in parsed]
    fixed = {name for name, override in zip(first_names, parsed, strict=True) if not override.is_sweep_override()}
    refuse_unknown("key", first_names, [*known, *groups])
    parsed = [override for name, override in zip(first_names, parsed, strict=True) if name in known]
    for name in (override.key_or_group for override in parsed):
        if "." in name and not takes(schema, name, dict):
            raise ConfigError(f"{name}: this key has no parts; set {name.partition('.')[0]}=VALUE")
    values = {o.key_or_group: _choices(o)[0] for o in parsed if _choices(o)}
    yaml = fidelity_defaults(schema, yaml | values) | yaml
    if sweeps:
        _check_sweep(schema, {name: yaml[name] for name in known if name in yaml} | values, parsed)
        if issubclass(schema, TrainConfig) and not (values.get("experiment_name") or yaml.get("experiment_name")):
            # The same name each time that the command is typed.
            keys = sorted(o.key_or_group for o in parsed if o.is_sweep_override())
            overrides.append(f"experiment_name={short_name('_'.join(['sweep', *keys]), (config_name, *overrides))}")
    return CommandLine(
        OmegaConf.create(yaml),
        overrides,
        [*options, *directory],
        [*directory, *(["--config-name", config_name] if config_name else [])],
        fixed | {"experiment_name"},
    )


def quoted(value: str) -> str:
    """Quote a value for Hydra's grammar."""
    # Hydra takes backslashes literally, except directly before a quote.
    escaped = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + match[2].replace("'", "\\'"), value)
    return f"'{escaped}'"


def short_name(name: str, told_apart_by: Any = None) -> str:
    """A valid file name of at most 150 characters and a hash, which it has if ``name`` does not say all."""
    safe = re.sub(r"[^\w.,=+\-]", "_", name)[:_LONGEST_NAME]
    if safe == name and told_apart_by is None:
        return name
    return f"{safe}_{hashlib.sha256(repr((name, told_apart_by)).encode()).hexdigest()[:6]}"


def _pairs(words: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Names and values of ``key=value``, ``--key=value``, ``--key value``; the value of ``--flag`` alone is None."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, separator, value = word.partition("=")
        option = name.startswith("--") or name in (*FLAGS, *WITH_VALUE, *CONFIG_NAME, *CONFIG_DIRECTORY)
        if separator and (option or _OVERRIDE.match(word)):
            yield name, value
        elif option:
            follows = name not in FLAGS and rest and not _OVERRIDE.match(rest[0]) and not rest[0].startswith("--")
            yield name, rest.pop(0) if follows and rest[0] not in FLAGS + WITH_VALUE else None
        elif name.startswith("~"):
            raise ConfigError(f"cannot read '{word}': keys cannot be deleted; set {name[1:]}=VALUE, see --help")
        else:
            raise ConfigError(f"cannot read '{word}': write key=value or --key value; a list is key=[a,b], no spaces")


def _override(schema: type, name: str, value: str | None, sweeps: bool) -> str:
    """An override that Hydra's grammar can read: odd values are quoted, a lone value of a list key becomes a list."""
    if _is_hydra_key(name):
        return f"{name}={value}"
    name = name.removeprefix("--").replace("-", "_")
    readable = "true" if value is None else value
    try:
        OverridesParser.create().parse_override(f"{name}={readable}")
    except HydraException:
        readable = quoted(readable)
    if takes(schema, name, dict):
        # Hydra adds entries to a mapping only if told to.
        name = f"++{name.lstrip('+')}"
    elif takes(schema, name, list) and readable != "null" and not re.match(r"[\[{]|\w+\(", readable):
        is_sweep = sweeps and not readable.startswith(("'", '"'))
        readable = f"[{readable.replace(',', '],[') if is_sweep else readable}]"
    return f"{name}={readable}"


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
        for name, reason in retired_keys_in(content, schema).items():
            logger.warning("%s: this published key has no effect here (%s)", name, reason)
            del content[name]
        values = plain(content)  # without resolving interpolations, which may need an override
        values |= {name: [value] for name, value in values.items() if takes(schema, name, list) and is_scalar(value)}
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
    remedy = (
        f"configs/ has {available}" if available else "an installed copy has no configs/; give the path of a YAML file"
    )
    raise ConfigError(f"--config-name {config_name}: no such file; {remedy}")


def _check_sweep(schema: type, values: Mapping[str, Any], overrides: Sequence[Override]) -> None:
    """Validate every value of a sweep before its first job; sweepers that draw values choose them later."""
    for override in overrides:
        name, choices = override.key_or_group, _choices(override)
        if name in ("output_root", "experiment_name") and override.is_sweep_override():
            raise ConfigError(f"{name}: names the folder of the whole sweep, so give one value")
        if name == "ckpt_path" and issubclass(schema, TrainConfig):
            raise ConfigError("ckpt_path: the runs of a sweep resume their own checkpoints; leave it out")
        for choice in choices if "." not in name else ():
            whole = {key: value for key, value in values.items() if "." not in key}
            validated(schema, {**whole, name: choice})


def _choices(override: Override) -> list[Any]:
    """The values of an override of a key; empty if a sweeper draws them."""
    if not override.is_sweep_override():
        return [override.value()]
    is_glob = override.value_type == ValueType.GLOB_CHOICE_SWEEP  # of groups, which have no values
    return list(override.sweep_iterator()) if override.is_discrete_sweep() and not is_glob else []


def _parsed(overrides: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ConfigError(" ".join(str(error).split())) from error


def _is_hydra_key(name: str) -> bool:
    return re.match(r"\+*hydra($|[./@=])", name) is not None


def _is_option(argument: str) -> bool:
    is_path = "/" in argument.partition("=")[0] and not _is_hydra_key(argument)
    is_override = _OVERRIDE.match(argument) is not None and not is_path and not Path(argument).exists()
    return argument.startswith("-") or is_override
