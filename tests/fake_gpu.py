"""Fake GPU tensors, and a watch for host reads, i.e. operators that make the host wait for the device.

``torch._subclasses.FakeTensorMode`` computes shapes, dtypes and devices without data, as torch.compile does, and
refuses operators whose operands are on different devices. Host reads need data; where a test allows them they get
fixed answers: masks are true everywhere, numbers are one, flags are false.
"""

import sys
from collections.abc import Set
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import eagle

PACKAGE = Path(eagle.__file__).parent
BACKWARD = "backward"


class Read(NamedTuple):
    """A host read: "module:function" of our code, and torch's name of the operator."""

    place: str
    operator: str


class Watch(TorchDispatchMode):
    """Raises AssertionError for reads that are not ``allowed``; collects the others in ``seen``.

    Enter it inside a FakeTensorMode.
    """

    def __init__(self, allowed: Set[Read]) -> None:
        super().__init__()
        self.allowed = allowed
        self.seen: set[Read] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        operator = func.overloadpacket.__name__
        if not _waits(operator, args, kwargs):
            return func(*args, **kwargs)
        read = Read(_place(), operator)
        if read not in self.allowed:
            raise AssertionError(f"{read.place}: {operator} makes the host wait for the device")
        self.seen.add(read)
        return ANSWERS.get(operator, func)(*args, **kwargs)


def move_to_fake(module: nn.Module, device: str) -> None:
    """Replace the module's parameters and buffers by fake tensors on the device; call inside a FakeTensorMode."""
    module._apply(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype, device=device))


def _waits(operator: str, args: tuple, kwargs: dict) -> bool:
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    if not any(tensor.device.type != "cpu" for tensor in tensors):
        return False
    if operator == "_to_copy":
        return torch.device(kwargs.get("device") or tensors[0].device).type == "cpu"
    if operator == "copy_":
        return tensors[0].device.type == "cpu"
    if operator in ("index", "index_put", "index_put_"):
        return any(_is_mask(index) for index in args[1])
    return operator in WAITING


def _place() -> str:
    """Return the innermost running function of our package, or BACKWARD if autograd runs none.

    Comprehensions, which are functions up to Python 3.11, count as the function around them.
    """
    frame = sys._getframe()
    while frame is not None:
        path, function = Path(frame.f_code.co_filename), frame.f_code.co_name
        if path.is_relative_to(PACKAGE) and not function.startswith("<"):
            return f"{path.relative_to(PACKAGE).with_suffix('').as_posix()}:{function}"
        frame = frame.f_back
    return BACKWARD


def _is_mask(index: Tensor | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def _value(tensor: Tensor) -> bool | int | float:
    return False if tensor.dtype == torch.bool else 1.0 if tensor.is_floating_point() else 1


def _all_rows(tensor: Tensor, indices: list[Tensor | None]) -> Tensor:
    (mask,) = indices
    return tensor.flatten(0, mask.ndim - 1).clone()


def _all_rows_put(tensor: Tensor, indices: list[Tensor | None], values: Tensor) -> Tensor:
    (mask,) = indices
    assert mask.device == tensor.device
    return tensor.copy_(values.view_as(tensor))


ANSWERS = {
    "_local_scalar_dense": _value,
    "index": _all_rows,
    "index_put_": _all_rows_put,
    "bincount": lambda cells, _weights, minlength: cells.new_empty(minlength),
}

# Operators whose result's value, size or error code the host reads, besides copies to the CPU and indexing by a mask.
WAITING = {
    "_linalg_check_errors", "_linalg_eigh", "_linalg_svd", "linalg_eig",
    "_local_scalar_dense", "bincount", "equal", "is_nonzero", "masked_select", "nonzero", "repeat_interleave",
    "unique_consecutive", "unique_dim", "_unique", "_unique2",
}  # fmt: skip
