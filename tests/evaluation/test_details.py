import numpy as np
import pytest

from eagle.evaluation.details import (
    MOST_EXAMPLES,
    WINDOW_BLOCKS,
    WINDOW_SHARE,
    best_examples,
    best_median_worst,
    image_examples,
    image_result,
)
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
    details = evaluation.details
    assert details.map_name == "cluster+crf"
    assert [image.index for image in details.images] == list(range(N_IMAGES))
    for image in details.images:
        assert (image.clusters() == Tiles().clusters(image.index)).all()
        expected = looped_accuracy(image.index)
        assert image.accuracy(CLASS_OF_CLUSTER) == pytest.approx(expected, nan_ok=True)


def test_details__accuracies_of_images_add_up_to_the_strict_score(evaluation):
    metric = evaluation.metrics["cluster+crf"]
    assert metric.class_of_cluster().tolist() == CLASS_OF_CLUSTER.tolist()
    images = [image for image in evaluation.details.images if image.index != ALL_VOID]
    labelled = [image.pairs[:, 2].sum() for image in images]
    mean = np.average([image.accuracy(CLASS_OF_CLUSTER) for image in images], weights=labelled)
    assert mean == pytest.approx(metric.scores(count_extra=True).accuracy)
    assert mean < metric.scores(count_extra=False).accuracy


def test_details__do_not_depend_on_the_batch_size(evaluation):
    other = evaluated_tiles(batch_size=1).details
    assert [image.packed for image in other.images] == [image.packed for image in evaluation.details.images]
    assert [(e.cluster, e.index, e.top, e.left) for e in other.examples] == [
        (e.cluster, e.index, e.top, e.left) for e in evaluation.details.examples
    ]


def test_details__without_crf_hold_the_cluster_map():
    details = evaluated_tiles(refine="none").details
    assert details.map_name == "cluster"
    assert all((image.clusters() == Tiles().clusters(image.index)).all() for image in details.images)
    assert all(0 < example.confidence <= 1 for example in details.examples)


def result_of_accuracy(index, n_right, n=20):
    label = np.zeros((1, n), dtype=np.int64)
    return image_result(index, (np.arange(n) >= n_right).astype(int)[None], label, 2, 2)


@pytest.mark.parametrize("n_images", range(13))
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


def searched(clusters, confidence, cluster, side, step):
    """Best mean, top and left of a cluster by exhaustive search."""
    own = np.where(clusters == cluster, confidence, 0.0)
    tops, lefts = (range(0, n // step * step - side + 1, step) for n in own.shape)
    places = [(top, left) for top in tops for left in lefts]
    values = [own[top : top + side, left : left + side].mean() for top, left in places]
    best = int(np.argmax(values))
    return values[best], *places[best]


def test_image_examples__equal_a_search_of_all_windows():
    rng = np.random.default_rng(0)
    clusters, confidence = rng.integers(0, 3, (40, 67)), rng.random((40, 67)).astype(np.float32)
    side, step = round(WINDOW_SHARE * 40), round(WINDOW_SHARE * 40 / WINDOW_BLOCKS)
    found = image_examples(7, clusters, confidence)
    assert [example.cluster for example in found] == [0, 1, 2]
    for example in found:
        value, top, left = searched(clusters, confidence, example.cluster, side, step)
        assert (example.index, example.top, example.left, example.side) == (7, top, left, side)
        assert example.confidence == pytest.approx(value, abs=1e-4)


def test_image_examples__lie_within_images_of_any_size():
    for size in ((1, 1), (2, 9), (5, 3), (13, 400)):
        found = image_examples(0, np.zeros(size, dtype=int), np.ones(size, dtype=np.float32))
        assert len(found) == 1
        assert 0 <= found[0].top <= size[0] - found[0].side
        assert 0 <= found[0].left <= size[1] - found[0].side
        assert found[0].confidence == 1


def test_examples__windows_of_a_cluster_come_from_different_images(evaluation):
    examples = evaluation.details.examples
    assert {example.cluster for example in examples} == {0, 1, 2, 4}, "no pixel fell into cluster 3"
    for cluster in (0, 1, 2, 4):
        own = [example for example in examples if example.cluster == cluster]
        assert len({example.index for example in own}) == len(own) == MOST_EXAMPLES
        for e in own:
            assert (Tiles().clusters(e.index)[e.top : e.top + e.side, e.left : e.left + e.side] == cluster).all()
        assert [e.confidence for e in own] == sorted((e.confidence for e in own), reverse=True)


def test_best_examples__merging_parts_equals_all_at_once(evaluation):
    """So several processes agree with one."""
    examples = evaluation.details.examples
    parts = [best_examples(examples[start::3], 4) for start in (2, 0, 1)]
    assert best_examples([example for part in parts for example in part], 4) == best_examples(examples, 4)
