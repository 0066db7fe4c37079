"""A look at a dataset before hours are spent on it."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

from eagle.data.dataset import SegmentationDataset, read_sample


def check_samples(dataset: SegmentationDataset, description: str, at_most: int = 256) -> None:
    """Decode evenly spread images and labels of a dataset, all of them where there are no more than ``at_most``.

    Raises:
        DataError: the first file, in the dataset's order, that is broken or out of range.
    """
    n = min(at_most, len(dataset))
    chosen = np.linspace(0, len(dataset) - 1, n).astype(int).tolist()
    with ThreadPoolExecutor() as pool:
        for _ in tqdm(
            pool.map(lambda index: read_sample(dataset, index), chosen), f"checking {description}", n, leave=False
        ):
            pass
