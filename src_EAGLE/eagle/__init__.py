"""EAGLE: eigen aggregation learning for object-centric unsupervised semantic segmentation (CVPR 2024).

The names below are the public interface. Each is imported on first use, so that ``import eagle`` is fast.

>>> import eagle
>>> sorted(eagle.__all__)[:3]
['ClusterLookup', 'CorrespondenceLoss', 'LitUnsupervisedSegmenter']
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if sys.platform == "win32":
    raise SystemExit("error: EAGLE runs on Linux and macOS; on Windows, run it in WSL (wsl --install)")

if TYPE_CHECKING:
    from eagle.commands.runs import train as train
    from eagle.evaluation.metrics import UnsupervisedMetrics as UnsupervisedMetrics
    from eagle.inference.segmentation import Segmentation as Segmentation
    from eagle.inference.segmenter import Segmenter as Segmenter
    from eagle.inference.segmenter import load_segmenter as load_segmenter
    from eagle.losses.correspondence import CorrespondenceLoss as CorrespondenceLoss
    from eagle.losses.object_nce import ObjectNCELoss as ObjectNCELoss
    from eagle.maps.crf.dense_crf import dense_crf as dense_crf
    from eagle.models.backbone import build_backbone as build_backbone
    from eagle.models.head import SegmentationHead as SegmentationHead
    from eagle.models.probes import ClusterLookup as ClusterLookup
    from eagle.segmenter import LitUnsupervisedSegmenter as LitUnsupervisedSegmenter
    from eagle.spectral.affinity import color_affinity as color_affinity
    from eagle.spectral.affinity import feature_affinity as feature_affinity
    from eagle.spectral.eicue import eicue as eicue
    from eagle.spectral.eicue import laplacian_eigenvectors as laplacian_eigenvectors
    from eagle.spectral.eigensolver import smallest_eigenpairs as smallest_eigenpairs
    from eagle.spectral.laplacian import normalized_laplacian as normalized_laplacian

_MODULE_OF = {
    "train": "commands.runs",
    "load_segmenter": "inference.segmenter",
    "Segmenter": "inference.segmenter",
    "Segmentation": "inference.segmentation",
    "LitUnsupervisedSegmenter": "segmenter",
    "build_backbone": "models.backbone",
    "SegmentationHead": "models.head",
    "ClusterLookup": "models.probes",
    "feature_affinity": "spectral.affinity",
    "color_affinity": "spectral.affinity",
    "normalized_laplacian": "spectral.laplacian",
    "smallest_eigenpairs": "spectral.eigensolver",
    "laplacian_eigenvectors": "spectral.eicue",
    "eicue": "spectral.eicue",
    "CorrespondenceLoss": "losses.correspondence",
    "ObjectNCELoss": "losses.object_nce",
    "UnsupervisedMetrics": "evaluation.metrics",
    "dense_crf": "maps.crf.dense_crf",
}
__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULE_OF[name]}")  # noqa: TID251 names of the table above only
    return getattr(module, name)


def __dir__() -> list[str]:
    """The public names, for completion."""
    return sorted(__all__)
