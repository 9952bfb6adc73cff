"""Which bags train and which are tested, in each fold of each repeat, and with which seed."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.folds import PatientStratifiedKFold
from ..data.sequence import first_few
from ..data.splits import check_leakage, positions
from .study import Study

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


def make_plan(study: Study, cv: Any, repeats: int, random_state: int) -> Plan:
    """Splits of the study by `cv`, each checked for leaks.

    Parameters
    ----------
    study : Study
    cv : int, splitter or iterable of (train, test)
        An int is the number of `PatientStratifiedKFold`'s folds. Splits that are given hold
        positions in the sequence of bags that came.
    repeats : int
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
    for name, value, least in (("repeats", repeats, 1), ("random_state", random_state, 0)):
        if not isinstance(value, Integral) or value < least:
            raise ValueError(f"{name} must be an int of at least {least}, got {value!r}.")
    given = _given_splits(study, cv)
    splits = []
    for repeat in range(repeats):
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
            "Each may be tested once per repeat; for repeated folds use repeats=."
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
