"""Hydra's own options: ``--multirun``, ``--cfg``, ``--config-dir``, ``--info``, tab completion and ``hydra.…`` keys.

Hydra composes the configuration, plans the jobs of a sweep and launches them. Each job runs the command in a process of
its own, as if its overrides had been typed, so that jobs share no state and a job can use several devices.
"""

import functools
import multiprocessing
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import Any, Protocol, cast
from unittest.mock import patch

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.core.utils import env_override
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from eagle.config.hydra_options import HydraOptions
from eagle.config.parsing import (
    compose_yaml,
    is_hydra_key,
    locate,
    quoted,
    split_arguments,
    split_listed,
    warn_about_retired_keys,
)
from eagle.config.sweep_folders import job_name, sweep_folder
from eagle.config.validation import plain, refuse_unknown, retired_keys_in, validated
from eagle.errors import ConfigError
from eagle.processes import end_with_launcher, run_script

# Name of the composed YAML in Hydra's store of configurations.
PRIMARY = "eagle_command"


class SweepJobs(Protocol):
    """What a command does with the jobs of a sweep."""

    def do(self, cfg: DictConfig, swept: Mapping[str, str], folder: Path, words: Sequence[str]) -> None:
        """Do one job unless it is finished; ``words`` are the command's arguments that give its configuration."""

    def report(self, sweep: Path) -> str:
        """Write the results of the sweep's finished jobs and return them as text."""


def run_hydra(
    schema: type,
    command: Callable[[DictConfig], None],
    options: HydraOptions,
    words: Sequence[str],
    default_config: str | None = None,
    positional: str | None = None,
    jobs: SweepJobs | None = None,
) -> None:
    """Run a command, or print what an option asks for, as a Hydra application; arguments are those of ``run_command``.

    Raises:
        ConfigError: as in ``validated``, for any job of a sweep before the first runs; or Hydra cannot compose.
        TrainingError: a job failed; the others are done.
    """
    listed, rest = split_listed(words, positional)
    config_name, typed = split_arguments(rest, _unless_grammatical)
    config_name = config_name or default_config
    yaml = compose_yaml(schema, config_name, [], options.config_dir)
    if positional and listed:
        yaml[positional] = listed
    warn_about_retired_keys(schema, yaml)
    known = [field.name for field in fields(schema)]
    overrides = [_over_missing(override, known) for override in typed]
    parsed = _parsed([word for word in overrides if not is_hydra_key(word)])
    # +group=name adds a file of --config-dir.
    own = [o for o in parsed if not (options.config_dir and (o.is_add() or o.is_force_add()))]
    refuse_unknown("key", [_first_name(override) for override in own], known)
    call = functools.partial(_call_hydra, command, _hydra_section(config_name, options.config_dir))
    directory = ["--config-dir", str(options.config_dir)] if options.config_dir else []
    if options.multirun:
        _check_jobs(schema, yaml, parsed)
        folder = sweep_folder(yaml, config_name, overrides, parsed)
        base = [*listed, *(["--config-name", config_name] if config_name else []), *directory]
        fixed = {_first_name(override) for override in parsed if not override.is_sweep_override()}
        task = functools.partial(_job, schema, Path(sys.argv[0]).resolve(), base, fixed, folder, jobs)
        settings = [f"hydra.sweep.dir={quoted(str(folder))}"]
        try:
            call(task, _given(schema, yaml), [*directory, "--multirun", *settings, *overrides])
        finally:
            if jobs is not None and folder.is_dir():
                print(f"\n{jobs.report(folder)}")
    elif any("shell-completion" in word for word in options.words):
        every_key = cast(DictConfig, OmegaConf.merge(OmegaConf.structured(schema), _of_schema(schema, yaml)))
        call(_nothing, every_key, [*options.words, *directory])
    else:
        composed: list[DictConfig] = []
        call(composed.append, _given(schema, yaml), [*directory, *overrides])
        cfg = validated(schema, _set_keys(composed[0]))
        if options.words:
            call(_nothing, cfg, [*options.words, *directory, *[word for word in overrides if is_hydra_key(word)]])
        else:
            command(cfg)


def _job(
    schema: type,
    script: Path,
    base: Sequence[str],
    fixed: set[str],
    sweep: Path,
    jobs: SweepJobs | None,
    composed: DictConfig,
) -> None:
    """Run one job of a sweep; a launcher may call this in another process or on another machine."""
    if multiprocessing.parent_process() is not None:
        # A worker of joblib: jobs of a killed sweep would run beside those of the repeated command.
        end_with_launcher()
    overrides = [str(word) for word in HydraConfig.get().overrides.task]
    own = {override.key_or_group: word.partition("=")[2] for override, word in _with_words(overrides)}
    swept = {key: value.strip("'\"") for key, value in own.items() if key.partition(".")[0] not in fixed}
    folder = sweep / job_name(swept)
    words = [*base, *overrides]
    if jobs is None:
        run_script(script, words, f"job {folder.name}")
    else:
        jobs.do(validated(schema, _set_keys(composed)), swept, folder, words)


