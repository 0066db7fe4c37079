"""Segmentation head: from keys K to codes S (docs/method.md §2)."""

from torch import Tensor, nn

from eagle.models.backbone import KeyBackbone

CHANNEL_DROPOUT = 0.1


class SegmentationHead(nn.Module):
    """S = cluster1(drop(K)) + cluster2(drop(K)): a linear branch plus a two-layer branch.

    ``drop`` is channel dropout, drawn independently per branch and active in training only.

    Args:
        n_feats: channels of K.
        dim: channels D of S.
        projection_type: "nonlinear" for both branches, "linear" for cluster1 only.

    Example:
        >>> import torch
        >>> from eagle import SegmentationHead
        >>> SegmentationHead(n_feats=144, dim=32)(torch.zeros(2, 144, 8, 12)).shape
        torch.Size([2, 32, 8, 12])
    """

    def __init__(self, n_feats: int, dim: int, projection_type: str = "nonlinear") -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(p=CHANNEL_DROPOUT)
        self.cluster1 = nn.Sequential(nn.Conv2d(n_feats, dim, kernel_size=1))
        self.cluster2 = (
            nn.Sequential(nn.Conv2d(n_feats, n_feats, kernel_size=1), nn.ReLU(), nn.Conv2d(n_feats, dim, kernel_size=1))
            if projection_type == "nonlinear"
            else None
        )

    def forward(self, keys: Tensor) -> Tensor:
        """K, B×n_feats×h×w → S, B×dim×h×w."""
        code = self.cluster1(self.dropout(keys))
        return code if self.cluster2 is None else code + self.cluster2(self.dropout(keys))


class Featurizer(SegmentationHead):
    """Segmentation head plus backbone (``model``), with the tensor names of ``net`` in the released checkpoints.

    Args:
        backbone: the frozen backbone.
        dim: channels D of S.
        projection_type: as in SegmentationHead.
        dropout: whether the K returned for the losses also goes through dropout, as a third draw.
    """

    def __init__(self, backbone: KeyBackbone, dim: int, projection_type: str, dropout: bool) -> None:
        super().__init__(backbone.n_feats, dim, projection_type)
        self.model = backbone
        self._drop_returned_keys = dropout

    def from_keys(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """The backbone's keys → (K, S); in training, K goes through dropout if ``dropout`` is set."""
        code = self(keys)
        return (self.dropout(keys) if self._drop_returned_keys else keys), code
