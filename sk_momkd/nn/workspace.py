"""Buffers that are used again: fresh pages cost more time than the work done in them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Workspace:
    """Lends tensors and takes them back; what is lent twice at once is never the same memory.

    A copy or a pickle of it is empty.
    """

    def __init__(self) -> None:
        self._free: list[Tensor] = []
        self._lent: dict[int, Tensor] = {}

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor with arbitrary content, on the CPU."""
        n_bytes = max(64, math.prod(shape) * dtype.itemsize)
        fitting = [buffer for buffer in self._free if len(buffer) >= n_bytes]
        if fitting:
            buffer = retired = min(fitting, key=len)
        else:  # the largest of those that are too small makes room
            buffer = torch.empty(n_bytes, dtype=torch.uint8)
            retired = max(self._free, key=len, default=buffer)
        self._free = [free for free in self._free if free is not retired]
        self._lent[buffer.data_ptr()] = buffer
        return buffer[: math.prod(shape) * dtype.itemsize].view(dtype).view(shape)

    def give(self, *tensors: Tensor) -> None:
        """Take back what was lent."""
        for tensor in tensors:
            self._free.append(self._lent.pop(tensor.data_ptr()))

    def clear(self) -> None:
        """Let go of the buffers that are not lent."""
        self._free = []

    def __reduce__(self) -> tuple[type[Workspace], tuple[()]]:
        return Workspace, ()


def clear_workspaces(module: nn.Module) -> None:
    """Let every part of `module` that keeps buffers let go of them."""
    for part in module.modules():
        if isinstance(workspace := getattr(part, "workspace", None), Workspace):
            workspace.clear()
