"""Throughput of data loading, from files to batches."""

import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

from torchvision.transforms import functional as TF

from eagle.config.schema import TrainConfig
from eagle.config.validation import validated
from eagle.data.loading.datamodule import SegmentationDataModule
from eagle_benchmarks.case import default_batch_size, smooth_pictures

N_BATCHES = 6
# A typical COCO image.
WIDTH, HEIGHT = 640, 480


def loader_throughput(cfg: Any) -> float:
    """Training images per second: decoded, resized, blurred and collated by warm ``num_workers`` processes."""
    batch_size = default_batch_size(cfg)
    with tempfile.TemporaryDirectory() as folder:
        _write_dataset(Path(folder) / "pictures", N_BATCHES * batch_size, cfg.seed)
        training = {
            "pytorch_data_dir": folder,
            "dir_dataset_name": "pictures",
            "dir_dataset_n_classes": cfg.n_classes,
            "res": cfg.res,
            "batch_size": batch_size,
            "num_workers": cfg.num_workers,
        }
        batches = iter(SegmentationDataModule(validated(TrainConfig, training)).train_dataloader())
        for _ in islice(batches, N_BATCHES):
            pass
        start = time.perf_counter()
        n_images = sum(len(batch["img"]) for batch in islice(batches, N_BATCHES))
        return n_images / (time.perf_counter() - start)


def _write_dataset(root: Path, n_images: int, seed: int) -> None:
    pictures = smooth_pictures(8, WIDTH, seed)[:, :, :HEIGHT]
    for split, count in (("train", n_images), ("val", 1)):
        (root / "imgs" / split).mkdir(parents=True)
        for index in range(count):
            picture = TF.to_pil_image(pictures[index % len(pictures)])
            picture.save(root / "imgs" / split / f"{index}.jpg", quality=90)
