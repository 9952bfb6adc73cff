"""Networks of a fitted classifier as arrays and plain values, and back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules import module as registration

from ..nn.isolation import isolated, own_torch_random_state

Weights = Mapping[str, NDArray]
OMICS = "omics_branch"
_SPARE_PARTS = 1000  # parts of a network without weights, such as dropout


def weights_of(module: nn.Module) -> dict[str, NDArray]:
    """Arrays of all parameters and buffers by name; they are copies."""
    return {name: np.array(tensor.cpu().numpy()) for name, tensor in module.state_dict().items()}


def without_omics(weights: Weights) -> dict[str, NDArray]:
    """The weights that prediction needs."""
    return {name: a for name, a in weights.items() if not name.startswith(f"{OMICS}.")}


def network_from(make: Callable[[int], Any], n_genes: int, weights: Weights) -> Any:
    """The network that has these weights, on the CPU and in eval mode.

    Parameters
    ----------
    make : callable
        Makes the network for a number of genes, which is 0 where the weights have no omics branch.
        It is called without memory for the weights.
    n_genes : int
    weights : mapping of str to ndarray

    Raises
    ------
    ValueError
        If names, shapes or types of the weights are not those of the network.
    """
    has_omics = any(name.startswith(f"{OMICS}.") for name in weights)
    with isolated(), own_torch_random_state(), torch.device("meta"), _at_most(len(weights)):
        module = make(n_genes if has_omics else 0)
    if hasattr(module, OMICS) and not has_omics:
        module.omics_branch = None
    _require_same(module.state_dict(), weights)
    state = {name: torch.tensor(np.ascontiguousarray(a)) for name, a in weights.items()}
    module.load_state_dict(state, assign=True)
    return module.eval()


def _require_same(expected: Mapping[str, torch.Tensor], weights: Weights) -> None:
    lacking, surplus = expected.keys() - weights.keys(), weights.keys() - expected.keys()
    if lacking or surplus:
        raise ValueError(
            f"the network needs {len(expected)} arrays of weights; {len(lacking)} of them are "
            f"missing {sorted(lacking)[:2]}, and {len(surplus)} are of another network "
            f"{sorted(surplus)[:2]}"
        )
    for name, tensor in expected.items():
        came = (weights[name].shape, str(weights[name].dtype))
        wanted = (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        if came != wanted:
            raise ValueError(
                f"weight {name!r} is {came[1]}{came[0]}, expected {wanted[1]}{wanted[0]}"
            )


@contextmanager
def _at_most(n_arrays: int) -> Iterator[None]:
    """Stop this thread from building a network that has many more parts than there are arrays."""
    me, left = threading.get_ident(), [10 * n_arrays + _SPARE_PARTS]

    def count(*_: Any) -> None:
        if threading.get_ident() == me:
            left[0] -= 1
            if left[0] < 0:
                raise ValueError(f"the network has more parts than {n_arrays} arrays can be of")

    hooks = (
        registration.register_module_module_registration_hook(count),
        registration.register_module_parameter_registration_hook(count),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
