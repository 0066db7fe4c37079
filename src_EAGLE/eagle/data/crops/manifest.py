"""Folder layout and numbering of crop sets, and the manifest that records their parameters and completeness.

Layout and numbering follow STEGO: ``<pytorch_data_dir>/cropped/<dataset>_<type>_crop_<ratio>/{img,label}/<split>/``;
crop c of image i is file 5·i + c. We add ``manifest.json`` beside ``img``.
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
    """JPEG settings of crops; the defaults are those of the released code (Pillow's defaults).

    Attributes:
        jpeg_quality: 1 to 100.
        jpeg_subsampling: chroma subsampling, "4:4:4" (none), "4:2:2" or "4:2:0".
    """

    jpeg_quality: int = 75
    jpeg_subsampling: str = "4:2:0"

    def __str__(self) -> str:
        return f"JPEG quality {self.jpeg_quality}, subsampling {self.jpeg_subsampling}"


@dataclass(frozen=True)
class CropSource:
    """Identifies a crop set by dataset, crop type and crop ratio.

    Attributes:
        dataset_name: name of the dataset in the catalog.
        label: name used in the set's folder: dataset_name, or a directory dataset's folder.
        n_classes: dir_dataset_n_classes.
        crop_type: "five" or "random".
        crop_ratio: crop side divided by image side.
    """

    dataset_name: str
    label: str
    n_classes: int | None
    crop_type: str
    crop_ratio: float

    def folder(self, root: Path) -> Path:
        """Folder of the crop set below pytorch_data_dir."""
        return root / "cropped" / f"{self.label}_{self.crop_type}_crop_{self.crop_ratio}"

    def command(self, root: Path) -> str:
        """Command that creates or completes the crop set."""
        directory = "" if self.dataset_name != "directory" else f" dir_dataset_name={self.label}"
        classes = "" if self.n_classes is None else f" dir_dataset_n_classes={self.n_classes}"
        return (
            f"`python crop_datasets.py dataset_name={self.dataset_name}{directory}{classes} "
            f"crop_type={self.crop_type} crop_ratio={self.crop_ratio} pytorch_data_dir={root}`"
        )


@dataclass(frozen=True)
class CropFiles:
    """Paths of one split's crops.

    Attributes:
        folder: folder of the crop set.
        split: "train" or "val".
    """

    folder: Path
    split: str

    @property
    def images(self) -> Path:
        """Folder of the image crops."""
        return self.folder / "img" / self.split

    @property
    def labels(self) -> Path:
        """Folder of the label crops; it does not exist for a dataset without labels."""
        return self.folder / "label" / self.split

    def image(self, number: int) -> Path:
        """JPEG file of a crop."""
        return self.images / f"{number}.jpg"

    def label(self, number: int) -> Path:
        """PNG file of a crop's class ids + 1; 0 is void."""
        return self.labels / f"{number}.png"


class CropManifest:
    """``manifest.json`` of a crop set: source dataset, crop parameters and, per split, whether it is complete.

    Args:
        folder: folder of the crop set.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "manifest.json"

    def read(self) -> dict[str, Any]:
        """Read the dicts source, parameters and splits; an empty dict if the file does not exist.

        Raises:
            DataError: the file is not a manifest.
        """
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            content = {key: dict(content[key]) for key in ("source", "parameters", "splits")}
            # Manifests without this key are older; their crops were not subsampled.
            content["parameters"].setdefault("jpeg_subsampling", "4:4:4")
            return content
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"{self.path}: not a crop manifest; move {self.path.parent} away") from error

    def jpeg(self) -> JpegSettings:
        """JPEG settings in an existing manifest; raises DataError if they are missing or invalid."""
        parameters = self.read()["parameters"]
        try:
            return JpegSettings(int(parameters["jpeg_quality"]), str(parameters["jpeg_subsampling"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{self.path}: jpeg_quality is missing or invalid; move {self.path.parent} away and crop again"
            ) from error

    def begin(self, split: str, source: dict[str, Any], parameters: dict[str, Any], images: dict[str, Any]) -> None:
        """Record a split's source and parameters, and mark it incomplete.

        Args:
            split: "train" or "val".
            source: values that identify the dataset.
            parameters: values that determine the crops' content.
            images: values that identify the split's images.

        Raises:
            DataError: the folder contains crops with another source or other parameters.
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
                f"{self.path}: these crops were made with {', '.join(differing)}; move {self.path.parent} away, or "
                "use the same values again"
            )
        content["splits"][split] = {**images, "complete": False}
        self._write(content)

    def finish(self, split: str) -> None:
        """Mark a split complete."""
        content = self.read()
        content["splits"][split]["complete"] = True
        self._write(content)

    def _write(self, content: dict[str, Any]) -> None:
        content["splits"] = dict(sorted(content["splits"].items()))
        write_text_atomically(self.path, json.dumps(content, indent=2) + "\n")
