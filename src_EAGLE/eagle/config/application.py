"""Run a command as a Hydra application, and print errors on one line.

``key=value``, ``--key value`` and ``--flag`` set a key; ``eagle.config.words`` reads them. All else is Hydra's:
``--multirun`` and launchers, ``--cfg``, ``--config-dir``, ``--info``, completion and ``hydra.…`` keys. ``--help``
prints every key, ``--version`` the version and the commit.
"""

import dataclasses
import functools
import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from PIL import Image
from tqdm import tqdm

from eagle.config.schema import TrainConfig
from eagle.config.sweep import check_sweep, run_job
from eagle.config.validation import CONFIG_DIR, FIDELITIES, validated
from eagle.config.words import MULTIRUN, CommandLine, read_command_line
from eagle.console import DISTRIBUTION, code_version
from eagle.errors import ConfigError, EagleError, one_line, unknown_name_message
from eagle.files import default_folder
from eagle.processes import LAUNCHER, end_with

# Names in Hydra's store of configurations, and the Hydra whose rules count.
SCHEMA, PRIMARY, VERSION = "eagle_schema", "eagle_command", "1.3"

HELP = ("--help", "-h")
# Headings of the help and the roles of the keys below them.
HEADINGS = {
    "Data": ("data",),
    "Backbone": ("backbone",),
    "Model and method": ("model", "method"),
    "Run": ("seed", "adjustable"),
    "Precision": ("numerics",),
    "Machine and output": ("machine",),
}


def run_command(
    schema: type,
    command: Callable[[DictConfig], None],
    default_config: str | None = None,
    positional: str | None = None,
) -> None:
    """Read ``sys.argv`` as ``read_command_line`` does, run ``command`` with the validated configuration, and exit.

    An EagleError or OSError (e.g. a full disk) is printed as one line on stderr and exits with status 1. Ctrl-C exits
    with 130, a training run stopped by SIGTERM with 143.
    """
    _prepare_process()
    if not CONFIG_DIR.is_dir():
        default_config = None  # an installed copy: the defaults of the schema apply
    try:
        if {*HELP} & {*sys.argv[1:]}:
            print(help_text(schema, command, default_config, positional))
        elif "--version" in sys.argv[1:]:
            print(f"{DISTRIBUTION} {code_version() or 'of unknown version'}")
        else:
            _run_hydra(schema, command, default_config, positional)
        sys.stdout.flush()
        return
    except EagleError as error:
        status, message = error.exit_status, one_line(error)
    except BrokenPipeError:
        # The reader of our output has closed it, e.g. `| head`; flushing the rest must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        # Of two file names, the second is the destination of a move or copy.
        place = error.filename2 or error.filename
        status, message = 1, f"{place}: {one_line(error)}" if place else one_line(error)
    except KeyboardInterrupt:
        status, message = 130, "interrupted"
    for bar in list(getattr(tqdm, "_instances", ())):
        bar.close()  # so that the message starts on a new line
    if status == 1:
        sys.exit(f"error: {message}")
    print(message, file=sys.stderr)
    sys.exit(status)


def _prepare_process() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may not fit the terminal's encoding
    logging.basicConfig(format="%(message)s")
    logging.getLogger("eagle").setLevel(logging.INFO)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_is_no_hint)
    warnings.filterwarnings("ignore", module="pytorch_lightning.utilities._pytree")  # a deprecation in Lightning itself
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # num_workers is the user's choice
    # Large photographs are welcome; Pillow still refuses images beyond its hard limit.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    if launcher := os.environ.pop(LAUNCHER, None):
        end_with(int(launcher))


def parse_command_line(
    schema: type, arguments: Sequence[str], default_config: str | None = None, positional: str | None = None
) -> DictConfig:
    """Read the ``arguments`` of a command, without options of Hydra; raises ConfigError as ``validated`` does."""
    line = read_command_line(schema, arguments, default_config, positional)
    _store(schema, line)
    with _one_line_errors(schema), hydra.initialize(config_path=None, version_base=VERSION):
        composed = hydra.compose(PRIMARY, line.overrides)
    return validated(schema, composed)


def _run_hydra(
    schema: type, command: Callable[[DictConfig], None], default_config: str | None, positional: str | None
) -> None:
    """Let ``hydra.main`` compose the configuration, then run the command; or each job of a sweep in turn."""
    typed = sys.argv[1:]
    line = read_command_line(schema, typed, default_config, positional)
    script = Path(sys.argv[0]).resolve()
    composed: list[DictConfig] = []
    fixed: set[str] = set()

    @hydra.main(version_base=VERSION, config_path=None, config_name=PRIMARY)
    @functools.wraps(command)  # Hydra looks for configurations beside the function's module
    def application(cfg: DictConfig) -> None:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            run_job(schema, script, line, fixed, cfg)
        else:
            composed.append(cfg)

    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise errors; Hydra would print them on several lines
    try:
        with _one_line_errors(schema):
            if {*MULTIRUN} & {*line.options}:
                fixed |= check_sweep(schema, line)
            _store(schema, line)
            sys.argv[1:] = [*line.options, *line.overrides]
            application()
    finally:
        sys.argv[1:] = typed  # Lightning starts the processes of other devices with it
    # After Hydra, so that it takes no part in errors, signals and the processes of other devices.
    for cfg in composed:
        command(validated(schema, cfg))


