"""A tree of clusters: leaves with their centres, and the merges that join them to ever fewer, larger clusters.

``fit_clusters.py`` fits a tree to the codes of a trained segmenter. It can be cut at any number of clusters without
another fit. A leaf or cluster may have several centres: its probability is the sum of theirs.
"""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Sharpness of the softmax over the centres' cosine similarities.
LEAF_ALPHA = 20.0


class ClusterTree(nn.Module):
    """Leaves and merges of a hierarchical clustering.

    Args:
        leaves: centres of the leaves, K×dim.
        areas: number of patches of each leaf, L.
        merges: the pairs of nodes joined one after another, (L − 1)×2 int64. Nodes 0 to L − 1 are leaves; merge i makes
            node L + i, as in ``scipy.cluster.hierarchy``.
        leaf_of_centre: the leaf that each centre belongs to, K int64; None: each leaf has one centre.

    Raises:
        ValueError: shapes differ, a leaf has no centre, or the merges do not join all leaves in one tree.

    Example:
        >>> import torch
        >>> from eagle.models.cluster_tree import ClusterTree
        >>> leaves = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
        >>> tree = ClusterTree(leaves, torch.tensor([5.0, 2.0, 3.0]), torch.tensor([[0, 1], [2, 3]]))
        >>> tree.cluster_of_leaf(3), tree.cluster_of_leaf(2)
        ([0, 2, 1], [0, 0, 1])
        >>> tree.cut(2).probabilities(torch.rand(1, 2, 4, 6)).shape
        torch.Size([1, 2, 4, 6])
    """

    leaves: Tensor
    areas: Tensor
    merges: Tensor
    leaf_of_centre: Tensor

    def __init__(self, leaves: Tensor, areas: Tensor, merges: Tensor, leaf_of_centre: Tensor | None = None) -> None:
        super().__init__()
        n = len(areas)
        of_centre = torch.arange(len(leaves)) if leaf_of_centre is None else leaf_of_centre
        found, joined = of_centre.unique().tolist(), sorted(merges.flatten().tolist())
        if of_centre.shape != leaves.shape[:1] or found != list(range(n)):
            raise ValueError(f"{of_centre.tolist()} are no leaves of {len(leaves)} centres, {n} areas")
        # Each merge joins nodes that are there already.
        in_order = merges.dim() == 2 and all(max(pair) < n + i for i, pair in enumerate(merges.tolist()))
        if merges.shape != (n - 1, 2) or joined != list(range(2 * n - 2)) or not in_order:
            raise ValueError(f"{n} leaves and {merges.tolist()} no tree")
        self.register_buffer("leaves", leaves.float())
        self.register_buffer("areas", areas.float())
        self.register_buffer("merges", merges.long())
        self.register_buffer("leaf_of_centre", of_centre.long())

    @property
    def n_leaves(self) -> int:
        """The largest number of clusters."""
        return len(self.areas)

    def cluster_of_leaf(self, n_clusters: int) -> list[int]:
        """The cluster of each leaf where the tree is cut at ``n_clusters``, 1 to ``n_leaves``.

        Ids are stable: where one more cluster splits a cluster, the part with the larger area keeps the id and the
        other takes the new, highest id.
        """
        if not 1 <= n_clusters <= self.n_leaves:
            raise ValueError(f"a tree of {self.n_leaves} leaves cannot be cut at {n_clusters} clusters")
        areas, merges = self.areas.tolist(), self.merges.tolist()
        for first, second in merges:
            areas.append(areas[first] + areas[second])
        nodes = [2 * self.n_leaves - 2]
        for node in range(2 * self.n_leaves - 2, 2 * self.n_leaves - 1 - n_clusters, -1):
            first, second = sorted(merges[node - self.n_leaves], key=lambda child: (-areas[child], child))
            nodes[nodes.index(node)] = first
            nodes.append(second)
        cluster_of_node = {node: cluster for cluster, node in enumerate(nodes)}
        for node in range(2 * self.n_leaves - 2, self.n_leaves - 1, -1):
            if node in cluster_of_node:
                cluster_of_node |= dict.fromkeys(merges[node - self.n_leaves], cluster_of_node[node])
        return [cluster_of_node[leaf] for leaf in range(self.n_leaves)]

    def cut(self, n_clusters: int) -> "ClusterCut":
        """The probe of ``n_clusters`` clusters."""
        clusters = self.cluster_of_leaf(n_clusters)
        return ClusterCut(self.leaves, [clusters[leaf] for leaf in self.leaf_of_centre.tolist()])

    def leaf_probe(self) -> "ClusterCut":
        """The probe of all leaves, in their order."""
        return ClusterCut(self.leaves, self.leaf_of_centre.tolist())

    def pruned(self, n_leaves: int) -> "ClusterTree":
        """The same tree above its cut at ``n_leaves`` clusters: each is a leaf, with its id and all its centres."""
        merges, n_joined = self.merges.tolist(), self.n_leaves - n_leaves
        # Nodes below the cut have the leaf of what is under them.
        new = self.cluster_of_leaf(n_leaves)
        leaf = torch.tensor(new, device=self.areas.device)
        for first, _ in merges[:n_joined]:
            new.append(new[first])
        new += range(n_leaves, 2 * n_leaves - 1)
        kept = [[new[first], new[second]] for first, second in merges[n_joined:]]
        areas = self.areas.new_zeros(n_leaves).index_add_(0, leaf, self.areas)
        return ClusterTree(self.leaves, areas, self.merges.new_tensor(kept).reshape(-1, 2), leaf[self.leaf_of_centre])

    def parts(self, leaves: Collection[int]) -> tuple[set[int], set[int]]:
        """Split a group of leaves where the tree does: what lies under each child of the lowest node above them all.

        Returns:
            The part with the larger area, and the other; as ``cluster_of_leaf`` splits a node of the tree.

        Raises:
            ValueError: fewer than two leaves.
        """
        below, areas = [{leaf} for leaf in range(self.n_leaves)], self.areas.tolist()
        for first, second in self.merges.tolist():
            below.append(below[first] | below[second])
            if len(leaves) > 1 and below[-1].issuperset(leaves):
                found = (below[child].intersection(leaves) for child in sorted((first, second)))
                larger, smaller = sorted(found, key=lambda part: -sum(areas[leaf] for leaf in part))
                return larger, smaller
        raise ValueError(f"{sorted(leaves)} of {self.n_leaves} leaves are no group of several")


