import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from eagle.evaluation.metrics import UnsupervisedMetrics, match_clusters, score

GOLDENS = [
    "g_metrics_linear",
    "g_metrics_hungarian_extra0",
    "g_metrics_hungarian_extra3",
    "g_metrics_hungarian_27_extra5",
    "g_metrics_hungarian_absent_class",
    "g_metrics_extra2_sparse",
]


@pytest.mark.parametrize("name", GOLDENS)
def test_metrics__released_values(golden, name):
    data, meta = golden.tensors(name), golden.metadata(name)
    hungarian = meta["compute_hungarian"] == "True"
    metric = UnsupervisedMetrics("m/", int(meta["n_classes"]), int(meta["extra_clusters"]), hungarian)
    for preds, targets in zip(data["preds"], data["targets"], strict=True):
        metric.update(preds, targets)
    result = metric.compute()
    assert result["m/mIoU"] == pytest.approx(float(data["mIoU"]), abs=1e-4)
    assert result["m/Accuracy"] == pytest.approx(float(data["Accuracy"]), abs=1e-4)
    if hungarian:
        assert metric.class_of_cluster().tolist() == data["map_clusters_of_arange"].tolist()


def test_score__released_ties(golden):
    """Clusters without overlap: which of the equal matchings is taken decides how many classes the mean has."""
    data = golden.tensors("hungarian_ties")
    for case in range(60):
        counts, (miou, accuracy) = data[f"case{case:02d}_counts"].numpy(), data[f"case{case:02d}_expected"].tolist()
        matched = slice(counts.shape[1])  # without extra clusters
        scores = score(counts[matched], match_clusters(counts)[matched])
        assert scores.miou == pytest.approx(miou, abs=1e-4), case
        assert scores.accuracy == pytest.approx(accuracy, abs=1e-4), case


def loop_scores(preds, targets, n_classes, extra, count_extra):
    """Reference: loops over pixels and classes."""
    pairs = [(p, t) for p, t in zip(preds, targets, strict=True) if 0 <= t < n_classes]
    counts = np.zeros((n_classes, n_classes))
    for p, t in pairs:
        if p < n_classes:
            counts[p, t] += 1
    rows, columns = linear_sum_assignment(-counts)
    class_of = dict(zip(rows.tolist(), columns.tolist(), strict=True))
    pairs = [(class_of.get(p, -1), t) for p, t in pairs if count_extra or p < n_classes]
    ious = []
    for c in range(n_classes):
        union = sum(p == c or t == c for p, t in pairs)
        if union:
            ious.append(sum(p == c and t == c for p, t in pairs) / union)
    return 100 * np.mean(ious), 100 * sum(p == t for p, t in pairs) / len(pairs)


@pytest.mark.parametrize("count_extra", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_metrics__equals_loops_over_pixels(count_extra, seed):
    rng = np.random.default_rng(seed)
    preds, targets = rng.integers(0, 7, 400), rng.integers(-1, 6, 400)
    targets[targets == 3] = 0  # class 3 is absent
    metric = UnsupervisedMetrics("", 5, 2, compute_hungarian=True, count_extra=count_extra)
    metric.update(torch.from_numpy(preds), torch.from_numpy(targets))
    miou, accuracy = loop_scores(preds, targets, 5, 2, count_extra)
    assert metric.compute()["mIoU"] == pytest.approx(miou)
    assert metric.compute()["Accuracy"] == pytest.approx(accuracy)


def two_class_scores(confusion):
    """Published and strict scores of a 2-class metric with one extra cluster, from its 3×2 counts."""
    metric = UnsupervisedMetrics("", 2, 1, compute_hungarian=True)
    metric.confusion += torch.tensor(confusion)
    return metric.scores(count_extra=False), metric.scores(count_extra=True)


@pytest.mark.parametrize(
    ("confusion", "published", "strict"),
    [
        # The extra cluster holds two pixels of class 0 and four of class 1: ignored, or errors.
        ([[6, 0], [1, 3], [2, 4]], (6 / 7, 3 / 4, 9 / 10), (6 / 9, 3 / 8, 9 / 16)),
        # The first two clusters are matched crosswise.
        ([[1, 5], [4, 0], [0, 10]], (4 / 5, 5 / 6, 9 / 10), (4 / 5, 5 / 16, 9 / 20)),
        # The extra cluster is empty: both protocols agree.
        ([[6, 2], [1, 3], [0, 0]], (6 / 9, 3 / 6, 9 / 12), (6 / 9, 3 / 6, 9 / 12)),
        # Class 1 occurs only in the extra cluster: not scored, or missed.
        ([[8, 0], [0, 0], [0, 2]], (1, None, 1), (1, 0, 8 / 10)),
    ],
)
def test_metrics__strict_protocol_counts_extra_clusters_as_errors(confusion, published, strict):
    for scores, (iou_0, iou_1, accuracy) in zip(two_class_scores(confusion), (published, strict), strict=True):
        expected = [100 * iou for iou in (iou_0, iou_1) if iou is not None]
        assert scores.iou[np.isfinite(scores.iou)].tolist() == pytest.approx(expected)
        assert scores.miou == pytest.approx(np.mean(expected))
        assert scores.accuracy == pytest.approx(100 * accuracy)


@given(st.lists(st.lists(st.integers(0, 30), min_size=4, max_size=4), min_size=7, max_size=7))
def test_metrics__strict_protocol_is_never_better(confusion):
    metric = UnsupervisedMetrics("", 4, 3, compute_hungarian=True)
    metric.confusion += torch.tensor(confusion)
    published, strict = metric.scores(count_extra=False), metric.scores(count_extra=True)
    assert not strict.accuracy > published.accuracy
    assert not strict.miou > published.miou + 1e-9


def test_metrics__void_labels_only():
    metric = UnsupervisedMetrics("", 3, 0, compute_hungarian=True)
    metric.update(torch.zeros(2, 4, 4, dtype=torch.long), torch.full((2, 4, 4), -1))
    assert not metric.has_labels()
    assert np.isnan(metric.compute()["mIoU"])


def test_metrics__counts_beyond_float32_stay_exact():
    metric = UnsupervisedMetrics("", 2, 0, compute_hungarian=True)
    metric.confusion += 2**40
    metric.update(torch.tensor([0]), torch.tensor([0]))
    assert int(metric.confusion[0, 0]) == 2**40 + 1
