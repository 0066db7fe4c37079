"""Write the ``mosaics`` dataset: labelled scenes made from photographs in installed packages; no download.

A scene has a background of smooth regions and one to three silhouettes, all filled with photographic textures. The
folder has the layout of a ``directory`` dataset: ``imgs/{train,val}/00000.jpg``, ``labels/{train,val}/00000.png``
(class ids, uint8), ``classes.txt`` (line = id), and ``mosaics.json``, which records the parameters.
"""

import json
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from PIL import Image
from scipy.ndimage import gaussian_filter, zoom
from skimage.transform import AffineTransform, warp
from tqdm import tqdm

from eagle.config.application import run_command
from eagle.config.schema import option
from eagle.data.named_files import SKIMAGE, SKLEARN, bundled_file
from eagle.downloads.archives import staged
from eagle.errors import DataError
from eagle.files import default_folder

MANIFEST = "mosaics.json"
# Increase on every change that alters pixels; existing sets of another version are refused.
GENERATOR_VERSION = 1
# Smallest share of a scene's pixels that each of its classes must have.
MIN_SHARE = 0.01
_SPLITS = ("train", "val")

# Left, top, right, bottom; pixels.
Box = tuple[int, int, int, int]
Textures = Sequence[Sequence[np.ndarray]]

logger = logging.getLogger("eagle.make_mosaics")


@dataclass
class MosaicsConfig:
    """Every key of ``make_mosaics.py``."""

    output_dir: str = option(default_folder("datasets/mosaics"), "Output folder", path=True)
    n_train: int = option(160, "Number of training scenes", minimum=0)
    n_val: int = option(40, "Number of validation scenes", minimum=0)
    size: int = option(256, "Side of a scene in pixels", minimum=32)
    seed: int = option(0, "Random seed; equal seeds give equal files", minimum=0)


@dataclass(frozen=True)
class Source:
    """Boxes of a photograph that show one class, by split.

    They were chosen by eye so that all their pixels show the class. Train and val boxes of a photograph never overlap.
    """

    package: str
    file: str
    train: tuple[Box, ...]
    val: tuple[Box, ...]

    def crops(self, split: str) -> list[np.ndarray]:
        """RGB crops, float32 h×w×3 in [0, 1], of ``split``, train or val."""
        with Image.open(bundled_file(self.package, self.file)) as image:
            photograph = image.convert("RGB")
        boxes = self.train if split == "train" else self.val
        return [np.asarray(photograph.crop(box), dtype=np.float32) / 255 for box in boxes]


@dataclass(frozen=True)
class MosaicClass:
    """A texture class and where it may appear in a scene.

    Attributes:
        name: class name.
        place: ``above`` or ``below`` the horizon, or ``object`` for classes that only fill silhouettes.
        sources: photographs that show the class.
        silhouette: whether the class may fill a silhouette.
        tint: factors for red, green and blue. Brick, grass and gravel are grey photographs; a natural tint stops the
            lack of colour identifying them.
    """

    name: str
    place: str
    sources: tuple[Source, ...]
    silhouette: bool = False
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)


def _grey(file: str) -> tuple[Source, ...]:
    return (Source(SKIMAGE, file, ((0, 0, 512, 330),), ((0, 345, 512, 512),)),)


_SKY = (
    Source(SKLEARN, "china.jpg", ((335, 0, 560, 125),), ((0, 0, 90, 135),)),
    Source(SKIMAGE, "rocket.jpg", ((210, 5, 300, 320),), ((345, 5, 435, 320),)),
)
_STARS = (Source(SKIMAGE, "hubble_deep_field.jpg", ((0, 0, 590, 872),), ((610, 0, 1000, 872),)),)
_FOLIAGE = (
    Source(
        SKLEARN,
        "china.jpg",
        ((412, 340, 482, 427), (100, 370, 200, 427)),
        ((488, 315, 555, 427), (0, 330, 60, 425)),
    ),
)
_WOOD = (Source(SKIMAGE, "coffee.png", ((485, 80, 600, 400), (430, 0, 600, 75)), ((0, 120, 75, 395),)),)
_FUR = (
    Source(
        SKIMAGE,
        "chelsea.png",
        ((120, 0, 300, 80), (218, 80, 288, 190)),
        ((55, 105, 130, 158), (100, 160, 212, 215)),
    ),
)
_PETALS = (Source(SKLEARN, "flower.jpg", ((200, 150, 302, 310),), ((308, 150, 400, 300),)),)
_CLOTH = (
    Source(
        SKIMAGE,
        "astronaut.png",
        ((62, 258, 122, 335), (45, 395, 125, 485)),
        ((150, 300, 222, 345), (290, 275, 345, 335)),
    ),
)
CLASSES = (
    MosaicClass("sky", "above", _SKY),
    MosaicClass("stars", "above", _STARS),
    MosaicClass("foliage", "above", _FOLIAGE, silhouette=True),
    MosaicClass("grass", "below", _grey("grass.png"), tint=(0.70, 0.95, 0.42)),
    MosaicClass("gravel", "below", _grey("gravel.png"), tint=(1.0, 0.95, 0.88)),
    MosaicClass("brick", "below", _grey("brick.png"), silhouette=True, tint=(1.35, 0.80, 0.66)),
    MosaicClass("wood", "below", _WOOD, silhouette=True),
    MosaicClass("fur", "object", _FUR, silhouette=True),
    MosaicClass("petals", "object", _PETALS, silhouette=True),
    MosaicClass("cloth", "object", _CLOTH, silhouette=True),
)
MOSAIC_CLASSES = tuple(entry.name for entry in CLASSES)


