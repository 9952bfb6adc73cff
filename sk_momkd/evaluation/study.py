"""A study: patients, labels, sites and omics, and the splits and seeds that methods share."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..data.omics import OmicsTable, align_omics
from ..data.patient import patients_of
from ..data.sequence import BagSequence, as_bags
from ..messages import first_few
from ..model_selection.split import PatientStratifiedKFold, check_leakage, positions


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


_FIT, _FOLDS, _DRAWS, _SHUFFLE = range(4)  # what chance is used for

Split = tuple[NDArray, NDArray]


@dataclass(frozen=True)
class Plan:
    """Splits and seeds that all compared methods share.

    Attributes
    ----------
    splits : list of list of (train, test)
        By repeat and fold; positions of bags in the study.
    seeds : list of list of int
        By repeat and fold, for the estimators.
    """

    splits: list[list[Split]]
    seeds: list[list[int]]

    def reseeded(self, random_state: int) -> Plan:
        """The same splits with other seeds in each repeat."""
        return replace(self, seeds=_seeds(self.splits, random_state))


def seed_of(random_state: int, *path: int) -> int:
    """A seed of its own for each use of chance."""
    return int(np.random.SeedSequence([random_state, *path]).generate_state(1)[0] >> 1)


def draws(random_state: int) -> np.random.Generator:
    """Generator of the bootstrap draws."""
    return np.random.default_rng([random_state, _DRAWS])


def shuffles(random_state: int, number: int) -> np.random.Generator:
    """Generator of the permutation with this number."""
    return np.random.default_rng([random_state, _SHUFFLE, number])


def make_plan(study: Study, cv: Any, n_repeats: int, random_state: int) -> Plan:
    """Splits of the study by `cv`, each checked for leaks.

    Parameters
    ----------
    study : Study
    cv : int, splitter or iterable of (train, test)
        An int is the number of `PatientStratifiedKFold`'s folds. Splits that are given hold
        positions in the sequence of bags that came.
    n_repeats : int
        Repeats shuffle the folds anew where `cv` is an int or a splitter that shuffles. Given
        splits stay: then repeats change the seeds of the estimator alone.
    random_state : int

    Raises
    ------
    LeakageError
        If a patient stands on both sides of a split.
    ValueError
        If a patient is tested twice in one repeat, a side is empty, or an argument is unusable.
    """
    for name, value, least in (("n_repeats", n_repeats, 1), ("random_state", random_state, 0)):
        if not isinstance(value, Integral) or value < least:
            raise ValueError(f"{name} must be an int of at least {least}, got {value!r}.")
    given = _given_splits(study, cv)
    splits = []
    for repeat in range(n_repeats):
        folds = given or _split(study, cv, repeat, seed_of(random_state, _FOLDS, repeat))
        _check(study, folds)
        splits.append(folds)
    return Plan(splits, _seeds(splits, random_state))


def _seeds(splits: list[list[Split]], random_state: int) -> list[list[int]]:
    return [
        [seed_of(random_state, _FIT, repeat, fold) for fold in range(len(folds))]
        for repeat, folds in enumerate(splits)
    ]


def _given_splits(study: Study, cv: Any) -> list[Split]:
    """Splits of positions as they came, turned into positions in the study."""
    if isinstance(cv, Integral) or hasattr(cv, "split"):
        return []
    if not isinstance(cv, Iterable):
        raise ValueError(f"cv must be an int, a splitter or a list of splits, got {cv!r}.")
    place = np.empty(len(study.order), dtype=int)
    place[study.order] = np.arange(len(place))
    folds = [tuple(positions(part, len(place)) for part in split) for split in cv]
    if not folds or any(len(split) != 2 for split in folds):
        raise ValueError(
            "cv must hold at least one (train, test). Of a split in three parts, join training and "
            "validation: the estimator carves its own validation part out of the training part."
        )
    return [_pair(np.sort(place[part]) for part in split) for split in folds]


def _pair(parts: Iterable[NDArray]) -> Split:
    train, test = parts
    return train, test


def _split(study: Study, cv: Any, repeat: int, seed: int) -> list[Split]:
    if isinstance(cv, Integral):
        cv = PatientStratifiedKFold(int(cv), random_state=seed)
    elif repeat and hasattr(cv, "random_state") and getattr(cv, "shuffle", True):
        cv = copy.copy(cv)
        cv.random_state = seed
    units = study.groups
    if units is None and not isinstance(cv, PatientStratifiedKFold):
        units = study.patient_of
    with warnings.catch_warnings():  # who ignores groups is found by the check of leaks
        warnings.filterwarnings("ignore", "The groups parameter is ignored")
        return [_pair(map(np.sort, split)) for split in cv.split(study.bags, study.y, units)]


def _check(study: Study, folds: list[Split]) -> None:
    check_leakage(folds, study.bags)
    tested = np.zeros(len(study.names), dtype=int)
    for number, (train, test) in enumerate(folds):
        if not len(train) or not len(test):
            raise ValueError(f"Split {number} has an empty side.")
        tested[study.patients(test)] += 1
        if study.groups is not None:
            _warn_of_torn_sites(study.groups, number, train, test)
    twice = np.flatnonzero(tested > 1)
    if len(twice):
        raise ValueError(
            f"{len(twice)} patients are tested in several splits: {first_few(study.names[twice])}. "
            "Each may be tested once per repeat; for repeated folds use n_repeats=."
        )


def _warn_of_torn_sites(groups: NDArray, number: int, train: NDArray, test: NDArray) -> None:
    torn = np.intersect1d(groups[train], groups[test])
    if len(torn):
        warnings.warn(
            f"Split {number} has {len(torn)} groups on both sides: {first_few(torn)}. Its numbers "
            "say nothing about new sites; use cv=PatientStratifiedKFold() or an int.",
            UserWarning,
            stacklevel=5,
        )
