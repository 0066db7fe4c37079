"""Every key of every command with odd values, in every spelling; and whole commands with odd values of two keys."""

import json
import math
import shutil
from dataclasses import fields
from functools import cache
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from runner import Job, reader, seeds, told
from whole import COMMANDS, run_in, whole_folder

from eagle.commands import photographs, provisions, runs
from eagle.config.schema import EvalConfig, TrainConfig

pytestmark = pytest.mark.slow

SCHEMAS = {
    "train_segmentation": TrainConfig, "eval_segmentation": EvalConfig, "fit_clusters": runs.FitConfig,
    "plot_run": runs.PlotConfig, "segment_images": photographs.SegmentConfig,
    "visualize_eigen": photographs.VisualizeConfig, "demo": photographs.DemoConfig,
    "download_models": provisions.DownloadModelsConfig, "download_datasets": provisions.DownloadDatasetsConfig,
    "crop_datasets": provisions.CropConfig, "check_data": provisions.CheckConfig,
}  # fmt: skip
POSITIONAL = {
    "eval_segmentation": "model_paths", "fit_clusters": "checkpoint", "plot_run": "runs", "segment_images": "images",
    "visualize_eigen": "images",
}  # fmt: skip
REQUIRED = {"segment_images": ["checkpoint=c.ckpt"], "demo": ["checkpoint=c.ckpt"]}
KEYS = [(command, item.name) for command, schema in SCHEMAS.items() for item in fields(schema)]

# Texts that mean themselves to a shell's user and to Hydra, or that our reading must quote.
TEXTS = (
    "ü🦅", "a b", "it's", '"a', "\\", "a\\'", "a\nb", "..", "/", "~", "-", "a=b", "50%", "$HOME", "$(touch x)",
    "`a`", "a;b", "#a", "&a", "*", "C:\\data", "{a", "[a", "a]", "!!python/object:os.system", "١", "a" * 5000, "a:b",
    "@a", "<a>", "\ufeffa", "\u202ea", "1 2", "0x", "\u00e9", "e\u0301",
)  # fmt: skip
# Texts that mean something else to Hydra or YAML, or nothing; numbers of all kinds; lists and mappings.
ODD = (
    "", " ", " a", "null", "None", "none", "~null", "nan", "-nan", "inf", "-inf", "-1", "0", "-0", "1", "2", "0.5",
    "-0.5", "1e999", "1e-400", "9" * 30, "-" + "9" * 30, str(2**31), str(2**63), "1_000", "0x10", "0b1", "010", "1e3",
    "1.", ".5", "+1", "true", "False", "yes", "off", "[]", "[1,2]", "[null]", "[[1]]", "[a,,b]", "[1", "{}", "{a: 1}",
    "{a: {b: 1}}", "{1: 2}", "{a", "${seed}", "${oc.env:HOME}", "${nope}", "${", "${oc.decode:'[1]'}", "???", "a,b",
    "range(0,3)", "choice(1,2)", "glob(*)", "int(3)", "str(3)", "sort(2,1)", "tag(a,1)", "'quoted'", '"quoted"',
    "\udcff", "--", "--seed", "-x", "a: b", "- a", "\t", "\r", "1,", ",", "a=b=c", "hydra.run.dir=x", "\x1b[31m",
)  # fmt: skip
SPELLINGS = (
    "{key}={value}", "--{key}={value}", "--{key} {value}", "+{key}={value}", "++{key}={value}", "~{key}",
    "{key}.a={value}", "{key}x={value}", "{key}@a={value}", "--{key}", "{value}", "{key}", "yaml",
)  # fmt: skip
WEIGHTS = (6, 4, 6, 1, 1, 1, 1, 1, 1, 1, 3, 1, 6)


def spelled(random, key, value, folder):
    """The words of a spelling, and whether they set the key to the value as typed."""
    (spelling,) = random.choices(SPELLINGS, WEIGHTS)
    if spelling == "yaml":
        text = value if random.random() < 0.5 else json.dumps(value)
        (folder / "typed.yml").write_text(f"{key}: {text}\n", errors="surrogateescape")
        return ["--config-name", "./typed.yml"], text != value
    words = [word.format(key=key, value=value) for word in spelling.split(" ")]
    return words, spelling in SPELLINGS[:3]


