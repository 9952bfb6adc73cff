"""Study (patients, labels, sites, omics) and plan (splits, seeds) that compared methods share."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils import check_consistent_length

from ..data.bag_order import in_bag_order, labels_in_bag_order
from ..data.coded_labels import label_names
from ..data.omics import OmicsTable, align_omics
from ..data.patient import Patients, patients_of
from ..data.positive_class import positive_class
from ..data.sequence import BagSequence, as_bags
from ..data.stated import pinned
from ..messages import first_few, warn
from ..model_selection.split import PatientStratifiedKFold, check_parts, positions

Split = tuple[NDArray, NDArray]
_OWN_ARGUMENTS = ("omics", "groups")


@dataclass(frozen=True)
class Study:
    """Bags sorted by patient and bag id, so that no result depends on the order of the input.

    Attributes
    ----------
    bags : BagSequence
    y : ndarray of shape (n_bags,)
        Labels as given.
    groups : ndarray of shape (n_bags,) or None
        Sites as given.
    order : int ndarray of shape (n_bags,)
        Position of each bag in the input.
    patients : Patients
        Derived once; splitting and checking use them.
    names : ndarray of shape (n_patients,)
        Patient ids; bag names where the patient is unknown.
    labels : int ndarray of shape (n_patients,)
        Class number (position in `classes`) of most of the patient's bags.
    omics : OmicsTable or None
    label_names : dict of label to str
        What labels were in the table that they come from, where they were coded.
    params : dict of str to ndarray of shape (n_bags, ...)
        Further arguments of `fit`.
    """

    bags: BagSequence
    y: NDArray
    groups: NDArray | None
    order: NDArray
    patients: Patients
    names: NDArray
    labels: NDArray
    omics: OmicsTable | None = None
    label_names: dict[Any, str] = field(default_factory=dict)
    params: dict[str, NDArray] = field(default_factory=dict)

    @property
    def classes(self) -> list[Any]:
        """Name of each class number; of two classes, the last is the positive one."""
        return self.patients.classes

    @property
    def pos_label(self) -> Any:
        """Positive one of two classes; None where there are more."""
        return self.classes[1] if len(self.classes) == 2 else None

    @property
    def patient_of(self) -> NDArray:
        """Patient number of each bag."""
        return self.patients.of_bag

    @property
    def sites(self) -> NDArray | None:
        """Site of each patient."""
        if self.groups is None:
            return None
        _, first = np.unique(self.patient_of, return_index=True)
        return self.groups[first]

    def patients_at(self, positions: NDArray) -> NDArray:
        """Numbers of the patients of the bags at `positions`."""
        return np.unique(self.patient_of[positions])

    def bags_of(self, positions: NDArray, patients: NDArray) -> NDArray:
        """Those `positions` whose bags belong to `patients`."""
        return positions[np.isin(self.patient_of[positions], patients)]

    def with_labels(self, labels: NDArray) -> Study:
        """The same study with another class number for each patient."""
        y = np.array(self.classes)[labels][self.patient_of]
        return replace(self, labels=labels, y=y, patients=self.patients._replace(labels=labels))

    def mean_over_bags(self, positions: NDArray, values: NDArray) -> NDArray:
        """Mean of the bags' `values` (n_positions, ...) for each of :meth:`patients_at`."""
        _, owner, count = np.unique(
            self.patient_of[positions], return_inverse=True, return_counts=True
        )
        total = np.zeros((len(count), *values.shape[1:]))
        np.add.at(total, owner, values)
        return total / count.reshape(-1, *[1] * (values.ndim - 1))


