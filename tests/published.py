"""Checkpoints in the format of the released ones: Lightning 1.x files with pickled OmegaConf 2.0 to 2.3 configs."""

import base64
import json
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path

import torch
from pytorch_lightning.callbacks import ModelCheckpoint

_PLACEHOLDER = "configuration goes here"
PICKLED_CONFIGS = {
    name: zlib.decompress(base64.b85decode(packed))
    for name, packed in json.loads((Path(__file__).parent / "fixtures/published_configs.json").read_text()).items()
}


def published_tensors(key_list: Path, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random tensors with the names and shapes in ``state_dict_keys_*.json``."""
    generator = torch.Generator().manual_seed(seed)
    shapes = json.loads(key_list.read_text())
    return OrderedDict(
        (name, torch.randn(shape, generator=generator) * (0.02 if name.startswith("net.model") else 0.1))
        for name, (shape, _dtype) in shapes.items()
    )


def write_published(path: Path, tensors: dict[str, torch.Tensor], pickled_config: bytes, n_classes: int = 27) -> Path:
    """Write a checkpoint whose ``cfg`` is exactly ``pickled_config``, a protocol-2 pickle, and whose callback states
    have class keys, as in Lightning before 1.5."""
    checkpoint = {
        "epoch": 3,
        "global_step": 70,
        "pytorch-lightning_version": "1.4.9",
        "state_dict": tensors,
        "callbacks": {ModelCheckpoint: {"monitor": "test/cluster/mIoU", "best_model_score": torch.tensor(27.0)}},
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 0.0005, "betas": (0.9, 0.999), "params": [0]}]}],
        "lr_schedulers": [],
        "hparams_name": "cfg",
        "hyper_parameters": {"n_classes": n_classes, "cfg": _PLACEHOLDER},
    }
    whole = path.with_suffix(".placeholder")
    torch.save(checkpoint, whole)
    encoded = _PLACEHOLDER.encode()
    string = b"X" + len(encoded).to_bytes(4, "little") + encoded
    body = pickled_config.removeprefix(b"\x80\x02").removesuffix(b".")
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as target:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename.endswith("data.pkl"):
                assert content.count(string) == 1
                # The body writes each memo entry before reading it, so it may follow another pickle's entries.
                content = content.replace(string, body)
            target.writestr(entry.filename, content)
    whole.unlink()
    return path
