"""Splits by patient: folds, the inner validation part, and checks for leakage."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import (
    BaseCrossValidator,
    StratifiedGroupKFold,
    StratifiedKFold,
    check_cv,
)
from sklearn.utils import check_random_state

from ..data.patient import Patients, patients_of, require_patients
from ..data.sequence import BagSequence, as_bags
from ..exceptions import LeakageError
from ..messages import first_few, warn
from .validation_part import stratified_group_split

MOST_SHUFFLES = 20
_VALIDATION_FRACTION = 1 / 8  # of the training part: 7:1:2 with five folds
_SIDES = {2: ("train", "test"), 3: ("train", "validation", "test")}


def positions(part: Any, n_bags: int) -> NDArray:
    """Positions in `part`, integers or a mask of `n_bags`; none if it is empty.

    Raises
    ------
    ValueError
        If it holds something else, or a position that no bag has.
    """
    part = np.asarray(part, dtype=None if np.size(part) else int)
    try:
        return np.arange(n_bags)[part]
    except IndexError as error:
        shown = ", ".join(map(repr, part.ravel()[:3].tolist()))
        raise ValueError(
            f"A part of a split holds {shown}, ..., expected positions of {n_bags} bags, from 0 to "
            f"{n_bags - 1}, or a mask of as many booleans: {error}."
        ) from error


def check_parts(name: str, split: Sequence[Any], bags: BagSequence, groups: NDArray) -> None:
    """Raise if a group, such as a patient, is in two parts of the split called `name`.

    A bag in two parts is found too, because its group is in both.
    """
    sides = _SIDES.get(len(split))
    if sides is None or any(np.ndim(part) != 1 for part in split):
        raise ValueError(
            f"{name} is neither (train, test) nor (train, validation, test) of one-dimensional "
            "positions."
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


def check_leakage(splits: Iterable[Sequence[Any]], bags: Any) -> None:
    """Raise if a patient, or a bag, is on two sides of any split.

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


def shuffled_folds(
    splitters: Iterable[Any], y: NDArray, groups: NDArray | None
) -> Iterator[list[tuple[NDArray, NDArray]]]:
    """Yield the folds of one splitter after the other.

    With few groups a shuffle may leave a class out of a fold; the caller takes the first folds
    that it can use, of at most `MOST_SHUFFLES` splitters.
    """
    for splitter in splitters:
        yield list(splitter.split(y, y, groups))


