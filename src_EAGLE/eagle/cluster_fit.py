"""Fit a tree of clusters to the codes of a trained segmenter, without labels.

The cluster probe learns while the codes still change, from random centres. After training, more is found in the same
codes: Ward's method joins image regions, each one mean code, to centres; and then the centres to leaves and ever fewer
clusters, in the space of the smallest eigenvectors of their own graph Laplacian (Ng, Jordan and Weiss, "On Spectral
Clustering", NeurIPS 2001). A centre counts by the square root of its area: by area itself, small classes would vanish
in large ones; without it, large classes would be cut into many clusters.
"""

import dataclasses
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment
from skimage.measure import label
from sklearn.cluster import AgglomerativeClustering
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import to_pil_image
from tqdm import tqdm

from eagle.checkpoints import CKPT, SLIM, build_segmenter, dataset_config, read_stored, write_stored
from eagle.config.schema import MOST_SEED
from eagle.data.check import readable_part
from eagle.data.datasets.catalog import open_dataset
from eagle.data.labels import distinct_palette
from eagle.data.views import EvaluationViews, unnormalize
from eagle.distributed import chosen_precision, named_devices, set_float32_precision
from eagle.errors import CheckpointError, DataError
from eagle.evaluation.evaluator import device_batches
from eagle.evaluation.kmeans import kmeans_probe, sampled_images, sampled_vectors
from eagle.figures.charts import tree_figure
from eagle.figures.drawing import write_figure
from eagle.maps.probe_maps import patch_probabilities
from eagle.models.cluster_tree import ClusterCut, ClusterTree
from eagle.models.key_cache import KeyMemory
from eagle.models.probes import ClusterLookup
from eagle.spectral.laplacian import normalized_laplacian
from eagle.spectral.refinement import cosine_affinity, spectral_refinement

# Images whose regions are joined; memory grows with them.
MOST_IMAGES = 400
# Ward's method takes time and memory in the square of the regions.
MOST_REGIONS = 8_000
LEAST_PATCHES = 6
# Leaves, and centres of an over-clustering that finds regions, as multiples of the number of clusters.
LEAVES, CENTRES = 6, 4
# Over-clusterings, each with centres of its own: which regions it finds depends on its random start.
DRAWS = 4
REGION_ALPHA = 20.0
# Patches that an over-clustering is fitted to, and its rounds of k-means.
KMEANS_PATCHES, KMEANS_ROUNDS = 20_000, 50
# Example patches of each leaf in the drawing of the tree, and their size in pixels.
EXAMPLES, EXAMPLE_SIZE = 8, (48, 48)

logger = logging.getLogger(__name__)


def fit_checkpoint(checkpoint: Path, cfg: Any, memory: KeyMemory | None = None) -> Path:
    """Fit a tree to a checkpoint and write ``NAME_tree`` beside it, which every command uses as any checkpoint.

    The same checkpoint, images, ``precision``, ``batch_size`` and ``seed`` give the same tree.

    Args:
        checkpoint: released or ours, .ckpt or .safetensors.
        cfg: a validated FitConfig, or a TrainConfig.
        memory: keeps keys for further checkpoints.

    Returns:
        The new checkpoint, without the optimiser's state; ``NAME_tree.png`` draws the tree.

    Raises:
        CheckpointError: the checkpoint cannot be loaded, or its folder not be written to.
        DataError: training images are missing or bad, or too few for that many leaves.
    """
    target = checkpoint.with_name(f"{checkpoint.stem}_tree{checkpoint.suffix}")
    if target.suffix not in (CKPT, SLIM):
        raise CheckpointError(f"{checkpoint}: a checkpoint's name ends in {CKPT} or {SLIM}")
    if not os.access(checkpoint.parent, os.W_OK):
        raise CheckpointError(
            f"{checkpoint.parent} is not writable, but the tree belongs beside its checkpoint: copy it"
        )
    stored = read_stored(checkpoint)
    segmenter = build_segmenter(stored, checkpoint).eval()
    if memory:
        memory.attach(segmenter.net.model)
    set_float32_precision("highest")  # also at the end of a training run with another
    # One process, whatever started this one.
    with named_devices(cfg):
        keys = {"accelerator": cfg.accelerator, "devices": 1, "precision": chosen_precision(cfg)}
        machine = Fabric(**keys, plugins=[LightningEnvironment()])
    machine.to_device(segmenter)
    dataset = open_dataset(dataset_config(segmenter.cfg, cfg.pytorch_data_dir), "train")
    seed = segmenter.cfg.seed if cfg.seed is None else cfg.seed
    images = sampled_images(dataset, seed, MOST_IMAGES)
    views = EvaluationViews(readable_part(images, cfg.on_bad_image, "training images"), segmenter.cfg.val_res)
    parts = []
    for batch in device_batches(machine, views, cfg.batch_size, cfg.num_workers, "codes of training images"):
        with torch.no_grad(), machine.autocast():
            parts.append(segmenter(batch["img"]).half().cpu())
    codes = torch.cat(parts)
    if not codes.isfinite().all():
        raise CheckpointError(f"{checkpoint}: its codes are not finite in half precision")
    n_clusters = len(segmenter.cluster_probe.clusters)
    segmenter.cluster_tree = fit_tree(codes, n_clusters, seed)
    logger.info("a tree of %d leaves, from %d images", segmenter.cluster_tree.n_leaves, len(views))
    _draw(segmenter.cluster_tree, n_clusters, codes, views, target.with_suffix(".png"))
    # Last: where it is there, a resumed run does not fit it again.
    write_stored(dataclasses.replace(stored, tensors=segmenter.state_dict(), class_map=None), target)
    return target


