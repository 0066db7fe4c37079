"""One way to run every command: Hydra composes YAML and overrides, the schema checks them, errors are one line.

``key=value``, ``--key value``, ``--key=value`` and ``--flag`` all set a key; ``--config-name`` takes a name in
``configs/`` or a path to a YAML file; ``--help`` prints every key.
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

# Values that Hydra's override grammar reads as they stand; others are quoted for it.
_PLAIN_VALUE = re.compile(r"""[\w./+\-~]*|\[.*\]|\{.*\}|'.*'|".*\"""", re.ASCII | re.DOTALL)

_REMEDIES = {
    errno.ENOSPC: "; make room and run the command again",
    errno.EDQUOT: "; make room and run the command again",
    errno.EROFS: "; choose a folder that can be written",
    errno.EACCES: "; choose a folder that can be written, or mend its permissions",
    errno.EPERM: "; choose a folder that can be written, or mend its permissions",
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
        default_config: name in ``configs/`` used where ``--config-name`` is not given; None for schema defaults only.
        positional: the key, a list, that arguments before the first option go to; None for none.

    An EagleError, and an OSError such as a full disk's, ends the process with its message on one line of stderr and
    exit status 1, Ctrl-C with 130, a training run that SIGTERM stopped with 143.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names need not be text in the terminal's encoding
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # its hints and advertisements
    warnings.filterwarnings("ignore", module="pytorch_lightning.utilities._pytree")  # its use of torch, not ours
    # Pillow's word on large photographs; those beyond its limit are refused all the same.
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
        # Who read our output has gone, e.g. `| head`; what is left to flush must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        # Where two files are named, something was moved or copied to the second.
        place = error.filename2 or error.filename
        place = f"{place}: " if place else ""
        _close_progress_bars()
        sys.exit(f"error: {place}{one_line(error)}{_REMEDIES.get(error.errno or 0, '')}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def parse_command_line(
    schema: type, arguments: Sequence[str], default_config: str | None = None, positional: str | None = None
) -> DictConfig:
    """The validated configuration that ``arguments`` ask for; raises ConfigError as ``validated`` does."""
    listed = list(takewhile(lambda argument: not _is_option(argument), arguments)) if positional else []
    config_name, overrides = split_arguments(arguments[len(listed) :])
    composed = _compose(schema, config_name or default_config, overrides)
    if positional and listed:
        composed[positional] = listed
    for name, reason in retired_keys_in(composed, schema).items():
        logger.warning("%s: this published key has no effect here (%s)", name, reason)
    return validated(schema, composed)


def split_arguments(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Split a command line into the config's name and Hydra overrides.

    Raises:
        ConfigError: an argument is neither ``key=value`` nor ``--key [value]``, or is a deletion, ``~key=value``.
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
            raise ConfigError(f"cannot read '{argument}': ~ deletes nothing here; set {name[1:]}=VALUE, see --help")
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
    """What the command does, then every key with its type's default, choices and meaning."""
    first = f"{positional.upper()} … " if positional else ""
    lines = [f"usage: python {Path(sys.argv[0]).name} {first}[--config-name NAME] [key=value | --key value] …", ""]
    lines += [(command.__doc__ or "").strip(), ""]
    if default_config:
        lines += [f"Defaults come from configs/{default_config}.yml, then from this list:", ""]
    defaults = OmegaConf.structured(schema)
    for item in dataclasses.fields(schema):
        default = "(must be given)" if OmegaConf.is_missing(defaults, item.name) else defaults[item.name]
        choices = f" ({' | '.join(item.metadata['choices'])})" if item.metadata["choices"] else ""
        lines.append(f"  {item.name}={'none' if default is None else default}{choices}")
        lines.append(f"      {item.metadata['meaning']}")
    return "\n".join(lines)


def _compose(schema: type, config_name: str | None, overrides: list[str]) -> DictConfig:
    """Hydra's composition of one YAML file (or none) with overrides; OmegaConf's and Hydra's errors in one line.

    Paths in a file of ``configs/`` are relative to that folder; all others stay relative to the working directory.
    """
    directory, file_name = _locate(config_name) if config_name else (Path.cwd(), None)
    GlobalHydra.instance().clear()
    with warnings.catch_warnings():
        # The published names end in .yml, which Hydra reads under its 1.1 rules only, with a deprecation warning.
        warnings.simplefilter("ignore")
        with initialize_config_dir(config_dir=str(directory), version_base="1.1"):
            try:
                composed = compose(config_name=file_name)
                OmegaConf.set_struct(composed, False)
                if directory == CONFIG_DIR:
                    composed.update(absolute_paths(schema, composed, CONFIG_DIR))
                # Not compose(overrides=…): there, `fidelity=paper` would name the folder configs/fidelity.
                for override in OverridesParser.create().parse_overrides(overrides):
                    OmegaConf.update(composed, override.key_or_group, override.value(), merge=False)
            except (HydraException, OmegaConfBaseException, YAMLError) as error:
                reason = " ".join(str(error).split())
                raise ConfigError(f"{file_name or 'command line'}: {reason}") from error
    return composed


def _locate(config_name: str) -> tuple[Path, str]:
    """Folder and file name of a configuration given by name or by path."""
    named = Path(config_name)
    for base in (CONFIG_DIR, Path.cwd()):
        for candidate in (named, named.with_name(named.name + ".yml"), named.with_name(named.name + ".yaml")):
            path = (base / candidate).resolve()
            if path.is_file():
                return path.parent, path.name
    available = ", ".join(sorted(file.stem for file in CONFIG_DIR.glob("*.yml")))
    remedy = f"configs/ has {available}" if available else "an installed copy has no configs/, give a YAML file's path"
    raise ConfigError(f"--config-name {config_name}: no such file; {remedy}")


def _close_progress_bars() -> None:
    """End the lines of bars that an error left open, so that the error has a line of its own."""
    for bar in list(getattr(tqdm, "_instances", ())):
        bar.close()


def _quoted(value: str) -> str:
    if _PLAIN_VALUE.fullmatch(value):
        return value
    # Hydra reads a backslash literally, but for those right before a quote.
    escaped = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + match[2].replace("'", "\\'"), value)
    return f"'{escaped}'"
