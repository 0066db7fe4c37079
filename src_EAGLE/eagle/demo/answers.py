"""What the page shows of a result, as plain values: pictures as data URLs, ids as compressed numbers."""

import base64
import io
import zlib
from typing import Any

import numpy as np
from PIL import Image

from eagle.data.labels import NO_CLASS, VOID_COLOR, colored, distinct_palette
from eagle.figures.grids import eigenvector_colors
from eagle.inference.decomposition import Decomposition
from eagle.inference.masks import shares_by_id
from eagle.inference.segmentation import Segmentation

# Longest side of the picture on the page, and beside eigenvectors; downloads have the photograph's own size.
SHOWN_SIDE = 1440
SMALL_SIDE = 640
NO_CLASS_CODE = 65535


def data_url(image: Image.Image, kind: str = "png") -> str:
    """An image as a ``data:`` URL, in PNG or JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 88} if kind == "jpeg" else {}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def segments(result: Segmentation) -> list[dict[str, Any]]:
    """Id, name, ``#rrggbb`` colour and share of the pixels of each class in a photograph, largest first."""
    return [
        {
            "id": i,
            "name": result.legend.name(i),
            "color": _hexadecimal(VOID_COLOR if i == NO_CLASS else result.palette[i].tolist()),
            "share": share,
        }
        for i, share in shares_by_id(result.ids).items()
    ]


def shown_segmentation(result: Segmentation) -> dict[str, Any]:
    """A segmentation as the page's script draws it.

    Returns:
        ``photograph``: JPEG as data URL, at most SHOWN_SIDE wide and high; ``width``, ``height``: its size;
        ``ids``: base64 of its deflated uint16 ids, 65535 for no class; ``classes``: see ``segments``; ``name``.
    """
    photograph = _shrunk(result.photograph, SHOWN_SIDE)
    width, height = photograph.size
    rows, columns = (
        ((np.arange(n) + 0.5) * old / n).astype(int) for n, old in zip((height, width), result.ids.shape, strict=True)
    )
    ids = result.ids[rows[:, None], columns]
    codes = np.where(ids == NO_CLASS, NO_CLASS_CODE, ids).astype("<u2")
    packed = base64.b64encode(zlib.compress(codes.tobytes())).decode()
    return {
        "photograph": data_url(photograph, "jpeg"),
        "width": width,
        "height": height,
        "ids": packed,
        "classes": segments(result),
        "name": result.name,
    }


def eigenvector_pictures(photograph: Image.Image, decomposition: Decomposition) -> list[dict[str, Any]]:
    """Title and picture of the photograph and of each eigenvector, one pixel per patch."""
    vectors = enumerate(decomposition.eigenvectors, start=1)
    return [_photograph(photograph), *(_picture(f"Eigenvector {n}", eigenvector_colors(v)) for n, v in vectors)]


def cue_pictures(photograph: Image.Image, decomposition: Decomposition) -> list[dict[str, Any]]:
    """Title and picture of the photograph, EiCue and k-means of the keys, the maps with one pixel per patch."""
    cue, kmeans = decomposition.cue, decomposition.kmeans
    palette = distinct_palette(1 + int(max(cue.max(), kmeans.max())))
    return [
        _photograph(photograph),
        _picture(f"EiCue, {int(cue.max()) + 1} labels", colored(cue, palette)),
        _picture("k-means of the keys, for comparison", colored(kmeans, palette)),
    ]


def _photograph(photograph: Image.Image) -> dict[str, Any]:
    return {"title": "Photograph", "picture": data_url(_shrunk(photograph, SMALL_SIDE), "jpeg")}


def _shrunk(photograph: Image.Image, side: int) -> Image.Image:
    shrunk = photograph.copy()
    shrunk.thumbnail((side, side))
    return shrunk


def _picture(title: str, colors: np.ndarray) -> dict[str, Any]:
    return {"title": title, "picture": data_url(Image.fromarray(colors))}


def _hexadecimal(color: Any) -> str:
    return "#" + "".join(f"{value:02x}" for value in color)
