"""Cut every image of a dataset into five crops, in parallel and resumable."""

import hashlib
import logging
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from eagle.data.crops.geometry import Box, five_boxes, random_boxes
from eagle.data.crops.manifest import CROPS_PER_IMAGE, CropFiles, CropManifest, CropSource, JpegSettings
from eagle.data.datasets.base import SegmentationDataset, read_sample
from eagle.errors import DataError, EagleError
from eagle.files import written_atomically
from eagle.processes import follow_parent, usable_cores

SPLITS = ("train", "val")

# Final bytes of a complete file; a truncated file lacks them.
_JPEG_END, _PNG_END = b"\xff\xd9", b"IEND\xaeB`\x82"
# Each chunk of images sends the dataset's file list to a worker. Large chunks amortise that, small ones keep the
# progress bar moving.
_CHUNKS_PER_PROCESS, _MAX_CHUNK_SIZE = 50, 64

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CropJob:
    """Writes the crops of one image per call; picklable, so that it can run in worker processes.

    Attributes:
        dataset: the whole images of a split.
        split: "train" or "val".
        source: dataset and crop parameters.
        files: output paths.
        jpeg: JPEG settings.
        seed: seed of random crops.
    """

    dataset: SegmentationDataset
    split: str
    source: CropSource
    files: CropFiles
    jpeg: JpegSettings
    seed: int

    def boxes(self, index: int, width: int, height: int) -> list[Box]:
        """Crop boxes of an image, in the order of the crop numbers."""
        if self.source.crop_type == "five":
            return five_boxes(width, height, self.source.crop_ratio)
        rng = np.random.default_rng((self.seed, SPLITS.index(self.split), index))
        return random_boxes(width, height, self.source.crop_ratio, CROPS_PER_IMAGE, rng)

    def __call__(self, index: int) -> int:
        """Write an image's missing or truncated crops and return how many were written.

        Raises:
            DataError: the image or label is broken, or a crop cannot be written.
        """
        image, label = read_sample(self.dataset, index)
        boxes = self.boxes(index, image.width, image.height)
        stored_label = Image.fromarray((label + 1).astype(np.uint8))
        first = CROPS_PER_IMAGE * index
        return sum(self._write(number, box, image, stored_label) for number, box in enumerate(boxes, first))

    def _write(self, number: int, box: Box, image: Image.Image, label: Image.Image) -> bool:
        """Write a crop unless it is complete; return whether anything was written."""
        size = (box.right - box.left, box.bottom - box.top)
        image_path, label_path = self.files.image(number), self.files.label(number)
        image_done = _is_complete(image_path, "RGB", size, _JPEG_END)
        label_done = not self.dataset.has_labels or _is_complete(label_path, "L", size, _PNG_END)
        try:
            if not image_done:
                with written_atomically(image_path) as temporary:
                    image.crop(box).save(
                        temporary, quality=self.jpeg.jpeg_quality, subsampling=self.jpeg.jpeg_subsampling
                    )
            if not label_done:
                with written_atomically(label_path) as temporary:
                    label.crop(box).save(temporary)
        except OSError as error:
            raise DataError(
                f"{self.files.folder}: crops cannot be written ({error.strerror or error}); fix this and run the "
                "command again; finished crops are kept"
            ) from error
        return not (image_done and label_done)


def crop_split(
    dataset: SegmentationDataset,
    split: str,
    source: CropSource,
    root: Path,
    jpeg: JpegSettings,
    seed: int,
    num_processes: int | None,
) -> int:
    """Write the crops of a split; complete crops are kept, truncated ones are written again.

    Args:
        dataset: the whole images.
        split: "train" or "val".
        source: dataset and crop parameters.
        root: pytorch_data_dir.
        jpeg: JPEG settings.
        seed: seed of random crops; the crops do not depend on num_processes.
        num_processes: number of processes; None for one per core.

    Returns:
        Number of crops written.

    Raises:
        ConfigError: a crop would have no pixels.
        DataError: an image is broken, crops cannot be written, or the folder contains other crops.
        EagleError: a process died.
    """
    folder = source.folder(root)
    job = CropJob(dataset, split, source, CropFiles(folder, split), jpeg, seed)
    _start(job)
    processes = min(num_processes or usable_cores(), len(dataset))
    with _map_images(job, len(dataset), processes) as counts:
        n_written = sum(tqdm(counts, f"{folder.name} {split}", len(dataset), unit="image"))
    CropManifest(folder).finish(split)
    return n_written


def _is_complete(path: Path, mode: str, size: tuple[int, int], end: bytes) -> bool:
    """Whether a file is an image of that mode and size and ends with ``end``."""
    try:
        with path.open("rb") as file:
            file.seek(-len(end), 2)
            if file.read() != end:
                return False
            file.seek(0)
            with Image.open(file) as image:
                return image.mode == mode and image.size == size
    except (OSError, SyntaxError, ValueError):
        return False


def _start(job: CropJob) -> None:
    """Record the split in the manifest and remove temporary files left by a killed run."""
    manifest = CropManifest(job.files.folder)
    if not manifest.path.exists() and job.files.images.is_dir():
        logger.warning("%s: contains crops without a manifest; those of the right size are kept", job.files.images)
    directory = job.source.dataset_name == "directory"
    n_images = len(job.dataset)
    names = "\n".join(job.dataset.name(index) for index in range(n_images))
    manifest.begin(
        job.split,
        {"dataset_name": job.source.dataset_name, "dir_dataset_name": job.source.label if directory else None},
        {
            "crop_type": job.source.crop_type,
            "crop_ratio": job.source.crop_ratio,
            **asdict(job.jpeg),
            "seed": job.seed if job.source.crop_type == "random" else None,
        },
        {
            "images": n_images,
            "names_sha256": hashlib.sha256(os.fsencode(names)).hexdigest(),
            "labels": job.dataset.has_labels,
            "crops": CROPS_PER_IMAGE * n_images,
        },
    )
    for leftover in (
        *job.files.folder.glob(".manifest-*.json"),
        *job.files.images.glob(".[0-9]*-*.jpg"),
        *job.files.labels.glob(".[0-9]*-*.png"),
    ):
        leftover.unlink()


@contextmanager
def _map_images(job: CropJob, n_images: int, processes: int) -> Iterator[Iterator[int]]:
    """Run the job on all images, here or in spawned processes; yields the results in order."""
    if processes <= 1:
        yield map(job, range(n_images))
        return
    # Not forked: a forked process inherits locks, but not the threads that would release them.
    context = multiprocessing.get_context("spawn")
    chunk_size = max(1, min(n_images // (processes * _CHUNKS_PER_PROCESS), _MAX_CHUNK_SIZE))
    try:
        with ProcessPoolExecutor(processes, mp_context=context, initializer=follow_parent) as executor:
            yield executor.map(job, range(n_images), chunksize=chunk_size)
    except BrokenProcessPool as error:
        raise EagleError(
            f"{job.files.folder}: a cropping process died, perhaps for lack of memory; lower num_processes and run the "
            "command again; finished crops are kept"
        ) from error
