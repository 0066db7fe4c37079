"""Images of coloured tiles and probes that read the colours: evaluations without a model whose every pixel is known."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from lightning_fabric import Fabric
from PIL import Image
from torch import nn

from eagle.config.refinement import refinement_of_name
from eagle.data.datasets.base import Classes, SegmentationDataset
from eagle.data.labels import ClassMap, distinct_palette
from eagle.data.views import EvaluationViews, unnormalize
from eagle.evaluation.evaluator import evaluate
from eagle.evaluation.tables import results
from eagle.maps.probe_maps import MapSettings

TILE = 12
ROWS, COLUMNS = 2, 3
EVIL = "<script>alert('class')</script>"
CLASSES = Classes(("road", EVIL, 'sky & "sea"', "never seen"), distinct_palette(4))
# The colour of each cluster in the images; what cluster k shows is of class CLASS_OF_CLUSTER[k].
COLORS = np.array([[200, 60, 50], [60, 180, 70], [50, 80, 210], [240, 240, 240], [20, 20, 20]], dtype=np.uint8)
CLASS_OF_CLUSTER = np.array([2, 0, 1, 3, -1])
ALL_VOID = 4
N_IMAGES = 12


class Tiles(SegmentationDataset):
    """Image i shows another cluster's colour in i mod 5 of its tiles, in the first of them that of the extra one."""

    def __init__(self):
        files = [Path(str(index)) for index in range(N_IMAGES)]
        super().__init__(CLASSES, files, files)

    def name(self, index):
        return f"{index}<img src=x onerror=alert(1)>.tile" if index % 2 else f"{index}"

    def clusters(self, index):
        """H×W; the last cluster is the extra one."""
        rng = np.random.default_rng(index)
        tiles = rng.permutation(np.resize(np.arange(3), ROWS * COLUMNS))
        n_wrong = index % 5
        tiles[:n_wrong] = (tiles[:n_wrong] + 1) % 3
        if n_wrong:
            tiles[0] = 4
        return tiles.reshape(ROWS, COLUMNS).repeat(TILE, 0).repeat(TILE, 1)

    def class_ids(self, path):
        index = int(path.name)
        rng = np.random.default_rng(index)
        tiles = CLASS_OF_CLUSTER[rng.permutation(np.resize(np.arange(3), ROWS * COLUMNS))]
        label = tiles.reshape(ROWS, COLUMNS).repeat(TILE, 0).repeat(TILE, 1).astype(np.int32)
        label[:2] = -1
        return label if index != ALL_VOID else np.full_like(label, -1)

    def image(self, index):
        noise = np.random.default_rng(index).integers(-8, 9, (ROWS * TILE, COLUMNS * TILE, 1))
        return Image.fromarray((COLORS[self.clusters(index)] + noise).clip(0, 255).astype(np.uint8))


class ColorProbes(nn.Module):
    """Maps of a cluster probe that tells colours apart and of a linear one that knows their classes.

    In place of the CRF's maps stand the same ones, as probabilities.
    """

    settings = MapSettings(refinement=refinement_of_name("crf"))
    probes: ClassVar = {"linear": nn.Identity(), "cluster": nn.Identity()}
    n_clusters: ClassVar = {"linear": 4, "cluster": 5, "linear+crf": 4, "cluster+crf": 5}

    def forward(self, img):
        pixels = 255 * unnormalize(img).permute(0, 2, 3, 1)
        distance = torch.cdist(pixels.flatten(0, 2), torch.from_numpy(COLORS).float())
        cluster = -distance.view(*pixels.shape[:3], -1).permute(0, 3, 1, 2) / 50
        linear = cluster[:, np.argsort(CLASS_OF_CLUSTER[:4])]
        maps = {"linear": linear.log_softmax(1), "cluster": cluster.log_softmax(1)}
        return maps | {f"{name}+crf": scores.exp() for name, scores in maps.items()}


def tile_views():
    return EvaluationViews(Tiles(), ROWS * TILE, crop=False)


def evaluated_tiles():
    return evaluate(Fabric(accelerator="cpu", devices=1), ColorProbes(), tile_views(), 5, 0, kept=["cluster+crf"])


def json_content(evaluation):
    """What ``evaluate_checkpoint`` writes to the JSON."""
    assignments = {name: metric.class_of_cluster().tolist() for name, metric in evaluation.metrics.items()}
    return {
        "checkpoint": "../outputs/<b>run</b>/best.ckpt",
        "dataset": "tiles & more",
        "images": N_IMAGES,
        "skipped_images": ["<i>bad.png</i>: not an image"],
        "res": ROWS * TILE,
        "crop": False,
        "window": None,
        "scores": results(evaluation.metrics, CLASSES),
        "class_map": ClassMap(CLASSES, assignments).to_plain(),
    }
