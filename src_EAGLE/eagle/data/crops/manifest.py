"""Where crops lie, how they are numbered, and the record that tells whole sets from unfinished ones.

Folder and numbering are STEGO's: ``<pytorch_data_dir>/cropped/<dataset>_<type>_crop_<ratio>/{img,label}/<split>/``,
crop c of image i is file 5·i + c. ``manifest.json`` beside ``img`` is ours.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eagle.errors import DataError
from eagle.files import write_text_atomically

CROPS_PER_IMAGE = 5


@dataclass(frozen=True)
class JpegSettings:
    """How crops are compressed; the defaults are the released code's, which are Pillow's.

    Attributes:
        jpeg_quality: 1 to 100.
        jpeg_subsampling: of the colour channels, "4:4:4" for none, "4:2:2" or "4:2:0".
    """

    jpeg_quality: int = 75
    jpeg_subsampling: str = "4:2:0"

    def __str__(self) -> str:
        return f"JPEG quality {self.jpeg_quality}, subsampling {self.jpeg_subsampling}"


@dataclass(frozen=True)
class CropSource:
    """Which crops of which dataset.

    Attributes:
        dataset_name: the dataset's key.
        label: the name that folders carry: the key, or a directory dataset's folder.
        n_classes: dir_dataset_n_classes, where it is set.
        crop_type: "five" or "random".
        crop_ratio: side of a crop by side of its image.
    """

    dataset_name: str
    label: str
    n_classes: int | None
    crop_type: str
    crop_ratio: float

    def folder(self, root: Path) -> Path:
        """The set's folder below pytorch_data_dir."""
        return root / "cropped" / f"{self.label}_{self.crop_type}_crop_{self.crop_ratio}"

    def command(self, root: Path) -> str:
        """The command that makes or finishes the set."""
        directory = "" if self.dataset_name != "directory" else f" dir_dataset_name={self.label}"
        classes = "" if self.n_classes is None else f" dir_dataset_n_classes={self.n_classes}"
        return (
            f"`python crop_datasets.py dataset_name={self.dataset_name}{directory}{classes} "
            f"crop_type={self.crop_type} crop_ratio={self.crop_ratio} pytorch_data_dir={root}`"
        )


@dataclass(frozen=True)
class CropFiles:
    """The files of one split.

    Attributes:
        folder: the set's folder.
        split: "train" or "val".
    """

    folder: Path
    split: str

    @property
    def images(self) -> Path:
        """Folder of the crops of images."""
        return self.folder / "img" / self.split

    @property
    def labels(self) -> Path:
        """Folder of the crops of label maps; a dataset without labels has none."""
        return self.folder / "label" / self.split

    def image(self, number: int) -> Path:
        """The JPEG of a crop."""
        return self.images / f"{number}.jpg"

    def label(self, number: int) -> Path:
        """The PNG of a crop's class ids + 1; 0 is void."""
        return self.labels / f"{number}.png"


class CropManifest:
    """``manifest.json`` of a set of crops: what it was made from and with and, for each split, whether it is whole.

    Args:
        folder: the set's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "manifest.json"

    def read(self) -> dict[str, Any]:
        """Its content, with at least the keys source, parameters and splits; empty where there is none.

        Raises:
            DataError: the file is no manifest.
        """
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            content = {key: dict(content[key]) for key in ("source", "parameters", "splits")}
            # Crops were written without subsampling before the manifest recorded it.
            content["parameters"].setdefault("jpeg_subsampling", "4:4:4")
            return content
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"{self.path}: not a manifest of crops; move {self.path.parent} away") from error

    def jpeg(self) -> JpegSettings:
        """How the crops of an existing manifest were compressed; raises DataError where it does not say."""
        parameters = self.read()["parameters"]
        try:
            return JpegSettings(int(parameters["jpeg_quality"]), str(parameters["jpeg_subsampling"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{self.path}: does not say the crops' jpeg_quality; crop again") from error

    def begin(self, split: str, source: dict[str, Any], parameters: dict[str, Any], images: dict[str, Any]) -> None:
        """Record what a split is going to be made from, and that it is not whole yet.

        Args:
            split: "train" or "val".
            source: what identifies the dataset.
            parameters: what decides the crops' content.
            images: what identifies the split's images.

        Raises:
            DataError: the folder holds crops of something else or made with other values.
        """
        content = self.read() or {"source": source, "parameters": parameters, "splits": {}}
        recorded_images = {key: content["splits"].get(split, images).get(key) for key in images}
        found = {**content["source"], **content["parameters"], **recorded_images}
        wanted = {**source, **parameters, **images}
        differing = [
            f"{key} {found.get(key)} instead of {wanted[key]}" for key in wanted if found.get(key) != wanted[key]
        ]
        if differing:
            raise DataError(
                f"{self.path}: these crops were made with {', '.join(differing)}; move {self.path.parent} away, or ask "
                "for the same again"
            )
        content["splits"][split] = {**images, "complete": False}
        self._write(content)

    def finish(self, split: str) -> None:
        """Record that a split is whole."""
        content = self.read()
        content["splits"][split]["complete"] = True
        self._write(content)

    def _write(self, content: dict[str, Any]) -> None:
        content["splits"] = dict(sorted(content["splits"].items()))
        write_text_atomically(self.path, json.dumps(content, indent=2) + "\n")
