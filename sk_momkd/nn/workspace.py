"""Buffers that are used again: fresh pages cost more time than the work done in them."""

from __future__ import annotations

import math
from threading import Lock
from weakref import WeakValueDictionary

import torch
from torch import Tensor, UntypedStorage, nn


class Workspace:
    """Lends tensors and takes them back; what is lent twice at once is never the same memory.

    What never comes back, as after a forward pass without a backward pass, is freed with its last
    user. Threads may share a workspace. A copy or a pickle of it is empty.
    """

    def __init__(self) -> None:
        self._free: list[UntypedStorage] = []
        self._lent: WeakValueDictionary[int, Tensor] = WeakValueDictionary()
        self._lock = Lock()

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor with arbitrary content, on the CPU."""
        n_bytes = math.prod(shape) * dtype.itemsize
        with self._lock:
            fitting = [memory for memory in self._free if memory.nbytes() >= n_bytes]
            if fitting:
                memory = retired = min(fitting, key=UntypedStorage.nbytes)
            else:  # the largest of those that are too small makes room
                memory = UntypedStorage(max(64, n_bytes))
                retired = max(self._free, key=UntypedStorage.nbytes, default=memory)
            self._free = [free for free in self._free if free is not retired]
            whole = torch.empty(0, dtype=torch.uint8).set_(memory)
            tensor = whole[:n_bytes].view(dtype).view(shape)
            self._lent[memory.data_ptr()] = tensor
        return tensor

    def give(self, *tensors: Tensor) -> None:
        """Take back what was lent."""
        with self._lock:
            for tensor in tensors:
                memory = tensor.untyped_storage()
                del self._lent[memory.data_ptr()]
                self._free.append(memory)

    def clear(self) -> None:
        """Let go of the buffers that are not lent."""
        with self._lock:
            self._free = []

    def __reduce__(self) -> tuple[type[Workspace], tuple[()]]:
        return Workspace, ()


def clear_workspaces(module: nn.Module) -> None:
    """Let every part of `module` that keeps buffers let go of them."""
    for part in module.modules():
        if isinstance(workspace := getattr(part, "workspace", None), Workspace):
            workspace.clear()
