"""Per-image results and cluster examples of an evaluation, for the report."""

import numpy as np

from eagle.distributed import all_gather_objects
from eagle.evaluation.cluster_examples import ClusterExample, best_examples, image_examples
from eagle.evaluation.image_results import ImageResult, image_result

MOST_EXAMPLES = 6
# Over all clusters; with many clusters each has fewer examples.
MOST_EXAMPLES_IN_ALL = 240


class Details:
    """Results of every image and example windows of every cluster, for one map.

    Args:
        map_name: name of the map.
        n_clusters: number of its clusters.
        n_classes: number of classes of the labels.
    """

    def __init__(self, map_name: str, n_clusters: int, n_classes: int) -> None:
        self.map_name = map_name
        self.images: list[ImageResult] = []
        self.examples: list[ClusterExample] = []
        self._n_clusters = n_clusters
        self._n_classes = n_classes
        self._per_cluster = max(1, min(MOST_EXAMPLES, MOST_EXAMPLES_IN_ALL // n_clusters))

    def update(self, index: int, clusters: np.ndarray, confidence: np.ndarray, label: np.ndarray) -> None:
        """Add an image.

        Args:
            index: its index in the dataset.
            clusters: H×W cluster ids, as scored.
            confidence: H×W, the probability of each pixel's cluster.
            label: H×W class ids; those outside [0, n_classes) are void.
        """
        self.images.append(image_result(index, clusters, label, self._n_clusters, self._n_classes))
        found = image_examples(index, clusters, confidence, self._n_clusters)
        self.examples = best_examples([*self.examples, *found], self._per_cluster)

    def sync(self) -> None:
        """Gather the details of all processes; the result equals that of one process with all images."""
        self.images = sorted(all_gather_objects(self.images), key=lambda image: image.index)
        self.examples = best_examples(all_gather_objects(self.examples), self._per_cluster)