def _draw(tree: ClusterTree, n_clusters: int, codes: Tensor, views: EvaluationViews, path: Path) -> None:
    """Draw the tree with the most probable patches of each leaf, at most one of an image, and their surroundings."""
    probe = tree.leaf_probe()
    nearest = [probe.probabilities(code[None])[0].flatten(1).max(dim=1) for code in codes]
    best = torch.stack([found.values for found in nearest]).topk(min(EXAMPLES, len(codes)), dim=0).indices.T
    patch = views.res // codes.shape[3]
    examples = np.zeros((tree.n_leaves, best.shape[1], *EXAMPLE_SIZE, 3), dtype=np.uint8)
    for image in best.unique().tolist():
        pixels = to_pil_image(unnormalize(views[image]["img"]))
        for leaf, column in (best == image).nonzero().tolist():
            row, col = divmod(int(nearest[image].indices[leaf]), codes.shape[3])
            left, top = (min(max(0, (at - 1) * patch), max(0, views.res - 3 * patch)) for at in (col, row))
            box = (left, top, left + 3 * patch, top + 3 * patch)
            examples[leaf, column] = np.asarray(pixels.crop(box).resize(EXAMPLE_SIZE))
    cluster_of_leaf = tree.cluster_of_leaf(min(n_clusters, tree.n_leaves))
    palette = distinct_palette(max(cluster_of_leaf) + 1)
    write_figure(path, tree_figure(tree.merges.numpy(), cluster_of_leaf, examples, palette))


def fit_tree(codes: Tensor, n_clusters: int, seed: int = 0) -> ClusterTree:
    """Fit a tree of clusters to codes; deterministic.

    Args:
        codes: B×dim×h×w.
        n_clusters: the number of clusters that is wanted most; the tree has ``LEAVES`` times as many leaves, or as many
            as there are regions.
        seed: of the k-means that finds the regions, and of the draw where there are too many.

    Raises:
        DataError: every over-clustering has fewer regions than clusters.
    """
    with threadpool_limits(1):  # sums of several threads come in any order
        seeds = [(seed + draw) % (MOST_SEED + 1) for draw in range(DRAWS)]
        regions = code_regions(codes, n_clusters * CENTRES, seeds)
        most = max(len(means) for means, _ in regions)
        if most < n_clusters:
            raise DataError(
                f"{most} regions of at least {LEAST_PATCHES} patches in {len(codes)} training images are too few "
                f"for {n_clusters} clusters; name a folder with more images"
            )
        found = [
            _region_clusters(means, areas, n_clusters, own)
            for (means, areas), own in zip(regions, seeds, strict=True)
            if len(means)
        ]
        centres = torch.from_numpy(np.concatenate([means for means, _ in found]))
        areas = np.concatenate([areas for _, areas in found]) / DRAWS
        # The first eigenvector alone is the same for all.
        embedding = spectral_embedding(leaf_affinity(centres, codes), max(2, n_clusters))
    merges = weighted_ward(embedding, np.sqrt(areas))
    tree = ClusterTree(centres, torch.from_numpy(areas), torch.from_numpy(merges))
    return tree.pruned(max(len(means) for means, _ in found))


