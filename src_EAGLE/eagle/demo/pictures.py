"""What the page shows and what a visitor downloads: values of Gradio's components, with pictures as data URLs.

Gradio would write pictures to files and serve them; data URLs need neither files nor a route.
"""

import base64
import io
import json
import re
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from eagle.data.labels import NO_CLASS, VOID_COLOR
from eagle.inference.segmentation import Segmentation

# Longest side of the picture on the page, and of one in a gallery; downloads have the photograph's own size.
SHOWN_SIDE, GALLERY_SIDE = 1280, 640
LONGEST_NAME = 80
FIGURE_SPACE = "\u2007"  # as wide as a digit


def segments(result: Segmentation, names: Mapping[int, str]) -> list[dict[str, Any]]:
    """Id, name, ``#rrggbb`` colour and share of the pixels of each class in a photograph, largest first.

    Args:
        result: the segmentation.
        names: the visitor's names by class id; classes without one keep theirs.
    """
    listed = []
    for name, share in result.shares().items():
        i = result.names.index(name) if name in result.names else NO_CLASS
        color = VOID_COLOR if i == NO_CLASS else result.palette[i].tolist()
        named = names.get(i) or name
        listed.append({"id": i, "name": named, "color": "#{:02x}{:02x}{:02x}".format(*color), "share": share})
    return listed


def annotated(result: Segmentation, names: Mapping[int, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Value and colours by label of an AnnotatedImage: the photograph with outlines, and a mask per class.

    Its longest side is SHOWN_SIDE. Labels are ``SHARE NAME`` with shares of equal width.
    """
    photograph = ImageOps.contain(result.photograph, (SHOWN_SIDE, SHOWN_SIDE))
    ids = Image.fromarray(result.ids.astype(np.int32)).resize(photograph.size, Image.Resampling.NEAREST)
    small = replace(result, photograph=photograph, ids=np.asarray(ids))
    annotations, colors = [], {}
    for segment in segments(result, names):
        share = "<0.1%" if segment["share"] < 0.001 else f"{segment['share']:.1%}"
        label = f"{share.rjust(5, FIGURE_SPACE)}  {segment['name']}"
        # Gradio appends an opacity, which would make the colour of the list paler than the picture's.
        colors[label] = f"{segment['color']}; --unused: #"
        mask = _mask(small.ids == segment["id"], segment["color"])
        annotations.append({"image": {"path": "", "url": mask}, "label": label})
    return {"image": {"path": "", "url": data_url(small.overlay(0), "jpeg")}, "annotations": annotations}, colors


def gallery(pictures: list[tuple[str, Image.Image]]) -> list[dict[str, Any]]:
    """Value of a Gallery from captions and pictures; those of one pixel per patch are enlarged without smoothing."""
    values = []
    for title, picture in pictures:
        scale = GALLERY_SIDE // max(picture.size)
        if scale > 1:
            shown = ImageOps.scale(picture, scale, Image.Resampling.NEAREST)
        else:
            shown = _shrunk(picture, GALLERY_SIDE)
        values.append({"image": {"url": data_url(shown)}, "caption": title})
    return values


def parcel(result: Segmentation, names: Mapping[int, str], opacity: float, lines: Sequence[str]) -> dict[str, str]:
    """The zip of masks in the photograph's size, ``NAME_segments.json`` and names, as its file name and a data URL.

    Args:
        result: the segmentation.
        names: the visitor's names by class id; classes without one keep theirs.
        opacity: of the colours in the overlay, 0 to 1.
        lines: of ``names.txt``, which ``cluster_names`` takes; without any, there is no such file.
    """
    name = file_name(result.name)
    described = {
        "photograph": result.name, "size": list(result.photograph.size), "segments": segments(result, names),
    }  # fmt: skip
    buffer = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(buffer, "w") as archive:
        for path in result.save(folder, name, opacity=min(1.0, max(0.0, opacity))).values():
            archive.write(path, path.name)
        archive.writestr(f"{name}_segments.json", json.dumps(described, indent=2, ensure_ascii=False) + "\n")
        if lines:
            archive.writestr("names.txt", "".join(f"{line}\n" for line in lines))
    content = base64.b64encode(buffer.getvalue()).decode()
    return {"name": f"{name}_masks.zip", "url": f"data:application/zip;base64,{content}"}


def one_line_name(text: str) -> str:
    """A visitor's name of a cluster: one line of at most LONGEST_NAME characters."""
    return " ".join(text.split())[:LONGEST_NAME].strip()


def file_name(name: str) -> str:
    """A visitor's file name without what some systems do not allow; never empty."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._")[:LONGEST_NAME] or "photograph"


def data_url(image: Image.Image, kind: str = "png", **options: Any) -> str:
    """An image as a ``data:`` URL, in PNG or JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _mask(where: np.ndarray, color: str) -> str:
    """One colour where H×W bool is true, transparent elsewhere."""
    mask = Image.fromarray(where.astype(np.uint8), "P")
    mask.putpalette(bytes(3) + bytes.fromhex(color[1:]))
    return data_url(mask, transparency=0, bits=1)


def _shrunk(picture: Image.Image, side: int) -> Image.Image:
    shrunk = picture.copy()
    shrunk.thumbnail((side, side))
    return shrunk
