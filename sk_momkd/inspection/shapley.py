"""Attributions: expected gradients by shap, and Shapley values of a game."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import ModuleType

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn


def require_shap() -> ModuleType:
    """The shap package.

    Raises
    ------
    ImportError
        If it is not installed; says how to install it.
    """
    try:
        with warnings.catch_warnings():  # its colour maps use what matplotlib will drop one day
            warnings.simplefilter("ignore", PendingDeprecationWarning)
            import shap
    except ImportError as error:
        raise ImportError(
            "Attributions need shap, which is not installed: pip install 'sk_momkd[explain]'."
        ) from error
    return shap


def expected_gradients(
    module: nn.Module, x: Tensor, background: Tensor, *, n_samples: int, seed: int
) -> NDArray:
    """Expected gradients of each output of `module`.

    Parameters
    ----------
    module : Module
        (n, n_inputs) -> (n, n_outputs).
    x : Tensor of shape (n, n_inputs)
    background : Tensor of shape (n_background, n_inputs)
    n_samples, seed : int

    Returns
    -------
    ndarray of shape (n, n_inputs, n_outputs)
    """
    shap = require_shap()
    explainer = shap.GradientExplainer(module, background)
    found = explainer.shap_values(x, nsamples=n_samples, rseed=seed)
    return np.asarray(found, dtype=float)


def shapley_values(
    value: Callable[[NDArray], NDArray],
    n_players: int,
    *,
    n_permutations: int,
    random: np.random.RandomState,
) -> NDArray:
    """Shapley values of a game, estimated from orders in which the players join.

    Each order is taken forward and backward. What the players add along an order sums to the
    value of all minus that of none, so the sum of the estimates is exact.

    Parameters
    ----------
    value : callable
        Coalitions, booleans of shape (n, n_players), -> values (n,).
    n_players, n_permutations : int
    random : RandomState

    Returns
    -------
    ndarray of shape (n_players,)
    """
    total = np.zeros(n_players)
    joined = np.tri(n_players + 1, n_players, -1, dtype=bool)  # row i: the first i of an order
    for _ in range(n_permutations):
        forward = random.permutation(n_players)
        for order in (forward, forward[::-1]):
            total[order] += np.diff(value(joined[:, np.argsort(order)]))
    return total / (2 * n_permutations)
