"""An omics teacher in grouped folds: its predictions for patients that it did not see."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.utils import _safe_indexing

from ..data.omics import OmicsTable
from ..exceptions import TeacherError
from ..model_selection.split import MOST_SHUFFLES, shuffled_folds
from .omics_teacher import default_teacher, logits_of, soft_labels
from .privileged import seeded_clone

_FOLDS = 5


@dataclass(frozen=True)
class CrossFittedTeacher:
    """Logits of teachers, each fitted without one or two of the folds.

    Attributes
    ----------
    logits : ndarray of shape (n_patients, n_folds, n_classes)
        ``logits[i, a]`` is of a teacher that saw neither the fold of patient i nor fold a.
    labels : int ndarray of shape (n_patients,)
        Class numbers.
    patient_folds : int ndarray of shape (n_patients,)
    sample_folds : int ndarray of shape (n_samples,)
    patients : int ndarray of shape (n_samples,)
        Patient of each sample, -1 without omics.
    """

    logits: NDArray
    labels: NDArray
    patient_folds: NDArray
    sample_folds: NDArray
    patients: NDArray

    @property
    def n_folds(self) -> int:
        """Number of folds."""
        return self.logits.shape[1]

    @property
    def held_out_logits(self) -> NDArray:
        """Logits of each patient by the teacher of all other folds: (n_patients, n_classes)."""
        return self.logits[np.arange(len(self.labels)), self.patient_folds]

    def soft_labels(self, temperature: float, without: int | None = None) -> NDArray:
        """Soft labels of the paired samples outside of fold `without`, whose labels they ignore."""
        if without is None:
            known, logits = np.arange(len(self.labels)), self.held_out_logits
        else:
            known = np.flatnonzero(self.patient_folds != without)
            logits = self.logits[known, without]
        place = np.full(len(self.labels), -1)
        place[known] = np.arange(len(known))
        samples = self.patients[(self.patients >= 0) & (self.sample_folds != without)]
        return soft_labels(logits, temperature)[place[samples]]


def cross_fit(
    teacher: Any,
    table: OmicsTable,
    rows: NDArray,
    numbers: NDArray,
    groups: NDArray,
    *,
    classes: Sequence[Any],
    random_state: int,
    pairs: bool,
) -> CrossFittedTeacher:
    """Fit a teacher without each fold and, with `pairs`, without each two folds.

    Parameters
    ----------
    teacher : scikit-learn classifier or None
        None is :func:`default_teacher`.
    table : OmicsTable
    rows : int ndarray of shape (n_samples,)
        Row of each sample in `table`, -1 for none.
    numbers : int ndarray of shape (n_samples,)
        Class numbers.
    groups : int ndarray of shape (n_samples,)
        Patients, or larger groups that folds keep together.
    classes : sequence
        Name of each class number, for messages.
    random_state : int
    pairs : bool

    Raises
    ------
    TeacherError
        If the patients with omics are too few, or the teacher's prediction is the same for all.
    """
    known = pd.DataFrame({"row": rows, "label": numbers})[rows >= 0]
    counts = known.groupby(["row", "label"]).size().unstack(fill_value=0)
    patients = counts.idxmax(axis=1).loc[known["row"].unique()]  # of equal counts the first label
    labels = patients.to_numpy()
    place = pd.Series(np.arange(len(patients)), index=patients.index)
    of_sample = np.full(len(rows), -1)
    of_sample[rows >= 0] = place.loc[known["row"]]
    _, first = np.unique(of_sample[of_sample >= 0], return_index=True)
    first = np.flatnonzero(of_sample >= 0)[first]
    sample_folds = _folds(numbers, groups, first, labels, classes, random_state, pairs=pairs)
    model = seeded_clone(default_teacher() if teacher is None else teacher, random_state)
    genes = table.rows(patients.index.to_numpy())
    n_folds = int(sample_folds.max()) + 1  # also of folds without omics
    logits = _logits(model, genes, labels, sample_folds[first], n_folds, pairs)
    found = CrossFittedTeacher(logits, labels, sample_folds[first], sample_folds, of_sample)
    _require_information(found)
    return found


def _folds(
    numbers: NDArray,
    groups: NDArray,
    first: NDArray,
    labels: NDArray,
    classes: Sequence[Any],
    random_state: int,
    *,
    pairs: bool,
) -> NDArray:
    """Fold of each sample; patients without any fold, or any two, have every class."""
    everywhere = [len(np.unique(groups[numbers == c])) for c in range(len(classes))]
    held = [len(np.unique(groups[first][labels == c])) for c in range(len(classes))]
    least = 3 if pairs else 2
    if min(held) < least:
        raise TeacherError(
            f"An omics teacher needs every class in {least} groups of training patients with "
            f"omics; class {classes[int(np.argmin(held))]!r} is in {min(held)}. Pair more "
            "patients, or pass omics=None."
        )
    n_folds = min(_FOLDS, *everywhere, *held)
    seeds = ((random_state + shuffle) % 2**32 for shuffle in range(MOST_SHUFFLES))
    splitters = (StratifiedGroupKFold(n_folds, shuffle=True, random_state=s) for s in seeds)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")
        for folds in shuffled_folds(splitters, numbers, groups):
            of_sample = np.empty(len(numbers), dtype=int)
            for fold, (_, held_out) in enumerate(folds):
                of_sample[held_out] = fold
            if _all_see_every_class(of_sample[first], labels, n_folds, len(classes), pairs):
                return of_sample
    raise TeacherError(
        "No grouped split lets the omics teacher see every class. Use smaller groups, or pass "
        "omics=None."
    )


def _all_see_every_class(
    folds: NDArray, labels: NDArray, n_folds: int, n_classes: int, pairs: bool
) -> bool:
    return all(
        len(np.unique(labels[(folds != a) & (folds != b)])) == n_classes
        for a, b in combinations_with_replacement(range(n_folds), 2)
        if pairs or a == b
    )


def _logits(
    model: Any, genes: pd.DataFrame, labels: NDArray, folds: NDArray, n_folds: int, pairs: bool
) -> NDArray:
    found = np.full((len(labels), n_folds, labels.max() + 1), np.nan)
    for a, b in combinations_with_replacement(range(n_folds), 2):
        if a != b and not pairs:
            continue
        held = np.flatnonzero((folds == a) | (folds == b))
        if not len(held):  # no patient of the fold has genes to predict from
            continue
        train = np.flatnonzero((folds != a) & (folds != b))
        with config_context(enable_metadata_routing=False):
            fitted = clone(model).fit(_safe_indexing(genes, train), labels[train])
            values = logits_of(fitted, _safe_indexing(genes, held), labels.max() + 1)
        found[held, np.where(folds[held] == a, b, a)] = values
    return found


def _require_information(teacher: CrossFittedTeacher) -> None:
    logits, folds = teacher.held_out_logits, teacher.patient_folds
    # Differences between folds alone would come from the labels that were held out.
    if not any(np.ptp(logits[folds == a], axis=0).any() for a in np.unique(folds)):
        raise TeacherError(
            "The omics teacher predicts the same for all patients of each fold, so it learned "
            "nothing from their genes. Use another teacher, or pass omics=None."
        )