def make_mosaics(config: DictConfig) -> None:
    """Write labelled scenes for a first training run; an existing set with the same values is kept."""
    write_mosaics(Path(config.output_dir), config.n_train, config.n_val, config.size, config.seed)


def write_mosaics(directory: Path, n_train: int, n_val: int, size: int, seed: int) -> None:
    """Write the set; do nothing if ``directory`` already contains the same set.

    Scene i of a split depends only on ``seed``, the split and i, so a larger set starts with the smaller one. The
    folder gets its name only when it is complete.

    Args:
        directory: output folder; must not exist, be empty, or contain a set with the same parameters.
        n_train: number of training scenes.
        n_val: number of validation scenes.
        size: side of a scene in pixels.
        seed: random seed; equal seeds give equal files (with equal library versions).

    Raises:
        DataError: ``directory`` contains something else.
        EagleError: another process writes it.
    """
    values = {"generator": GENERATOR_VERSION, "n_train": n_train, "n_val": n_val, "size": size, "seed": seed}
    manifest, directory = json.dumps(values, indent=2) + "\n", Path(directory).resolve()
    if directory.exists() and any(directory.iterdir()):
        written = directory / MANIFEST
        if not written.is_file() or written.read_text(encoding="utf-8") != manifest:
            raise DataError(f"{directory}: contains other files, or mosaics of other values; choose another folder")
        logger.info("%s: up to date", directory)
        return
    with staged(directory) as unfinished:
        for split, count in zip(_SPLITS, (n_train, n_val), strict=True):
            _write_split(unfinished, split, count, size, seed)
        (unfinished / "classes.txt").write_text("\n".join(MOSAIC_CLASSES) + "\n", encoding="utf-8")
        (unfinished / MANIFEST).write_text(manifest, encoding="utf-8")
    logger.info("%s: %d training and %d validation scenes", directory, n_train, n_val)


def _write_split(directory: Path, split: str, count: int, size: int, seed: int) -> None:
    images, labels = directory / "imgs" / split, directory / "labels" / split
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    textures = load_textures(split)

    def write_scene(index: int) -> None:
        rng = np.random.default_rng((seed, _SPLITS.index(split), index))
        image, label = compose_scene(textures, size, rng)
        Image.fromarray(image).save(images / f"{index:05d}.jpg", quality=95)
        Image.fromarray(label).save(labels / f"{index:05d}.png")

    with ThreadPoolExecutor() as pool:  # NumPy, SciPy and Pillow release the GIL
        scenes = pool.map(write_scene, range(count))
        list(tqdm(scenes, f"mosaics {split}", count, unit="scene", disable=count == 0))


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
            for crop in source.crops(split)
        ]
        for entry in CLASSES
    ]