class PatientStratifiedKFold(BaseCrossValidator):
    """K folds with all bags of a patient on one side and every class in its proportion.

    It fits any ``cv=`` of scikit-learn. The patients are taken from the bags, so ``groups`` need
    not be passed.

    Parameters
    ----------
    n_splits : int, default=5
    shuffle : bool, default=True
        Shuffle the patients of a class before they are assigned to folds.
    random_state : int, RandomState instance or None, default=None
        An int gives the same folds on each call. Leave it None with ``shuffle=False``.

    See Also
    --------
    tissue_source_site : Groups for folds with each TCGA site on one side.
    check_leakage : Raises if a patient is on two sides of a split.

    Notes
    -----
    Folds are made of patients, each with the label of most of its bags (on a tie the class that
    sorts first). Where every group is one patient, scikit-learn's ``StratifiedKFold`` makes them:
    folds then differ by at most one patient per class. Its ``StratifiedGroupKFold`` on the bags
    would balance slides instead, and folds would differ in their numbers of patients, which metrics
    and intervals count. Where groups hold several patients (sites), ``StratifiedGroupKFold``
    assigns the groups so that patients are balanced.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import Bag, BagSequence, PatientStratifiedKFold, tissue_source_site
    >>> patients = [f"TCGA-{site}-A00{i}" for site in ("A2", "BH", "E9", "OL") for i in range(2)]
    >>> bags = BagSequence(Bag(np.ones((1, 2)), patient_id=p) for p in patients for _ in range(2))
    >>> y = np.tile([0, 0, 1, 1], 4)
    >>> folds = PatientStratifiedKFold(n_splits=2, random_state=0)
    >>> [len(set(bags[test].patient_ids)) for _, test in folds.split(bags, y)]
    [4, 4]

    Sites on one side each:

    >>> sites = tissue_source_site(bags.patient_ids)
    >>> train, test = next(folds.split(bags, y, groups=sites))
    >>> set(sites[train]) & set(sites[test])
    set()
    """

    __metadata_request__split: ClassVar = {"groups": True}

    def __init__(
        self,
        n_splits: int = 5,
        *,
        shuffle: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_splits = n_splits
        self.shuffle = shuffle
        self.random_state = random_state

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Number of folds.

        Parameters
        ----------
        X, y, groups : object
            Ignored.

        Returns
        -------
        int
        """
        return self.n_splits

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[NDArray, NDArray]]:
        """Positions of the training and the test bags of each fold.

        Parameters
        ----------
        X : BagSequence or list of bags; with `groups` anything of length n_bags
        y : array-like of shape (n_bags,)
            Class labels.
        groups : array-like of shape (n_bags,), optional
            Groups that stay on one side, e.g. sites; by default the patients. A bag without
            patient id is its own patient. If no bag has one, the groups are the patients.

        Yields
        ------
        train, test : ndarray
            Sorted positions.

        Raises
        ------
        LeakageError
            If a patient is in several groups.
        ValueError
            If a class has fewer patients (or groups with it) than folds, a label or group is
            missing, or neither `X` nor `groups` has patient ids.
        """
        yield from self.split_patients(patients_of(X, y, groups))

    def split_patients(self, patients: Patients) -> Iterator[tuple[NDArray, NDArray]]:
        """Positions as of :meth:`split`, for patients that are derived already.

        Parameters
        ----------
        patients : Patients

        Yields
        ------
        train, test : ndarray
            Sorted positions.
        """
        for train, test in self._folds(patients):
            yield patients.bags(train), patients.bags(test)

    def split_three(
        self, X: Any, y: Any = None, groups: Any = None
    ) -> Iterator[tuple[NDArray, NDArray, NDArray]]:
        """Positions of the training, validation and test bags: 7:1:2 with five folds.

        The test parts are those of :meth:`split`. The validation part is a random one of about
        an eighth of the other patients, stratified by class, with a warning where whole groups
        cannot have that size.

        Parameters
        ----------
        X, y, groups : object
            As in :meth:`split`.

        Yields
        ------
        train, validation, test : ndarray
            Sorted positions.

        Raises
        ------
        LeakageError, ValueError
            As :meth:`split`; also if a class has too few patients to be in all parts.

        Examples
        --------
        >>> import numpy as np
        >>> from sk_momkd import Bag, PatientStratifiedKFold
        >>> bags = [Bag(np.ones((1, 2)), patient_id=f"P{i}") for i in range(100)]
        >>> folds = PatientStratifiedKFold(random_state=0).split_three(bags, np.arange(100) % 2)
        >>> [len(part) for part in next(folds)]
        [70, 10, 20]
        """
        patients = patients_of(X, y, groups)
        folds = list(self._folds(patients))
        random = check_random_state(self.random_state if self.shuffle else 0)
        for number, (rest, test) in enumerate(folds):
            purpose = f"both the training and the validation part of fold {number}"
            require_patients(patients, rest, 2, purpose)
            train, valid = stratified_group_split(
                patients.labels[rest],
                patients.groups[rest],
                fraction=_VALIDATION_FRACTION,
                random_state=random,
                patients=rest,
            )
            yield patients.bags(rest[train]), patients.bags(rest[valid]), patients.bags(test)

    def _folds(self, patients: Patients) -> Iterator[tuple[NDArray, NDArray]]:
        splitter = StratifiedGroupKFold if patients.are_grouped else StratifiedKFold
        folds = splitter(self.n_splits, shuffle=self.shuffle, random_state=self.random_state)
        everyone = np.arange(len(patients.labels))
        require_patients(patients, everyone, self.n_splits, f"n_splits={self.n_splits}")
        labels, present = patients.labels, np.unique(patients.labels)
        groups = patients.groups if patients.are_grouped else None
        for number, (train, test) in enumerate(folds.split(labels, labels, groups)):
            absent = np.setdiff1d(present, labels[test])
            if len(absent):
                names = first_few(patients.classes[c] for c in absent)
                warn(
                    f"The test part of fold {number} has no patient of class {names}: the groups "
                    "are too unequal. Use fewer folds, smaller groups or another random_state.",
                    UserWarning,
                )
            yield train, test


def inner_split(
    bags: BagSequence,
    labels: NDArray,
    groups: NDArray,
    *,
    fraction: float,
    splitter: Any,
    random_state: np.random.RandomState,
    classes: Sequence[Any] | None = None,
) -> tuple[NDArray, NDArray]:
    """Positions of the training and the validation part; no patient, no group on both sides.

    Raises
    ------
    LeakageError
        If a patient is on both sides of the first split of `splitter`.
    ValueError
        If a class would be absent from a side.
    """
    if splitter is None:
        return stratified_group_split(
            labels,
            groups,
            fraction=fraction,
            random_state=random_state,
            patients=bags.groups(),
            classes=classes,
        )
    folds = check_cv(splitter, labels, classifier=True)
    with warnings.catch_warnings():  # groups are checked below
        warnings.filterwarnings("ignore", "The groups parameter is ignored")
        split = next(iter(folds.split(np.zeros(len(bags)), labels, groups)), None)
    if split is None or max(np.max(part, initial=-1) for part in split) >= len(bags):
        raise ValueError(
            f"validation_split gives no split, or positions beyond the {len(bags)} bags of the fit."
        )
    check_leakage([split], bags)
    for side, part in zip(("training", "validation"), split, strict=True):
        if len(np.unique(labels[part])) < labels.max() + 1:
            raise ValueError(f"validation_split leaves a class out of its {side} part.")
    return split


def positions_within(splitter: Any, kept: NDArray, n_bags: int) -> Any:
    """A `validation_split` for the `kept` bags alone; one that gives no positions stays as it is.

    Parameters
    ----------
    splitter : splitter, iterable of (training, validation) positions, or None
    kept : sorted int ndarray
        Positions, among the `n_bags`, of those that are left.
    n_bags : int

    Raises
    ------
    ValueError
        If there is no such bag.
    """
    if len(kept) == n_bags or not isinstance(splitter, Iterable):
        return splitter
    return [tuple(_within(side, kept, n_bags) for side in split) for split in splitter]


def _within(positions: Any, kept: NDArray, n_bags: int) -> NDArray:
    positions = np.asarray(positions)
    if np.max(positions, initial=-1) >= n_bags:
        raise ValueError(f"validation_split gives positions beyond the {n_bags} bags of the fit.")
    return np.searchsorted(kept, positions[np.isin(positions, kept)])
