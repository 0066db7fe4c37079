"""Names, colours and images of label maps: class maps, palettes, id images and overlays."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage.measure import label

from eagle.data.datasets.base import VOID, Classes, name_lines
from eagle.errors import DataError
from eagle.files import written_atomically

NO_CLASS = -1
NO_CLASS_NAME = "no class"
# Largest number of ids in 8 and 16 bits per pixel; the highest value marks pixels without a class.
MOST_BYTE_IDS, MOST_IDS = 255, 65535
OVERLAY_OPACITY = 0.5
# Largest share of an image of a region that gets no outline.
SPECK = 5e-4
VOID_COLOR = (0, 0, 0)

# 255 colours, dark blue and orange first. Of a grid of moderately light and saturated colours, each next one has the
# largest CIEDE2000 distance to black and to the colours before it: the smallest of those in normal vision and in
# simulated protanopia, deuteranopia and tritanopia (Machado, Oliveira and Fernandes 2009).
_COLORS = bytes.fromhex(
    "0072b2e69f0000eeddaa4444aa99ffbbcc99449999774466bb6611ff3377eedd66008866eeaabbaaccff6655005577ffee77bb00bb99"
    "ee7755bb2299669977ddbb669977cc006633cc4488dd115599eebb0055ccbb880066aacc77ccbbbb0011bbaa77993355990088aaee99"
    "00aa44aa0033337766ff66999966339977aa6666dd66ccddcccc22bbaaee8888ff44aa999955777799ddbb5566447755aabb44cc0077"
    "ee7788cc668899ccaaddaaccaa550077883355dd77ee88aaaa1177996699ee5544555522556699bb88aaaa4488ffccee55dddd007788"
    "aa44aadd776644664466aa888822aa88eeccccaa66bb77bbbb223399bb880066cccc6633bb9922dd88ccdd55aa55996644bbdd66eeff"
    "1177442255883388882266555588ddaaddaabb7700ffbb55bb44665577bbcc6666dd4455ddcc8899ddbb77bbaacc996644aa776677dd"
    "558855aaaaffdd66999933229988ccccbbeeff994444cc9988ddcc338844cc88eecc8888ccdd33ff5577bb554499226688bb11aabbff"
    "55aabb9966cc88cc88cc3377dddd7744aaee9977eecc99dd665599dd77aaee99994444bb885522997722ffbbeeaa55bb88aa55ee8855"
    "ffaa55bbdd99aa33449999661155aa8855bbaa00009966ee77339977cc77776633aa55aaaa9933ddcc66aa7733992255ee88bbdd8844"
    "9988ee00ee8800cccc9977bb44dd9999117700ddbb886611889922bb2255664488bb6677994477ffccffff99cc00bbbbcc2244885599"
    "229944ccbb11bb66888888bbbb7799ff6677ee66cc88eeaa66bbeedd4488aa5555aa0044ccbb883355bbdd4499ff4499cc6677ffaa77"
    "ee99aa338877888855007722aa22aa99cc66ffcc55bb4488006600bb3366dd22669977dd99aa665566ee55aaff7766cc3388ffcc55aa"
    "88ee77aa2244ee9933eebb44dd665511bb44dd770055aaaa44bb7777cccc33ccffbb0055888844992288556633ddddaa667733cc9933"
    "0099ff1166aa009977cc3355bbaadd66aa117755ddff336655eeee779955bb88dd337700cc112288eeddccbb556677cc88446600ccbb"
    "6655bbaaee664499cc"
)


@dataclass(frozen=True)
class ClassMap:
    """Classes and, by name of each scored map ("linear", "cluster+crf", …), a class id per cluster, −1 for no class."""

    classes: Classes
    assignments: dict[str, list[int]] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        """Plain data for JSON and YAML: ``classes`` (a list of name and RGB color) and ``assignments``."""
        colors = self.classes.palette.tolist()
        named = [{"name": name, "color": color} for name, color in zip(self.classes.names, colors, strict=True)]
        return {"classes": named, "assignments": self.assignments}


def class_map_from_plain(plain: Mapping[str, Any]) -> ClassMap:
    """The inverse of ``ClassMap.to_plain``.

    Raises:
        KeyError, TypeError, ValueError: the data has another structure, a colour is invalid, or a cluster is assigned
            to a class that does not exist.
    """
    names = tuple(str(entry["name"]) for entry in plain["classes"])
    colors = np.array([entry["color"] for entry in plain["classes"]], dtype=int).reshape(len(names), 3)
    if colors.size and not 0 <= colors.min() <= colors.max() <= 255:
        raise ValueError("classes: a colour is not three numbers from 0 to 255")
    assignments = {str(name): [int(i) for i in classes] for name, classes in dict(plain["assignments"]).items()}
    for name, classes in assignments.items():
        if any(not NO_CLASS <= i < len(names) for i in classes):
            raise ValueError(f"assignments of {name}: a class id is not from {NO_CLASS} to {len(names) - 1}")
    return ClassMap(Classes(names, colors.astype(np.uint8)), assignments)


def numbered_clusters(n_clusters: int) -> Classes:
    """Placeholder classes for unmatched clusters: ``cluster 0``, ``cluster 1``, …, each with a distinct colour."""
    return Classes(tuple(f"cluster {i}" for i in range(n_clusters)), distinct_palette(n_clusters))


def named_clusters(path: Path, map_name: str, n_clusters: int) -> ClassMap:
    """Read the class map of ``map_name`` from a UTF-8 text file with one class name per cluster, one a line.

    Equal names are one class; an empty line, or ``no class``, is a cluster without a class. Class ids follow first
    appearance.

    Raises:
        DataError: the file cannot be read, contains no name, or has another number of lines.
    """
    lines = ["" if line == NO_CLASS_NAME else line for line in name_lines(path)]
    if len(lines) != n_clusters:
        raise DataError(
            f"{path}: {len(lines)} lines for {n_clusters} clusters; write one line each, empty for no class"
        )
    names = tuple(dict.fromkeys(line for line in lines if line))
    if not names:
        raise DataError(f"{path}: contains no class name; write one line per cluster")
    assignment = [names.index(line) if line else NO_CLASS for line in lines]
    return ClassMap(Classes(names, distinct_palette(len(names))), {map_name: assignment})


def distinct_palette(n: int) -> np.ndarray:
    """n×3 uint8 RGB colours that differ from each other and from void in normal and colour-blind vision.

    A longer palette starts with the shorter one. About a dozen colours are easy to distinguish; after 255 they repeat.
    """
    return np.resize(np.frombuffer(_COLORS, dtype=np.uint8).reshape(-1, 3), (n, 3))


def colored(ids: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Colour H×W class ids as H×W×3 uint8; void (−1) is black."""
    table = np.vstack([palette, VOID_COLOR]).astype(np.uint8)
    return table[np.where(ids == VOID, len(palette), ids)]


