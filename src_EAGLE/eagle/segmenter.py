"""LitUnsupervisedSegmenter: the Lightning module that combines backbone, head, EiCue, losses and probes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eagle.config.schema import RANDOM_WEIGHTS
from eagle.config.validation import complete_config, plain
from eagle.data.datasets.base import VOID
from eagle.distributed import all_gather_rows, all_reduce_sum, device_rows, from_rank_zero, world_size
from eagle.errors import ConfigError
from eagle.evaluation.metrics import UnsupervisedMetrics
from eagle.losses.correspondence import CorrespondenceLoss
from eagle.losses.object_nce import ObjectNCELoss, lambda_at, patch_weights
from eagle.maps.probe_maps import MapSettings, ProbeMaps, cut_map, linear_scores
from eagle.models.backbone import build_backbone
from eagle.models.cluster_tree import ClusterCut, ClusterTree
from eagle.models.head import Featurizer
from eagle.models.key_cache import KeyCache, KeyCaches, rows_of
from eagle.models.probes import ClusterLookup, upsampled
from eagle.spectral.eicue import eicue, laplacian_eigenvectors

# Prefixes of tensors in released checkpoints that the model does not use.
PUBLISHED_LEFTOVERS = ("train_cluster_probe.", "decoder.", "CELoss.")

# Scores that select the best checkpoint: without labels (lower is better), and with labels (higher is better).
LABEL_FREE_MONITOR = "val/loss"
LABELLED_MONITOR = "test/cluster/mIoU"


class LitUnsupervisedSegmenter(pl.LightningModule):
    """EAGLE: trains the head and the EiCue codebooks without labels, and two probes on detached codes.

    Args:
        n_classes: classes of the dataset; the cluster probe has ``extra_clusters`` more.
        cfg: mapping or object with the keys of TrainConfig; missing keys take their defaults.
        pretrained: False skips loading the backbone's weights, for a checkpoint to be loaded next.

    Raises:
        ConfigError: a key has the wrong type or value.
        WeightsError: the backbone's weights are missing or unreadable.

    Example:
        >>> import torch
        >>> from eagle import LitUnsupervisedSegmenter
        >>> vit = {"embed_dim": 48, "depth": 4, "num_heads": 3}
        >>> cfg = {"pretrained_weights": "random", "backbone_kwargs": vit, "dim": 32}
        >>> segmenter = LitUnsupervisedSegmenter(3, cfg)
        >>> segmenter(torch.zeros(2, 3, 64, 96)).shape  # a code for each 8×8 patch
        torch.Size([2, 32, 8, 12])
    """

    def __init__(self, n_classes: int, cfg: Any, pretrained: bool = True) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.training_record: dict[str, Any] = {}  # filled by load_segmenter
        self.cfg = cfg = complete_config(cfg)
        # Plain containers, so that reading a checkpoint needs no OmegaConf class.
        self.save_hyperparameters({"n_classes": n_classes, "cfg": plain(cfg)}, logger=False)
        backbone = build_backbone(
            cfg.model_type,
            cfg.dino_patch_size,
            cfg.pretrained_weights if pretrained else RANDOM_WEIGHTS,
            cfg.key_blocks,
            **cfg.backbone_kwargs,
        )
        self.net = Featurizer(backbone, cfg.dim, cfg.projection_type, cfg.dropout)
        self.key_caches = KeyCaches()  # of training and validation, for batches that contain ``index``
        self.train_cluster_probe_eigen = ClusterLookup(cfg.eigen_cluster - 1, cfg.eigen_cluster_out)
        self.train_cluster_probe_eigen_aug = ClusterLookup(cfg.eigen_cluster - 1, cfg.eigen_cluster_out)
        self.cluster_probe = ClusterLookup(cfg.dim, n_classes + cfg.extra_clusters)
        self.cluster_tree: ClusterTree | None = None  # filled by load_segmenter, from a checkpoint of fit_clusters.py
        self.linear_probe = nn.Conv2d(cfg.dim, n_classes, kernel_size=1)
        self.project_head = nn.Linear(cfg.dim, cfg.dim)
        self.correspondence_loss = CorrespondenceLoss(cfg)
        self.object_nce_loss = ObjectNCELoss(cfg, cfg.eigen_cluster_out)
        self.linear_metrics = UnsupervisedMetrics("test/linear/", n_classes, 0, compute_hungarian=False)
        self.cluster_metrics = UnsupervisedMetrics("test/cluster/", n_classes, cfg.extra_clusters, True)
        self.register_load_state_dict_pre_hook(_drop_unused_tensors)

    def compile_network(self) -> None:
        """Compile backbone and head in place; the names of their tensors do not change."""
        self.net.model.compile()
        self.net.compile()

    def forward(self, img: Tensor) -> Tensor:
        """Compute the codes S of images, as STEGO's ``forward`` does; the released EAGLE's returns keys.

        Args:
            img: B×3×H×W, ImageNet-normalised; H and W are multiples of the patch size.

        Returns:
            B×dim×h×w, one code per patch; with dropout in training mode.
        """
        return self.net(self.net.model(img))

    def clusters(self, n_clusters: int | None = None) -> ClusterLookup | ClusterCut:
        """What finds clusters: the trained cluster probe or, if a tree has been fitted, its cut at ``n_clusters``.

        Args:
            n_clusters: None for as many as the trained probe has.

        Raises:
            ConfigError: the tree has fewer leaves, or there is none and the probe has another number of clusters.
        """
        trained, tree = len(self.cluster_probe.clusters), self.cluster_tree
        if tree is None and n_clusters in (None, trained):
            return self.cluster_probe
        if tree is None:
            raise ConfigError(
                f"n_clusters: this checkpoint has {trained} clusters; fit a tree that can be cut at other numbers with "
                "`python fit_clusters.py checkpoint=FILE`"
            )
        n_clusters = min(trained, tree.n_leaves) if n_clusters is None else n_clusters
        if not 1 <= n_clusters <= tree.n_leaves:
            raise ConfigError(f"n_clusters: {n_clusters} is not from 1 to {tree.n_leaves}, the leaves of this tree")
        return tree.cut(n_clusters)

    def probe_maps(
        self, settings: MapSettings, n_clusters: int | None = None, further_cuts: Sequence[int] = ()
    ) -> ProbeMaps:
        """The maps "linear" and "cluster" of both probes; call them in eval mode, which has no dropout.

        Args:
            settings: see MapSettings.
            n_clusters: see ``clusters``.
            further_cuts: numbers of clusters at which the tree is cut as well, as maps "cluster@N".
        """
        probes = {"linear": self.linear_probe, "cluster": self.clusters(n_clusters)}
        probes |= {cut_map(n): self.clusters(n) for n in further_cuts}
        return ProbeMaps(self, self.net.model.patch_size, probes, settings)

    @torch.no_grad()
    def cues(self, img: Tensor, code: Tensor | None = None) -> Tensor:
        """Compute the EiCue M of images, as training does for x; call it in eval mode, which has no dropout.

        Args:
            img: B×3×H×W, ImageNet-normalised; H and W are multiples of the patch size.
            code: their codes, B×dim×h×w; None computes them.

        Returns:
            B×h×w int64 labels.
        """
        code = self(img) if code is None else code
        vectors = self._eigenvectors_of(code, img)
        return eicue(vectors, (code.shape[2], code.shape[3]), self.train_cluster_probe_eigen)[1]

    def losses(
        self,
        batch: Mapping[str, Tensor],
        step: int,
        coords: Tensor | None = None,
        perms: Tensor | None = None,
        eigenvectors: tuple[Tensor, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Compute every term of the training loss under its published name (docs/method.md §8).

        Args:
            batch: ``img`` x and ``img_aug`` x̃ (B×3×H×W, normalised). Optional: ``label`` (B×H×W int64, −1 = void);
                ``index`` (B int64), the images' dataset indices for the key caches; ``view`` (B int64), the row of x̃ in
                the cache of augmented views; and ``changed`` (B bool), whether x̃ differs from x; without it the two
                are compared. Keep the three on the CPU, because the host reads them.
            step: steps done so far; determines λ.
            coords: sampled points of the correspondence loss, 3×B×s×s×2; None draws them.
            perms: negatives of the correspondence loss, n×B; None draws them.
            eigenvectors: (V, Ṽ), each B×N×k with the trivial one first; None computes them.

        Returns:
            Scalars. ``loss/total`` is minimised; ``loss/cluster_eigen_loss`` is that of x only; ``cd/update_params`` is
            λ.
        """
        img, img_aug = batch["img"], batch["img_aug"]
        frozen, frozen_aug = self._frozen_keys(batch)
        keys, code = self.net.from_keys(frozen)
        keys_aug, code_aug = self.net.from_keys(frozen_aug)

        vectors, vectors_aug = eigenvectors or self._eigenvectors(img, img_aug, code, code_aug)
        grid = (code.shape[2], code.shape[3])
        eigen_loss, cue = eicue(vectors, grid, self.train_cluster_probe_eigen)
        eigen_loss_aug, cue_aug = eicue(vectors_aug, grid, self.train_cluster_probe_eigen_aug)

        pairs = self._pairs(keys, keys_aug, code, code_aug, coords, perms)

        whole, n_labels = self._whole_batch, self.cfg.eigen_cluster_out
        projected, projected_aug = whole(self._projection(code)), whole(self._projection(code_aug))
        weights, weights_aug = whole(patch_weights(keys)), whole(patch_weights(keys_aug))
        local_pos = self.object_nce_loss(projected, projected_aug, whole(cue), weights, n_labels)
        local_pos_aug = self.object_nce_loss(projected_aug, projected, whole(cue_aug), weights_aug, n_labels)

        linear_loss = self._linear_loss(code.detach(), batch.get("label"))
        cluster_loss, _ = self.cluster_probe(code.detach(), None)

        weight = lambda_at(self.cfg, step)
        cfg = self.cfg
        total = (
            (eigen_loss + eigen_loss_aug) / 2
            + (1 - weight) * cfg.correspondence_weight * self._correspondence(pairs)
            + weight * (cfg.local_pos_weight * local_pos + cfg.local_pos_aug_weight * local_pos_aug)
            + linear_loss
            + cluster_loss
        )
        return {
            "loss/pos_inter": pairs["pos_inter_loss"],
            "loss/neg_inter": pairs["neg_inter_loss"].mean(),
            "loss/local_pos_loss": local_pos,
            "loss/local_pos_aug_loss": local_pos_aug,
            "loss/cluster_eigen_loss": eigen_loss,
            "loss/linear": linear_loss,
            "loss/cluster": cluster_loss,
            "loss/total": total,
            "cd/pos_inter": pairs["pos_inter_cd"].mean(),
            "cd/neg_inter": pairs["neg_inter_cd"].mean(),
            "cd/update_params": torch.full((), weight, device=total.device),
        }

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Reseed torch on ranks > 0, for other dropout, points and negatives; augmentation is seeded per sample."""
        if self.global_rank > 0:
            torch.manual_seed(self.cfg.seed + self.global_rank)

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> dict[str, Any]:  # noqa: ARG002
        """Do one optimiser step on one batch."""
        terms = self.losses(batch, self.global_step)
        logged = {name: value.detach() for name, value in terms.items()}
        self.log_dict(logged, batch_size=len(batch["img"]))
        return {"loss": terms["loss/total"], "terms": logged}

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> dict[str, Tensor]:  # noqa: ARG002
        """Score both probes without flip or CRF (docs/method.md §9), and the label-free loss.

        Returns:
            "linear": B×H×W predicted class ids; "cluster": B×H×W predicted cluster ids.
        """
        img, label = batch["img"], batch["label"]
        keys, code = self.net.from_keys(self._keys(batch, self.key_caches.validation))
        size = (label.shape[1], label.shape[2])
        cluster, linear = (
            upsampled(linear_scores(code, probe), size).argmax(dim=1)
            for probe in (self.cluster_probe, self.linear_probe)
        )
        self.cluster_metrics.update(cluster, label)
        self.linear_metrics.update(linear, label)
        cluster_loss, _ = self.cluster_probe(code, None)
        # Every validation samples the same points, so that its scores are comparable.
        generator = torch.Generator(img.device).manual_seed(self.cfg.seed)
        coords = self.correspondence_loss.random_coords(len(img), img.device, generator)
        # Each image's negative is the next one of the batch.
        perms = torch.arange(len(img), device=img.device).roll(-1)[None] if len(img) > 1 else None
        pairs = self.correspondence_loss(keys, keys, keys, code, code, code, coords, perms)
        score = self._correspondence(pairs) + cluster_loss
        self.log(LABEL_FREE_MONITOR, score, batch_size=len(img), sync_dist=True)
        return {"linear": linear, "cluster": cluster}

    def on_validation_epoch_end(self) -> None:
        """Log mIoU and accuracy of a labelled validation: 0 if no labelled pixel falls into a matched cluster."""
        self.log("step", self.global_step - 1.0)  # Lightning's own count is wrong after some resumptions
        for metric in (self.linear_metrics, self.cluster_metrics):
            # Both reduce over all ranks, so a rank without labelled images must call them too.
            scores = metric.compute()
            if all_reduce_sum(metric.confusion.sum()) > 0:
                self.log_dict({name: 0.0 if math.isnan(value) else value for name, value in scores.items()})
            metric.reset()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Use one Adam with a parameter group for each released learning rate."""
        cfg = self.cfg
        head = [p for p in self.net.parameters() if p.requires_grad] + list(self.project_head.parameters())
        codebooks = [self.train_cluster_probe_eigen.clusters, self.train_cluster_probe_eigen_aug.clusters]
        return torch.optim.Adam(
            [
                {"params": head + list(self.object_nce_loss.parameters()), "lr": cfg.lr},
                {"params": list(self.linear_probe.parameters()), "lr": cfg.lr_linear},
                {"params": list(self.cluster_probe.parameters()), "lr": cfg.lr_cluster},
                {"params": codebooks, "lr": cfg.lr_cluster_eigen},
            ]
        )

    def _keys(self, batch: Mapping[str, Tensor], cache: KeyCache | None) -> Tensor:
        if cache is None or "index" not in batch:
            return self.net.model(batch["img"])
        return cache(batch["img"], batch["index"])

    def _frozen_keys(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Compute K and K̃; images that the augmentation did not change reuse their keys."""
        img, img_aug = batch["img"], batch["img_aug"]
        keys = self._keys(batch, self.key_caches.clean)
        changed = batch["changed"] if "changed" in batch else (img_aug != img).flatten(1).any(dim=1)
        rows = [row for row, is_changed in enumerate(changed.tolist()) if is_changed]
        if not rows:
            return keys, keys
        changed_views = rows_of(img_aug, rows)
        if self.key_caches.views and "view" in batch:
            keys_aug = self.key_caches.views(changed_views, batch["view"][rows])
        else:
            keys_aug = self.net.model(changed_views).to(keys.dtype)
        return keys, keys_aug if len(rows) == len(img) else keys.index_copy(0, device_rows(rows, img.device), keys_aug)

    def _eigenvectors(self, img: Tensor, img_aug: Tensor, code: Tensor, code_aug: Tensor) -> tuple[Tensor, Tensor]:
        colors_aug = img_aug if self.cfg.aug_color_image == "paper" else img
        vectors = self._eigenvectors_of(torch.cat([code, code_aug]), torch.cat([img, colors_aug]))
        return vectors[: len(img)], vectors[len(img) :]

    def _eigenvectors_of(self, code: Tensor, img: Tensor) -> Tensor:
        cfg = self.cfg
        options = (cfg.eigen_cluster, cfg.color_affinity, cfg.eigensolver, cfg.eigen_signs, cfg.eicue_affinity)
        return laplacian_eigenvectors(code, img, *options)

    def _whole_batch(self, local: Tensor) -> Tensor:
        """Gather the rows of all devices if ``gather_batch`` is set.

        Every device then computes the same loss. The backward pass of ``all_gather_rows`` sums over ranks and DDP
        averages, so the gradient equals that of one device with the whole batch.
        """
        return all_gather_rows(local) if self.cfg.gather_batch else local

    def _pairs(
        self,
        keys: Tensor,
        keys_aug: Tensor,
        code: Tensor,
        code_aug: Tensor,
        coords: Tensor | None,
        perms: Tensor | None,
    ) -> dict[str, Tensor]:
        """Compute CorrespondenceLoss; with ``gather_batch`` all devices use the same points and negatives."""
        keys, keys_aug, code, code_aug = (self._whole_batch(local) for local in (keys, keys_aug, code, code_aug))
        loss = self.correspondence_loss
        if self.cfg.gather_batch:
            coords = from_rank_zero(loss.random_coords(len(keys), keys.device)) if coords is None else coords
            perms = from_rank_zero(loss.random_perms(len(keys), keys.device)) if perms is None else perms
        return loss(keys, keys, keys_aug, code, code, code_aug, coords, perms)

    def _correspondence(self, pairs: Mapping[str, Tensor]) -> Tensor:
        """Weighted sum of the losses of positive and negative pairs."""
        positive, negative = pairs["pos_inter_loss"], pairs["neg_inter_loss"].mean()
        return self.cfg.pos_inter_weight * positive + self.cfg.neg_inter_weight * negative

    def _projection(self, code: Tensor) -> Tensor:
        """Project codes to Z, (B·N)×D unit vectors."""
        tokens = code.flatten(2).transpose(1, 2).flatten(0, 1)
        return F.normalize(self.project_head(tokens).float(), dim=1)

    def _linear_loss(self, code: Tensor, label: Tensor | None) -> Tensor:
        """Cross entropy over labelled pixels; zero, with zero gradients, without any."""
        if label is None:
            return 0 * torch.stack([parameter.sum() for parameter in self.linear_probe.parameters()]).sum()
        logits = upsampled(self.linear_probe(code).float(), (label.shape[1], label.shape[2]))
        # Flattened, because torch's cross entropy of maps is not deterministic on GPUs.
        rows = logits.permute(0, 2, 3, 1).flatten(0, 2)
        loss_sum = F.cross_entropy(rows, label.flatten(), ignore_index=VOID, reduction="sum")
        n_labelled = (label != VOID).sum()
        if self.cfg.gather_batch:
            n_labelled = all_reduce_sum(n_labelled) / world_size()
            return loss_sum / torch.where(n_labelled > 0, n_labelled, 1)
        return loss_sum / n_labelled.clamp(min=1)


def _drop_unused_tensors(_module: nn.Module, state_dict: dict[str, Tensor], *_args: Any) -> None:
    for name in [name for name in state_dict if name.startswith(PUBLISHED_LEFTOVERS)]:
        del state_dict[name]
