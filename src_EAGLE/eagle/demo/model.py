"""A loaded segmenter, and what the page asks of it."""

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from eagle.config.refinement import refinement_of_name
from eagle.inference.decomposition import Decomposition, decompose
from eagle.inference.segmentation import Segmentation
from eagle.inference.segmenter import Segmenter
from eagle.inference.whole_patches import input_of_size, whole_patch_size

# Offered short sides of the model's input, relative to the resolution of the run's evaluation.
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5)


@dataclass(frozen=True)
class Model:
    """A segmenter and the names of its clusters.

    Attributes:
        segmenter: from ``load_segmenter``.
        cluster_names: file of names, see ``Segmenter.segment``; None for the checkpoint's.
    """

    segmenter: Segmenter
    cluster_names: Path | None = None

    @property
    def default_resolution(self) -> int:
        """The resolution of the run's evaluation."""
        return int(self.segmenter.cfg.val_res)

    @property
    def resolutions(self) -> list[int]:
        """Short sides in pixels that the page offers; multiples of the patch size."""
        patch_size = self.segmenter.model.net.model.patch_size
        # At least four patches, which EiCue needs.
        offered = (max(4, round(self.default_resolution * scale / patch_size)) * patch_size for scale in SCALES)
        return sorted({*offered, self.default_resolution})

    def check(self) -> None:
        """Raise ConfigError or DataError now, rather than for the first visitor, if the names do not fit."""
        self.segmenter.legend("cluster", refinement_of_name("none"), self.cluster_names)

    def segment(self, photograph: Image.Image, name: str, res: int, crf: bool) -> Segmentation:
        """Segment an RGB photograph with the cluster probe; ids in the smallest integer type that holds them."""
        refine = "crf" if crf else "none"
        result = self.segmenter.segment(photograph, res=res, refine=refine, cluster_names=self.cluster_names)
        return replace(result, ids=result.ids.astype(np.min_scalar_type(-len(result.names) - 1)), name=name)

    def decompose(self, photograph: Image.Image, res: int) -> Decomposition:
        """Eigenvectors, EiCue and k-means of the keys, as ``visualize_eigen.py`` draws them.

        Raises:
            DataError: the photograph is so long that it has too many patches.
        """
        machine = self.segmenter.machine
        size = whole_patch_size(photograph, res, self.segmenter.model.net.model.patch_size)
        options = SimpleNamespace(n_eigenvectors=None, n_clusters=None, color_affinity=None, seed=0)
        with machine.autocast():
            return decompose(self.segmenter.model, machine.to_device(input_of_size(photograph, size)), options)
