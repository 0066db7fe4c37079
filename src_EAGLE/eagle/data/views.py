"""Torch datasets of ready tensors: training views with their augmented partner, and evaluation views."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from eagle.data.dataset import SegmentationDataset, read_sample
from eagle.data.normalization import normalize
from eagle.data.transforms import Photometric, image_tensor, label_tensor, resize_and_crop, training_views


class Draw(NamedTuple):
    """One training sample asked for: which image, and the seed of its augmentation."""

    image: int
    seed: int


class TrainingViews(Dataset[dict[str, Tensor]]):
    """``img`` x, ``img_aug`` x̃ (3×res×res, normalised) and ``label`` (res×res int64, −1 = void or no label),
    the image's ``index``, and ``changed``, whether x̃ differs from x.

    Args:
        dataset: the images.
        res: short side and centre crop.
        fidelity: see Photometric.
    """

    def __init__(self, dataset: SegmentationDataset, res: int, fidelity: str) -> None:
        self._dataset = dataset
        self._res = res
        self._photometric = Photometric(fidelity)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        """The sample of a Draw; raises DataError that names the file."""
        image, label = read_sample(self._dataset, draw.image)
        rgb = image_tensor(resize_and_crop(image, self._res))
        img, img_aug = training_views(rgb, self._photometric, draw.seed)
        label_map = label_tensor(label, self._res)
        changed = torch.tensor(not torch.equal(img, img_aug))
        return {
            "img": img, "img_aug": img_aug, "label": label_map, "index": torch.tensor(draw.image), "changed": changed
        }  # fmt: skip


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
