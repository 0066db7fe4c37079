"""Textures of the mosaics: regions of the photographs shipped with scikit-image and scikit-learn.

The boxes were chosen by eye so that all their pixels show the named class. Train and val boxes of a photograph never
overlap. Brick, grass and gravel are grey photographs; a natural tint stops the lack of colour identifying them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from eagle.data.bundled import SKIMAGE, SKLEARN, bundled_file

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Source:
    """Boxes (left, top, right, bottom; pixels) of a photograph that show one class, by split."""

    package: str
    file: str
    train: tuple[Box, ...]
    val: tuple[Box, ...]

    def boxes(self, split: str) -> tuple[Box, ...]:
        """The boxes of ``split``, train or val."""
        return self.train if split == "train" else self.val


@dataclass(frozen=True)
class MosaicClass:
    """A texture class and where it may appear in a scene.

    Attributes:
        name: class name.
        sources: photographs that show the class.
        place: ``above`` or ``below`` the horizon, or ``object`` for classes that only fill silhouettes.
        silhouette: whether the class may fill a silhouette.
        tint: factors for red, green and blue, for grey photographs.
    """

    name: str
    sources: tuple[Source, ...]
    place: str
    silhouette: bool = False
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)


CLASSES = (
    MosaicClass(
        "sky",
        (
            Source(SKLEARN, "china.jpg", train=((335, 0, 560, 125),), val=((0, 0, 90, 135),)),
            Source(SKIMAGE, "rocket.jpg", train=((210, 5, 300, 320),), val=((345, 5, 435, 320),)),
        ),
        place="above",
    ),
    MosaicClass(
        "stars",
        (Source(SKIMAGE, "hubble_deep_field.jpg", train=((0, 0, 590, 872),), val=((610, 0, 1000, 872),)),),
        place="above",
    ),
    MosaicClass(
        "foliage",
        (
            Source(
                SKLEARN,
                "china.jpg",
                train=((412, 340, 482, 427), (100, 370, 200, 427)),
                val=((488, 315, 555, 427), (0, 330, 60, 425)),
            ),
        ),
        place="above",
        silhouette=True,
    ),
    MosaicClass(
        "grass",
        (Source(SKIMAGE, "grass.png", train=((0, 0, 512, 330),), val=((0, 345, 512, 512),)),),
        place="below",
        tint=(0.70, 0.95, 0.42),
    ),
    MosaicClass(
        "gravel",
        (Source(SKIMAGE, "gravel.png", train=((0, 0, 512, 330),), val=((0, 345, 512, 512),)),),
        place="below",
        tint=(1.0, 0.95, 0.88),
    ),
    MosaicClass(
        "brick",
        (Source(SKIMAGE, "brick.png", train=((0, 0, 512, 330),), val=((0, 345, 512, 512),)),),
        place="below",
        silhouette=True,
        tint=(1.35, 0.80, 0.66),
    ),
    MosaicClass(
        "wood",
        (
            Source(
                SKIMAGE,
                "coffee.png",
                train=((485, 80, 600, 400), (430, 0, 600, 75)),
                val=((0, 120, 75, 395),),
            ),
        ),
        place="below",
        silhouette=True,
    ),
    MosaicClass(
        "fur",
        (
            Source(
                SKIMAGE,
                "chelsea.png",
                train=((120, 0, 300, 80), (218, 80, 288, 190)),
                val=((55, 105, 130, 158), (100, 160, 212, 215)),
            ),
        ),
        place="object",
        silhouette=True,
    ),
    MosaicClass(
        "petals",
        (Source(SKLEARN, "flower.jpg", train=((200, 150, 302, 310),), val=((308, 150, 400, 300),)),),
        place="object",
        silhouette=True,
    ),
    MosaicClass(
        "cloth",
        (
            Source(
                SKIMAGE,
                "astronaut.png",
                train=((62, 258, 122, 335), (45, 395, 125, 485)),
                val=((150, 300, 222, 345), (290, 275, 345, 335)),
            ),
        ),
        place="object",
        silhouette=True,
    ),
)

Textures = Sequence[Sequence[np.ndarray]]


def load_textures(split: str) -> Textures:
    """Load the texture crops of every class for one split.

    Args:
        split: ``train`` or ``val``.

    Returns:
        One list per class of ``CLASSES``: tinted RGB crops, float32 h×w×3 in [0, 1].

    Raises:
        DataError: an installed package lacks one of its photographs.
    """
    return [
        [
            np.clip(crop * np.array(entry.tint, np.float32), 0, 1)
            for source in entry.sources
            for crop in _crops(source, source.boxes(split))
        ]
        for entry in CLASSES
    ]


def _crops(source: Source, boxes: Sequence[Box]) -> list[np.ndarray]:
    with Image.open(bundled_file(source.package, source.file)) as image:
        photograph = image.convert("RGB")
    return [np.asarray(photograph.crop(box), dtype=np.float32) / 255 for box in boxes]