def fits(value, kind):
    """Whether a value read from JSON is of a declared type."""
    if kind is Any:
        return True
    if get_origin(kind) is UnionType:
        return any(fits(value, one) for one in get_args(kind))
    if get_origin(kind) in (list, dict):
        inner = value.values() if isinstance(value, dict) else value
        return isinstance(value, get_origin(kind)) and all(fits(item, get_args(kind)[-1]) for item in inner)
    return value is None if kind is NoneType else type(value) is kind


def lawful(value, rules):
    """Whether a value is among its key's choices and within its limits."""
    if isinstance(value, float) and not math.isfinite(value):
        return False
    if value is None or not (rules["choices"] or isinstance(value, int | float)):
        return True
    low, above, high = (rules[name] for name in ("minimum", "above", "maximum"))
    return (
        (not rules["choices"] or value in rules["choices"])
        and (low is None or value >= low)
        and (above is None or value > above)
        and (high is None or value <= high)
    )


@cache
def base(command, folder, from_yaml):
    """The configuration of a command without odd words; or with an empty YAML file in place of its own."""
    (folder / "empty.yml").write_text("")
    words = [*REQUIRED.get(command, []), *(["--config-name", "./empty.yml"] if from_yaml else [])]
    (ended,) = reader().run(Job(command, words, folder, read_only=True))
    return json.loads(ended.stdout)


@pytest.mark.parametrize(("number", "random"), seeds("words", 0.65))
def test_words__one_odd_value(number, random, tmp_path, tmp_path_factory):
    """Status 0 only for a value of the key's type and limits, a text as it was typed, and no other key touched."""
    command, key = KEYS[number * 7 % len(KEYS)]  # 7: each command's keys soon have a turn
    schema = SCHEMAS[command]
    value = random.choice(TEXTS + ODD)
    words, as_typed = spelled(random, key, value, tmp_path)
    job = Job(command, [*REQUIRED.get(command, []), *words], tmp_path, read_only=True)
    ended = reader().checked(job)
    if ended.status or not ended.stdout.startswith("{"):
        return
    cfg, rules = json.loads(ended.stdout), {item.name: item.metadata for item in fields(schema)}
    for name, kind in get_type_hints(schema).items():
        assert fits(cfg[name], kind), told(job, ended, f"{name} is {cfg[name]!r}")
        assert lawful(cfg[name], rules[name]), told(job, ended, f"{name} is {cfg[name]!r}")
    if value in TEXTS and as_typed and get_type_hints(schema)[key] in (str, str | None):
        assert cfg[key] == value, told(job, ended, f"{key} arrived as {cfg[key]!r}")
    before = base(command, tmp_path_factory.getbasetemp(), "--config-name" in words)
    changed = {name for name in cfg if cfg[name] != before[name]} - {key, POSITIONAL.get(command)}
    assert not changed or key == "fidelity", told(job, ended, f"also changed: {changed}")


# Keys that let a command run for ever, wait for other machines, or start a second training process.
LONG = ("max_steps", "num_nodes", "devices", "strategy", "list", "bundled")
RUN = (
    "", "null", "-1", "0", "1", "2", "3", "7", "33", "0.3", "1e-30", "1e30", str(2**31), str(2**62), "true", "ü a",
    "[]", "[0,9]", "x" * 300, ".", "/dev/null", "/proc/x", "in/run/best.ckpt", "in/photos/good.png", "in", "nowhere/x",
    "auto", "both", "all", "{depth: 2}",
)  # fmt: skip


@pytest.mark.parametrize(("number", "random"), seeds("runs", 0.08))
def test_commands__run_with_two_odd_values(number, random, tmp_path):
    """A whole command on a miniature; values that the keys refuse are the family above."""
    names = list(COMMANDS)
    words = COMMANDS[names[number % len(names)]]
    command, *words = words.split()
    keys = [key for owner, key in KEYS if owner == command and key not in LONG]
    shutil.copytree(whole_folder(), tmp_path / "in")
    (tmp_path / "out").mkdir()
    odd = [f"{key}={random.choice(RUN)}" for key in random.sample(keys, random.choice((1, 1, 2)))]
    run_in(tmp_path, [command, *words, *odd], "in/photos", "in/data/halves", "in/originals")
