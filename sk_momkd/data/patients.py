"""The patients of a cohort, each with one label and one group: what folds are dealt of."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length

from ..exceptions import LeakageError
from .sequence import BagSequence, as_bags, first_few, is_bag_list


class Patients(NamedTuple):
    """Patients as numbers 0, 1, ...

    Attributes
    ----------
    of_bag : ndarray of shape (n_bags,)
        Patient of each bag.
    labels : ndarray of shape (n_patients,)
        Class number: the label of most bags of the patient, on a tie the class that sorts first.
    groups : ndarray of shape (n_patients,)
        What stays whole, e.g. the patient's site; the patient itself where nothing is given.
    classes : list
        Name of each class number.
    """

    of_bag: NDArray
    labels: NDArray
    groups: NDArray
    classes: list[Any]

    @property
    def are_grouped(self) -> bool:
        """Whether a group holds several patients."""
        return len(np.unique(self.groups)) < len(self.groups)

    def bags(self, patients: NDArray) -> NDArray:
        """Sorted positions of the bags of `patients`."""
        return np.flatnonzero(np.isin(self.of_bag, patients))


def patients_of(X: Any, y: Any, groups: Any) -> Patients:
    """Patients of the bags `X`, with their labels and groups.

    Raises
    ------
    LeakageError
        If a patient stands in several groups.
    ValueError
        If a label or a group is missing, or neither `X` nor `groups` tells the patients.
    """
    if y is None:
        raise ValueError("Folds are stratified by label, but y is None.")
    bags = as_bags(X) if isinstance(X, BagSequence) or is_bag_list(X) else None
    y = column_or_1d(y, warn=True)
    check_consistent_length(X, y, groups)
    if len(y) == 0:
        raise ValueError("X holds no bags.")
    labels, classes = _encode(y, "labels", bags)
    if y.dtype.kind == "f":
        check_classification_targets(y)
    of_bag, group_of_bag = patients_and_groups(X, bags, groups)
    numbers, first = np.unique(of_bag, return_index=True)
    counts = np.zeros((len(numbers), len(classes)), dtype=int)
    np.add.at(counts, (of_bag, labels), 1)
    return Patients(of_bag, counts.argmax(axis=1), group_of_bag[first], classes)


def patients_and_groups(X: Any, bags: BagSequence | None, groups: Any) -> tuple[NDArray, NDArray]:
    """Patient and group of each bag; the groups are the patients where no bag has one."""
    if groups is None:
        if bags is None:
            raise ValueError(
                f"X is a {type(X).__name__}, which does not tell the patients. Pass a BagSequence, "
                "or groups=patient_ids."
            )
        return bags.groups(), bags.groups()
    codes, _ = _encode(column_or_1d(groups), "groups", bags)
    if bags is None or not any(bag.patient_id is not None for bag in bags):
        return codes, codes
    of_bag = bags.groups()
    _, first = np.unique(of_bag, return_index=True)
    torn = np.flatnonzero(codes != codes[first][of_bag])
    if len(torn):
        names = dict.fromkeys(bags[i].patient_id for i in torn)
        raise LeakageError(
            f"{len(names)} patients stand in several groups: {first_few(names)}. A split by these "
            "groups would leak; give all bags of a patient the same group."
        )
    return of_bag, codes


def _encode(values: NDArray, what: str, bags: BagSequence | None) -> tuple[NDArray, list[Any]]:
    """Number of each value, and the values; a missing one is refused."""
    codes, names = pd.factorize(values, sort=True)
    missing = np.flatnonzero(codes < 0)
    if len(missing):
        i = int(missing[0])
        where = f"position {i}" if bags is None else bags.name(i)
        raise ValueError(f"{len(missing)} {what} are missing, the first for {where}.")
    return codes, np.asarray(names).tolist()


def require_patients(patients: Patients, among: NDArray, least: int, purpose: str) -> None:
    """Raise if a class has fewer than `least` groups with it `among` the patients.

    `purpose` says what they are for; `least` parts are to be filled, each with every class.
    """
    labels, groups = patients.labels[among], patients.groups[among]
    n_groups = [len(np.unique(groups[labels == c])) for c in range(len(patients.classes))]
    rarest = int(np.argmin(n_groups))
    if n_groups[rarest] >= least:
        return
    n_patients = np.bincount(labels, minlength=len(patients.classes)).tolist()
    within = f" in {n_groups[rarest]} groups" if patients.are_grouped else ""
    raise ValueError(
        f"Class {patients.classes[rarest]!r} has {n_patients[rarest]} patients{within}, too few "
        f"for {purpose}. Patients per class, each counted by the label of most of its bags: "
        f"{dict(zip(patients.classes, n_patients, strict=True))}. Use fewer folds, or leave the "
        "class out."
    )
