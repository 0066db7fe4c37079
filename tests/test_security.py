"""Training and evaluation use no network. Ruff bans further unsafe calls in all files: see pyproject.toml."""

import json
import subprocess
import sys

from conftest import ROOT, TINY_VIT
from miniatures import write_directory

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
from eagle.config.application import parse_command_line
from eagle.config.schema import EvalConfig, TrainConfig
from eagle.checkpoint_evaluation import evaluate_checkpoint
from eagle.training.run import train
words = json.loads(sys.argv[1])
run_dir = train(parse_command_line(TrainConfig, words, "train_config_directory"))
evaluate_checkpoint(run_dir / "last.ckpt", parse_command_line(EvalConfig, ["num_workers=0", "accelerator=cpu"]))
assert (run_dir / "last_grid.png").is_file()
print(json.dumps({"outward": outward, "files": sorted(path.name for path in run_dir.iterdir())}))
"""


def test_training_and_evaluation__make_no_connection(tmp_path):
    """Including imports: the guard is installed before the first one."""
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