def _store(schema: type, line: CommandLine) -> None:
    """Register the defaults, those of each fidelity over them, and the YAML file's content, in Hydra's store.

    They have no types for Hydra: ``validated`` checks all values.
    """
    store = ConfigStore.instance()
    store.store(SCHEMA, OmegaConf.to_container(OmegaConf.structured(schema)))
    trains, yaml = issubclass(schema, TrainConfig), dict(line.yaml)
    for name, defaults in FIDELITIES.items():
        store.store(name, {"fidelity": name, **defaults}, group="fidelity", package="_global_")
    fidelity = [{"fidelity": yaml.pop("fidelity", "released")}] if trains else []
    # No files of Hydra's own, no change of folder.
    section = {
        "output_subdir": None,
        "run": {"dir": "."},
        "sweep": {
            "dir": "${output_root}/${experiment_name}" if trains else default_folder("outputs/multirun"),
            "subdir": ".",
        },
        "job": {"chdir": False, "name": Path(sys.argv[0]).stem or "eagle"},
    }
    quiet = [{f"override hydra/{kind}_logging": "none"} for kind in ("job", "hydra")]
    store.store(PRIMARY, OmegaConf.merge({"hydra": section}, yaml, {"defaults": [SCHEMA, *fidelity, "_self_", *quiet]}))


@contextmanager
def _one_line_errors(schema: type) -> Iterator[None]:
    """Turn an error of Hydra or OmegaConf into a one-line ConfigError."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        reason = " ".join(f"{error} {error.__cause__ or ''}".partition("Config search path:")[0].split())
        if unknown := re.match(r"Could not override '(\S+?)'", reason):
            names = [item.name for item in dataclasses.fields(schema)]
            raise ConfigError(unknown_name_message("key", unknown[1], names)) from error
        if unknown := re.search(r"Could not find 'fidelity/(\S*)'", reason):
            raise ConfigError(unknown_name_message("value of fidelity", unknown[1], FIDELITIES)) from error
        if sweep := re.match(r"Ambiguous value for argument '(\S+?)=(\S+)'", reason):
            name, value = sweep.groups()
            raise ConfigError(
                f"{name}: add --multirun to run each of {value}; one value with commas is {name}=\"'{value}'\""
            ) from error
        if "hydra/launcher" in reason:
            reason += "; pip install -e .[sweep] installs the launchers joblib and submitit_slurm"
        raise ConfigError(reason) from error


def _is_no_hint(record: logging.LogRecord) -> bool:
    """False for Lightning's hints and advertisements. Its import sets its logger's level, so only a filter lasts."""
    return record.levelno >= logging.WARNING or not record.name.startswith(("pytorch_lightning", "lightning"))


def help_text(
    schema: type, command: Callable[[DictConfig], None], default_config: str | None, positional: str | None = None
) -> str:
    """Describe the command, then every key with its value, choices and meaning, grouped by role."""
    words = [word for word in sys.argv[1:] if word not in HELP]
    line = read_command_line(schema, words, default_config, positional)
    first = f"{positional.upper()} … " if positional else ""
    program = Path(sys.argv[0]).name
    program = f"python {program}" if program.endswith(".py") else program
    lines = [f"usage: {program} {first}[--config-name NAME] [key=value | --key value] …", ""]
    lines += [(command.__doc__ or "").strip()]
    config_name = line.config_options[-1] if line.config_options else default_config
    if config_name:
        lines += ["", f"Values are those of {config_name}; keys that it does not set have their defaults."]
    defaults, items = OmegaConf.structured(schema), dataclasses.fields(schema)
    roles = {item.metadata["role"] for item in items}
    for heading, members in HEADINGS.items():
        group = [item for item in items if item.metadata["role"] in members]
        if group:
            lines += ["", *([f"{heading}:"] if len(roles) > 1 else [])]
        for item in group:
            missing = OmegaConf.is_missing(defaults, item.name)
            value = line.yaml.get(item.name, "(must be given)" if missing else defaults[item.name])
            choices = f" ({' | '.join(item.metadata['choices'])})" if item.metadata["choices"] else ""
            lines.append(f"  {item.name}={'none' if value is None else value}{choices}")
            lines.append(f"      {item.metadata['meaning']}")
    lines += ["", "Hydra's options: --multirun (key=a,b,c runs every combination), --cfg job, --config-dir DIR, --info"]
    lines += ["searchpath, --shell-completion install=bash; https://hydra.cc/docs/advanced/hydra-command-line-flags"]
    return "\n".join(lines)
