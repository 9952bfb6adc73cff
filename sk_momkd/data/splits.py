"""Splits that keep a patient on one side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from ..exceptions import LeakageError
from .sequence import BagSequence, as_bags, first_few

_SHUFFLES = 20
_SIDES = {2: ("train", "test"), 3: ("train", "validation", "test")}


def check_leakage(splits: Iterable[Sequence[Any]], bags: Any) -> None:
    """Raise if a patient, or a bag, stands on two sides of any split.

    Parameters
    ----------
    splits : iterable of (train, test) or of (train, validation, test)
        Positions of the bags on each side, as scikit-learn's splitters give them.
    bags : BagSequence or list of Bag

    Raises
    ------
    LeakageError
        Naming the split and the patients. A bag without patient id is its own patient.
    ValueError
        If a split has another number of parts.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import Bag, check_leakage
    >>> bags = [Bag(np.ones((1, 2)), patient_id=p) for p in "AAB"]
    >>> check_leakage([([0, 1], [2])], bags)
    >>> check_leakage([([0], [1, 2])], bags)
    Traceback (most recent call last):
    ...
    sk_momkd.exceptions.LeakageError: Split 0 has 1 patients on both sides: 'A'. Group the split \
by patient, e.g. StratifiedGroupKFold with groups=bags.patient_ids.
    """
    bags = as_bags(bags)
    groups = bags.groups()
    for number, split in enumerate(splits):
        check_parts(f"Split {number}", split, bags, groups)


def check_parts(name: str, split: Sequence[Any], bags: BagSequence, groups: NDArray) -> None:
    """Raise if a group, such as a patient, stands in two parts of the split called `name`.

    A bag in two parts is found too: its group stands in both.
    """
    sides = _SIDES.get(len(split))
    if sides is None or any(np.ndim(part) != 1 for part in split):
        raise ValueError(
            f"{name} is no (train, test) or (train, validation, test) of one-dimensional positions."
        )
    parts = [groups[positions(part, len(bags))] for part in split]
    for (one, left), (other, right) in combinations(zip(sides, parts, strict=True), 2):
        shared = np.flatnonzero(np.isin(groups, np.intersect1d(left, right)))
        if not len(shared):
            continue
        where = "" if len(parts) == 2 else f" of {one} and {other}"
        names = dict.fromkeys(
            bags.name(i) if bags[i].patient_id is None else bags[i].patient_id
            for i in shared.tolist()
        )
        raise LeakageError(
            f"{name} has {len(names)} patients on both sides{where}: {first_few(names)}. Group "
            "the split by patient, e.g. StratifiedGroupKFold with groups=bags.patient_ids."
        )


def positions(part: Any, n_bags: int) -> NDArray:
    """Positions that `part`, integers or a mask, names among `n_bags`; none when it is empty."""
    return np.arange(n_bags)[np.asarray(part, dtype=None if np.size(part) else int)]


def stratified_group_split(
    y: NDArray, groups: NDArray, *, fraction: float, random_state: np.random.RandomState
) -> tuple[NDArray, NDArray]:
    """Positions of a training and a validation part, every class on both sides.

    The validation part is one fold of a stratified, grouped K-fold with ``K = 1 / fraction``;
    fewer folds where the rarest class has fewer groups.

    Raises
    ------
    ValueError
        If a class has a single group, so that it cannot stand on both sides.
    """
    classes = np.unique(y)
    n_groups = {c: len(np.unique(groups[y == c])) for c in classes}
    rarest = min(n_groups, key=n_groups.__getitem__)
    if n_groups[rarest] < 2:
        raise ValueError(
            f"Class number {rarest} has a single patient or group (n_samples = {len(y)}), so no "
            "validation part with every class can be set apart. Add patients or groups, use "
            "early_stopping=False, or pass no groups (evaluate takes folds of two sites as "
            "cv=[(train, test), ...])."
        )
    n_splits = max(2, min(round(1 / fraction), n_groups[rarest]))
    grouped = len(np.unique(groups)) < len(groups)
    folds = (StratifiedGroupKFold if grouped else StratifiedKFold)(
        n_splits, shuffle=True, random_state=random_state
    )
    for _ in range(_SHUFFLES):  # with few groups a shuffle may put a class on one side
        for train, valid in folds.split(y, y, groups if grouped else None):
            if len(np.unique(y[train])) == len(np.unique(y[valid])) == len(classes):
                return train, valid
    raise ValueError(
        "No grouped split has every class on both sides. Use smaller groups, another "
        "validation_fraction, or early_stopping=False."
    )
