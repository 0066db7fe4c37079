"""Pictures of the report as data URIs: images with their maps, and example windows of clusters."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from eagle.data.labels import colored, overlay
from eagle.data.loading.transforms import unnormalize
from eagle.data.loading.views import EvaluationViews
from eagle.evaluation.cluster_examples import ClusterExample
from eagle.evaluation.image_results import ImageResult

# Pictures are shrunk until their longer side has this many pixels.
MOST_PIXELS = 560
EXAMPLE_PIXELS = 96
_JPEG: dict[str, Any] = {"format": "JPEG", "quality": 85, "subsampling": 0}


@dataclass(frozen=True)
class Panel:
    """One picture: its title, size in pixels and data URI."""

    title: str
    width: int
    height: int
    uri: str


@dataclass(frozen=True)
class ShownImage:
    """An image beside its label and its prediction.

    Attributes:
        name: the file's stem.
        accuracy: percent.
        panels: image, label, prediction, overlay.
        ids: class ids in label and prediction, ascending, with −1 (void or no class) last.
    """

    name: str
    accuracy: float
    panels: list[Panel]
    ids: list[int]


def shown_image(
    views: EvaluationViews, result: ImageResult, accuracy: float, class_of_cluster: np.ndarray
) -> ShownImage:
    """Read an evaluated image again and draw it with its label and the scored prediction."""
    sample = views[result.index]
    palette = views.dataset.classes.palette
    photograph = _photograph(sample["img"])
    label, predicted = sample["label"].numpy(), class_of_cluster[result.clusters()]
    ids = np.unique([*np.unique(label), *np.unique(predicted)]).tolist()
    shrink = min(1.0, MOST_PIXELS / max(photograph.size))
    size = (max(1, round(photograph.width * shrink)), max(1, round(photograph.height * shrink)))
    photograph = photograph.resize(size, Image.Resampling.LANCZOS)
    label, predicted = (
        np.asarray(Image.fromarray(part.astype(np.int32)).resize(size, Image.Resampling.NEAREST))
        for part in (label, predicted)
    )
    panels = [
        Panel("image", *size, data_uri(photograph, **_JPEG)),
        Panel("label", *size, _map_uri(label, palette)),
        Panel("prediction", *size, _map_uri(predicted, palette)),
        Panel("overlay", *size, data_uri(Image.fromarray(overlay(photograph, predicted, palette)), **_JPEG)),
    ]
    return ShownImage(views.dataset.name(result.index), accuracy, panels, ids[1:] + ids[:1] if ids[0] < 0 else ids)


def example_windows(views: EvaluationViews, examples: Sequence[ClusterExample]) -> Mapping[int, list[str]]:
    """Example windows as data URIs, by cluster; clusters without examples are missing."""
    windows: dict[int, list[str]] = {}
    for example in examples:
        box = (example.left, example.top, example.left + example.side, example.top + example.side)
        crop = _photograph(views[example.index]["img"]).crop(box)
        crop = crop.resize((EXAMPLE_PIXELS, EXAMPLE_PIXELS), Image.Resampling.LANCZOS)
        windows.setdefault(example.cluster, []).append(data_uri(crop, **_JPEG))
    return windows


def data_uri(image: Image.Image, **options: Any) -> str:
    """Encode an image as a ``data:`` URI; options as for PIL's ``save``."""
    file = io.BytesIO()
    image.save(file, **options)
    return f"data:image/{options['format'].lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def _photograph(img: Any) -> Image.Image:
    """Convert a normalised 3×H×W tensor back to an RGB picture."""
    pixels = (unnormalize(img).clamp(0, 1) * 255).round().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def _map_uri(ids: np.ndarray, palette: np.ndarray) -> str:
    """Colour a label map; lossless, so that every colour stays a class colour."""
    return data_uri(Image.fromarray(colored(ids, palette)), format="PNG", optimize=True)
