"""Bootstrap draws of patients and of sites, and the intervals they give."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def draw_units(units: NDArray, n_draws: int, random: np.random.Generator) -> NDArray:
    """How often each patient occurs when units (patients, or whole sites) are drawn.

    Parameters
    ----------
    units : ndarray of shape (n_patients,)
        Patients of equal value are drawn together.
    n_draws : int
    random : numpy Generator

    Returns
    -------
    int ndarray of shape (n_draws, n_patients)

    Examples
    --------
    >>> import numpy as np
    >>> draw = draw_units(np.array(["A", "A", "B"]), 50, np.random.default_rng(0))
    >>> bool((draw[:, 0] == draw[:, 1]).all()), np.unique(draw[:, 0] + draw[:, 2])
    (True, array([2]))
    """
    _, of_patient = np.unique(units, return_inverse=True)
    n_units = of_patient.max() + 1
    return random.multinomial(n_units, np.full(n_units, 1 / n_units), size=n_draws)[:, of_patient]


def draw_within(strata: NDArray, n_draws: int, random: np.random.Generator) -> NDArray:
    """How often each patient occurs when patients are drawn within strata of fixed size.

    Parameters
    ----------
    strata : ndarray of shape (n_patients,)
    n_draws : int
    random : numpy Generator

    Returns
    -------
    int ndarray of shape (n_draws, n_patients)
    """
    draws = np.zeros((n_draws, len(strata)), dtype=int)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        draws[:, members] = draw_units(members, n_draws, random)
    return draws


def interval(values: NDArray, confidence: float) -> tuple[float, float]:
    """Percentile interval; draws without a value (a class was not drawn) are left out."""
    values = values[np.isfinite(values)]
    if not len(values):
        return np.nan, np.nan
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