def compose_scene(textures: Textures, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Compose a scene of three to six classes; positions and lengths are fractions of its side.

    Args:
        textures: crops of each class, float32 h×w×3 in [0, 1], in the order of ``CLASSES``.
        size: side of the scene in pixels.
        rng: the only source of randomness.

    Returns:
        The image, uint8 size×size×3, and its class ids, uint8 size×size. A pixel's id is the class whose shape contains
        the pixel centre; the image is anti-aliased over about half a pixel.
    """
    labels = draw_layout(size, rng)
    image = np.zeros((size, size, 3), np.float32)
    for class_id in np.unique(labels):
        share = gaussian_filter((labels == class_id).astype(np.float32), 0.5)
        image += share[..., None] * _texture(textures[class_id], size, rng)
    image = _add_light_and_noise(image, rng)
    return np.round(image * 255).astype(np.uint8), labels


def draw_layout(size: int, rng: np.random.Generator) -> np.ndarray:
    """Class ids, uint8 size×size; each class of the scene covers at least ``MIN_SHARE`` of the pixels."""
    while True:  # in a few draws silhouettes hide a class
        labels, chosen = _draw_candidate(size, rng)
        shares = np.bincount(labels.ravel(), minlength=len(CLASSES)) / labels.size
        if shares[chosen].min() >= MIN_SHARE:
            return labels


def _draw_candidate(size: int, rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
    above = [class_id for class_id, entry in enumerate(CLASSES) if entry.place == "above"]
    below = [class_id for class_id, entry in enumerate(CLASSES) if entry.place == "below"]
    background = [int(rng.choice(above)), *map(int, rng.choice(below, rng.integers(1, 3), replace=False))]
    fillings = [class_id for class_id, entry in enumerate(CLASSES) if entry.silhouette and class_id not in background]
    objects = [int(class_id) for class_id in rng.choice(fillings, rng.integers(1, 4), replace=False)]

    labels = _background(background, size, rng)
    x, y = _pixel_centres(size)
    for class_id in objects:
        centre = rng.uniform(0.2, 0.8, 2)
        radius = rng.uniform(0.12, 0.24)
        silhouette = SILHOUETTES[rng.integers(len(SILHOUETTES))]
        labels[silhouette((x - centre[0]) / radius, (y - centre[1]) / radius, rng)] = class_id
    return labels, background + objects


def _background(classes: list[int], size: int, rng: np.random.Generator) -> np.ndarray:
    """Argmax over one smooth random field per class; a gradient favours the first class above the horizon."""
    _, y = _pixel_centres(size)
    horizon = rng.uniform(0.3, 0.6)
    fields = [_smooth_field(size, rng) for _ in classes]
    fields[0] += 8 * (horizon - y)
    return np.array(classes, np.uint8)[np.argmax(fields, axis=0)]


def _smooth_field(size: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian random field, size×size, of variance 1 at its nodes; correlation length about size / 4."""
    return zoom(rng.standard_normal((4, 4)), size / 4, order=3, mode="nearest", grid_mode=True)


def _blob(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Circle whose radius varies smoothly with the angle."""
    angle = np.arctan2(y, x)
    radius = np.ones_like(angle)
    for waves in range(2, 6):
        radius += rng.normal(0, 0.25 / waves) * np.cos(waves * angle + rng.uniform(0, 2 * np.pi))
    return np.hypot(x, y) <= radius


def _superellipse(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Randomly rotated shape between an ellipse and a box with round corners."""
    angle, aspect, power = rng.uniform(0, np.pi), rng.uniform(0.6, 1.0), rng.uniform(2.0, 6.0)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return np.abs(along) ** power + np.abs(across / aspect) ** power <= 1


def _stem_and_crown(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blob-shaped crown on an upright stem that widens downwards."""
    width = rng.uniform(0.12, 0.22)
    stem = (np.abs(x) <= width * (1 + 0.4 * y)) & (y >= 0) & (y <= 1.3)
    return _blob(x / 0.9, (y + 0.4) / 0.75, rng) | stem


SILHOUETTES: tuple[Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray], ...] = (
    _blob,
    _superellipse,
    _stem_and_crown,
)


def _texture(crops: Sequence[np.ndarray], size: int, rng: np.random.Generator) -> np.ndarray:
    """Random affine view of one crop, size×size×3, mirrored beyond its edges, with varied brightness and colour.

    It reads no pixels outside the crop, so training scenes never show a val crop.
    """
    crop = crops[int(rng.integers(len(crops)))]
    height, width = crop.shape[:2]
    flip = rng.choice([-1.0, 1.0])
    step = 1 / rng.uniform(0.9, 1.6)
    to_crop = (
        AffineTransform(translation=(-size / 2, -size / 2))
        + AffineTransform(scale=(flip * step, step), rotation=rng.uniform(-0.5, 0.5))
        + AffineTransform(translation=rng.uniform(0, 1, 2) * (width, height))
    )
    view = warp(crop, to_crop, output_shape=(size, size), order=1, mode="symmetric")
    return view * rng.uniform(0.85, 1.15) * rng.uniform(0.94, 1.06, 3)


def _add_light_and_noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply a linear light gradient and sensor noise to the whole scene; values in [0, 1]."""
    x, y = _pixel_centres(image.shape[0])
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.3)
    light = 1 + strength * ((x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle))
    noise = rng.normal(0, 0.01, image.shape)
    return np.clip(image * light[..., None] * rng.uniform(0.9, 1.05) + noise, 0, 1)


def _pixel_centres(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates x and y of the pixel centres, each size×size, in (0, 1)."""
    centres = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(centres, centres)
    return x, y


if __name__ == "__main__":
    run_command(MosaicsConfig, make_mosaics)
