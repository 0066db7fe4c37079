"""Key cache on disk, shared by concurrent runs and processes and valid after an interruption."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eagle.errors import ConfigError, EagleError

BYTES_PER_VALUE = 2
GIGABYTE = 1e9


class KeyFiles:
    """A KeyStore in a folder: ``keys.f16``, a memory map with one h×w×C row per image, and ``done.u8``, a flag per row.

    A row is on disk before its flag is set, so a killed run leaves only valid rows. Runs that share the folder write
    identical rows.

    Args:
        folder: holds these two files only; created if missing.
        n_images: number of rows.
        shape: (h, w, C) of a row.

    Raises:
        ConfigError: the disk has no room for the missing rows.
        EagleError: the folder holds something else or cannot be written.
    """

    def __init__(self, folder: Path, n_images: int, shape: tuple[int, int, int]) -> None:
        self._folder = folder
        self._row_bytes = int(np.prod(shape)) * BYTES_PER_VALUE
        sizes = {"keys.f16": n_images * self._row_bytes, "done.u8": n_images}
        try:
            if not folder.is_dir():
                self._refuse_full_disk(folder.parent, n_images)
                _make(folder, sizes)
            if any((folder / name).stat().st_size != size for name, size in sizes.items()):
                raise EagleError(f"{folder}: does not hold the keys of {n_images} images; remove it")
            self._keys = np.memmap(folder / "keys.f16", dtype=np.float16, mode="r", shape=(n_images, *shape))
            self._done = np.memmap(folder / "done.u8", dtype=np.uint8, mode="r+", shape=(n_images,))
        except OSError as error:
            raise EagleError(f"{folder}: cannot be used as a cache ({error.strerror or error})") from error
        self._refuse_full_disk(folder, n_images - int(self._done.sum()))

    def missing(self, indices: Sequence[int]) -> list[int]:
        """See KeyStore."""
        return [row for row, index in enumerate(indices) if not self._done[index]]

    def put(self, indices: Sequence[int], keys: Tensor) -> None:
        """See KeyStore; raises EagleError if they cannot be written."""
        try:
            # A write through the memory map would kill the process with SIGBUS on a full disk.
            with (self._folder / "keys.f16").open("r+b") as file:
                for index, row in zip(indices, keys.contiguous().numpy(), strict=True):
                    file.seek(index * self._row_bytes)
                    file.write(row.tobytes())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise EagleError(
                f"{self._folder}: keys cannot be written ({error.strerror or error}); set cache_dir to another disk, "
                "or cache_features=off"
            ) from error
        self._done[list(indices)] = 1

    def get(self, indices: Sequence[int]) -> Tensor:
        """See KeyStore."""
        return torch.from_numpy(self._keys[list(indices)])

    def _refuse_full_disk(self, folder: Path, n_images: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        needed, free = n_images * self._row_bytes, shutil.disk_usage(folder).free
        if needed > free:
            raise ConfigError(
                f"cache_features: disk needs {needed / GIGABYTE:.1f} GB in {folder}, but {free / GIGABYTE:.1f} GB are "
                "free; set cache_dir to another disk, or cache_features=off"
            )


def _make(folder: Path, sizes: dict[str, int]) -> None:
    """Create the folder with zero-filled files of these sizes; keep it if another process creates it first."""
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        temporary.chmod(0o755)
        for name, size in sizes.items():
            with (temporary / name).open("wb") as file:
                file.truncate(size)
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