class ClusterCut(nn.Module):
    """A cluster probe whose clusters are groups of centres.

    Args:
        centres: K×dim.
        cluster_of_centre: the cluster of each centre.
    """

    centres: Tensor
    groups: Tensor

    def __init__(self, centres: Tensor, cluster_of_centre: Sequence[int]) -> None:
        super().__init__()
        self.n_clusters = max(cluster_of_centre) + 1
        self.register_buffer("centres", F.normalize(centres.float(), dim=1), persistent=False)
        self.register_buffer("groups", torch.tensor(cluster_of_centre, device=centres.device), persistent=False)

    def joined(self, new_ids: Sequence[int]) -> "ClusterCut":
        """The probe in which clusters with the same new id are one cluster."""
        return ClusterCut(self.centres, [new_ids[cluster] for cluster in self.groups.tolist()])

    def probabilities(self, features: Tensor) -> Tensor:
        """Sums of the centres' probabilities, B×dim×h×w → B×n_clusters×h×w float32."""
        with torch.autocast(features.device.type, enabled=False):
            similarity = torch.einsum("bdhw,ld->blhw", F.normalize(features.float(), dim=1), self.centres)
            probs = similarity.mul_(LEAF_ALPHA).softmax(dim=1)
        size = (probs.shape[0], self.n_clusters, *probs.shape[2:])  # len would fix the batch size of an exported graph
        return probs.new_zeros(size).index_add_(1, self.groups, probs)
