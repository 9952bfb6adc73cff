"""The patients of an evaluation: bags in an order of their own, labels, sites, omics."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..data.omics import OmicsTable, align_omics
from ..data.patients import patients_of
from ..data.sequence import BagSequence, as_bags


@dataclass(frozen=True)
class Study:
    """Bags sorted by patient and bag id, so that no result depends on the order they came in.

    Attributes
    ----------
    bags : BagSequence
    y : ndarray of shape (n_bags,)
        Labels as given.
    groups : ndarray of shape (n_bags,) or None
        Sites as given.
    order : int ndarray of shape (n_bags,)
        Where each bag stood in the sequence that came.
    patient_of : int ndarray of shape (n_bags,)
    names : ndarray of shape (n_patients,)
        Patient ids; bag names where the patient is unknown.
    labels : int ndarray of shape (n_patients,)
        Class number of most of the patient's bags.
    classes : list
        Of two classes, the last is the positive one.
    omics : OmicsTable or None
    """

    bags: BagSequence
    y: NDArray
    groups: NDArray | None
    order: NDArray
    patient_of: NDArray
    names: NDArray
    labels: NDArray
    classes: list[Any]
    omics: OmicsTable | None = None

    @property
    def sites(self) -> NDArray | None:
        """Site of each patient."""
        if self.groups is None:
            return None
        _, first = np.unique(self.patient_of, return_index=True)
        return self.groups[first]

    def patients(self, positions: NDArray) -> NDArray:
        """Numbers of the patients of the bags at `positions`."""
        return np.unique(self.patient_of[positions])

    def bags_of(self, positions: NDArray, patients: NDArray) -> NDArray:
        """Those `positions` whose bags belong to `patients`."""
        return positions[np.isin(self.patient_of[positions], patients)]

    def relabelled(self, labels: NDArray) -> Study:
        """The same study with another class number for each patient."""
        y = np.array(self.classes)[labels][self.patient_of]
        return replace(self, labels=labels, y=y)

    def mean_over_bags(self, positions: NDArray, values: NDArray) -> NDArray:
        """Mean of the bags' `values` (n_positions, ...) for each of :meth:`patients`."""
        _, owner, count = np.unique(
            self.patient_of[positions], return_inverse=True, return_counts=True
        )
        total = np.zeros((len(count), *values.shape[1:]))
        np.add.at(total, owner, values)
        return total / count.reshape(-1, *[1] * (values.ndim - 1))


def as_study(
    bags: Any, y: Any, *, omics: Any = None, groups: Any = None, pos_label: Any = None
) -> Study:
    """Check and sort what an evaluation gets.

    Raises
    ------
    LeakageError
        If a patient stands in several groups.
    OmicsError
        If no omics row belongs to any bag.
    ValueError
        If labels or groups are missing, there is a single class, `pos_label` is no class, or
        groups are given for bags without patient ids.
    """
    sequence = as_bags(bags)
    y = np.asarray(y)
    patients_of(sequence, y, groups)  # labels and groups in the order they came, for the errors
    if omics is not None and not isinstance(omics, OmicsTable):
        omics = _joined(omics, sequence)
    order = np.array(sorted(range(len(sequence)), key=lambda i: _sorting_key(sequence, i)))
    groups = None if groups is None else np.asarray(groups)[order]
    sequence, y = sequence[order], y[order]
    if groups is not None:
        _require_patient_ids(sequence, groups)
    patients = patients_of(sequence, y, None)
    classes, labels = _positive_last(patients.classes, patients.labels, pos_label)
    _, first = np.unique(patients.of_bag, return_index=True)
    names = [sequence[i].patient_id or sequence.name(i) for i in first]
    return Study(
        sequence,
        y,
        groups,
        order,
        patients.of_bag,
        np.array(names, dtype=object),
        labels,
        classes,
        omics,
    )


def _joined(omics: Any, bags: BagSequence) -> OmicsTable:
    """`omics` by id; an array in bag order gets the ids of the bags while the order holds."""
    if hasattr(omics, "obs_names") or isinstance(omics, pd.DataFrame):
        return align_omics(omics, bags)
    raise TypeError(
        f"omics is a {type(omics).__name__}, which has no ids, but folds are joined by id. Pass "
        "an AnnData, a DataFrame with patient ids as index, or align_omics(omics, bags)."
    )


def _sorting_key(bags: BagSequence, i: int) -> tuple[str, str, int]:
    bag = bags[i]
    return (str(bag.patient_id or bag.bag_id or ""), str(bag.bag_id or ""), i)


def _require_patient_ids(bags: BagSequence, groups: NDArray) -> None:
    known = any(bag.patient_id is not None for bag in bags)
    if not known and len(np.unique(groups)) < len(groups):
        raise ValueError(
            f"{len(bags)} bags in {len(np.unique(groups))} groups, but no bag has a patient id, so "
            "patients and sites cannot be told apart. Give them, Bag(..., patient_id=...)."
        )


def _positive_last(classes: list[Any], labels: NDArray, pos_label: Any) -> tuple[list, NDArray]:
    if len(classes) < 2:
        raise ValueError(f"Evaluation needs two classes of patients; all are {classes[0]!r}.")
    if pos_label is None:
        return classes, labels
    if pos_label not in classes or len(classes) > 2:
        raise ValueError(f"pos_label={pos_label!r} is none of two classes; y has {classes}.")
    if pos_label == classes[1]:
        return classes, labels
    return classes[::-1], 1 - labels
