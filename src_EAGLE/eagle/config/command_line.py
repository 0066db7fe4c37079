"""Run a command and print errors on one line.

``eagle.config.parsing`` reads the keys, ``eagle.config.hydra_application`` Hydra's own options, e.g. ``--multirun``;
``--help`` prints every key, ``--version`` the version and how to cite.
"""

import dataclasses
import errno
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from PIL import Image
from tqdm import tqdm

from eagle.config.hydra_application import SweepJobs, run_hydra
from eagle.config.hydra_options import split_hydra_options
from eagle.config.parsing import parse_command_line
from eagle.config.validation import CONFIG_DIR
from eagle.console import version_and_citation
from eagle.errors import EagleError, StoppedRunError, one_line
from eagle.processes import end_with_parent

_REMEDIES = {
    errno.ENOSPC: "; make room and run the command again",
    errno.EDQUOT: "; make room and run the command again",
    errno.EROFS: "; choose a writable folder",
    errno.EACCES: "; choose a writable folder, or change its permissions",
    errno.EPERM: "; choose a writable folder, or change its permissions",
}


def run_command(
    schema: type,
    command: Callable[[DictConfig], None],
    default_config: str | None = None,
    positional: str | None = None,
    sweep_jobs: SweepJobs | None = None,
) -> None:
    """Parse ``sys.argv``, run ``command`` and exit.

    Args:
        schema: dataclass of the command's keys.
        command: called with the validated configuration.
        default_config: name in ``configs/`` to use without ``--config-name``; None uses the schema's defaults.
        positional: name of the list key that takes the arguments before the first option; None if there is none.
        sweep_jobs: what ``--multirun`` does beside running the command for each job; None does nothing more.

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
    end_with_parent()
    if not CONFIG_DIR.is_dir():
        default_config = None  # an installed copy: the defaults of the schema apply
    try:
        _answer(schema, command, default_config, positional, sweep_jobs)
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
        _close_progress_bars()
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _answer(
    schema: type,
    command: Callable[[DictConfig], None],
    default_config: str | None,
    positional: str | None,
    sweep_jobs: SweepJobs | None,
) -> None:
    if any(flag in sys.argv[1:] for flag in ("--help", "-h")):
        print(help_text(schema, command, default_config, positional))
        return
    if "--version" in sys.argv[1:]:
        print(version_and_citation())
        return
    options, words = split_hydra_options(sys.argv[1:])
    if options:
        run_hydra(schema, command, options, words, default_config, positional, sweep_jobs)
    else:
        command(parse_command_line(schema, words, default_config, positional))


def _is_no_hint(record: logging.LogRecord) -> bool:
    """False for Lightning's hints and advertisements. Its import sets its logger's level, so only a filter lasts."""
    return record.levelno >= logging.WARNING or not record.name.startswith(("pytorch_lightning", "lightning"))


def help_text(
    schema: type, command: Callable[[DictConfig], None], default_config: str | None, positional: str | None = None
) -> str:
    """Describe the command, then every key with its default, choices and meaning."""
    first = f"{positional.upper()} … " if positional else ""
    program = Path(sys.argv[0]).name
    program = f"python {program}" if program.endswith(".py") else program
    lines = [f"usage: {program} {first}[--config-name NAME] [key=value | --key value] …", ""]
    lines += [(command.__doc__ or "").strip(), ""]
    if default_config:
        lines += [f"Values in configs/{default_config}.yml take precedence over the defaults in this list:", ""]
    defaults = OmegaConf.structured(schema)
    for item in dataclasses.fields(schema):
        default = "(must be given)" if OmegaConf.is_missing(defaults, item.name) else defaults[item.name]
        choices = f" ({' | '.join(item.metadata['choices'])})" if item.metadata["choices"] else ""
        lines.append(f"  {item.name}={'none' if default is None else default}{choices}")
        lines.append(f"      {item.metadata['meaning']}")
    lines += ["", "Hydra's options: --multirun (key=a,b,c runs every combination), --cfg job, --config-dir DIR, --info"]
    lines += ["searchpath, --shell-completion install=bash; https://hydra.cc/docs/advanced/hydra-command-line-flags"]
    return "\n".join(lines)


def _close_progress_bars() -> None:
    """Close open progress bars, so that the error starts on a new line."""
    for bar in list(getattr(tqdm, "_instances", ())):
        bar.close()
