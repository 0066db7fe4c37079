"""Write a state dict as .safetensors, whole or not at all."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save

from eagle.errors import DownloadError
from eagle.files import written_atomically


def save_weights(state: Mapping[str, torch.Tensor], destination: Path, source: str, arch: str) -> Path:
    """Write ``state`` to ``destination`` with two lines of metadata; raises DownloadError where the disk refuses.

    Args:
        state: tensors by name, of any shape and dtype.
        destination: the .safetensors file; its folder is made.
        source: where the tensors come from.
        arch: the model that they fit.
    """
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    try:
        with written_atomically(destination) as temporary:
            temporary.write_bytes(save(tensors, metadata={"arch": arch, "source": source}))
    except OSError as error:
        raise DownloadError(f"{destination}: cannot be written ({error.strerror or error})") from error
    return destination
