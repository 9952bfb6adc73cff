"""How much a student listens to its omics teacher, decided in inner folds."""

from __future__ import annotations

import warnings
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
from ..preprocessing.bag_pooling import BagPooling
from .cross_fitted_teacher import CrossFittedTeacher, cross_fit
from .soft_targets import at_class_shares, fit_last, last_step, mixed_targets, steps_before_last
from .teacher_evidence import WEIGHTS, Evidence

FEWEST = 10  # patients with omics of each class, by whom a teacher is judged


@dataclass(frozen=True)
class Samples:
    """Training samples with class numbers, in the order of `classes`, and numbers of patients."""

    X: Any
    numbers: NDArray
    classes: NDArray
    patients: NDArray

    @property
    def hard(self) -> NDArray:
        """One-hot labels."""
        return np.eye(len(self.classes))[self.numbers]

    def __getitem__(self, rows: NDArray) -> Samples:
        X = _safe_indexing(self.X, rows)
        return replace(self, X=X, numbers=self.numbers[rows], patients=self.patients[rows])


@dataclass(frozen=True)
class TeacherChoice:
    """Targets of the student, the weight of the teacher in them, and what it was chosen by."""

    targets: NDArray
    weight: float
    n_paired: int
    report: pd.DataFrame
    verdict: str

    @classmethod
    def without(cls, samples: Samples, reason: str, n_paired: int = 0) -> TeacherChoice:
        """Hard labels, and the reason."""
        return cls(samples.hard, 0.0, n_paired, _no_report(), f"The teacher has weight 0. {reason}")


def _no_report() -> pd.DataFrame:
    columns = ["auroc", "gain", "std_error", "shrunk_gain"]
    return pd.DataFrame(columns=columns, index=pd.Index([], name="weight"), dtype=float)


def learn_from(
    teacher: Any,
    table: OmicsTable,
    rows: NDArray,
    student: Any,
    samples: Samples,
    groups: NDArray,
    *,
    weight: float | str,
    temperature: float,
    random_state: int,
) -> TeacherChoice:
    """Targets from a cross-fitted teacher with a given weight, or one chosen in inner folds.

    Parameters
    ----------
    teacher : scikit-learn classifier or None
    table : OmicsTable
    rows : int ndarray of shape (n_samples,)
        Row of each sample in `table`, -1 for none.
    student : scikit-learn classifier
    samples : Samples
    groups : int ndarray of shape (n_samples,)
        What folds keep together.
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
    n_paired, automatic = int((rows >= 0).sum()), weight == "auto"
    if not automatic and float(weight) == 0:
        return TeacherChoice.without(samples, "It was given.", n_paired)
    if automatic and (reason := _too_few(rows, samples)):
        return _not_judged(samples, reason, n_paired)
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
        return _not_judged(samples, str(error), n_paired)
    if not automatic:
        targets = _targets(fitted, samples, temperature, float(weight))
        report, verdict = _no_report(), f"The teacher has weight {weight:g}, which was given."
        return TeacherChoice(targets, float(weight), n_paired, report, verdict)
    seen = judge(student, samples, fitted, temperature)
    chosen, verdict = seen.decision()
    targets = _targets(fitted, samples, temperature, chosen)
    return TeacherChoice(targets, chosen, n_paired, seen.report, verdict)


def _too_few(rows: NDArray, samples: Samples) -> str:
    """Why there are too few patients with omics to judge a teacher; empty if there are enough."""
    of_class = [rows[(rows >= 0) & (samples.numbers == c)] for c in range(len(samples.classes))]
    held = [len(np.unique(own)) for own in of_class]
    if min(held) >= FEWEST:
        return ""
    rarest = samples.classes.tolist()[int(np.argmin(held))]
    return (
        f"Only {min(held)} training patients of class {rarest!r} have omics, fewer than the "
        f"{FEWEST} of each class by which a weight can be chosen."
    )


def _not_judged(samples: Samples, reason: str, n_paired: int) -> TeacherChoice:
    choice = TeacherChoice.without(samples, reason, n_paired)
    warnings.warn(
        f"{choice.verdict} The labels alone are learned. Pair more patients, or give the weight.",
        PairingWarning,
        stacklevel=5,
    )
    return choice


def _targets(
    teacher: CrossFittedTeacher,
    samples: Samples,
    temperature: float,
    weight: float,
    without: int | None = None,
) -> NDArray:
    """Targets of the samples outside of fold `without`."""
    part = np.flatnonzero(teacher.sample_folds != without)
    hard, paired = samples.hard[part], teacher.patients[part] >= 0
    soft = at_class_shares(teacher.soft_labels(temperature, without), hard[paired])
    return mixed_targets(hard, soft, paired, weight)


def judge(
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
        for number, weight in enumerate(WEIGHTS):
            targets = _targets(teacher, samples, temperature, weight, fold)
            last = clone(last_step(student))
            fitted = fit_last(last, X, known.classes, known.numbers, targets)
            scores[number, held] = _class_scores(fitted, X_held)
    return _by_patient(samples, scores, teacher)


def _class_scores(fitted: Any, X: Any) -> NDArray:
    """Logits, or log probabilities, of shape (n_samples, n_classes)."""
    if hasattr(fitted, "decision_function"):
        values = np.asarray(fitted.decision_function(X), dtype=np.float64)
    else:
        values = np.log(np.clip(fitted.predict_proba(X), np.finfo(np.float64).eps, None))
    return values if values.ndim == 2 else np.stack([0 * values, values], axis=1)


def _by_patient(samples: Samples, scores: NDArray, teacher: CrossFittedTeacher) -> Evidence:
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
