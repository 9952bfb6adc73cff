"""Whether coordinates and patch size of bags fit together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .sequence import as_bags


def geometry(bags: Any) -> pd.DataFrame:
    """Patch size against the step between patches, slide by slide; reads the bags.

    A step below the patch size means overlap, above it gaps; a step of half or twice the size on
    all slides is the mark of coordinates in pixels of another level.

    Parameters
    ----------
    bags : BagSequence or list of Bag

    Returns
    -------
    DataFrame
        One row per bag: ``format``, ``unit``, ``patch_size`` (in that unit, NaN where unknown),
        ``step`` (smallest distance between neighbouring columns or rows, NaN without
        coordinates), ``step_per_patch`` and ``n_instances``.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from sk_momkd import geometry, read_bags, simulate_cohort
    >>> bags = read_bags(simulate_cohort(mkdtemp(), n_patients=1, random_state=0).features)
    >>> geometry(bags)["step_per_patch"].to_list()
    [1.0]
    """
    bags = as_bags(bags)
    rows = []
    for i, bag in enumerate(bags):
        arrays, info = bags.load(i), bag.info
        size = np.nan if info.patch_size is None else info.patch_size
        step = np.nan if arrays.coords is None else _step(arrays.coords)
        rows.append((info.format, info.unit, size, step, step / size, len(arrays.features)))
    columns = ["format", "unit", "patch_size", "step", "step_per_patch", "n_instances"]
    return pd.DataFrame(rows, [bags.name(i) for i in range(len(bags))], columns)


def _step(coords: NDArray) -> float:
    """Smallest positive distance between distinct columns, or between distinct rows."""
    gaps = np.concatenate([np.diff(np.unique(axis)) for axis in coords.T])
    return float(gaps.min()) if len(gaps) else np.nan
