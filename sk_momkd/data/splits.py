"""Splits that keep a patient on one side."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from ..exceptions import LeakageError
from .sequence import as_bags, first_few

_SHUFFLES = 20


def check_leakage(splits: Iterable[tuple[Any, Any]], bags: Any) -> None:
    """Raise if a patient stands on both sides of any split.

    Parameters
    ----------
    splits : iterable of (train, test)
        Positions of the bags on either side, as scikit-learn's splitters give them.
    bags : BagSequence or list of Bag

    Raises
    ------
    LeakageError
        Naming the split and the patients.

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
    for number, (train, test) in enumerate(splits):
        shared = np.isin(groups, np.intersect1d(groups[train], groups[test]))
        if not shared.any():
            continue
        names = dict.fromkeys(
            bags.name(i) if bags[i].patient_id is None else bags[i].patient_id
            for i in np.flatnonzero(shared)
        )
        raise LeakageError(
            f"Split {number} has {len(names)} patients on both sides: {first_few(names)}. Group "
            "the split by patient, e.g. StratifiedGroupKFold with groups=bags.patient_ids."
        )


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
            "validation part with every class can be set apart. Add patients, or use "
            "early_stopping=False."
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
