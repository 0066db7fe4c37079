"""The zip that a visitor downloads: masks in the photograph's size, and their names, colours and shares as JSON."""

import io
import json
import re
import tempfile
import zipfile
from collections.abc import Mapping
from typing import Any

from eagle.demo.answers import segments
from eagle.inference.segmentation import Segmentation

LONGEST_NAME = 80


def parcel(result: Segmentation, names: Mapping[int, str], opacity: float) -> bytes:
    """Zip ``NAME_ids.png``, ``NAME_color.png``, ``NAME_overlay.png`` and ``NAME_segments.json``.

    Args:
        result: the segmentation.
        names: the visitor's names by class id; classes without one keep theirs.
        opacity: of the colours in the overlay, 0 to 1.
    """
    name = file_name(result.name)
    width, height = result.photograph.size
    described = {"photograph": result.name, "size": [width, height], "segments": renamed(segments(result), names)}
    buffer = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(buffer, "w") as archive:
        for path in result.save(folder, name, opacity=min(1.0, max(0.0, opacity))).values():
            archive.write(path, path.name)
        archive.writestr(f"{name}_segments.json", json.dumps(described, indent=2, ensure_ascii=False) + "\n")
    return buffer.getvalue()


def renamed(listed: list[dict[str, Any]], names: Mapping[int, str]) -> list[dict[str, Any]]:
    """Segments under the visitor's names: one line each, of at most LONGEST_NAME characters; an empty one is none."""
    given = {i: " ".join(name.split())[:LONGEST_NAME] for i, name in names.items()}
    return [{**segment, "name": given.get(segment["id"]) or segment["name"]} for segment in listed]


def file_name(name: str) -> str:
    """A visitor's file name without what some systems do not allow; never empty."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._")[:LONGEST_NAME] or "photograph"
