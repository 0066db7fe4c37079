import numpy as np
import pytest

from eagle.data.datasets.base import Classes
from eagle.data.labels import distinct_palette
from eagle.evaluation.details import class_frequencies, cluster_frequencies, frequency_table
from eagle.evaluation.metrics import match_clusters

CLASSES = Classes(("sky", "road", "car"), distinct_palette(3))
N_CLUSTERS = 5


def pixels():
    """Clusters and labels of many pixels; clusters 3 and 4 are extra clusters."""
    rng = np.random.default_rng(0)
    label = rng.choice(3, 4000, p=(0.7, 0.2, 0.1))
    cluster = np.where(rng.random(4000) < 0.6, (label + 1) % 3, rng.integers(0, N_CLUSTERS, 4000))
    return cluster, label


def counted(cluster, label):
    """Confusion matrix by a loop over pixels."""
    confusion = np.zeros((N_CLUSTERS, 3), dtype=np.int64)
    for i, j in zip(cluster, label, strict=True):
        confusion[i, j] += 1
    return confusion


def test_class_frequencies__equal_a_plain_count_of_pixels():
    cluster, label = pixels()
    confusion = counted(cluster, label)
    class_of_cluster = match_clusters(confusion)
    assert class_of_cluster.tolist() == [2, 0, 1, -1, -1]
    found = class_frequencies(confusion, class_of_cluster, CLASSES)
    assert found.names == ("sky", "road", "car", "cluster 3 (no class)", "cluster 4 (no class)")
    assert found.clusters.tolist() == [1, 2, 0, 3, 4]
    for class_id in range(3):
        assert found.labelled[class_id] == sum(1 for i in label if i == class_id)
        assert found.colors[class_id].tolist() == CLASSES.palette[class_id].tolist()
    for row, matched in enumerate(found.clusters):
        assert found.predicted[row] == sum(1 for i in cluster if i == matched)
    assert found.colors[3:].tolist() == [[0, 0, 0]] * 2, "as on label maps"


def test_table__has_a_row_for_each_name_and_no_labels_for_clusters_without_a_class():
    confusion = counted(*pixels())
    found = class_frequencies(confusion, match_clusters(confusion), CLASSES)
    header, *table = frequency_table(found)
    rows = [dict(zip(header, row, strict=True)) for row in table]
    assert [row["name"] for row in rows] == list(found.names)
    assert [row["labelled_pixels"] for row in rows] == [*map(str, found.labelled), "", ""]
    assert sum(float(row["predicted_percent"]) for row in rows) == pytest.approx(100, abs=1e-3)


def test_cluster_frequencies__without_labels():
    found = cluster_frequencies(np.array([30, 0, 10]))
    assert found.names == ("cluster 0", "cluster 1", "cluster 2")
    assert len(found.labelled) == 0
    assert frequency_table(found)[1] == ["cluster 0", "0", "", "", "30", "75.0000"]
