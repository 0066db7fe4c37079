"""What no file of the repository may do, and that nothing leaves the machine unasked."""

import ast
import json
import subprocess
import sys

import pytest

from conftest import ROOT, TINY_VIT
from miniatures import write_directory

SOURCES = [path for folder in ("src_EAGLE", "scripts") for path in sorted((ROOT / folder).rglob("*.py"))]
# Calls that run what a file or a configuration says. Ruff's S rules find the usual ones; these it does not know.
FORBIDDEN = {
    "compile", "__import__", "joblib.load", "cloudpickle.load", "yaml.unsafe_load", "yaml.full_load", "torch.hub.load",
    "torch.jit.load", "hydra.utils.instantiate", "hydra.utils.call", "shutil.unpack_archive", "subprocess.getoutput",
    "subprocess.getstatusoutput", "runpy.run_path", "runpy.run_module",
}  # fmt: skip


def calls(tree):
    """Every call with the dotted name of what is called, aliases of imports resolved."""
    alias = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            alias |= {entry.asname or entry.name: entry.name for entry in node.names}
        if isinstance(node, ast.ImportFrom):
            alias |= {entry.asname or entry.name: f"{node.module}.{entry.name}" for entry in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            first, _, rest = ast.unparse(node.func).partition(".")
            yield node, alias.get(first, first) + (f".{rest}" if rest else "")


def keyword(call, name):
    return next((ast.unparse(entry.value) for entry in call.keywords if entry.arg == name), None)


def offences(source, file_name="x.py"):
    """What a file's code does that it may not, one line each."""
    found = []
    for call, name in calls(ast.parse(source)):
        reasons = [
            name in FORBIDDEN and "runs what it is given",
            name == "torch.load" and keyword(call, "weights_only") != "True" and "unpickles code",
            name.endswith(("load_from_checkpoint",)) and keyword(call, "weights_only") != "True" and "unpickles code",
            keyword(call, "ckpt_path") not in (None, "None")
            and keyword(call, "weights_only") != "True"
            and "unpickles code",
            keyword(call, "allow_pickle") not in (None, "False") and "unpickles code",
            keyword(call, "trust_remote_code") not in (None, "False") and "runs downloaded code",
            name == "importlib.import_module"
            and not isinstance(call.args[0], ast.Constant)
            and "imports what it is given",
        ]
        found += [f"{file_name}:{call.lineno}: {name} {reason}" for reason in reasons if reason]
    return found


def test_sources__do_nothing_forbidden():
    assert len(SOURCES) > 60
    found = [line for path in SOURCES for line in offences(path.read_text(), str(path.relative_to(ROOT)))]
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        "import torch as t; t.hub.load(x, 'model')",
        "from shutil import unpack_archive as u; u(x)",
        "import torch; torch.load(p)",
        "import torch; torch.load(p, weights_only=False)",
        "trainer.fit(model, ckpt_path=path)",
        "import numpy as np; np.load(p, allow_pickle=True)",
        "from hydra.utils import instantiate; instantiate(cfg)",
        "import importlib; importlib.import_module(name)",
    ],
)
def test_offences__are_found(code):
    assert offences(code)


GUARD = """
import sys
outward = []

def guard(event, arguments):
    if event == "socket.getaddrinfo" or (event == "socket.connect" and isinstance(arguments[1], tuple)):
        outward.append(f"{event} {arguments[-1] if event == 'socket.connect' else arguments[0]}")
        raise OSError("the network is closed")

sys.addaudithook(guard)
"""

RUN = """
import json
from eagle.commandline import parse_command_line
from eagle.config import EvalConfig, TrainConfig
from eagle.evaluation.checkpoint_evaluation import evaluate_checkpoint
from eagle.training import train
words = json.loads(sys.argv[1])
run_dir = train(parse_command_line(TrainConfig, words, "train_config_directory"))
evaluate_checkpoint(run_dir / "last.ckpt", parse_command_line(EvalConfig, ["num_workers=0", "accelerator=cpu"]))
assert (run_dir / "last_grid.png").is_file()
print(json.dumps({"outward": outward, "files": sorted(path.name for path in run_dir.iterdir())}))
"""


def test_training_and_evaluation__ask_nothing_of_the_network(tmp_path):
    """Imports included: the guard is there before the first of them."""
    write_directory(tmp_path)
    backbone = json.dumps(TINY_VIT).replace('"', "")
    words = [f"pytorch_data_dir={tmp_path}", "dir_dataset_name=mine", "res=32", "val_res=32", "batch_size=2", "dim=32"]
    words += ["max_steps=2", "val_freq=2", "num_workers=1", "accelerator=cpu", f"output_root={tmp_path}"]
    words += ["model_type=vit_small", "pretrained_weights=random", f"backbone_kwargs={backbone}", "experiment_name=run"]
    done = subprocess.run(
        [sys.executable, "-c", GUARD + RUN, json.dumps(words)],
        cwd=ROOT / "src_EAGLE",
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["outward"] == []
    assert not {"wandb", "tensorboard"} & set(result["files"])


def test_guard__notices_a_connection():
    probe = "import socket\ntry: socket.create_connection(('pypi.org', 80), 1)\nexcept OSError: print(outward)"
    done = subprocess.run([sys.executable, "-c", GUARD + probe], capture_output=True, text=True)
    assert "socket.getaddrinfo pypi.org" in done.stdout
