"""The tree of clusters: its cuts, their ids and probabilities."""

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import cut_tree, linkage

from eagle.cluster_fit import weighted_ward
from eagle.models.cluster_tree import LEAF_ALPHA, ClusterTree


def tree_of(n=12, dim=5, seed=0):
    rng = np.random.default_rng(seed)
    leaves, areas = rng.normal(size=(n, dim)), rng.uniform(1, 50, n)
    merges = weighted_ward(leaves, np.sqrt(areas))
    return ClusterTree(*(torch.from_numpy(part) for part in (leaves, areas, merges)))


def partition(labels):
    return {frozenset(np.flatnonzero(np.asarray(labels) == label).tolist()) for label in set(labels)}


def test_weighted_ward__with_equal_weights_is_scipys_ward():
    points = np.random.default_rng(1).normal(size=(20, 4))
    tree = ClusterTree(torch.from_numpy(points), torch.ones(20), torch.from_numpy(weighted_ward(points, np.ones(20))))
    reference = linkage(points, method="ward")
    for n in range(1, 21):
        assert partition(tree.cluster_of_leaf(n)) == partition(cut_tree(reference, n)[:, 0].tolist())


def test_weighted_ward__a_point_of_weight_two_is_two_equal_points():
    points = np.random.default_rng(2).normal(size=(8, 3))
    doubled = np.concatenate([points, points[:1]])
    weights = np.ones(8)
    weights[0] = 2
    single = ClusterTree(torch.from_numpy(points), torch.ones(8), torch.from_numpy(weighted_ward(points, weights)))
    reference = linkage(doubled, method="ward")
    for n in range(1, 9):
        assert partition(single.cluster_of_leaf(n)) == partition(cut_tree(reference, n)[:8, 0].tolist())


def test_cut__one_more_cluster_splits_one_and_keeps_all_other_ids():
    tree = tree_of()
    for n in range(1, tree.n_leaves):
        coarse, fine = np.array(tree.cluster_of_leaf(n)), np.array(tree.cluster_of_leaf(n + 1))
        moved = np.flatnonzero(coarse != fine)
        assert set(fine[moved]) == {n}, "the new cluster has the new, highest id"
        (split,) = set(coarse[moved])
        kept = np.flatnonzero(fine == split)
        assert tree.areas[kept].sum() >= tree.areas[moved].sum(), "the larger part keeps the id"
    assert sorted(fine) == list(range(tree.n_leaves))


def test_cut__probabilities_are_sums_of_the_leaves():
    tree, features = tree_of(), torch.randn(2, 5, 3, 4)
    leaf_probs = tree.cut(tree.n_leaves).probabilities(features)
    cosine = torch.einsum(
        "bdhw,ld->blhw", torch.nn.functional.normalize(features, dim=1), torch.nn.functional.normalize(tree.leaves)
    )
    order = tree.cluster_of_leaf(tree.n_leaves)
    torch.testing.assert_close(leaf_probs[:, order], (LEAF_ALPHA * cosine).softmax(dim=1))
    probs = tree.cut(4).probabilities(features)
    for cluster in range(4):
        leaves = [order[leaf] for leaf, found in enumerate(tree.cluster_of_leaf(4)) if found == cluster]
        torch.testing.assert_close(probs[:, cluster], leaf_probs[:, leaves].sum(dim=1))


def test_pruned__is_the_same_tree_above_the_cut():
    tree, features = tree_of(), torch.randn(2, 5, 3, 4)
    pruned = tree.pruned(7)
    assert pruned.n_leaves == 7
    assert pruned.cluster_of_leaf(7) == list(range(7)), "leaves have the ids of the cut"
    for n in range(1, 8):
        torch.testing.assert_close(pruned.cut(n).probabilities(features), tree.cut(n).probabilities(features))
    assert torch.equal(pruned.leaf_probe().probabilities(features), pruned.cut(7).probabilities(features))
    again = tree.pruned(9).pruned(7).state_dict()
    assert all(torch.equal(part, again[name]) for name, part in pruned.state_dict().items())


@pytest.mark.parametrize("n", [0, 13])
def test_cut__outside_the_tree_is_refused(n):
    with pytest.raises(ValueError, match="12 leaves cannot be cut"):
        tree_of().cluster_of_leaf(n)


def test_tree__of_one_leaf():
    tree = ClusterTree(torch.ones(1, 3), torch.ones(1), torch.zeros(0, 2))
    assert tree.cluster_of_leaf(1) == [0]
    assert tree.cut(1).probabilities(torch.rand(1, 3, 2, 2)).unique().tolist() == [1]


@pytest.mark.parametrize("merges", [[[0, 1]], [[0, 1], [0, 2]], [[0, 1], [3, 7]]])
def test_tree__merges_that_join_no_tree_are_refused(merges):
    with pytest.raises(ValueError, match="no tree"):
        ClusterTree(torch.ones(3, 2), torch.ones(3), torch.tensor(merges))


@pytest.mark.parametrize("leaves", [[0, 1, 1], [0, 1], [0, 0, 2]])
def test_tree__of_centres_that_do_not_fill_the_leaves_is_refused(leaves):
    with pytest.raises(ValueError, match="no leaves of 3 centres, 3 areas"):
        ClusterTree(torch.ones(3, 2), torch.ones(3), torch.tensor([[0, 1], [2, 3]]), torch.tensor(leaves))


def test_tree__a_merge_of_a_later_node_is_refused():
    merges = torch.tensor([[3, 5], [9, 2], [6, 1], [7, 8], [0, 4]])
    with pytest.raises(ValueError, match="no tree"):
        ClusterTree(torch.randn(6, 2), torch.ones(6), merges)
