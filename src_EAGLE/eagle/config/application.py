"""Run a command as a Hydra application, and print errors on one line.

``key=value``, ``--key value`` and ``--flag`` set a key; ``eagle.config.words`` reads them. All else is Hydra's:
``--multirun`` and launchers, ``--cfg``, ``--config-dir``, ``--info``, completion and ``hydra.…`` keys. ``--help``
prints every key, ``--version`` the version and the commit. The values of a sweep are checked first, and each of its
jobs runs in a process and a folder of its own.
"""

import dataclasses
import functools
import hashlib
import io
import logging
import multiprocessing
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString, ValueType
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from PIL import Image
from tqdm import tqdm

from eagle.config.schema import TrainConfig
from eagle.config.validation import CONFIG_DIR, FIDELITIES, validated
from eagle.config.words import MULTIRUN, CommandLine, quoted, read_command_line
from eagle.console import DISTRIBUTION, code_version
from eagle.errors import ConfigError, EagleError, one_line, unknown_name_message
from eagle.files import default_folder, sha256_of, write_text_atomically
from eagle.processes import LAUNCHER, end_with, run_script

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
# In a run's folder: the configuration of a job that a sweep has finished.
JOB_NAME = "sweep_job.yml"
_LONGEST_NAME = 150

logger = logging.getLogger(__name__)


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
            fixed = check_sweep(schema, line) if {*MULTIRUN} & {*line.options} else set()
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
    trains = issubclass(schema, TrainConfig)
    typed = [word.partition("=")[2].strip("'") for word in line.overrides if word.startswith("fidelity=")]
    yaml = keys_of_file(line, ",".join(typed).split(","))
    for name, defaults in FIDELITIES.items():
        store.store(name, {"fidelity": name, **defaults}, group="fidelity", package="_global_")
    fidelity = [{"fidelity": f"{yaml.pop('fidelity', 'released')}"}] if trains else []
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


def keys_of_file(line: CommandLine, typed: Sequence[str]) -> dict[str, Any]:
    """The YAML file's content; where values of ``fidelity`` are typed, without the keys of these and of its own."""
    fidelities = [FIDELITIES.get(str(name), {}) for name in (*typed, line.yaml.get("fidelity"))] if any(typed) else []
    decided = {"fidelity", *chain.from_iterable(fidelities)} if fidelities else ()
    return {name: value for name, value in line.yaml.items() if name not in decided}


def check_sweep(schema: type, line: CommandLine) -> set[str]:
    """Validate every value of a sweep before its first job; sweepers that draw values choose them later.

    The folder of a sweep of training runs without ``experiment_name`` is named by its keys and a hash of its words.

    Returns:
        The keys that do not name the jobs' folders: those with one value, but for the seed.
    """
    parsed = [o for o in OverridesParser.create().parse_overrides(line.overrides) if not o.is_hydra_override()]
    swept = [override for override in parsed if override.is_sweep_override()]
    single = [override for override in parsed if not override.is_sweep_override()]
    whole = {o.key_or_group: o.value() for o in single if not o.is_add() and "." not in o.key_or_group}
    whole = {name: value for name, value in line.yaml.items() if name != "hydra"} | whole
    if issubclass(schema, TrainConfig):
        if any(override.key_or_group == "ckpt_path" for override in parsed):
            raise ConfigError("ckpt_path: the runs of a sweep resume their own checkpoints; leave it out")
        if not whole.get("experiment_name"):
            keys = "_".join(sorted(override.key_or_group for override in swept))
            # The same name each time that the command is typed.
            options = [word for word in line.options if word not in MULTIRUN]
            digest = hashlib.sha256(repr((options, line.config_name, line.overrides)).encode()).hexdigest()[:6]
            line.overrides.append(f"experiment_name={short_name(f'sweep_{keys}')}_{digest}")
    for override in swept:
        name = override.key_or_group
        if name in ("output_root", "experiment_name"):
            raise ConfigError(f"{name}: names the folder of the whole sweep, so give one value")
        has_values = override.is_discrete_sweep() and override.value_type != ValueType.GLOB_CHOICE_SWEEP
        for value in override.sweep_iterator() if has_values and "." not in name and not override.is_add() else ():
            validated(schema, {**whole, name: value.text if isinstance(value, QuotedString) else value})
    # The seed names folders also where it has one value, so that the same sweep can go on with more.
    return {override.key_or_group for override in single} - {"seed"} | {"experiment_name"}