def as_study(
    bags: Any,
    y: Any,
    *,
    omics: Any = None,
    groups: Any = None,
    pos_label: Any = None,
    classes: Sequence[Any] | None = None,
    params: Mapping[str, Any] | None = None,
) -> Study:
    """Check and sort the input of an evaluation.

    The `classes` are those that fitted models know, sorted; by default those of `y`. The `params`
    are further arguments of `fit`, with a value for each bag.

    Raises
    ------
    LeakageError
        If a patient is in several groups.
    OmicsError
        If no omics row belongs to any bag.
    ValueError
        If labels or groups are missing, there is a single class, `pos_label` is none of two
        classes, groups are given for bags without patient ids, or one of `params` has not a value
        for each bag.
    """
    given = as_bags(bags)
    y = labels_in_bag_order(y, given)
    groups = in_bag_order(groups, given, "groups")
    check_consistent_length(given, y, groups)
    if omics is not None and not isinstance(omics, OmicsTable):
        omics = _join_by_id(omics, given)
    order = np.array(sorted(range(len(given)), key=lambda i: _sort_key(given, i)), dtype=int)
    # Folds must not learn from, and be tested on, different contents of a file.
    sequence, y = given.replace(pinned(given))[order], y[order]
    if groups is not None:
        groups = np.asarray(groups)[order]
        _check_patient_ids(sequence, groups)
    patients = patients_of(sequence, y, groups, classes=_positive_last(y, pos_label, classes))
    _, first = np.unique(patients.of_bag, return_index=True)
    names = np.array([sequence[i].patient_id or sequence.name(i) for i in first], dtype=object)
    named = label_names(sequence, y.tolist())
    of_bags = {name: _values_of_bags(name, v, given)[order] for name, v in (params or {}).items()}
    return Study(
        sequence, y, groups, order, patients, names, patients.labels, omics, named, of_bags
    )


def _values_of_bags(name: str, values: Any, bags: BagSequence) -> NDArray:
    """An argument of `fit` in the order of the bags."""
    if name in _OWN_ARGUMENTS:
        raise ValueError(f"{name} is an argument of its own: pass {name}=, not params.")
    found = np.asarray(in_bag_order(values, bags, f"params[{name!r}]"))
    if found.ndim == 0 or len(found) != len(bags):
        came = "one value" if found.ndim == 0 else f"{len(found)} values"
        raise ValueError(
            f"params[{name!r}] has {came}, expected one for each of the {len(bags)} bags. What is "
            "the same for all bags is set on the estimator."
        )
    return found


def _join_by_id(omics: Any, bags: BagSequence) -> OmicsTable:
    if hasattr(omics, "obs_names") or isinstance(omics, pd.DataFrame):
        return align_omics(omics, bags)
    raise TypeError(
        f"omics is a {type(omics).__name__}, which has no ids, but folds are joined by id. Pass "
        "an AnnData, a DataFrame with patient ids as index, or align_omics(omics, bags)."
    )


def _sort_key(bags: BagSequence, i: int) -> tuple[str, str, int]:
    bag = bags[i]
    return (str(bag.patient_id or bag.bag_id or ""), str(bag.bag_id or ""), i)


def _check_patient_ids(bags: BagSequence, groups: NDArray) -> None:
    known = any(bag.patient_id is not None for bag in bags)
    n_groups = len(pd.unique(groups))
    if not known and n_groups < len(groups):
        raise ValueError(
            f"{len(bags)} bags in {n_groups} groups, but no bag has a patient id, so patients and "
            "sites cannot be told apart. Pass patient ids: Bag(..., patient_id=...)."
        )


def _positive_last(y: NDArray, pos_label: Any, known: Sequence[Any] | None) -> list[Any]:
    """Sorted classes, of two the positive one last."""
    found = pd.factorize(y, sort=True)[1].tolist()
    if len(found) == 1:
        raise ValueError(
            f"Evaluation needs two classes of patients; all are {found[0]!r}. For predictions "
            "alone use prediction_table."
        )
    classes = found if known is None else list(known)
    if len(classes) < 2:
        return classes  # all labels are missing; `patients_of` names the first
    positive = positive_class(classes, pos_label)
    return [c for c in classes if c != positive] + [positive] * (len(classes) == 2)


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

    @property
    def n_fits(self) -> int:
        """Number of folds of all repeats."""
        return sum(map(len, self.splits))

    def with_random_state(self, random_state: int) -> Plan:
        """The same splits with other seeds for the estimators."""
        return replace(self, seeds=_fit_seeds(self.splits, random_state))


