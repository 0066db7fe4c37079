"""Export backbone, head and both probes as one torch.export or ONNX graph for any batch and image size."""

import json
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from eagle.checkpoints import StoredSegmenter, build_segmenter, evaluation_file, model_card, probe_entry, read_stored
from eagle.data.datasets.catalog import dataset_label
from eagle.data.views import IMAGENET_MEAN, IMAGENET_STD
from eagle.errors import CheckpointError, ConfigError
from eagle.files import write_text_atomically, written_atomically
from eagle.maps.probe_maps import MapSettings, ProbeMaps

TORCH, ONNX = ".pt2", ".onnx"
OUTPUTS = ("linear", "cluster")
TOLERANCE = 1e-4

_CARD = """\
# {name}

- **Input**: `img`, B×3×H×W float32, RGB in 0 to 1 minus {mean}, divided by {std}; H and W are multiples of {patch}.
- **Outputs**: `linear_log_probs`, B×{linear}×H×W, and `cluster_log_probs`, B×{cluster}×H×W. `class_map` in the file
  names clusters, if known.
{card}
"""


class _Maps(nn.Module):
    """ProbeMaps with its maps as a tuple, in the order of OUTPUTS."""

    def __init__(self, probes: ProbeMaps) -> None:
        super().__init__()
        self.probes = probes

    def forward(self, img: Tensor) -> tuple[Tensor, ...]:
        maps = self.probes(img)
        return tuple(maps[name] for name in OUTPUTS)


def export_checkpoint(source: Path, target: Path, alpha: float) -> float:
    """Export a checkpoint as ``NAME.pt2`` (torch.export) or ``NAME.onnx``, and compare the file with eager mode.

    The graph takes ``img``, B×3×H×W normalised, with H and W multiples of the patch size. It returns the
    log-probabilities of ProbeMaps, B×C×H×W, averaged with the mirror image: ``linear_log_probs`` and
    ``cluster_log_probs``. The checkpoint's class map, if any, is stored in the file as JSON: in a .pt2 as the extra
    file ``class_map.json``, in an .onnx as the metadata entry ``class_map``. ``NAME_card.md`` says what the graph takes
    and returns, and what the model was trained on, scores and cannot do.

    Args:
        source: the checkpoint.
        target: the file to write; its suffix decides the format.
        alpha: sharpness of the cluster probe.

    Returns:
        The largest absolute difference from eager mode over several image sizes, including the pre-training size.

    Raises:
        CheckpointError: the checkpoint cannot be loaded, or the graph's maps differ by more than TOLERANCE.
        ConfigError: the suffix is unknown, or the packages for ONNX are not installed.
    """
    if target.suffix not in (TORCH, ONNX):
        raise ConfigError(f"target: {target} must end in {TORCH} or {ONNX}")
    if target.suffix == ONNX:
        missing = [package for package in ("onnx", "onnxscript", "onnxruntime") if find_spec(package) is None]
        if missing:
            raise ConfigError(f"target: an {ONNX} file needs {', '.join(missing)}: pip install -e .[export]")
    stored = read_stored(source)
    segmenter = build_segmenter(stored, source).eval()
    maps = _Maps(segmenter.probe_maps(MapSettings(alpha))).eval()
    class_map = json.dumps(stored.class_map.to_plain()) if stored.class_map is not None else None
    backbone = segmenter.net.model
    program = _export_program(maps, backbone.patch_size)
    write = _write_onnx if target.suffix == ONNX else _write_torch
    with written_atomically(target) as temporary:
        run = write(program, temporary, class_map)
        # The pre-training size and two others.
        (height, width), patch = backbone.stored_size, backbone.patch_size
        sizes = [(1, height, width), (3, height, 2 * patch), (2, 3 * patch, width + patch)]
        difference = max(_difference(maps, run, size) for size in sizes)
        if difference > TOLERANCE:
            raise CheckpointError(f"{target}: not written: its maps differ from eager mode by {difference:.1e}")
    card = model_card(segmenter.cfg, dataset_label(segmenter.cfg), f"**Scores**: {_scores(source, stored)}")
    values = {"patch": backbone.patch_size, "mean": IMAGENET_MEAN, "std": IMAGENET_STD, **maps.probes.n_clusters}
    graph = _CARD.format(name=target.stem, card=card, **values)
    write_text_atomically(target.with_name(f"{target.stem}_card.md"), graph)
    return difference


def _scores(source: Path, stored: StoredSegmenter) -> str:
    """Scores of the checkpoint's evaluation, if there is one of these clusters, of the maps that the graph has."""
    if stored.class_map is None or not evaluation_file(source).is_file():
        return "no evaluation beside the checkpoint"
    evaluation = json.loads(evaluation_file(source).read_text(encoding="utf-8"))
    if "scores" not in evaluation or not probe_entry(stored.tensors).items() <= evaluation.items():
        return "no evaluation of these clusters beside the checkpoint"
    scores = {name: evaluation["scores"][name]["published"] for name in OUTPUTS}
    return "; ".join(f"{name} {s['mIoU']:.1f} mIoU, {s['accuracy']:.1f} % accuracy" for name, s in scores.items())


def _export_program(maps: nn.Module, patch_size: int) -> torch.export.ExportedProgram:
    height, width = (patch_size * torch.export.Dim(name) for name in ("rows", "columns"))
    # Neither the pre-training size nor a square: torch.export would specialise the graph for such an example.
    example = torch.zeros(2, 3, 8 * patch_size, 12 * patch_size)
    dims = {0: torch.export.Dim("batch"), 2: height, 3: width}
    with torch.no_grad():
        return torch.export.export(maps, (example,), dynamic_shapes={"img": dims})


Run = Callable[[Tensor], list[Tensor]]


def _write_torch(program: torch.export.ExportedProgram, path: Path, class_map: str | None) -> Run:
    torch.export.save(program, path, extra_files={"class_map.json": class_map} if class_map else None)
    module = torch.export.load(path).module()
    return lambda img: list(module(img))


def _write_onnx(program: torch.export.ExportedProgram, path: Path, class_map: str | None) -> Run:
    import onnxruntime

    # The outputs need a suffix: exported graphs name nodes after operators, and "linear" is an operator.
    names = [f"{name}_log_probs" for name in OUTPUTS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's exporter calls what torch itself has replaced
        onnx_program: Any = torch.onnx.export(program, dynamo=True, output_names=names, verbose=False)
    if class_map:
        onnx_program.model.metadata_props["class_map"] = class_map
    onnx_program.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda img: [torch.from_numpy(np.asarray(out)) for out in session.run(None, {"img": img.numpy()})]


def _difference(maps: nn.Module, run: Run, size: tuple[int, int, int]) -> float:
    batch, height, width = size
    img = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pairs = zip(maps(img), run(img), strict=True)
        return max(float((ours - theirs).abs().max()) for ours, theirs in pairs)
