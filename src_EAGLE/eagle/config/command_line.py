"""Run a command: compose YAML and overrides with Hydra, validate them, and print errors on one line.

``key=value``, ``--key value``, ``--key=value`` and ``--flag`` all set a key; ``--config-name`` takes a name in
``configs/`` or the path of a YAML file; ``--help`` prints every key.
"""

import dataclasses
import errno
import io
import logging
import os
import re
import sys
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
from PIL import Image
from tqdm import tqdm
from yaml import YAMLError

from eagle.config.validation import CONFIG_DIR, absolute_paths, retired_keys_in, validated
from eagle.errors import ConfigError, EagleError, StoppedRunError, one_line

# Values that Hydra's override grammar accepts unquoted.
_PLAIN_VALUE = re.compile(r"""[\w./+\-~]*|\[.*\]|\{.*\}|'.*'|".*\"""", re.ASCII | re.DOTALL)

_REMEDIES = {
    errno.ENOSPC: "; make room and run the command again",
    errno.EDQUOT: "; make room and run the command again",
    errno.EROFS: "; choose a writable folder",
    errno.EACCES: "; choose a writable folder, or change its permissions",
    errno.EPERM: "; choose a writable folder, or change its permissions",
}

logger = logging.getLogger(__name__)


def run_command(
    schema: type,
    command: Callable[[DictConfig], None],
    default_config: str | None = None,
    positional: str | None = None,
) -> None:
    """Parse ``sys.argv``, run ``command`` and exit.

    Args:
        schema: dataclass of the command's keys.
        command: called with the validated configuration.
        default_config: name in ``configs/`` to use without ``--config-name``; None uses the schema's defaults.
        positional: name of the list key that takes the arguments before the first option; None if there is none.

    An EagleError or OSError (e.g. a full disk) is printed as one line on stderr and exits with status 1. Ctrl-C exits
    with 130, a training run stopped by SIGTERM with 143.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may not fit the terminal's encoding
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(_is_no_hint)
    warnings.filterwarnings("ignore", module="pytorch_lightning.utilities._pytree")  # a deprecation in Lightning itself
    # Large photographs are welcome; Pillow still refuses images beyond its hard limit.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    try:
        if any(flag in sys.argv[1:] for flag in ("--help", "-h")):
            print(help_text(schema, command, default_config, positional))
        else:
            command(parse_command_line(schema, sys.argv[1:], default_config, positional))
        sys.stdout.flush()
    except StoppedRunError as stopped:
        _close_progress_bars()
        print(one_line(stopped), file=sys.stderr)
        sys.exit(stopped.exit_status)
    except EagleError as error:
        _close_progress_bars()
        sys.exit(f"error: {one_line(error)}")
    except BrokenPipeError:
        # The reader of our output has closed it, e.g. `| head`; flushing the rest must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        # Of two file names, the second is the destination of a move or copy.
        place = error.filename2 or error.filename
        place = f"{place}: " if place else ""
        _close_progress_bars()
        sys.exit(f"error: {place}{one_line(error)}{_REMEDIES.get(error.errno or 0, '')}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _is_no_hint(record: logging.LogRecord) -> bool:
    """False for Lightning's hints and advertisements. Its import sets its logger's level, so only a filter lasts."""
    return record.levelno >= logging.WARNING or not record.name.startswith(("pytorch_lightning", "lightning"))


def parse_command_line(
    schema: type, arguments: Sequence[str], default_config: str | None = None, positional: str | None = None
) -> DictConfig:
    """Parse and validate ``arguments``; raises ConfigError as ``validated`` does."""
    listed = list(takewhile(lambda argument: not _is_option(argument), arguments)) if positional else []
    config_name, overrides = split_arguments(arguments[len(listed) :])
    composed = _compose(schema, config_name or default_config, overrides)
    if positional and listed:
        composed[positional] = listed
    for name, reason in retired_keys_in(composed, schema).items():
        logger.warning("%s: this published key has no effect here (%s)", name, reason)
    return validated(schema, composed)


def split_arguments(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Split a command line into the name of the configuration (None without) and Hydra overrides.

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
            follows = bool(rest) and not rest[0].startswith("--") and not re.match(r"[A-Za-z_]+=", rest[0])
            value = rest.pop(0) if follows else "true"
        elif not separator or not (option or re.match(r"[~+A-Za-z_]", argument)):
            raise ConfigError(f"cannot read '{argument}': write key=value or --key value")
        if name.startswith("~"):
            raise ConfigError(f"cannot read '{argument}': keys cannot be deleted; set {name[1:]}=VALUE, see --help")
        if name in ("config-name", "config_name", "cn"):
            config_name = value
        else:
            overrides.append(f"{name.lstrip('+').replace('-', '_')}={_quoted(value)}")
    return config_name, overrides


def _is_option(argument: str) -> bool:
    return argument.startswith("-") or (re.match(r"[A-Za-z_]+=", argument) is not None and not Path(argument).exists())


def help_text(
    schema: type, command: Callable[[DictConfig], None], default_config: str | None, positional: str | None = None
) -> str:
    """Describe the command, then every key with its default, choices and meaning."""
    first = f"{positional.upper()} … " if positional else ""
    lines = [f"usage: python {Path(sys.argv[0]).name} {first}[--config-name NAME] [key=value | --key value] …", ""]
    lines += [(command.__doc__ or "").strip(), ""]
    if default_config:
        lines += [f"Values in configs/{default_config}.yml take precedence over the defaults in this list:", ""]
    defaults = OmegaConf.structured(schema)
    for item in dataclasses.fields(schema):
        default = "(must be given)" if OmegaConf.is_missing(defaults, item.name) else defaults[item.name]
        choices = f" ({' | '.join(item.metadata['choices'])})" if item.metadata["choices"] else ""
        lines.append(f"  {item.name}={'none' if default is None else default}{choices}")
        lines.append(f"      {item.metadata['meaning']}")
    return "\n".join(lines)


def _compose(schema: type, config_name: str | None, overrides: list[str]) -> DictConfig:
    """Compose a YAML file (or none) and overrides with Hydra; its errors become a one-line ConfigError.

    Paths in files of ``configs/`` are relative to that folder, all others to the working directory.
    """
    directory, file_name = _locate(config_name) if config_name else (Path.cwd(), None)
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
                for override in OverridesParser.create().parse_overrides(overrides):
                    OmegaConf.update(composed, override.key_or_group, override.value(), merge=False)
            except (HydraException, OmegaConfBaseException, YAMLError) as error:
                reason = " ".join(str(error).split())
                raise ConfigError(f"{file_name or 'command line'}: {reason}") from error
    return composed


def _locate(config_name: str) -> tuple[Path, str]:
    """Find a configuration by name or path; return its folder and file name."""
    named = Path(config_name)
    for base in (CONFIG_DIR, Path.cwd()):
        for candidate in (named, named.with_name(named.name + ".yml"), named.with_name(named.name + ".yaml")):
            path = (base / candidate).resolve()
            if path.is_file():
                return path.parent, path.name
    available = ", ".join(sorted(file.stem for file in CONFIG_DIR.glob("*.yml")))
    remedy = (
        f"configs/ has {available}" if available else "an installed copy has no configs/; give the path of a YAML file"
    )
    raise ConfigError(f"--config-name {config_name}: no such file; {remedy}")


def _close_progress_bars() -> None:
    """Close open progress bars, so that the error starts on a new line."""
    for bar in list(getattr(tqdm, "_instances", ())):
        bar.close()


def _quoted(value: str) -> str:
    if _PLAIN_VALUE.fullmatch(value):
        return value
    # Hydra takes backslashes literally, except directly before a quote.
    escaped = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + match[2].replace("'", "\\'"), value)
    return f"'{escaped}'"
