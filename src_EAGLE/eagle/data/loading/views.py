"""Torch datasets of training views (image and augmented image) and evaluation views."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from eagle.data.datasets.base import SegmentationDataset, read_sample
from eagle.data.loading.transforms import (
    Photometric,
    image_tensor,
    label_tensor,
    normalize,
    resize_and_crop,
)


class Draw(NamedTuple):
    """Index of an image and the seed of its augmentation."""

    image: int
    seed: int


class TrainingViews(Dataset[dict[str, Tensor]]):
    """Training samples, each a dict of tensors.

    ``img`` x and ``img_aug`` x̃ (3×res×res float32, normalised); ``index`` of the image; ``changed``, whether x̃
    differs from x; for a labelled dataset, ``label`` (res×res int64, −1 = void); with ``n_views``, ``view``, the number
    of x̃ among all images' views.

    Args:
        dataset: the images.
        res: short side and side of the centre crop.
        fidelity: see Photometric.
        n_views: augmentations per image, the same in every run, of which each draw picks one; 0 draws a new one.
    """

    def __init__(self, dataset: SegmentationDataset, res: int, fidelity: str, n_views: int = 0) -> None:
        self._dataset = dataset
        self._res = res
        self._photometric = Photometric(fidelity)
        self._n_views = n_views

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        """The sample for a draw; raises DataError that names a bad file."""
        index = draw.image
        image, label = read_sample(self._dataset, index)
        rgb = image_tensor(resize_and_crop(image, self._res))
        view = index * self._n_views + draw.seed % self._n_views if self._n_views else None
        img, img_aug = normalize(rgb), normalize(self._photometric(rgb, draw.seed if view is None else view))
        sample = {
            "img": img,
            "img_aug": img_aug,
            "changed": torch.tensor(not torch.equal(img, img_aug)),
            "index": torch.tensor(index),
        }
        if self._dataset.has_labels:
            sample["label"] = label_tensor(label, self._res)
        if view is not None:
            sample["view"] = torch.tensor(view)
        return sample


class EvaluationViews(Dataset[dict[str, Tensor]]):
    """Evaluation samples with ``img``, ``label`` and ``index`` as in TrainingViews.

    Args:
        dataset: the images.
        res: short side, and side of the centre crop if ``crop``.
        crop: whether to crop; whole images may differ in shape.
    """

    def __init__(self, dataset: SegmentationDataset, res: int, crop: bool = True) -> None:
        self.dataset = dataset
        self.res = res
        self.crop = crop

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """The sample at an index; raises DataError that names a bad file."""
        image, label = read_sample(self.dataset, index)
        img = normalize(image_tensor(resize_and_crop(image, self.res, self.crop)))
        return {"img": img, "label": label_tensor(label, self.res, self.crop), "index": torch.tensor(index)}
