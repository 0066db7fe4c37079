"""The released algorithm, written naively from the method description, as the baseline of the benchmark.

It uses the weights of one of our segmenters, so that the benchmark can check equal losses before it times both.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from multiprocessing.util import Finalize
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eagle.data.datasets.base import VOID
from eagle.losses.object_nce import lambda_at
from eagle.maps.crf.dense_crf import bgr_bytes, log_unary
from eagle.maps.crf.reference import pydensecrf_refine
from eagle.models.probes import ClusterLookup
from eagle.processes import follow_parent, usable_cores
from eagle.segmenter import LitUnsupervisedSegmenter

COLOR_SIGMA = 0.1
NORM_EPS = 1e-10
CODE_CORRELATION_LIMIT = 0.8


class Released:
    """Three ViT passes with every attention map, full eigendecompositions, N×N similarities and seven optimisers.

    Args:
        segmenter: its modules and weights are used.
    """

    def __init__(self, segmenter: LitUnsupervisedSegmenter) -> None:
        self.segmenter = segmenter
        self._decoder = nn.Conv2d(segmenter.cfg.dim, segmenter.net.model.n_feats, 1)  # no loss trains it, as released

    @torch.no_grad()
    def keys(self, img: Tensor) -> Tensor:
        """K, B×3C×h×w, from the whole ViT; all blocks' attention maps and qkv are computed and kept until it ends."""
        backbone = self.segmenter.net.model
        patches = backbone.patch_embed(backbone.normalization(img))
        h, w = patches.shape[1:3]
        tokens = backbone._with_position(patches.flatten(1, 2), (h, w))
        attentions, projections = [], []
        for block in backbone.blocks:
            tokens, attention, qkv = _block(block, tokens)
            attentions.append(attention)
            projections.append(qkv)
        tokens = backbone.norm(tokens)
        chosen = [projections[number][1] for number in backbone.key_blocks]
        keys = [k.transpose(1, 2).flatten(2)[:, -h * w :] for k in chosen]
        return torch.cat(keys, dim=2).transpose(1, 2).reshape(len(img), -1, h, w)

    def keys_and_code(self, img: Tensor) -> tuple[Tensor, Tensor]:
        """K and S from one ViT pass."""
        return self.segmenter.net.from_keys(self.keys(img))

    @torch.no_grad()
    def eigenvectors(self, code: Tensor, img: Tensor) -> Tensor:
        """First k eigenvectors, B×N×k, image by image: explicit inverse of D^½, and all N eigenpairs computed."""
        k, grid = self.segmenter.cfg.eigen_cluster, (code.shape[2], code.shape[3])
        colors = (F.interpolate(img, size=grid, mode="bilinear", align_corners=False) / 255).flatten(2).transpose(1, 2)
        vectors = []
        for tokens, pixels in zip(code.flatten(2).transpose(1, 2), colors, strict=True):
            feature = torch.relu(tokens @ tokens.T)
            squared_distance = (pixels[:, None] - pixels[None]).square().sum(dim=2)
            color = torch.exp(-squared_distance / (2 * COLOR_SIGMA**2))
            affinity = feature / feature.max() + color / color.max()
            degree = torch.diag(affinity.sum(dim=1))
            root = torch.linalg.inv(degree.sqrt())
            _, all_vectors = torch.linalg.eigh(root @ (degree - affinity) @ root)
            vectors.append(all_vectors[:, :k])
        return torch.stack(vectors)

    def cue(self, vectors: Tensor, grid: tuple[int, int], codebook: ClusterLookup) -> tuple[Tensor, Tensor]:
        """L_eig and the cue M."""
        embedding = vectors[:, :, 1:].transpose(1, 2).unflatten(2, grid)
        loss, _ = codebook(embedding, alpha=1)
        _, log_probs = codebook(embedding, alpha=1, log_probs=True)
        return loss, log_probs.argmax(dim=1)

    def losses(
        self,
        batch: Mapping[str, Tensor],
        step: int,
        coords: Tensor | None = None,
        perms: Tensor | None = None,
        eigenvectors: tuple[Tensor, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """All terms of the total loss, with the arguments and names of LitUnsupervisedSegmenter.losses."""
        segmenter, cfg = self.segmenter, self.segmenter.cfg
        img, img_aug = batch["img"], batch["img_aug"]
        (keys, code), (keys_pos, code_pos) = self.keys_and_code(img), self.keys_and_code(img)
        keys_aug, code_aug = self.keys_and_code(img_aug)
        grid = (code.shape[2], code.shape[3])
        if coords is None:
            coords = segmenter.correspondence_loss.random_coords(len(img), img.device)
        if perms is None:
            perms = segmenter.correspondence_loss.random_perms(len(img), img.device)
        if eigenvectors is None:
            eigenvectors = self.eigenvectors(code_pos, img), self.eigenvectors(code_aug, img)
        eigen_loss, cue = self.cue(eigenvectors[0], grid, segmenter.train_cluster_probe_eigen)
        eigen_loss_aug, cue_aug = self.cue(eigenvectors[1], grid, segmenter.train_cluster_probe_eigen_aug)
        positive, negative = correspondence(cfg, (keys, keys_pos, keys_aug), (code, code_pos, code_aug), coords, perms)
        projected, projected_aug = (F.normalize(self._projected(c), dim=1) for c in (code_pos, code_aug))
        local = object_nce(cfg, projected, projected_aug, cue, keys_pos)
        local_aug = object_nce(cfg, projected_aug, projected, cue_aug, keys_aug)
        linear, cluster = self._linear_loss(code.detach(), batch["label"]), segmenter.cluster_probe(code.detach(), None)
        weight = lambda_at(cfg, step)
        total = (
            (eigen_loss + eigen_loss_aug) / 2
            + (1 - weight) * cfg.correspondence_weight * (cfg.pos_inter_weight * positive)
            + (1 - weight) * cfg.correspondence_weight * (cfg.neg_inter_weight * negative)
            + weight * (cfg.local_pos_weight * local + cfg.local_pos_aug_weight * local_aug)
            + linear
            + cluster[0]
        )
        return {
            "loss/pos_inter": positive,
            "loss/neg_inter": negative,
            "loss/local_pos_loss": local,
            "loss/local_pos_aug_loss": local_aug,
            "loss/cluster_eigen_loss": eigen_loss,
            "loss/linear": linear,
            "loss/cluster": cluster[0],
            "loss/total": total,
        }

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Seven Adam instances."""
        segmenter, cfg = self.segmenter, self.segmenter.cfg
        groups = [
            ((parameter for parameter in segmenter.net.parameters() if parameter.requires_grad), cfg.lr),
            (segmenter.project_head.parameters(), cfg.lr),
            (segmenter.linear_probe.parameters(), cfg.lr_linear),
            (segmenter.cluster_probe.parameters(), cfg.lr_cluster),
            (segmenter.train_cluster_probe_eigen.parameters(), cfg.lr_cluster_eigen),
            (segmenter.train_cluster_probe_eigen_aug.parameters(), cfg.lr_cluster_eigen),
            (self._decoder.parameters(), cfg.lr),
        ]
        return [torch.optim.Adam(parameters, lr=lr) for parameters, lr in groups]

    @torch.no_grad()
    def evaluation_maps(self, img: Tensor, alpha: float) -> list[Tensor]:
        """Both probes' log-probabilities, B×C×H×W, from flip-averaged codes upsampled to full size."""
        _, code = self.keys_and_code(img)
        _, flipped = self.keys_and_code(img.flip(dims=[3]))
        code = (code + flipped.flip(dims=[3])) / 2
        code = F.interpolate(code, img.shape[2:], mode="bilinear", align_corners=False)
        _, cluster = self.segmenter.cluster_probe(code, alpha, log_probs=True)
        return [F.log_softmax(self.segmenter.linear_probe(code), dim=1), cluster]

    def _projected(self, code: Tensor) -> Tensor:
        return self.segmenter.project_head(code.permute(0, 2, 3, 1).reshape(-1, code.shape[1]))

    def _linear_loss(self, code: Tensor, label: Tensor) -> Tensor:
        logits = self.segmenter.linear_probe(code)
        logits = F.interpolate(logits, label.shape[1:], mode="bilinear", align_corners=False)
        logits, label = logits.permute(0, 2, 3, 1).reshape(-1, logits.shape[1]), label.reshape(-1)
        return F.cross_entropy(logits[label != VOID], label[label != VOID])


def correspondence(
    cfg: Any,
    keys: tuple[Tensor, Tensor, Tensor],
    codes: tuple[Tensor, Tensor, Tensor],
    coords: Tensor,
    perms: Tensor,
) -> tuple[Tensor, Tensor]:
    """Mean loss of the positive pairs and mean loss of the negative pairs.

    Args:
        cfg: the training configuration, with its default clamps and centring.
        keys: K of the image, its positive and the augmented view.
        codes: their codes.
        coords: sampled points as in CorrespondenceLoss.
        perms: negative images as in CorrespondenceLoss.
    """
    k2, s2 = _sampled(keys[1], coords[1]), _sampled(codes[1], coords[1])
    positive = _pair(_sampled(keys[2], coords[2]), k2, _sampled(codes[2], coords[2]), s2, cfg, positive=True)
    k1, s1 = _sampled(keys[0], coords[0]), _sampled(codes[0], coords[0])
    negatives = []
    for perm in perms:
        k2, s2 = _sampled(keys[0][perm], coords[1]), _sampled(codes[0][perm], coords[1])
        negatives.append(_pair(k1, k2, s1, s2, cfg, positive=False))
    return positive.mean(), torch.cat(negatives).mean()


def object_nce(cfg: Any, source: Tensor, target: Tensor, cue: Tensor, keys: Tensor) -> Tensor:
    """ObjNCE in one direction, with medoid prototypes computed label by label and COCO-Stuff's per-patch weights."""
    tokens = keys.flatten(2)
    similarity = F.normalize(torch.bmm(tokens.transpose(1, 2), tokens), dim=1)
    weights = similarity.mean(dim=2).flatten()
    labels, own_label = cue.flatten().unique(return_inverse=True)
    prototypes = []
    for label in labels:
        members = source[cue.flatten() == label]
        with torch.no_grad():
            medoid = torch.cdist(members, members).sum(dim=1).argmin()
        prototypes.append(members[medoid])
    table = torch.stack(prototypes)
    local, cross_view = (
        (F.cross_entropy(view @ table.T / cfg.contrastive_temp, own_label, reduction="none") * weights).mean()
        for view in (source, target)
    )
    return ((1 - cfg.global_loss_weight) * local + cfg.global_loss_weight * cross_view) / 2


def crfs(img: Tensor, maps: Sequence[Tensor]) -> list[Tensor]:
    """The CRF of each map by pydensecrf, in a pool with a process for each core."""
    bgr = bgr_bytes(img).cpu().numpy()
    unaries = [-log_unary(log_probs.cpu(), img.shape[2:]).numpy() for log_probs in maps]
    jobs = [[workers().submit(pydensecrf_refine, *job) for job in zip(bgr, unary, strict=True)] for unary in unaries]
    return [torch.stack([torch.from_numpy(job.result()) for job in of_map]) for of_map in jobs]


@cache
def workers() -> ProcessPoolExecutor:
    """Processes that end with this one; spawned, because a fork copies the locks of threads without the threads."""
    pool = ProcessPoolExecutor(usable_cores(), get_context("spawn"), follow_parent)
    # At its end, a process of multiprocessing waits for its own. This comes first, before their queue closes (10).
    Finalize(None, pool.shutdown, exitpriority=20)
    return pool


def _block(block: Any, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A block's output, its attention map B×heads×T×T and its queries, keys and values 3×B×heads×T×d."""
    b, n, c = tokens.shape
    heads = block.attn.num_heads
    qkv = block.attn.qkv(block.norm1(tokens)).reshape(b, n, 3, heads, c // heads).permute(2, 0, 3, 1, 4)
    q, k, v = qkv
    attention = ((q @ k.transpose(2, 3)) * (c // heads) ** -0.5).softmax(dim=3)
    tokens = tokens + block.ls1(block.attn.proj((attention @ v).transpose(1, 2).reshape(b, n, c)))
    return tokens + block.ls2(block.mlp(block.norm2(tokens))), attention, qkv


def _pair(k1: Tensor, k2: Tensor, s1: Tensor, s2: Tensor, cfg: Any, positive: bool) -> Tensor:
    with torch.no_grad():
        fd = _correlation(k1, k2)
        old_mean = fd.mean()
        fd = fd - fd.mean(dim=(3, 4), keepdim=True)
        fd = fd - fd.mean() + old_mean
    cd = _correlation(s1, s2)
    if positive:
        shift = (fd.mean() - cd.mean() - cfg.shift_bias).abs()
    else:
        shift = (fd.mean() + cd.mean() - cfg.shift_bias) * cfg.shift_value
    return -cd.clamp(0, CODE_CORRELATION_LIMIT) * (fd - shift)


def _sampled(features: Tensor, coords: Tensor) -> Tensor:
    return F.grid_sample(features, coords.permute(0, 2, 1, 3), padding_mode="border", align_corners=True)


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    return torch.einsum("nchw,ncij->nhwij", F.normalize(a, dim=1, eps=NORM_EPS), F.normalize(b, dim=1, eps=NORM_EPS))
