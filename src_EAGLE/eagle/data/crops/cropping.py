"""Cut every image of a dataset into five crops, in several processes, so that an interrupted run can be continued."""

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

# How whole files end; a file that lost its end, or never got it, does not.
_JPEG_END, _PNG_END = b"\xff\xd9", b"IEND\xaeB`\x82"
# A job carries the dataset's list of files, so several images share one; few enough for the bar to move.
_JOBS_PER_PROCESS, _MOST_IMAGES_PER_JOB = 50, 64

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CropJob:
    """Makes the crops of one image after another; depends on nothing but its values, in whatever process it runs.

    Attributes:
        dataset: the whole images of a split.
        split: "train" or "val".
        source: which crops.
        files: where they go.
        jpeg: how images are compressed.
        seed: of random crops.
    """

    dataset: SegmentationDataset
    split: str
    source: CropSource
    files: CropFiles
    jpeg: JpegSettings
    seed: int

    def boxes(self, index: int, width: int, height: int) -> list[Box]:
        """Places of an image's crops in the order of their numbers."""
        if self.source.crop_type == "five":
            return five_boxes(width, height, self.source.crop_ratio)
        rng = np.random.default_rng((self.seed, SPLITS.index(self.split), index))
        return random_boxes(width, height, self.source.crop_ratio, CROPS_PER_IMAGE, rng)

    def __call__(self, index: int) -> int:
        """Write the crops of an image that are missing or torn and return their number.

        Raises:
            DataError: an image or label is broken, or a crop cannot be written.
        """
        image, label = read_sample(self.dataset, index)
        boxes = self.boxes(index, image.width, image.height)
        stored_label = Image.fromarray((label + 1).astype(np.uint8))
        made = [self._write(CROPS_PER_IMAGE * index + crop, box, image, stored_label) for crop, box in enumerate(boxes)]
        return sum(made)

    def _write(self, number: int, box: Box, image: Image.Image, label: Image.Image) -> bool:
        """Whether anything had to be written."""
        size = (box.right - box.left, box.bottom - box.top)
        image_path, label_path = self.files.image(number), self.files.label(number)
        image_done = is_whole(image_path, "RGB", size, _JPEG_END)
        label_done = not self.dataset.has_labels or is_whole(label_path, "L", size, _PNG_END)
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
                f"{self.files.folder}: crops cannot be written ({error.strerror or error}); mend it and run the "
                "command again, finished crops are kept"
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
    """Make the crops of a split; those there already are kept, torn ones are made again.

    Args:
        dataset: the whole images.
        split: "train" or "val".
        source: which crops.
        root: pytorch_data_dir.
        jpeg: how the crops are compressed.
        seed: of random crops; the same seed, the same crops, whatever num_processes is.
        num_processes: None for one per core.

    Returns:
        How many crops had to be made.

    Raises:
        ConfigError: the ratio leaves no pixels.
        DataError: an image is broken, the crops cannot be written, or the folder holds other crops.
        EagleError: a process died.
    """
    folder = source.folder(root)
    job = CropJob(dataset, split, source, CropFiles(folder, split), jpeg, seed)
    _begin(job)
    processes = min(num_processes or usable_cores(), len(dataset))
    with _mapped(job, len(dataset), processes) as counts:
        made = sum(tqdm(counts, f"{folder.name} {split}", len(dataset), unit="image"))
    CropManifest(folder).finish(split)
    return made


def is_whole(path: Path, mode: str, size: tuple[int, int], end: bytes) -> bool:
    """Whether a file is a picture of that mode and size which was written to its end."""
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


def _begin(job: CropJob) -> None:
    """Record what is going to be made, and remove what a killed run left half-written."""
    manifest = CropManifest(job.files.folder)
    if not manifest.path.exists() and job.files.images.is_dir():
        logger.warning("%s: holds crops of unknown origin; those of the right size are kept", job.files.images)
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
def _mapped(job: CropJob, n_images: int, processes: int) -> Iterator[Iterator[int]]:
    """The job's results for all images in order, computed in this process or in spawned ones."""
    if processes <= 1:
        yield map(job, range(n_images))
        return
    # Spawned, not forked: a fork copies locks of threads but not the threads that would release them.
    context = multiprocessing.get_context("spawn")
    per_job = max(1, min(n_images // (processes * _JOBS_PER_PROCESS), _MOST_IMAGES_PER_JOB))
    try:
        with ProcessPoolExecutor(processes, mp_context=context, initializer=follow_parent) as executor:
            yield executor.map(job, range(n_images), chunksize=per_job)
    except BrokenProcessPool as error:
        raise EagleError(
            f"{job.files.folder}: a cropping process died, perhaps for lack of memory; lower num_processes and run the "
            "command again, finished crops are kept"
        ) from error
