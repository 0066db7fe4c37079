import numpy as np
import pytest

from eagle.evaluation.details import best_median_worst, image_result
from tiles import ALL_VOID, CLASS_OF_CLUSTER, N_IMAGES, Tiles, evaluated_tiles


@pytest.fixture(scope="module")
def evaluation():
    return evaluated_tiles()


def looped_accuracy(index):
    """Accuracy by a loop over pixels."""
    clusters, label = Tiles().clusters(index).ravel().tolist(), Tiles().label(index).ravel().tolist()
    right = [
        CLASS_OF_CLUSTER[cluster] == wanted for cluster, wanted in zip(clusters, label, strict=True) if wanted >= 0
    ]
    return 100 * sum(right) / len(right) if right else float("nan")


def test_details__hold_every_image_as_scored(evaluation):
    assert [image.index for image in evaluation.images] == list(range(N_IMAGES))
    for image in evaluation.images:
        assert (image.clusters() == Tiles().clusters(image.index)).all()
        expected = looped_accuracy(image.index)
        assert image.accuracy(CLASS_OF_CLUSTER) == pytest.approx(expected, nan_ok=True)


def test_details__accuracies_of_images_add_up_to_the_strict_score(evaluation):
    metric = evaluation.metrics["cluster+crf"]
    assert metric.class_of_cluster().tolist() == CLASS_OF_CLUSTER.tolist()
    images = [image for image in evaluation.images if image.index != ALL_VOID]
    labelled = [image.pairs[:, 2].sum() for image in images]
    mean = np.average([image.accuracy(CLASS_OF_CLUSTER) for image in images], weights=labelled)
    assert mean == pytest.approx(metric.scores(count_extra=True).accuracy)
    assert mean < metric.scores(count_extra=False).accuracy


def result_of_accuracy(index, n_right, n=20):
    label = np.zeros((1, n), dtype=np.int64)
    return image_result(index, (np.arange(n) >= n_right).astype(int)[None], label, 2, 2)


@pytest.mark.parametrize("n_images", [0, 1, 2, 3, 7, 12])
def test_best_median_worst__equals_sorting_by_hand(n_images):
    rng = np.random.default_rng(n_images)
    right = rng.integers(0, 21, n_images).tolist()
    results = [result_of_accuracy(index, n_right) for index, n_right in enumerate(right)]
    void = image_result(99, np.zeros((2, 2), dtype=int), np.full((2, 2), -1), 2, 2)
    groups = best_median_worst([void, *results][::-1], np.array([0, 1]), 3)
    order = sorted(range(n_images), key=lambda index: (-right[index], index))
    found = {title: [result.index for _, result in images] for title, images in groups.items()}
    n = min(3, -(-n_images // 3))
    assert found["best"] == order[:n]
    assert found["worst"] == order[max(n, n_images - n) :][::-1]
    middle = order[n : max(n, n_images - n)]
    assert len(found["median"]) == min(n, len(middle))
    if n_images >= 9:
        assert found["median"] == order[(n_images - 3) // 2 :][:3]
    chosen = [*found["best"], *found["median"], *found["worst"]]
    assert len(chosen) == len(set(chosen)) == min(9, n_images)
    for images in groups.values():
        assert [accuracy for accuracy, _ in images] == [5 * right[result.index] for _, result in images]
