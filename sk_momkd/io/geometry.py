"""Whether coordinates and patch size of bags fit together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..bag_warnings import together
from ..data.bag import Bag
from ..data.sequence import BagSequence, as_bags
from ..exceptions import BagError
from .readers import SlideFile

_COLUMNS = ["format", "unit", "patch_size", "step", "step_per_patch", "n_instances", "problem"]
_TOLERANCE = 0.01
_ENOUGH = 24  # gaps of a run


def _n_and_coords(bags: BagSequence, i: int) -> tuple[int, NDArray | None]:
    """Number of instances and checked coordinates; the features of a file are not read."""
    bag = bags[i]
    source = bag.source
    if isinstance(source, SlideFile) and bag._coords is None and bag.n_instances:
        bag = Bag(np.ones((bag.n_instances, 1)), source.coords())
    arrays = bag.load(bags.name(i))
    return len(arrays.features), arrays.coords


def _gaps(coords: NDArray) -> NDArray:
    """Distances between neighbours in a row or in a column."""
    gaps = []
    for along, across in ((0, 1), (1, 0)):
        line = coords[np.lexsort((coords[:, along], coords[:, across]))].astype(float)
        gap, turn = np.diff(line, axis=0)[:, [along, across]].T
        gaps.append(gap[(turn == 0) & (gap > 0)])
    return np.concatenate(gaps).round(3)


def _quick_step(bag: Bag) -> tuple[int, float] | None:
    """Number of instances and stride from runs of coordinates, if most of their gaps are equal."""
    source = bag.source
    if not isinstance(source, SlideFile) or bag._coords is not None:
        return None
    some = source.some_coords()
    if some is None or some[1] != (some[0][0], 2) or not all(np.isfinite(r).all() for r in some[2]):
        return None
    gaps = np.concatenate([_gaps(run) for run in some[2]])
    values, counts = np.unique(gaps, return_counts=True)
    if counts.sum() < _ENOUGH or counts.max() < 0.9 * counts.sum():
        return None
    return some[0][0], float(values[counts.argmax()])


def _step(coords: NDArray) -> float:
    """Most frequent distance in a row or a column; each tissue piece may have its own grid."""
    values, counts = np.unique(_gaps(coords), return_counts=True)
    if len(values):
        return float(values[counts.argmax()])
    loose = np.concatenate([np.diff(np.unique(axis)) for axis in coords.T])
    return float(loose.min()) if len(loose) else np.nan


def _row(bags: BagSequence, i: int) -> tuple:
    try:
        info = bags[i].info
        quick = _quick_step(bags[i])
        n_instances, coords = (quick[0], None) if quick else _n_and_coords(bags, i)
    except BagError as error:
        return (None, None, np.nan, np.nan, np.nan, 0, str(error))
    size = np.nan if info.patch_size is None else info.patch_size
    step = quick[1] if quick else np.nan if coords is None else _step(coords)
    ratio = step / size if size else np.nan
    problem = None
    if abs(ratio - 1) > _TOLERANCE:
        what = "overlap" if ratio < 1 else "gaps"
        problem = f"stride {step:g} is {ratio:.3g} of patch size {size:g} ({what})"
    return (info.format, info.unit, size, step, ratio, n_instances, problem)


def check_geometry(bags: Any) -> pd.DataFrame:
    """Compare the patch size and the step between patches of each slide.

    Reads the coordinates, of HDF5 files with a clear grid two runs of them. A step below the patch
    size means overlap, a step above it gaps; half or twice the size on all slides indicates
    coordinates in pixels of another level.

    Parameters
    ----------
    bags : BagSequence or list of Bag

    Returns
    -------
    DataFrame
        One row per bag: ``format``, ``unit``, ``patch_size`` (in that unit, NaN where unknown),
        ``step`` (the most frequent distance between neighbours in a row or column, NaN without
        coordinates), ``step_per_patch``, ``n_instances``, and ``problem``: the difference where
        step and patch size differ by more than 1 %, the error of a bag that cannot be read, else
        None.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from sk_momkd import check_geometry, read_bags, simulate_cohort
    >>> bags = read_bags(simulate_cohort(mkdtemp(), n_patients=1, random_state=0).features)
    >>> check_geometry(bags)["step_per_patch"].to_list()
    [1.0]
    """
    bags = as_bags(bags)
    with together():
        rows = [_row(bags, i) for i in range(len(bags))]
    table = pd.DataFrame(rows, [bags.name(i) for i in range(len(bags))], _COLUMNS)
    return table.astype({"problem": object})


def geometry_lines(table: pd.DataFrame) -> list[str]:
    """Summary of :func:`check_geometry`: a line per patch grid, one for slides with a problem."""
    sizes = table["patch_size"].map("{:g}".format).replace("nan", "unknown size")
    steps = table["step"].map("{:g}".format).replace("nan", "unknown")
    kinds = (
        "stride " + steps + ", patches of " + sizes + " " + table["unit"].fillna("")
    ).str.strip()
    readable = kinds[table["format"].notna()]
    lines = [f"{n} slides: {kind}" for kind, n in readable.value_counts().items()]
    wrong = table[table["problem"].notna()]
    if len(wrong):
        named = [w if str(n) in w else f"{n}: {w}" for n, w in wrong["problem"].iloc[:3].items()]
        more = f"; and {len(wrong) - 3} more, see report.check_geometry()" if len(wrong) > 3 else ""
        lines.append(
            f"{len(wrong)} slides that disagree or cannot be read: {'; '.join(named)}{more}"
        )
    return ["geometry:", *lines]
