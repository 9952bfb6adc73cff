"""Attributions by shap, which is imported where it is needed."""

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
    value: Callable[[NDArray], NDArray], n_players: int, *, n_permutations: int, seed: int
) -> NDArray:
    """Shapley values of a game by antithetic permutations; their sum is exact.

    Parameters
    ----------
    value : callable
        Coalitions (n, n_players) of 0 and 1 -> values (n,).
    n_players, n_permutations, seed : int

    Returns
    -------
    ndarray of shape (n_players,)
    """
    shap = require_shap()
    masker = shap.maskers.Independent(np.zeros((1, n_players)))
    explainer = shap.explainers.Permutation(value, masker, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        found = explainer(
            np.ones((1, n_players)),
            max_evals=n_permutations * (2 * n_players + 1),
            silent=True,
        )
    return np.asarray(found.values[0], dtype=float)
