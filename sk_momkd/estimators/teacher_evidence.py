"""What inner folds show of an omics teacher, and the weight that follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import rankdata

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
# Mean and standard deviation of the gain in AUROC by weight, as on cohorts of development.
_TYPICAL_GAIN = np.array([0.0, 0.005, 0.007, 0.005, -0.003])
_GAIN_SPREAD = np.array([0.0, 0.006, 0.012, 0.02, 0.03])
_INFORMED = 2.0  # standard errors by which the teacher is better than chance
_VISIBLE = 2.5  # standard deviations of the correlation with a teacher permuted within class
_SUPERIOR = 2.0  # standard errors by which the teacher is better than the student
_CAUTIOUS = 0.25  # largest weight of a teacher that is not clearly better than the student


def margins(scores: NDArray) -> NDArray:
    """Log odds of each class against the others, of shape (..., n_classes)."""
    others = [np.delete(scores, c, axis=-1) for c in range(scores.shape[-1])]
    return np.stack(
        [scores[..., c] - logsumexp(rest, axis=-1) for c, rest in enumerate(others)], axis=-1
    )


def auroc_and_influence(labels: NDArray, margin: NDArray) -> tuple[float, NDArray]:
    """Mean AUROC of one class against the others, and what each patient contributes to its error.

    The sum of squared influences is DeLong's variance, but for the factor n / (n - 1) in each
    class; that of differences of influences is the variance of a paired difference.

    Parameters
    ----------
    labels : int ndarray of shape (n,)
    margin : ndarray of shape (n, n_classes)

    Returns
    -------
    auroc : float
    influence : ndarray of shape (n,)
    """
    classes = [1] if margin.shape[1] == 2 else range(margin.shape[1])
    aurocs, influence = [], np.zeros(len(labels))
    for c in classes:
        own = labels == c
        rank, within = rankdata(margin[:, c]), np.empty(len(labels))
        for part in (own, ~own):
            within[part] = rankdata(margin[part, c])
        below = rank - within  # patients of the other side that score less
        placement = np.where(own, below / (~own).sum(), 1 - below / own.sum())
        aurocs.append(placement[own].mean())
        influence += (placement - aurocs[-1]) / np.where(own, own.sum(), (~own).sum())
    return float(np.mean(aurocs)), influence / len(aurocs)


def within_class_correlation(labels: NDArray, one: NDArray, other: NDArray) -> float:
    """Correlation of two tables of margins after the mean of each class is subtracted."""
    correlations = []
    for c in [1] if one.shape[1] == 2 else range(one.shape[1]):
        a, b = (_centred(labels, values[:, c]) for values in (one, other))
        size = np.sqrt((a @ a) * (b @ b))
        correlations.append(a @ b / size if size > 0 else 0.0)
    return float(np.mean(correlations))


def _centred(labels: NDArray, values: NDArray) -> NDArray:
    means = np.bincount(labels, values) / np.maximum(np.bincount(labels), 1)
    return values - means[labels]


@dataclass(frozen=True)
class Evidence:
    """Out-of-fold scores of students by weight, and of the teacher.

    Attributes
    ----------
    labels : int ndarray of shape (n_patients,)
    students : ndarray of shape (n_weights, n_patients, n_classes)
        Scores of students that did not see the patient.
    paired : int ndarray of shape (n_paired,)
        Positions of the patients with omics.
    teacher : ndarray of shape (n_paired, n_classes)
        Logits of the teacher that did not see them.
    controls : dict of str to ndarray of shape (n_draws, n_weights, n_patients, n_classes)
        Scores of students of other teachers by name, e.g. of permuted ones.
    """

    labels: NDArray
    students: NDArray
    paired: NDArray
    teacher: NDArray
    controls: Mapping[str, NDArray] = field(default_factory=dict)

    @cached_property
    def report(self) -> pd.DataFrame:
        """AUROC, gain over weight 0 with its standard error, and the shrunk gain, by weight.

        A column for each control has its gain.
        """
        found = [auroc_and_influence(self.labels, margins(scores)) for scores in self.students]
        auroc = np.array([a for a, _ in found])
        error = np.array([np.linalg.norm(i - found[0][1]) for _, i in found])
        gain = auroc - auroc[0]
        prior, own = _GAIN_SPREAD**2, error**2
        total = np.where(prior + own > 0, prior + own, 1.0)
        shrunk = (own * _TYPICAL_GAIN + prior * gain) / total
        columns = {"auroc": auroc, "gain": gain, "std_error": error, "shrunk_gain": shrunk}
        columns |= {name: self._control_gain(draws) for name, draws in self.controls.items()}
        return pd.DataFrame(columns, index=pd.Index(WEIGHTS, name="weight"))

    def _control_gain(self, draws: NDArray) -> NDArray:
        """Mean gain over the draws by weight."""
        auroc = [
            [auroc_and_influence(self.labels, margins(scores))[0] for scores in students]
            for students in draws
        ]
        return (np.array(auroc) - np.array(auroc)[:, :1]).mean(axis=0)

    @cached_property
    def figures(self) -> pd.Series:
        """What is known of the teacher on the patients with omics."""
        labels, alone = self.labels[self.paired], margins(self.students[0, self.paired])
        teacher = margins(self.teacher)
        (auroc, own), (student, other) = (
            auroc_and_influence(labels, values) for values in (teacher, alone)
        )
        softest = margins(self.students[-1, self.paired])
        visible = within_class_correlation(labels, softest, teacher)
        return pd.Series(
            {
                "teacher_auroc": auroc,
                "teacher_error": np.linalg.norm(own),
                "student_auroc": student,
                "difference_error": np.linalg.norm(own - other),
                "visible": visible,
                # The standard deviation over all permutations is that of any correlation.
                "permuted": 1 / np.sqrt(len(labels) - 1),
            }
        )

    def decision(self) -> tuple[float, str]:
        """The weight, and a sentence with the reason."""
        seen = self.figures
        if seen.teacher_auroc - 0.5 < _INFORMED * seen.teacher_error:
            return 0.0, self._sentence(0.0, "the teacher is no better than chance")
        if seen.visible < _VISIBLE * seen.permuted:
            reason = "what it knows within a class is not seen without omics"
            return 0.0, self._sentence(0.0, reason)
        shrunk = self.report["shrunk_gain"]
        advantage = seen.teacher_auroc - seen.student_auroc
        reason = "the best by the shrunk gain in inner folds"
        if advantage < _SUPERIOR * seen.difference_error:
            shrunk = shrunk[shrunk.index <= _CAUTIOUS]
            reason = "of a teacher that is not clearly better than the student, at most a quarter"
        weight = WEIGHTS[int(shrunk.to_numpy().argmax())]
        return weight, self._sentence(weight, reason)

    def _sentence(self, weight: float, reason: str) -> str:
        seen, report = self.figures, self.report
        gain, error = (report[name].loc[weight] for name in ("gain", "std_error"))
        measured = f", gain {gain:+.3f} (standard error {error:.3f})" if weight else ""
        names = {"permuted": "permuted in the classes", "self_distilled": "of a slide teacher"}
        others = [f"{report[k].loc[weight]:+.3f} {names.get(k, k)}" for k in self.controls]
        measured += f", against {' and '.join(others)}" if weight and others else ""
        return (
            f"The teacher has weight {weight:g}{measured}: {reason}. In inner folds the teacher "
            f"has AUROC {seen.teacher_auroc:.3f}, the student {seen.student_auroc:.3f} without it; "
            f"within classes, a student of the teacher correlates with it by {seen.visible:.2f} "
            f"(permuted: SD {seen.permuted:.2f})."
        )
