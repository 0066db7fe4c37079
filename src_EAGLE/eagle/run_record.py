"""What a run was made with, for whoever wants the same numbers again."""

import json
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from eagle.files import write_text_atomically
from eagle.provenance import DISTRIBUTION, git_state, package_version

PACKAGES = (
    "torch", "torchvision", "pytorch-lightning", "torchmetrics", "timm", "numpy", "scipy", "scikit-learn", "pillow",
    "hydra-core", "omegaconf", "safetensors", DISTRIBUTION,
)  # fmt: skip
FILE_NAME = "run.json"


def record_run(run_dir: Path, seed: int, resumed_from: str | None) -> None:
    """Add an entry to ``run.json``: command line, code, versions, devices, seed and time; a resumed run adds one more.

    Args:
        run_dir: the run's folder.
        seed: of the run.
        resumed_from: the checkpoint that it goes on from.
    """
    path = run_dir / FILE_NAME
    entry = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "resumed_from": resumed_from,
        "seed": seed,
        "git": git_state(),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := package_version(name))},
        "machine": platform.node(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] or [platform.machine()],
    }
    write_text_atomically(path, json.dumps([*_earlier(path), entry], indent=2) + "\n")


def _earlier(path: Path) -> list[Any]:
    """The entries so far; a file that cannot be read is begun anew."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return entries if isinstance(entries, list) else []
