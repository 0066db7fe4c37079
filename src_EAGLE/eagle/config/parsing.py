"""Parse a command line: a YAML file and overrides, composed by Hydra and validated.

``key=value``, ``--key value``, ``--key=value`` and ``--flag`` all set a key; ``--config-name`` takes a name in
``configs/`` or the path of a YAML file.
"""

import logging
import re
import warnings
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from eagle.config.validation import CONFIG_DIR, absolute_paths, retired_keys_in, validated
from eagle.errors import ConfigError

# Values that Hydra's override grammar accepts unquoted.
_PLAIN_VALUE = re.compile(r"""[\w./+\-~]*|\[.*\]|\{.*\}|'.*'|".*\"""", re.ASCII | re.DOTALL)

# The beginning of an override, which is no value of the option before it.
_OVERRIDE = re.compile(r"(\+*[A-Za-z_]+|\+*hydra[./][\w./@]+)=")

logger = logging.getLogger(__name__)


def quoted(value: str) -> str:
    """Quote a value unless Hydra's grammar accepts it as it is."""
    if _PLAIN_VALUE.fullmatch(value):
        return value
    # Hydra takes backslashes literally, except directly before a quote.
    escaped = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + match[2].replace("'", "\\'"), value)
    return f"'{escaped}'"


def is_hydra_key(name: str) -> bool:
    """Whether an override sets Hydra's own configuration."""
    return re.match(r"\+*hydra($|[./@])", name) is not None


def parse_command_line(
    schema: type, arguments: Sequence[str], default_config: str | None = None, positional: str | None = None
) -> DictConfig:
    """Parse and validate ``arguments``; raises ConfigError as ``validated`` does."""
    listed, rest = split_listed(arguments, positional)
    config_name, overrides = split_arguments(rest)
    composed = compose_yaml(schema, config_name or default_config, overrides)
    if positional and listed:
        composed[positional] = listed
    warn_about_retired_keys(schema, composed)
    return validated(schema, composed)


def warn_about_retired_keys(schema: type, composed: DictConfig) -> None:
    """Say which published keys are ignored."""
    for name, reason in retired_keys_in(composed, schema).items():
        logger.warning("%s: this published key has no effect here (%s)", name, reason)


def split_listed(arguments: Sequence[str], positional: str | None) -> tuple[list[str], list[str]]:
    """Split off the arguments before the first option, which a command with a positional key takes as its list."""
    listed = list(takewhile(lambda argument: not _is_option(argument), arguments)) if positional else []
    return listed, list(arguments[len(listed) :])


def split_arguments(arguments: Sequence[str], quote: Callable[[str], str] = quoted) -> tuple[str | None, list[str]]:
    """Split a command line into the name of the configuration (None without) and Hydra overrides.

    Args:
        arguments: the words after the command's name.
        quote: makes a typed value one that Hydra's grammar accepts.

    Raises:
        ConfigError: an argument is neither ``key=value`` nor ``--key [value]``, or is a Hydra deletion, ``~key``.
    """
    config_name: str | None = None
    overrides: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        option = argument.startswith("--") or argument == "-cn"
        name, separator, value = argument.lstrip("-").partition("=")
        if option and not separator:
            follows = bool(rest) and not rest[0].startswith("--") and not _OVERRIDE.match(rest[0])
            value = rest.pop(0) if follows else "true"
        elif not separator or not (option or re.match(r"[~+A-Za-z_]", argument)):
            raise ConfigError(
                f"cannot read '{argument}': write key=value or --key value{_as_list(overrides, argument)}"
            )
        if name.startswith("~"):
            raise ConfigError(f"cannot read '{argument}': keys cannot be deleted; set {name[1:]}=VALUE, see --help")
        if name in ("config-name", "config_name", "cn"):
            config_name = value
        else:
            key = name if is_hydra_key(name) else name.replace("-", "_")
            overrides.append(f"{key}={quote(value)}")
    return config_name, overrides


def _as_list(overrides: Sequence[str], argument: str) -> str:
    """How to write a list, as the end of an error, if ``argument`` looks like one more file of the last key."""
    key, _, value = overrides[-1].partition("=") if overrides else ("", "", "")
    first, suffix = value.strip("[]'\","), Path(argument).suffix
    return f"; a list has commas and no spaces: {key}=[{first},{argument}]" if suffix and suffix in first else ""


def _is_option(argument: str) -> bool:
    return argument.startswith("-") or (re.match(r"[A-Za-z_]+=", argument) is not None and not Path(argument).exists())


def compose_yaml(
    schema: type, config_name: str | None, overrides: Sequence[str], config_dir: Path | None = None
) -> DictConfig:
    """Compose a YAML file (or none) and overrides with Hydra; its errors become a one-line ConfigError.

    Paths in files of ``configs/`` are relative to that folder, all others to the working directory.
    """
    directory, file_name = locate(config_name, config_dir) if config_name else (Path.cwd(), None)
    GlobalHydra.instance().clear()
    with warnings.catch_warnings():
        # Hydra reads .yml, the suffix of the released files, only under its 1.1 rules and with a deprecation warning.
        warnings.simplefilter("ignore")
        with initialize_config_dir(config_dir=str(directory), version_base="1.1"):
            try:
                composed = compose(config_name=file_name)
                OmegaConf.set_struct(composed, False)
                if directory == CONFIG_DIR:
                    composed.update(absolute_paths(schema, composed, CONFIG_DIR))
                # compose(overrides=…) would take `fidelity=paper` for a file of the folder configs/fidelity.
                for override in OverridesParser.create().parse_overrides(list(overrides)):
                    OmegaConf.update(composed, override.key_or_group, override.value(), merge=False)
            except (HydraException, OmegaConfBaseException, YAMLError) as error:
                reason = " ".join(str(error).split())
                raise ConfigError(f"{file_name or 'command line'}: {reason}") from error
    return composed


def locate(config_name: str, config_dir: Path | None = None) -> tuple[Path, str]:
    """Find a configuration by name or path, first in ``config_dir``; return its folder and file name."""
    named = Path(config_name)
    for base in (*([config_dir] if config_dir else []), CONFIG_DIR, Path.cwd()):
        for candidate in (named, named.with_name(named.name + ".yml"), named.with_name(named.name + ".yaml")):
            path = (base / candidate).resolve()
            if path.is_file():
                return path.parent, path.name
    available = ", ".join(sorted(file.stem for file in CONFIG_DIR.glob("*.yml")))
    remedy = (
        f"configs/ has {available}" if available else "an installed copy has no configs/; give the path of a YAML file"
    )
    raise ConfigError(f"--config-name {config_name}: no such file; {remedy}")
