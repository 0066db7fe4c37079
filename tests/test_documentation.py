"""What README and docs tell people to type and to open: every command parses, every linked file exists."""

import re
import runpy
import shlex
import sys
import tomllib
from functools import partial

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

import eagle.config.application
from conftest import ROOT
from eagle.commands import photographs, provisions, runs
from eagle.config.validation import validated
from eagle.config.words import read_command_line

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("tests/golden/*.md")])
SCRIPTS = [*ROOT.glob("src_EAGLE/*.py"), *ROOT.glob("scripts/*.py")]
FENCED = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
COMMAND = re.compile(r"(?:python|srun\b.*? python|torchrun\b.*?) (?P<script>[\w./]+\.py)(?P<words>[^`|&;]*)")


def code_lines(page):
    """Lines of fenced blocks, continued ones joined, and commands in backticks."""
    text = page.read_text(encoding="utf-8")
    joined = "\n".join(FENCED.findall(text)).replace("\\\n", " ")
    return [line.split(" #")[0].strip() for line in joined.splitlines()] + INLINE.findall(FENCED.sub("", text))


def commands(page):
    return {(match["script"], match["words"]) for line in code_lines(page) if (match := COMMAND.search(line))}


ALL_COMMANDS = sorted({command: page.name for page in PAGES for command in commands(page)}.items())


def arguments_of_run_command(script, monkeypatch):
    """What a script hands to ``run_command``."""
    found = []

    def record(*given, **named):
        found.append((given, named))

    monkeypatch.setattr(eagle.config.application, "run_command", record)
    for module in (runs, photographs, provisions):
        for name, main in [*vars(module).items()]:
            if name.endswith("_main"):
                monkeypatch.setattr(module, name, partial(record, *main.args, **main.keywords))
    monkeypatch.setattr(sys, "path", [str(script.parent), *sys.path])
    runpy.run_path(str(script), run_name="__main__")
    (schema, _, *rest), named = found[0]
    return schema, [*rest, named.get("default_config"), named.get("positional")]


def test_pages__hold_the_commands_that_people_type():
    typed = {script.split("/")[-1] for (script, _), _ in ALL_COMMANDS}
    assert {path.name for path in ROOT.glob("src_EAGLE/*.py")} <= typed, "every command is shown somewhere"
    assert len(ALL_COMMANDS) > 40


@pytest.mark.parametrize(("command", "page"), ALL_COMMANDS)
def test_command__parses(command, page, monkeypatch):
    script, words = command
    path = next((path for path in SCRIPTS if path.name == script.split("/")[-1]), None)
    assert path is not None, f"{page}: no script {script}"
    typed = [word for word in shlex.split(words.replace("…", "").removesuffix(')"')) if word != "[key=value]"]
    schema, (default_config, positional) = arguments_of_run_command(path, monkeypatch)
    if "--help" not in typed:
        line = read_command_line(schema, typed, default_config, positional)
        if not line.options:  # without Hydra, which takes ten times as long
            overrides = OverridesParser.create().parse_overrides(line.overrides)
            validated(schema, {**line.yaml, **{each.key_or_group: each.value() for each in overrides}})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page__links_lead_somewhere(page):
    targets = [target for target in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in target]
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []


def test_pages__make_targets_and_extras_exist():
    lines = [line for page in PAGES for line in code_lines(page)]
    targets = set(re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = {target for line in lines for target in re.findall(r"^make ([\w./-]+)", line)}
    assert asked
    assert asked <= targets
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {extra for line in lines for extra in re.findall(r"-e \.\[(\w+)\]", line)} <= extras.keys()
