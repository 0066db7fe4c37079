"""Training and evaluation views: resizing, cropping, photometric augmentation, ImageNet normalisation."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from eagle.data.datasets.base import SegmentationDataset, read_sample

# Describe resize_and_crop and normalize, and Photometric; they are hashed into the names of cache folders, so a change
# invalidates cached keys.
AUGMENTATION = "blur 3×3, sigma 0.1–2, p 0.5; paper: jitter 0.3 0.3 0.3 0.1, grey 0.2"
CLEAN_VIEW = "short side nearest, centre crop, ImageNet statistics"

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize(rgb: Tensor) -> Tensor:
    """Normalise RGB in [0, 1], …×3×H×W, with the ImageNet mean and standard deviation."""
    mean, std = (rgb.new_tensor(statistic)[:, None, None] for statistic in (IMAGENET_MEAN, IMAGENET_STD))
    return (rgb - mean) / std


def unnormalize(img: Tensor) -> Tensor:
    """Invert normalize: ImageNet-normalised …×3×H×W → RGB in [0, 1]."""
    channels = zip(img.unbind(-3), IMAGENET_MEAN, IMAGENET_STD, strict=True)
    # Python floats, because creating a tensor of statistics on a GPU would synchronise.
    return torch.stack([channel * std + mean for channel, mean, std in channels], dim=-3)


def photograph(img: Tensor) -> Image.Image:
    """ImageNet-normalised 3×H×W → RGB image."""
    return TF.to_pil_image((unnormalize(img).clamp(0, 1) * 255).round().byte())


def resize_and_crop(image: Image.Image, res: int, crop: bool = True) -> Image.Image:
    """Resize the short side to ``res`` pixels (nearest), then take the central res×res square if ``crop``."""
    resized = TF.resize(image, [res], InterpolationMode.NEAREST)
    return TF.center_crop(resized, [res, res]) if crop else resized


def image_tensor(image: Image.Image) -> Tensor:
    """RGB image → 3×H×W float32 in [0, 1]."""
    return TF.to_tensor(image)


def label_tensor(label: np.ndarray, res: int, crop: bool = True) -> Tensor:
    """Class ids H×W → int64 tensor, resized and cropped like the image."""
    return torch.from_numpy(np.array(resize_and_crop(Image.fromarray(label.astype(np.int32)), res, crop))).long()


class Photometric:
    """Photometric augmentation that produces the second view x̃.

    "released" blurs half of the images (3×3 Gaussian, sigma 0.1 to 2); "paper" also jitters colours and turns a fifth
    of the images grey.
    """

    def __init__(self, fidelity: str) -> None:
        blur = transforms.RandomApply([transforms.GaussianBlur(3)], p=0.5)
        jitter = [transforms.ColorJitter(0.3, 0.3, 0.3, 0.1), transforms.RandomGrayscale(0.2)]
        self._transform = transforms.Compose([*(jitter if fidelity == "paper" else []), blur])

    def __call__(self, rgb: Tensor, seed: int) -> Tensor:
        """Augment RGB in [0, 1], 3×H×W; equal seeds give equal augmentations in every process."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self._transform(rgb)


class Draw(NamedTuple):
    """Index of an image and the seed of its augmentation."""

    image: int
    seed: int


class TrainingViews(Dataset[dict[str, Tensor]]):
    """Training samples, each a dict of tensors.

    ``img`` x and ``img_aug`` x̃ (3×res×res float32, normalised); ``index`` of the image; ``changed``, whether x̃
    differs from x; for a labelled dataset, ``label`` (res×res int64, −1 = void); with ``n_views``, ``view``, the number
    of x̃ among all images' views.

    ``res`` is the short side and the side of the centre crop, ``fidelity`` Photometric's, and ``n_views`` the number of
    augmentations per image, the same in every run, of which each draw picks one; 0 draws a new one.
    """

    def __init__(self, dataset: SegmentationDataset, res: int, fidelity: str, n_views: int = 0) -> None:
        self._dataset, self._res, self._n_views = dataset, res, n_views
        self._photometric = Photometric(fidelity)

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


@dataclass(eq=False)
class EvaluationViews(Dataset[dict[str, Tensor]]):
    """Evaluation samples with ``img``, ``label`` and ``index`` as in TrainingViews; uncropped ones differ in shape."""

    dataset: SegmentationDataset
    res: int
    crop: bool = True

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """The sample at an index; raises DataError that names a bad file."""
        image, label = read_sample(self.dataset, index)
        img = normalize(image_tensor(resize_and_crop(image, self.res, self.crop)))
        return {"img": img, "label": label_tensor(label, self.res, self.crop), "index": torch.tensor(index)}
