"""The segmenter that ``eagle.load_segmenter`` returns: photographs in, label maps, codes and eigenvectors out."""

import os
import re
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig
from PIL import Image, ImageOps
from torch import Tensor

from eagle.checkpoints import build_segmenter, read_stored
from eagle.config.refinement import RECOMMENDED, UNREFINED, Refinement, refinement_of_name
from eagle.config.schema import CRF_BACKENDS, PRECISIONS
from eagle.config.validation import check_resolution, refuse_unknown
from eagle.data.datasets.base import name_lines
from eagle.data.datasets.catalog import known_classes
from eagle.data.images import read_photograph, rgb_image
from eagle.data.labels import ClassMap, named_clusters
from eagle.data.named_files import short_stem
from eagle.errors import ConfigError, DataError, one_line
from eagle.inference.photograph import PhotographSegmenter, whole_patch_input
from eagle.inference.segmentation import Legend, Segmentation
from eagle.maps.probe_maps import MapSettings, cut_map, n_scores
from eagle.models.cluster_tree import ClusterCut
from eagle.segmenter import LitUnsupervisedSegmenter
from eagle.spectral.eicue import eicue, laplacian_eigenvectors

GivenImage: TypeAlias = str | Path | Image.Image | np.ndarray

ACCEPTED = "a file name, a PIL image, or a uint8 array: H×W×3 (RGB, 0 to 255), H×W×4 (alpha is dropped) or H×W (grey)"


def listed(images: GivenImage | Sequence[GivenImage]) -> list[GivenImage]:
    """The images of a list or tuple, or the one that is given."""
    return list(images) if isinstance(images, (list, tuple)) else [cast(GivenImage, images)]


def photograph_of(image: GivenImage) -> Image.Image:
    """Read or convert an image to RGB, upright by its EXIF orientation, in memory of its own.

    Raises:
        DataError: the file is missing or unreadable, or the value is not an accepted image.
    """
    if isinstance(image, (str, Path)):
        return read_photograph(Path(image))
    if isinstance(image, Image.Image):
        try:
            # A PIL image reads its file only now; Pillow raises many exception types for damaged ones.
            upright = ImageOps.exif_transpose(image)
        except Exception as error:
            name = getattr(image, "filename", "") or "the image"
            raise DataError(f"{name}: cannot be read as an image ({one_line(error)}); repair or remove it") from error
        return rgb_image(upright, "the image")
    if not isinstance(image, np.ndarray):
        raise DataError(f"cannot segment a value of type {type(image).__name__}: pass {ACCEPTED}")
    channels_fit = image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))
    if image.dtype != np.uint8 or not channels_fit or not image.size:
        shape = "×".join(map(str, image.shape)) or "no axis"
        raise DataError(f"cannot segment an array of {image.dtype}, {shape}: pass {ACCEPTED}")
    return rgb_image(Image.fromarray(image), "the array")


PROBES = ("cluster", "linear")


