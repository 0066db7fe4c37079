"""Every key of every command with odd values, in every spelling; and whole commands with odd values of two keys."""

import json
import shutil
from dataclasses import fields
from functools import cache
from typing import get_type_hints

import pytest
from runner import Job, cases, checked, commands, run
from whole import COMMANDS, whole_folder

from eagle.config.validation import plain, validated

pytestmark = pytest.mark.slow

SCHEMAS = {name: main.args[0] for name, main in commands().items()}
POSITIONAL = {name: main.keywords.get("positional") for name, main in commands().items()}
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


@cache
def base(command, folder, from_yaml):
    """The configuration of a command without odd words; or with an empty YAML file in place of its own."""
    (folder / "empty.yml").write_text("")
    words = [command, *REQUIRED.get(command, []), *(["--config-name", "./empty.yml"] if from_yaml else [])]
    (ended,) = run(Job(words, folder, read_only=True))
    return json.loads(ended.stdout)


@cases("words", 0.7)
def test_words__one_odd_value(number, random, tmp_path, tmp_path_factory):
    """Status 0 only for a valid value, a text as it was typed, and no other key touched."""
    command, key = KEYS[number * 7 % len(KEYS)]  # 7: each command's keys soon have a turn
    schema = SCHEMAS[command]
    text = random.choice(TEXTS + ODD)
    words, as_typed = spelled(random, key, text, tmp_path)
    required = [word for word in REQUIRED.get(command, []) if not word.startswith(f"{key}=")]
    ended = checked(Job([command, *required, *words], tmp_path, read_only=True))
    if ended.status or not ended.stdout.startswith("{"):
        return
    cfg, kind = json.loads(ended.stdout), get_type_hints(schema)[key]
    again = json.dumps(plain(validated(schema, cfg)), sort_keys=True)  # as text: NaN is not equal to itself
    ended.check(again == json.dumps(cfg, sort_keys=True), "a configuration that is not valid by itself")
    is_text = text in TEXTS and as_typed and kind in (str, str | None)
    ended.check(not is_text or cfg[key] == text, f"{key} arrived as {cfg[key]!r}")
    before = base(command, tmp_path_factory.getbasetemp(), "--config-name" in words)
    changed = {name for name in cfg if cfg[name] != before[name]} - {key, POSITIONAL[command]}
    ended.check(not changed or key == "fidelity", f"also changed: {changed}")


# Keys that let a command run for ever, wait for other machines, or start a second training process.
LONG = ("max_steps", "num_nodes", "devices", "strategy", "list", "bundled")
RUN = (
    "", "null", "-1", "0", "1", "2", "3", "7", "33", "0.3", "1e-30", "1e30", str(2**31), str(2**62), "true", "ü a",
    "[]", "[0,9]", "x" * 300, ".", "/dev/null", "/proc/x", "in/run/best.ckpt", "in/photos/good.png", "in", "nowhere/x",
    "auto", "both", "all", "{depth: 2}",
)  # fmt: skip


@cases("runs", 0.06)
def test_commands__run_with_two_odd_values(number, random, tmp_path):
    """A whole command on a miniature; values that the keys refuse are the family above."""
    words = list(COMMANDS.values())[number % len(COMMANDS)].split()
    keys = [key for command, key in KEYS if command == words[0] and key not in LONG]
    shutil.copytree(whole_folder(), tmp_path / "in")
    odd = [f"{key}={random.choice(RUN)}" for key in random.sample(keys, random.choice((1, 1, 2)))]
    checked(Job([*words, *odd], tmp_path), *(tmp_path / "in" / name for name in ("photos", "data/halves", "originals")))