def write_ids(path: Path, ids: np.ndarray, n_ids: int) -> None:
    """Write H×W ids in [0, n_ids) as a greyscale PNG: 8 bits for up to 255 ids, else 16 bits, so all images share it.

    −1 (no class) is written as the highest value, 255 or 65535.
    """
    write_image(path, _id_image(ids, n_ids))


def colored_image(ids: np.ndarray, palette: np.ndarray) -> Image.Image:
    """H×W ids (−1 for no class) in the colours of an n×3 palette.

    Up to 255 ids become a palette image, whose indices are the ids. More become an RGB image.
    """
    if len(palette) > MOST_BYTE_IDS:
        return Image.fromarray(colored(ids, palette))
    image = _id_image(ids, len(palette))
    image.putpalette(np.pad(palette, ((0, 256 - len(palette)), (0, 0))).astype(np.uint8).tobytes())
    return image


def write_image(path: Path, pixels: np.ndarray | Image.Image) -> None:
    """Write an image, or H×W or H×W×3 uint8 pixels, atomically."""
    with written_atomically(path) as temporary:
        (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(temporary)


def overlay(
    photograph: Image.Image, ids: np.ndarray, palette: np.ndarray, opacity: float = OVERLAY_OPACITY
) -> np.ndarray:
    """Blend class colours over a photograph, with opaque outlines in the same colours; H×W×3 uint8."""
    colors = colored(ids, palette)
    pixels, borders = np.array(Image.blend(photograph, Image.fromarray(colors), opacity)), _borders(ids)
    pixels[borders] = colors[borders]
    return pixels


def id_type(n_ids: int) -> type[np.uint8] | type[np.uint16]:
    """Integer type that stores ``n_ids`` ids; raises DataError if there are more than 65535."""
    if n_ids > MOST_IDS:
        raise DataError(f"{n_ids} classes or clusters: a label map holds at most {MOST_IDS}")
    return np.uint8 if n_ids <= MOST_BYTE_IDS else np.uint16


def _id_image(ids: np.ndarray, n_ids: int) -> Image.Image:
    kind = id_type(n_ids)
    stored = ids.astype(kind)
    stored[ids == NO_CLASS] = np.iinfo(kind).max
    return Image.fromarray(stored)


def _borders(ids: np.ndarray) -> np.ndarray:
    """Mask of the pixels at borders between classes, H×W bool; wider in larger images, none around specks."""
    regions = label(ids, background=NO_CLASS - 1, connectivity=1)
    large = np.bincount(regions.ravel())[regions] >= SPECK * ids.size
    borders = np.zeros(ids.shape, dtype=bool)
    reach = max(1, round(min(ids.shape) / 500))
    for axis in (0, 1):
        here, there = (np.moveaxis(part, axis, 0) for part in (ids, large))
        differ = (here[reach:] != here[:-reach]) & there[reach:] & there[:-reach]
        edges = np.moveaxis(borders, axis, 0)  # a view
        edges[:-reach] |= differ
        edges[reach:] |= differ
    return borders