def _nothing(_: DictConfig) -> None:
    """Hydra prints instead of calling this."""


def _call_hydra(
    command: Callable[[DictConfig], None],
    section: DictConfig,
    task: Callable[[DictConfig], None],
    values: DictConfig,
    words: Sequence[str],
) -> None:
    """Call ``hydra.main`` on values in place of a YAML file; its errors become a one-line ConfigError."""
    node = OmegaConf.merge(section, {name: values._get_node(name) for name in values})
    ConfigStore.instance().store(PRIMARY, node)

    def application(cfg: DictConfig) -> None:
        task(cfg)

    # Hydra names the application after the command's file, and looks for no configurations beside it.
    wrapped = functools.wraps(command)(application)
    main = hydra.main(version_base="1.3", config_path=None, config_name=PRIMARY)(wrapped)
    try:
        # Hydra would print errors of several lines and exit.
        with patch.object(sys, "argv", [sys.argv[0], *words]), env_override({"HYDRA_FULL_ERROR": "1"}):
            main()
    except (HydraException, OmegaConfBaseException) as error:
        reason = " ".join(f"{error} {error.__cause__ or ''}".split())
        if "hydra/launcher" in reason:
            reason += "; pip install -e .[sweep] installs the launchers joblib and submitit_slurm"
        raise ConfigError(reason) from error


def _hydra_section(config_name: str | None, config_dir: Path | None) -> DictConfig:
    """Settings of Hydra: no files of its own, no change of folder or logging; a YAML file's section counts more."""
    defaults = {"override hydra/job_logging": "none", "override hydra/hydra_logging": "none"}
    section: Any = {"output_subdir": None, "run": {"dir": "."}, "job": {"chdir": False}, "sweep": {"subdir": "."}}
    if config_name:
        directory, name = locate(config_name, config_dir)
        own = cast(DictConfig, OmegaConf.load(directory / name))
        for entry in own.get("defaults") or []:
            if isinstance(entry, DictConfig):
                defaults |= {str(key): value for key, value in entry.items() if "hydra/" in str(key)}
        section = OmegaConf.merge(section, own.get("hydra") or {})
    listed = [{key: value} for key, value in defaults.items()]
    return OmegaConf.create({"defaults": [*listed, "_self_"], "hydra": section})


def _given(schema: type, yaml: DictConfig) -> DictConfig:
    """The keys of a YAML file; other keys of the schema are missing, but may be set by overrides."""
    missing = {field.name: MISSING for field in fields(schema)}
    return cast(DictConfig, OmegaConf.merge(missing, _of_schema(schema, yaml)))


def _of_schema(schema: type, yaml: DictConfig) -> DictConfig:
    retired = retired_keys_in(yaml, schema)
    return OmegaConf.masked_copy(yaml, [str(name) for name in yaml if name not in retired])


def _set_keys(composed: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(composed, [str(name) for name in composed if not OmegaConf.is_missing(composed, name)])


def _check_jobs(schema: type, yaml: DictConfig, overrides: Sequence[Override]) -> None:
    """Validate every job; sweepers that draw values from intervals choose them later."""
    known = [override for override in overrides if _first_name(override) in {field.name for field in fields(schema)}]
    if any(isinstance(o.value(), Glob) or (o.is_sweep_override() and not o.is_discrete_sweep()) for o in known):
        return
    choices = [list(o.sweep_iterator()) if o.is_sweep_override() else [o.value()] for o in known]
    for values in product(*choices):
        job = OmegaConf.create(plain(yaml))
        for override, value in zip(known, values, strict=True):
            OmegaConf.update(job, override.key_or_group, value, merge=False)
        validated(schema, job)


def _parsed(overrides: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ConfigError(" ".join(str(error).split())) from error


def _with_words(overrides: Sequence[str]) -> list[tuple[Override, str]]:
    return list(zip(_parsed(overrides), overrides, strict=True))


def _first_name(override: Override) -> str:
    return override.key_or_group.partition(".")[0]


def _unless_grammatical(value: str) -> str:
    """Quote a value only if Hydra cannot read it; ``1,2`` and ``range(0,3)`` are sweeps."""
    try:
        OverridesParser.create().parse_override(f"key={value}")
    except HydraException:
        return quoted(value)
    return value


def _over_missing(override: str, known: Collection[str]) -> str:
    """Mark an override as Hydra needs it: ``a.b=1`` adds to a mapping that the YAML file may not have."""
    name = override.lstrip("+")
    if re.split(r"[.=]", name)[0] not in known:
        return override
    return f"++{name}" if "." in name.partition("=")[0] else name
