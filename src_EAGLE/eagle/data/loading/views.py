"""Torch datasets of ready tensors: training views with their augmented partner, and evaluation views."""

from contextlib import suppress
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from eagle.data.datasets.base import SegmentationDataset, read_sample
from eagle.data.loading.transforms import (
    Photometric,
    image_tensor,
    label_tensor,
    normalize,
    resize_and_crop,
    training_views,
)
from eagle.errors import DataError

_MOST_REPLACEMENTS = 100


class Draw(NamedTuple):
    """One training sample asked for: which image, and the seed of its augmentation."""

    image: int
    seed: int


class TrainingViews(Dataset[dict[str, Tensor]]):
    """``img`` x, ``img_aug`` x̃ (3×res×res, normalised), ``label`` (res×res int64, −1 = void or no label), the image's
    ``index``, and ``changed``, whether x̃ differs from x; ``drawn`` differs from ``index`` where the drawn image is bad
    and another stands in.

    Args:
        dataset: the images.
        res: short side and centre crop.
        fidelity: see Photometric.
        on_bad_image: "error", or "skip" to give another image, decided by the draw alone, in a bad one's place.
    """

    def __init__(self, dataset: SegmentationDataset, res: int, fidelity: str, on_bad_image: str = "error") -> None:
        self._dataset = dataset
        self._res = res
        self._photometric = Photometric(fidelity)
        self._on_bad_image = on_bad_image

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        """The sample of a Draw; raises DataError that names the file."""
        index, image, label = self._read(draw)
        rgb = image_tensor(resize_and_crop(image, self._res))
        img, img_aug = training_views(rgb, self._photometric, draw.seed)
        label_map = label_tensor(label, self._res)
        numbers = {"index": torch.tensor(index), "drawn": torch.tensor(draw.image)}
        changed = torch.tensor(not torch.equal(img, img_aug))
        return {"img": img, "img_aug": img_aug, "label": label_map, "changed": changed, **numbers}

    def _read(self, draw: Draw) -> tuple[int, Image.Image, np.ndarray]:
        """Number, image and label of the drawn image or, where that is bad and may be skipped, of one in its place."""
        try:
            return draw.image, *read_sample(self._dataset, draw.image)
        except DataError:
            if self._on_bad_image == "error":
                raise
        # From the draw's own seed: neither worker processes nor a resumed run change it.
        for index in np.random.default_rng(draw.seed).integers(len(self), size=_MOST_REPLACEMENTS).tolist():
            with suppress(DataError):
                return index, *read_sample(self._dataset, index)
        raise DataError(
            f"{self._dataset.image_path(draw.image)}: bad, as are {_MOST_REPLACEMENTS} images drawn in its place; run "
            "check_data.py on the dataset"
        )


class EvaluationViews(Dataset[dict[str, Tensor]]):
    """``img``, ``label`` and ``index`` as in TrainingViews.

    Args:
        dataset: the images.
        res: short side and, where ``crop`` is on, centre crop.
        crop: off leaves images whole, so that they differ in shape.
    """

    def __init__(self, dataset: SegmentationDataset, res: int, crop: bool = True) -> None:
        self.dataset = dataset
        self.res = res
        self.crop = crop

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """The sample at an index; raises DataError that names the file."""
        image, label = read_sample(self.dataset, index)
        img = normalize(image_tensor(resize_and_crop(image, self.res, self.crop)))
        return {"img": img, "label": label_tensor(label, self.res, self.crop), "index": torch.tensor(index)}