def make_plan(study: Study, cv: Any, n_repeats: int, random_state: int) -> Plan:
    """Split the study by `cv` and check each split for leakage.

    Parameters
    ----------
    study : Study
    cv : int, splitter or iterable of (train, test)
        An int is the number of folds of `PatientStratifiedKFold`. Given splits hold positions of
        bags in the input.
    n_repeats : int
        Each repeat shuffles the folds again if `cv` is an int or a splitter that shuffles. Given
        splits stay as they are; then repeats change the seeds of the estimator alone.
    random_state : int

    Raises
    ------
    LeakageError
        If a patient is on both sides of a split.
    ValueError
        If a patient is tested twice in one repeat, a side is empty, or an argument is unusable.
    """
    for name, value, least in (("n_repeats", n_repeats, 1), ("random_state", random_state, 0)):
        if not isinstance(value, Integral) or value < least:
            raise ValueError(f"{name} must be an int of at least {least}, got {value!r}.")
    given = _given_splits(study, cv)
    splits = []
    for repeat in range(n_repeats):
        folds = given or _split(study, cv, repeat, derive_seed(random_state, _FOLDS, repeat))
        _check_splits(study, folds)
        splits.append(folds)
    return Plan(splits, _fit_seeds(splits, random_state))


def _given_splits(study: Study, cv: Any) -> list[Split]:
    """Splits of positions in the input, turned into positions in the study."""
    if isinstance(cv, Integral) or (hasattr(cv, "split") and not isinstance(cv, str)):
        return []
    if not isinstance(cv, Iterable) or isinstance(cv, str):
        raise ValueError(f"cv must be an int, a splitter or a list of splits, got {cv!r}.")
    place = np.argsort(study.order)
    folds = [tuple(np.sort(place[positions(part, len(place))]) for part in split) for split in cv]
    if not folds or any(len(split) != 2 for split in folds):
        raise ValueError(
            "cv must hold at least one (train, test). Of a split in three parts, join training and "
            "validation: the estimator takes its own validation part from the training part."
        )
    return [(train, test) for train, test in folds]


def _split(study: Study, cv: Any, repeat: int, seed: int) -> list[Split]:
    if isinstance(cv, Integral):
        cv = PatientStratifiedKFold(int(cv), random_state=seed)
    elif repeat and hasattr(cv, "random_state") and getattr(cv, "shuffle", True):
        cv = copy.copy(cv)
        cv.random_state = seed
    if type(cv) is PatientStratifiedKFold:
        return list(cv.split_patients(study.patients))
    units = study.patient_of if study.groups is None else study.groups
    with warnings.catch_warnings():  # a splitter that ignores groups fails the leakage check
        warnings.filterwarnings("ignore", "The groups parameter is ignored")
        folds = cv.split(study.bags, study.y, units)
        return [(np.sort(train), np.sort(test)) for train, test in folds]


def _check_splits(study: Study, folds: list[Split]) -> None:
    n_tests = np.zeros(len(study.names), dtype=int)
    for number, (train, test) in enumerate(folds):
        check_parts(f"Split {number}", (train, test), study.bags, study.patient_of)
        if not len(train) or not len(test):
            raise ValueError(f"Split {number} has an empty side.")
        n_tests[study.patients_at(test)] += 1
        if study.groups is not None:
            _warn_if_sites_are_split(study.groups, number, train, test)
    twice = np.flatnonzero(n_tests > 1)
    if len(twice):
        raise ValueError(
            f"{len(twice)} patients are tested in several splits: {first_few(study.names[twice])}. "
            "Each may be tested once per repeat; for repeated folds use n_repeats=."
        )


def _warn_if_sites_are_split(groups: NDArray, number: int, train: NDArray, test: NDArray) -> None:
    shared = np.intersect1d(groups[train], groups[test])
    if len(shared):
        warn(
            f"Split {number} has {len(shared)} groups on both sides: {first_few(shared)}. Its "
            "results do not show how the model does at new sites; use "
            "cv=PatientStratifiedKFold() or an int.",
            UserWarning,
        )


_FIT, _FOLDS, _BOOTSTRAP, _PERMUTATION = range(4)  # random streams that do not overlap


def derive_seed(random_state: int, *path: int) -> int:
    """Seed for one purpose; `path` names the purpose."""
    return int(np.random.SeedSequence([random_state, *path]).generate_state(1)[0] >> 1)


def bootstrap_generator(random_state: int) -> np.random.Generator:
    """Random generator of the bootstrap samples."""
    return np.random.default_rng([random_state, _BOOTSTRAP])


def permutation_generator(random_state: int, number: int) -> np.random.Generator:
    """Random generator of the permutation with this number."""
    return np.random.default_rng([random_state, _PERMUTATION, number])


def _fit_seeds(splits: list[list[Split]], random_state: int) -> list[list[int]]:
    return [
        [derive_seed(random_state, _FIT, repeat, fold) for fold in range(len(folds))]
        for repeat, folds in enumerate(splits)
    ]