class Segmenter:
    """A trained model with methods for photographs; ``load_segmenter`` makes it.

    Attributes:
        model: the LitUnsupervisedSegmenter, in eval mode on the machine's device.
        class_map: names of classes and clusters; None without an evaluation.
        machine: the device and the precision of the methods for photographs.

    Example:
        >>> import tempfile, numpy as np, torch
        >>> from eagle import LitUnsupervisedSegmenter, load_segmenter
        >>> vit = {"embed_dim": 48, "depth": 4, "num_heads": 3}
        >>> cfg = {"pretrained_weights": "random", "backbone_kwargs": vit, "dim": 32, "val_res": 64}
        >>> trained = LitUnsupervisedSegmenter(3, cfg)
        >>> path = f"{tempfile.mkdtemp()}/best.ckpt"
        >>> torch.save({"state_dict": trained.state_dict(), "hyper_parameters": dict(trained.hparams)}, path)
        >>> segmenter = load_segmenter(path, device="cpu")
        >>> photograph = np.zeros((100, 150, 3), dtype=np.uint8)
        >>> segmenter.segment(photograph).ids.shape
        (100, 150)
        >>> [len(result.names) for result in segmenter.segment([photograph, photograph], probe="linear")]
        [3, 3]
        >>> segmenter.eigenvectors(photograph, n=2).shape  # on 8×12 patches
        (2, 8, 12)
        >>> segmenter.codes([photograph, photograph]).shape
        torch.Size([2, 32, 8, 12])
    """

    def __init__(self, model: LitUnsupervisedSegmenter, class_map: ClassMap | None, machine: Fabric) -> None:
        self.model = model.eval()
        machine.to_device(self.model)
        self.class_map = class_map
        self.machine = machine

    def __call__(self, img: Tensor) -> Tensor:
        """Codes of B×3×H×W normalised images, with gradients: ``model(img)``."""
        return self.model(img)

    @property
    def cfg(self) -> DictConfig:
        """The configuration of the training run."""
        return self.model.cfg

    def cues(self, img: Tensor) -> Tensor:
        """The EiCue of B×3×H×W normalised images, B×h×w int64."""
        return self.model.cues(img)

    def segment(
        self,
        images: GivenImage | Sequence[GivenImage],
        *,
        probe: str = "cluster",
        res: int | None = None,
        full_resolution: bool = False,
        window: int | None = None,
        flip: bool = False,
        refine: str = RECOMMENDED,
        crf_backend: str = "auto",
        cluster_names: str | Path | None = None,
        n_clusters: int | None = None,
        batch_size: int = 8,
    ) -> Any:
        """Segment one photograph, or a list of them, of any size.

        Of ``batch_size`` successive photographs of a list, those that the model sees at one size are computed together.

        Args:
            images: a file name, a PIL image, a uint8 array (H×W×3 RGB, H×W×4 or H×W grey), or a list or tuple of them.
            probe: "cluster" (trained without labels) or "linear" (trained with labels).
            res: short side in pixels at the model's input; None for the run's ``val_res``.
            full_resolution: process photographs at their own size in windows, which finds small objects.
            window: side of the windows that larger photographs are split into; None for ``val_res`` with
                ``full_resolution``, else for no windows.
            flip: average the codes of a photograph and of its mirror image, as in evaluation; takes twice as long.
            refine: "crf" refines borders with the dense CRF, "spectral" smooths class probabilities on the image's own
                patch graph, "spectral+crf" or "both" does this and then the CRF; "none" does neither.
            crf_backend: see ``eagle.dense_crf``.
            cluster_names: text file with one cluster name per line; None for the names of the checkpoint's evaluation.
            n_clusters: where the tree of a checkpoint of ``fit_clusters.py`` is cut; None for as many clusters as
                ``cluster_names`` has lines, or else as the trained probe has.
            batch_size: most photographs that are computed together.

        Returns:
            A Segmentation in the photograph's size; a list of them, in order, for a list.

        Raises:
            ConfigError: an option has an invalid value.
            DataError: an image or the file of names cannot be read, or is of no accepted kind.
        """
        given, several = listed(images), isinstance(images, (list, tuple))
        _refuse_no_number(batch_size=batch_size)
        if batch_size < 1:
            raise ConfigError(f"batch_size: {batch_size} is too small; the least is 1")
        steps = refinement_of_name(refine)
        photographs = self.photographs(
            steps, probe, res, full_resolution, window, flip, crf_backend, cluster_names, n_clusters
        )
        prepared = ((i, photographs.prepare(photograph_of(image))) for i, image in enumerate(given))
        legend = photographs.legend
        results = [
            Segmentation(item.photograph, legend.ids(clusters), legend, _name_of(given[i], i if several else None))
            for i, item, clusters in photographs.segmented(prepared, batch_size)
        ]
        return results if several else results[0]

    def segment_codes(
        self,
        photograph: GivenImage,
        code: Tensor,
        *,
        res: int | None = None,
        refine: str = RECOMMENDED,
        cluster_names: str | Path | None = None,
        n_clusters: int | None = None,
    ) -> Segmentation:
        """``segment`` for a photograph whose ``codes(photograph, res)`` are known: without the backbone.

        Raises:
            ConfigError, DataError: as for ``segment``; or the codes are not of such a photograph.
        """
        photographs = self.photographs(
            refinement_of_name(refine), res=res, cluster_names=cluster_names, n_clusters=n_clusters
        )
        prepared = photographs.prepare(photograph_of(photograph))
        patch_size, (width, height) = self.model.net.model.patch_size, prepared.seen.size
        expected = 1, self.cfg.dim, -(-height // patch_size), -(-width // patch_size)
        if code.shape != expected:
            raise DataError(f"codes of {expected} are needed for this photograph and res, not {tuple(code.shape)}")
        (clusters,) = photographs.label_maps([prepared], self.machine.to_device(code))
        legend = photographs.legend
        return Segmentation(prepared.photograph, legend.ids(clusters), legend, _name_of(photograph, None))

    def codes(
        self, batch: Tensor | GivenImage | Sequence[GivenImage], res: int | None = None, flip: bool = False
    ) -> Tensor:
        """Codes of images, as for masks; without gradients.

        ``segmenter(img)`` gives plain codes, with gradients.

        Args:
            batch: B×3×H×W ImageNet-normalised, or images as in ``segment`` that the model sees at one size.
            res: short side in pixels at the model's input; None for the run's ``val_res``. A tensor keeps its size.
            flip: average them with the mirror images' codes.

        Returns:
            B×dim×⌈h/patch⌉×⌈w/patch⌉ float32 on the segmenter's device, for h×w pixels at the model's input.

        Raises:
            ConfigError, DataError: as for ``segment``; or the batch has another shape or several sizes.
        """
        photographs = self.photographs(res=res, flip=flip)
        if isinstance(batch, Tensor):
            if batch.ndim != 4 or batch.shape[1] != 3 or not batch.is_floating_point() or not batch.numel():
                raise DataError(
                    f"cannot compute codes of a tensor of {batch.dtype}, {tuple(batch.shape)}: pass B×3×H×W, "
                    "floating point and ImageNet-normalised"
                )
            return photographs.codes(self.machine.to_device(batch))
        prepared = [photographs.prepare(photograph_of(image)) for image in listed(batch)]
        sizes = sorted({f"{item.seen.width}×{item.seen.height}" for item in prepared})
        if len(sizes) != 1:
            shown = ", ".join(sizes[:3]) or "none"
            raise DataError(f"codes need images that the model sees at one size, not {len(sizes)}: {shown}")
        return photographs.codes(photographs.tensor([item.seen for item in prepared]))

    def eigenvectors(self, image: GivenImage, n: int | None = None, res: int | None = None) -> np.ndarray:
        """Eigenvectors of the Laplacian of code and colour affinity, as ``visualize_eigen.py`` draws them.

        Args:
            image: as in ``segment``.
            n: number of eigenvectors, not counting the trivial one; None for those that EiCue uses.
            res: short side in pixels at the model's input; the long side is rounded to whole patches. None for the
                run's ``val_res``.

        Returns:
            n×h×w float32 on the grid of patches, by ascending eigenvalue, signs fixed.

        Raises:
            ConfigError, DataError: as for ``segment``; or there are fewer patches, or too many.
        """
        return self.eigenvectors_and_cue(image, n, res)[0]

    @torch.no_grad()
    def eigenvectors_and_cue(
        self, image: GivenImage, n: int | None = None, res: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """``eigenvectors``, and the photograph's EiCue, h×w int64."""
        cfg, patch_size = self.cfg, self.model.net.model.patch_size
        n, res = cfg.eigen_cluster - 1 if n is None else n, res or cfg.val_res
        check_resolution("res", res, patch_size)
        img = self.machine.to_device(whole_patch_input(photograph_of(image), res, patch_size))
        grid = img.shape[2] // patch_size, img.shape[3] // patch_size
        # At least as many as in training, so that the vectors do not depend on n.
        k = max(n + 1, cfg.eigen_cluster)
        if n < 1 or k > grid[0] * grid[1]:
            raise ConfigError(f"n: {n} eigenvectors of {grid[0]}×{grid[1]} patches; choose at least 1, or raise res")
        options = (cfg.color_affinity, cfg.eigensolver, cfg.eigen_signs, cfg.eicue_affinity)
        with self.machine.autocast():
            vectors = laplacian_eigenvectors(self.model(img), img, k, *options)
            cue = eicue(vectors[:, :, : cfg.eigen_cluster], grid, self.model.train_cluster_probe_eigen)[1][0]
        return vectors[0, :, 1 : n + 1].T.unflatten(1, grid).float().cpu().numpy(), cue.cpu().numpy()

    def photographs(
        self,
        refinement: Refinement = UNREFINED,
        probe: str = "cluster",
        res: int | None = None,
        full_resolution: bool = False,
        window: int | None = None,
        flip: bool = False,
        crf_backend: str = "auto",
        cluster_names: str | Path | None = None,
        n_clusters: int | None = None,
    ) -> PhotographSegmenter:
        """What computes label maps, and the names of their ids; arguments and errors as in ``segment``."""
        refuse_unknown("CRF backend", [crf_backend], CRF_BACKENDS)
        refuse_unknown("probe", [probe], PROBES)
        model, val_res = self.model, self.cfg.val_res
        _refuse_no_number(res=res, window=window, n_clusters=n_clusters)
        if full_resolution and res is not None:
            raise ConfigError("res: with full_resolution photographs keep their own size; leave one of both out")
        for name, size in (("res", res), ("window", window)):
            if size is not None:
                check_resolution(name, size, model.net.model.patch_size)
        seen, window = None if full_resolution else res or val_res, window or (val_res if full_resolution else None)
        names = Path(cluster_names) if cluster_names else None
        for name, value in (("n_clusters", n_clusters), ("cluster_names", names)):
            if probe == "linear" and value is not None:
                raise ConfigError(f"{name}: the linear probe has classes, not clusters; leave it out")
        if names and model.cluster_tree and n_clusters is None:
            n_clusters = len(name_lines(names))
            if n_clusters > model.cluster_tree.n_leaves:
                most = model.cluster_tree.n_leaves
                raise DataError(f"{names}: {n_clusters} lines, but the tree has {most} leaves; write at most {most}")
        module = model.linear_probe if probe == "linear" else model.clusters(n_clusters)
        n = n_scores(module)
        cut = n_clusters is not None and n != len(model.cluster_probe.clusters)
        map_name = (cut_map(n) if cut else probe) + refinement.suffix
        class_map = named_clusters(names, map_name, n) if names else self.class_map
        legend = Legend(class_map, map_name, n, known_classes(self.cfg))
        if isinstance(module, ClusterCut):
            module, legend = legend.joining(module)
        settings = MapSettings(window=window, flip=flip, refinement=refinement, crf_backend=crf_backend)
        return PhotographSegmenter(model, module, legend, seen, settings, self.machine)


def load_segmenter(
    checkpoint: str | Path, device: str | torch.device = "auto", precision: str = "32-true"
) -> Segmenter:
    """Load a trained segmenter for photographs from a checkpoint, released or ours, without running code in it.

    Args:
        checkpoint: a .ckpt, or a slim .safetensors with its .yml (``scripts/convert_checkpoint.py``).
        device: "auto" takes a CUDA GPU, else Apple's GPU, else the CPU; or "cpu", "mps", "cuda", "cuda:1".
        precision: Lightning precision of backbone and head, e.g. "bf16-mixed".

    Returns:
        The segmenter on the device, in eval mode.

    Raises:
        CheckpointError: the file is missing, unreadable or not a segmenter's; or tensors are missing, unknown or
            of the wrong shape, which the message lists.
        ConfigError: this machine lacks the device, or the precision does not exist.

    Example:
        >>> import tempfile, torch
        >>> from eagle import LitUnsupervisedSegmenter, load_segmenter
        >>> vit = {"embed_dim": 48, "depth": 4, "num_heads": 3}
        >>> trained = LitUnsupervisedSegmenter(3, {"pretrained_weights": "random", "backbone_kwargs": vit, "dim": 32})
        >>> path = f"{tempfile.mkdtemp()}/best.ckpt"
        >>> torch.save({"state_dict": trained.state_dict(), "hyper_parameters": dict(trained.hparams)}, path)
        >>> segmenter = load_segmenter(path, device="cpu")
        >>> segmenter(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 32, 8, 8])
    """
    path, machine = Path(checkpoint), machine_of(str(device), precision)
    stored = read_stored(path)
    return Segmenter(build_segmenter(stored, path), stored.class_map, machine)


def machine_of(device: str, precision: str) -> Fabric:
    """A device and a precision by the names that ``load_segmenter`` takes; raises ConfigError as it does."""
    refuse_unknown("precision", [precision], PRECISIONS)
    if not re.fullmatch(r"auto|cpu|mps|(gpu|cuda)(:\d+)?", device):
        raise ConfigError(f"device: '{device}' is none of auto, cpu, mps, cuda and cuda:N")
    accelerator, _, index = device.partition(":")
    try:
        return Fabric(accelerator=accelerator, devices=[int(index)] if index else 1, precision=precision)  # type: ignore[arg-type]
    except (RuntimeError, TypeError, ValueError, MisconfigurationException) as error:
        raise ConfigError(f"device={device} precision={precision}: {one_line(error)}") from error


def _refuse_no_number(**values: Any) -> None:
    """Raise ConfigError for a value that is neither None nor a whole number."""
    for name, value in values.items():
        if value is not None and not isinstance(value, Integral):
            raise ConfigError(f"{name}: {value!r} is no whole number")


def _name_of(image: GivenImage, index: int | None) -> str:
    """Name of an image's files."""
    file = image if isinstance(image, (str, Path)) else getattr(image, "filename", None)  # of Image.open
    if file:
        return short_stem(Path(os.fsdecode(file)))  # Pillow takes names in bytes
    return "image" if index is None else f"image_{index}"
