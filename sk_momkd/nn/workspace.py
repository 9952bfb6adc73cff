"""Reusable buffers: new memory pages would cost more time than the computation in them."""

from __future__ import annotations

import math
import sys
from threading import Lock
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, UntypedStorage, nn


class GradientMemory:
    """Lends memory for gradients of weights, which comes back when nothing refers to it any more.

    Nobody gives a gradient back: it belongs to its parameter until the next step, and to whoever
    keeps it. A tensor on the memory of an array holds the array, as do all views of the tensor, so
    that the references to the array tell whether it is in use. A copy or a pickle is empty.
    """

    def __init__(self) -> None:
        self._arrays: dict[tuple[int, ...], list[NDArray]] = {}
        self._lock = Lock()

    def take(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """A float32 tensor with arbitrary content on the CPU; elsewhere a new one as `like`."""
        if like.device.type != "cpu" or like.dtype != torch.float32:
            return like.new_empty(shape)
        with self._lock:
            arrays = self._arrays.setdefault(shape, [])
            for k in range(len(arrays)):
                if _references(arrays, k) == _UNUSED:
                    return torch.from_numpy(arrays[k])
            arrays.append(like.new_empty(shape).numpy())
            return torch.from_numpy(arrays[-1])

    def clear(self) -> None:
        """Free the memory that is not in use."""
        with self._lock:
            self._arrays = {}

    def __reduce__(self) -> tuple[type[GradientMemory], tuple[()]]:
        return GradientMemory, ()


def _references(arrays: list[NDArray], k: int) -> int:
    return sys.getrefcount(arrays[k])


_UNUSED = _references([np.empty(0)], 0)  # versions of Python count differently


class Workspace:
    """Lends tensors and takes them back; two tensors that are lent never share memory.

    A tensor that is never given back, as after a forward pass without a backward pass, is freed
    with its last reference. Threads may share a workspace. A copy or a pickle of it is empty.
    """

    def __init__(self) -> None:
        self.gradients = GradientMemory()
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
            else:  # the largest of the buffers, which are all too small, is freed
                memory = UntypedStorage(max(64, n_bytes))
                retired = max(self._free, key=UntypedStorage.nbytes, default=memory)
            self._free = [free for free in self._free if free is not retired]
            all_bytes = torch.empty(0, dtype=torch.uint8).set_(memory)
            tensor = all_bytes[:n_bytes].view(dtype).view(shape)
            self._lent[memory.data_ptr()] = tensor
        return tensor

    def give(self, *tensors: Tensor) -> None:
        """Take back tensors that were lent."""
        with self._lock:
            for tensor in tensors:
                memory = tensor.untyped_storage()
                del self._lent[memory.data_ptr()]
                self._free.append(memory)

    def clear(self) -> None:
        """Free the buffers that are not lent."""
        self.gradients.clear()
        with self._lock:
            self._free = []

    def __reduce__(self) -> tuple[type[Workspace], tuple[()]]:
        return Workspace, ()


class Scratch(Workspace):
    """Lends new tensors, where the search for a used buffer costs more time than it saves."""

    def __init__(self, device: str | torch.device, gradients: GradientMemory) -> None:
        super().__init__()
        self.device, self.gradients = device, gradients

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor with arbitrary content."""
        return torch.empty(shape, dtype=dtype, device=self.device)

    def give(self, *tensors: Tensor) -> None:
        """Nothing: the tensors are freed with their last reference."""


def clear_workspaces(module: nn.Module) -> None:
    """Free the buffers of every workspace inside `module`."""
    for part in module.modules():
        if isinstance(workspace := getattr(part, "workspace", None), Workspace):
            workspace.clear()
