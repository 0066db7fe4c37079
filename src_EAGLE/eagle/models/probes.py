"""ClusterLookup: cosine k-means by gradient descent, used as cluster probe and as EiCue codebook (method §6)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ClusterLookup(nn.Module):
    """Learnable centres that positions are assigned to by cosine similarity.

    Args:
        dim: channels of a position.
        n_classes: number of centres.
    """

    def __init__(self, dim: int, n_classes: int) -> None:
        super().__init__()
        self.clusters = nn.Parameter(torch.randn(n_classes, dim))

    def similarity(self, x: Tensor) -> Tensor:
        """Cosine similarity of every position to every centre, B×dim×h×w → B×n_classes×h×w, float32."""
        with torch.autocast(x.device.type, enabled=False):
            return torch.einsum(
                "bdhw,nd->bnhw", F.normalize(x.float(), dim=1), F.normalize(self.clusters.float(), dim=1)
            )

    def forward(self, x: Tensor, alpha: float | None, log_probs: bool = False) -> tuple[Tensor, Tensor]:
        """Assign positions to centres.

        Args:
            x: B×dim×h×w.
            alpha: sharpness of the soft assignment; None assigns each position to its nearest centre.
            log_probs: return log-probabilities (soft assignment only).

        Returns:
            The loss, minus the mean over positions of the expected similarity, and the (log-)probabilities,
            B×n_classes×h×w.

        Raises:
            ValueError: ``log_probs`` of a hard assignment.
        """
        similarity = self.similarity(x)
        if alpha is None:
            if log_probs:
                raise ValueError("log_probs needs an alpha: a hard assignment has no log-probabilities")
            nearest = similarity.argmax(dim=1)
            probs = F.one_hot(nearest, similarity.shape[1]).movedim(-1, 1).to(similarity.dtype)
        else:
            probs = F.softmax(alpha * similarity, dim=1)
        loss = -(probs * similarity).sum(dim=1).mean()
        return loss, F.log_softmax(alpha * similarity, dim=1) if alpha is not None and log_probs else probs