def run_job(schema: type, script: Path, line: CommandLine, fixed: set[str], composed: DictConfig) -> None:
    """Run one job of a sweep in a process of its own; a launcher may call this on another machine.

    A training run gets a folder of its own in the sweep's. One that was stopped or killed goes on, and one that is
    finished with the same configuration is not run again.
    """
    if multiprocessing.parent_process() is not None:
        # A worker of joblib goes on after its parent was killed: jobs would run beside those of the repeated command.
        end_with(os.getppid())
    overrides = [str(word) for word in HydraConfig.get().overrides.task]
    swept = [word.lstrip("+") for word in overrides if word.lstrip("+").partition("=")[0] not in fixed]
    name = short_name(",".join(sorted(word.replace("'", "") for word in swept)) or "job")
    file = ["--config-name", line.config_name] if line.config_name else []
    words = [*(word for word in line.options if word not in MULTIRUN), *file, *overrides]
    if not issubclass(schema, TrainConfig):
        run_script(script, words, f"job {name}")
        return
    sweep, cfg = Path(composed.output_root) / composed.experiment_name, validated(schema, composed)
    record, content = sweep / name / JOB_NAME, OmegaConf.to_yaml(cfg)
    if cfg.pretrained_weights and Path(cfg.pretrained_weights).is_file():
        content += f"# sha256 of pretrained_weights: {sha256_of(Path(cfg.pretrained_weights))}\n"
    if record.is_file() and record.read_text(encoding="utf-8") == content:
        logger.info("%s: already finished", name)
        return
    place = {"output_root": str(sweep), "experiment_name": name, "ckpt_path": "last"}
    run_script(script, [*words, *(f"{key}={quoted(value)}" for key, value in place.items())], f"job {name}")
    write_text_atomically(record, content)


def short_name(name: str) -> str:
    """The name if it is a valid file name of at most 150 characters; otherwise one, with a hash."""
    safe = re.sub(r"[^\w.,=+\-]", "_", name)[:_LONGEST_NAME]
    return name if safe == name else f"{safe}_{hashlib.sha256(name.encode()).hexdigest()[:6]}"


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
        if unknown := re.search(r"Could not find 'fidelity/(.*?)'", reason):
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
    if line.config_name:
        lines += ["", f"Values are those of {line.config_name}; keys that it does not set have their defaults."]
    defaults, items = OmegaConf.structured(schema), dataclasses.fields(schema)
    several = len({item.metadata["role"] for item in items}) > 1
    for heading, members in HEADINGS.items():
        group = [item for item in items if item.metadata["role"] in members]
        if group:
            lines += ["", *([f"{heading}:"] if several else [])]
        for item in group:
            missing = OmegaConf.is_missing(defaults, item.name)
            value = line.yaml.get(item.name, "(must be given)" if missing else defaults[item.name])
            choices = f" ({' | '.join(item.metadata['choices'])})" if item.metadata["choices"] else ""
            lines.append(f"  {item.name}={'none' if value is None else value}{choices}")
            lines.append(f"      {item.metadata['meaning']}")
    lines += ["", "Hydra's options: --multirun (key=a,b,c runs every combination), --cfg job, --config-dir DIR, --info"]
    lines += ["searchpath, --shell-completion install=bash; https://hydra.cc/docs/advanced/hydra-command-line-flags"]
    return "\n".join(lines)
