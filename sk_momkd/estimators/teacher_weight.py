"""The weight of the omics teacher in training a student, decided in inner folds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing

from ..data.omics import OmicsTable
from ..exceptions import PairingWarning, TeacherError
from ..messages import warn
from ..preprocessing.bag_pooling import BagPooling
from .cross_fitted_teacher import CrossFittedTeacher, cross_fit
from .soft_targets import at_class_shares, fit_last, last_step, mixed_targets, steps_before_last
from .teacher_evidence import WEIGHTS, Evidence

FEWEST = 10  # patients with omics of each class, by whom a weight is chosen


@dataclass(frozen=True)
class Samples:
    """Training samples with class numbers, in the order of `classes`, and numbers of patients.

    `shares` are proportional to how much each sample counts in training; None if all are alike.
    """

    X: Any
    numbers: NDArray
    classes: NDArray
    patients: NDArray
    shares: NDArray | None = None

    @property
    def hard(self) -> NDArray:
        """One-hot labels."""
        return np.eye(len(self.classes))[self.numbers]

    def __getitem__(self, rows: NDArray) -> Samples:
        X = _safe_indexing(self.X, rows)
        shares = None if self.shares is None else self.shares[rows]
        numbers, patients = self.numbers[rows], self.patients[rows]
        return replace(self, X=X, numbers=numbers, patients=patients, shares=shares)


@dataclass(frozen=True)
class TeacherChoice:
    """Soft labels of the samples, their weight, and what it was chosen by.

    Attributes
    ----------
    soft : float32 ndarray of shape (n_samples, n_classes) or None
        Rows of samples without omics are zero; None with weight 0.
    weight : float
    paired : bool ndarray of shape (n_samples,)
    report : DataFrame
    verdict : str
    """

    soft: NDArray | None
    weight: float
    paired: NDArray
    report: pd.DataFrame
    verdict: str

    def targets(self, hard: NDArray) -> NDArray:
        """Hard labels mixed with the soft ones."""
        if self.soft is None:
            return hard
        return mixed_targets(hard, self.soft[self.paired], self.paired, self.weight)

    @classmethod
    def without(cls, paired: NDArray, reason: str) -> TeacherChoice:
        """No soft labels, and the reason."""
        return cls(None, 0.0, paired, _no_report(), f"The teacher has weight 0. {reason}")


def _no_report() -> pd.DataFrame:
    columns = ["auroc", "gain", "std_error", "shrunk_gain"]
    return pd.DataFrame(columns=columns, index=pd.Index([], name="weight"), dtype=float)


def learn_from(
    teacher: Any,
    table: OmicsTable,
    rows: NDArray,
    samples: Samples,
    groups: NDArray,
    *,
    evidence_of: Callable[[Samples, CrossFittedTeacher], Evidence],
    weight: float | str,
    temperature: float,
    random_state: int,
) -> TeacherChoice:
    """Soft labels of a cross-fitted teacher with a given weight, or one chosen in inner folds.

    Parameters
    ----------
    teacher : scikit-learn classifier or None
    table : OmicsTable
    rows : int ndarray of shape (n_samples,)
        Row of each sample in `table`, -1 for none.
    samples : Samples
    groups : int ndarray of shape (n_samples,)
        What folds keep together.
    evidence_of : callable
        What inner folds show of a teacher; for a weight that is to be chosen.
    weight : float or "auto"
    temperature : float
    random_state : int

    Returns
    -------
    TeacherChoice

    Raises
    ------
    TeacherError
        If the teacher cannot be fitted and `weight` is a number above 0.
    """
    paired, automatic = rows >= 0, weight == "auto"
    if not automatic and float(weight) == 0:
        return TeacherChoice.without(paired, "It was given.")
    if automatic and (reason := _too_few(rows, samples)):
        return _not_chosen(paired, reason)
    try:
        fitted = cross_fit(
            teacher,
            table,
            rows,
            samples.numbers,
            groups,
            classes=samples.classes.tolist(),
            random_state=random_state,
            pairs=automatic,
        )
    except TeacherError as error:
        if not automatic:
            raise
        return _not_chosen(paired, str(error))
    if automatic:
        seen = evidence_of(samples, fitted)
        (chosen, verdict), report = seen.decision(), seen.report
    else:
        chosen, report = float(weight), _no_report()
        verdict = f"The teacher has weight {chosen:g}, which was given."
    soft = np.zeros(samples.hard.shape, dtype=np.float32)
    soft[paired] = _soft_labels(fitted, samples, temperature)
    return TeacherChoice(soft if chosen else None, chosen, paired, report, verdict)


def _too_few(rows: NDArray, samples: Samples) -> str:
    """Why no weight can be chosen by so few patients with omics; empty if there are enough."""
    of_class = [rows[(rows >= 0) & (samples.numbers == c)] for c in range(len(samples.classes))]
    held = [len(np.unique(own)) for own in of_class]
    if min(held) >= FEWEST:
        return ""
    rarest = samples.classes.tolist()[int(np.argmin(held))]
    return (
        f"Only {min(held)} training patients of class {rarest!r} have omics, fewer than the "
        f"{FEWEST} of each class by which a weight can be chosen."
    )


def _not_chosen(paired: NDArray, reason: str) -> TeacherChoice:
    choice = TeacherChoice.without(paired, reason)
    warn(
        f"{choice.verdict} The labels alone are learned. Pair more patients, or give the weight.",
        PairingWarning,
    )
    return choice


def _soft_labels(
    teacher: CrossFittedTeacher, samples: Samples, temperature: float, without: int | None = None
) -> NDArray:
    """Soft labels of the paired samples outside of fold `without`, at their class shares."""
    part = (teacher.sample_folds != without) & (teacher.patients >= 0)
    shares = None if samples.shares is None else samples.shares[part]
    return at_class_shares(teacher.soft_labels(temperature, without), samples.hard[part], shares)


def targets_by_weight(
    teacher: CrossFittedTeacher, samples: Samples, temperature: float, without: int
) -> list[NDArray]:
    """Targets of the samples outside of fold `without` with each weight; soft labels made once."""
    part = teacher.sample_folds != without
    hard, paired = samples.hard[part], teacher.patients[part] >= 0
    soft = _soft_labels(teacher, samples, temperature, without)
    return [mixed_targets(hard, soft, paired, weight) for weight in WEIGHTS]


def student_evidence(
    student: Any, samples: Samples, teacher: CrossFittedTeacher, temperature: float
) -> Evidence:
    """Fit the student with each weight outside of each fold, and score it in the fold.

    Labels of the fold reach neither the student nor the teacher of its soft labels.
    """
    student, X = _pooled_once(student, samples.X)
    samples = replace(samples, X=X)
    scores = np.empty((len(WEIGHTS), len(samples.numbers), len(samples.classes)))
    for fold in range(teacher.n_folds):
        part = np.flatnonzero(teacher.sample_folds != fold)
        held = np.flatnonzero(teacher.sample_folds == fold)
        head, known = steps_before_last(student), samples[part]
        X, X_held = known.X, _safe_indexing(samples.X, held)
        if head is not None:
            X = head.fit_transform(X, known.classes[known.numbers])
            X_held = head.transform(X_held)
        by_weight = targets_by_weight(teacher, samples, temperature, fold)
        for number, targets in enumerate(by_weight):
            last = clone(last_step(student))
            fitted = fit_last(last, X, known.classes, known.numbers, targets)
            scores[number, held] = _class_scores(fitted, X_held)
    return evidence_of_patients(samples, scores, teacher)


def _class_scores(fitted: Any, X: Any) -> NDArray:
    """Logits, or log probabilities, of shape (n_samples, n_classes)."""
    if hasattr(fitted, "decision_function"):
        values = np.asarray(fitted.decision_function(X), dtype=np.float64)
    else:
        values = np.log(np.clip(fitted.predict_proba(X), np.finfo(np.float64).eps, None))
    return values if values.ndim == 2 else np.stack([0 * values, values], axis=1)


def evidence_of_patients(
    samples: Samples, scores: NDArray, teacher: CrossFittedTeacher
) -> Evidence:
    """Mean scores of each patient, with the label of most of its samples."""
    _, first, owner = np.unique(samples.patients, return_index=True, return_inverse=True)
    votes, sums = (
        np.zeros((len(first), len(samples.classes))),
        np.zeros((len(first), *scores.shape[::2])),
    )
    np.add.at(votes, (owner, samples.numbers), 1)
    np.add.at(sums, owner, scores.swapaxes(0, 1))
    students = (sums / votes.sum(axis=1)[:, None, None]).swapaxes(0, 1)
    place = np.full(len(first), -1)
    known = teacher.patients >= 0
    place[owner[known]] = teacher.patients[known]
    paired = np.flatnonzero(place >= 0)
    logits = teacher.held_out_logits[place[paired]]
    return Evidence(votes.argmax(axis=1), students, paired, logits)


def _pooled_once(student: Any, X: Any) -> tuple[Any, Any]:
    """The steps after a pooling, which learns nothing, and pooled bags: they are read once."""
    if not isinstance(student, Pipeline) or not isinstance(student[0], BagPooling):
        return student, X
    pooling, rest = clone(student[0]), student[1:]
    return rest, pooling.fit_transform(X)
