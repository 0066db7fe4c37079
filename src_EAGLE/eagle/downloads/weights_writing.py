"""Write a state dict as .safetensors atomically."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save

from eagle.errors import DownloadError
from eagle.files import written_atomically


def save_weights(state: Mapping[str, torch.Tensor], destination: Path, source: str, arch: str) -> Path:
    """Write ``state`` to ``destination`` with ``source`` and ``arch`` as metadata.

    Args:
        state: tensors by name, of any shape and dtype.
        destination: the .safetensors file; its folder is created.
        source: origin of the tensors.
        arch: model that the tensors fit.

    Returns:
        ``destination``.

    Raises:
        DownloadError: the file cannot be written.
    """
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    try:
        with written_atomically(destination) as temporary:
            temporary.write_bytes(save(tensors, metadata={"arch": arch, "source": source}))
    except OSError as error:
        raise DownloadError(f"{destination}: cannot be written ({error.strerror or error})") from error
    return destination