def _region_clusters(means: np.ndarray, areas: np.ndarray, n_clusters: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Join the regions of one over-clustering by Ward's method: mean codes, L×dim float32, and patches, L."""
    if len(means) > MOST_REGIONS:
        kept = np.sort(np.random.default_rng(seed).choice(len(means), MOST_REGIONS, replace=False))
        means, areas = means[kept], areas[kept]
    n_leaves = min(n_clusters * LEAVES, len(means))
    leaf = np.zeros(len(means), dtype=np.int64)
    if n_leaves > 1:
        leaf = AgglomerativeClustering(n_leaves, linkage="ward").fit_predict(means)
    centres = np.stack([means[leaf == i].mean(axis=0) for i in range(n_leaves)]).astype(np.float32)
    return centres, np.bincount(leaf, weights=areas, minlength=n_leaves)


def code_regions(codes: Tensor, n_centres: int, seeds: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Connected regions of images in over-clusterings of the codes by k-means, after spectral refinement.

    Returns:
        For each seed the unit-length mean code of each region of at least ``LEAST_PATCHES`` patches of the refined
        grid, R×dim; and its patches, R.
    """
    probes = [_over_clustering(codes, n_centres, seed) for seed in seeds]
    regions = []
    for code in tqdm(codes.split(1), desc="regions", unit="image"):
        with torch.no_grad():
            # One graph an image serves all over-clusterings.
            probs = torch.cat([patch_probabilities(code, probe, REGION_ALPHA) for probe in probes], dim=1)
            refined = spectral_refinement(probs, code)[0].unflatten(0, (len(probes), -1))
        unit = F.adaptive_avg_pool2d(F.normalize(code[0].float(), dim=0), refined.shape[2:]).numpy()
        regions.append([_region_means(unit, labels) for labels in refined.argmax(dim=1).numpy()])
    found = []
    for of_draw in zip(*regions, strict=True):
        means, areas = (np.concatenate(parts) for parts in zip(*of_draw, strict=True))
        lengths = np.linalg.norm(means, axis=1, keepdims=True).clip(np.finfo(np.float32).tiny)
        found.append((means / lengths, areas))
    return found


def _over_clustering(codes: Tensor, n_centres: int, seed: int) -> ClusterLookup:
    """k-means of patches drawn evenly from all images; fewer centres where there are fewer patches."""
    sample = sampled_vectors(codes, range(len(codes)), max(1, KMEANS_PATCHES // len(codes)), seed)
    n_centres = min(n_centres, sum(len(drawn) for _, drawn in sample))
    return kmeans_probe(sample, n_centres, seed, n_init=1, max_iter=KMEANS_ROUNDS)


def _region_means(code: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean code (R×dim) and patches of the connected regions of equal labels in one image, dim×h×w and h×w."""
    regions = label(labels, background=-1, connectivity=1).ravel() - 1
    areas = np.bincount(regions)
    sums = np.zeros((len(areas), len(code)), dtype=np.float32)
    np.add.at(sums, regions, code.reshape(len(code), -1).T)
    large = areas >= LEAST_PATCHES
    return (sums / areas[:, None])[large], areas[large]


def leaf_affinity(centres: Tensor, codes: Tensor) -> Tensor:
    """√(cᵢⱼ mᵢⱼ), K×dim and B×dim×h×w → K×K float64, diagonal 1.

    c is the affinity between patches in spectral refinement, here of the centres. m says how much more often two
    centres share a patch than an image: Σ pᵢpⱼ over all patches, divided by Σ p̄ᵢp̄ⱼ over all images, where p are the
    centres' probabilities and p̄ their means over an image; scaled to mᵢᵢ = 1. Parts of one class share patches, whereas
    two classes with similar codes, such as road and pavement, share images.
    """
    probe = ClusterCut(centres, range(len(centres)))
    in_patch, in_image = torch.zeros(2, len(centres), len(centres), dtype=torch.float64)
    for code in codes.split(1):
        probs = probe.probabilities(code)[0].flatten(1).double()
        mean = probs.mean(dim=1)
        in_patch += probs @ probs.T / probs.shape[1]
        in_image += torch.outer(mean, mean)
    shared = in_patch / in_image
    scale = shared.diagonal().rsqrt()
    return (cosine_affinity(centres.double()[None])[0] * shared * torch.outer(scale, scale)).sqrt()


def spectral_embedding(affinity: Tensor, n_vectors: int) -> np.ndarray:
    """Rows of the smallest eigenvectors of the normalised Laplacian, scaled to length 1, K×K → K×n_vectors."""
    laplacian, _ = normalized_laplacian(affinity[None])
    vectors = torch.linalg.eigh(laplacian[0]).eigenvectors[:, :n_vectors]
    return F.normalize(vectors, dim=1).numpy()


def weighted_ward(centres: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Ward's merges of weighted centres, L×dim and L, → (L − 1)×2 int64 nodes as in ``ClusterTree``.

    Each merge is the one that adds least to the weighted sum of squared distances to the cluster means,
    wᵢwⱼ/(wᵢ + wⱼ) ‖μᵢ − μⱼ‖².
    """
    means, weights = centres.astype(np.float64), weights.astype(np.float64)
    n = len(means)
    nodes, costs = np.arange(n), np.full((n, n), np.inf)
    for i in range(n):
        costs[i, i + 1 :] = _merge_costs(means, weights, i)[i + 1 :]
    merges = []
    for node in range(n, 2 * n - 1):
        i, j = divmod(int(costs.argmin()), n)
        merges.append((nodes[i], nodes[j]))
        total = weights[i] + weights[j]
        means[i] = (weights[i] * means[i] + weights[j] * means[j]) / total
        weights[i], nodes[i], nodes[j] = total, node, -1
        costs[j], costs[:, j] = np.inf, np.inf
        row = np.where(nodes < 0, np.inf, _merge_costs(means, weights, i))
        costs[i, i + 1 :], costs[:i, i] = row[i + 1 :], row[:i]
    return np.array(merges, dtype=np.int64).reshape(-1, 2)


def _merge_costs(means: np.ndarray, weights: np.ndarray, i: int) -> np.ndarray:
    """What joining cluster i to each one adds to the weighted sum of squared distances."""
    squares: np.ndarray = np.square(means - means[i]).sum(axis=1)
    return squares * weights * weights[i] / (weights + weights[i])
