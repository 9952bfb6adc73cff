"""`Evaluation`: out-of-fold predictions, metrics with intervals, tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..estimators.decision_threshold import DecisionThreshold
from .fold_results import PatientPredictions
from .result_tables import TableResult
from .small_samples import small_sample_note
from .statistics import Bootstrap
from .teacher_weights import weights_note
from .thresholds import choose_threshold, count_folds, labels_of_patients, threshold_note


@dataclass(frozen=True, repr=False)
class Evaluation(TableResult):
    """Out-of-fold results of one estimator, made by :func:`evaluate`.

    Attributes
    ----------
    name : str
        Class of the estimator, or its name in a comparison.
    summary : DataFrame, index metric
        Columns ``value`` (of the pooled predictions, mean over repeats), ``low``, ``high``
        (interval when patients are drawn), ``fold_mean``, ``fold_std``, ``n_folds``; with groups
        also ``low_sites``, ``high_sites`` (interval when whole sites are drawn), with several
        repeats ``repeat_std``. Row ``fold_auroc`` is the mean of the AUROCs within folds.
    folds : DataFrame
        One row per repeat and fold. Columns ``repeat``, ``fold``, ``n_train``, ``n_test``
        (patients), ``n_<class>`` (tested patients of each class), ``threshold``,
        ``threshold_source`` (the estimator whose `predict` decides at it, or the inner validation
        part), ``fit_seconds``, ``predict_seconds``, each metric, and ``fit_mib`` if memory was
        measured: the most memory, in MiB, that the fit held above what the process had before.
        Where the fits chose the weight of an omics teacher, ``teacher_weight`` and
        ``teacher_verdict``, a sentence that says why.
    predictions : DataFrame
        One row per repeat and patient. Columns ``repeat``, ``fold``, ``patient_id``, ``group`` (if
        groups were given), ``n_bags``, ``y``, ``p_<class>`` for each class, ``predicted`` (by the
        estimator's `predict`), ``threshold``, ``predicted_tuned`` (at the threshold).
    sites : DataFrame or None, index group
        Columns ``n_patients``, ``n_<class>``, ``auroc``, ``balanced_accuracy``, ``accuracy``,
        ``brier``, means over repeats; NaN where a site has one class only.
    classes : tuple
        Of two classes, the last is the positive one.
    bootstrap : Bootstrap
        Settings of the intervals: ``n_draws``, ``confidence_level``, ``random_state``.
    models : tuple of estimators
        Fitted on the folds, repeat by repeat; empty unless kept.
    trained_patients : frozenset
        Patients that any of the models was trained on; slides whose patient is unknown.
    repeats : tuple of PatientPredictions
        The arrays behind `predictions`.
    prior : str, dict, array-like or None
        The `prior` of this package's classifiers, to which the probabilities refer; None for others
        and where it differs between folds.
    prior_shares : dict of label to float, or None
        The class shares that this `prior` was in the folds, on average: with "training" those of
        the training data. None where `prior` is, or a fold lacks a class.
    failed : DataFrame or None
        The folds that failed, with ``error_score=numpy.nan``: columns ``repeat``, ``fold``,
        ``n_train``, ``n_test`` and ``error``. Their test patients are in no metric of that repeat.
    label_names : dict of label to str
        What labels were in the table, where :func:`load_cohort` has coded them; else empty.
    n_trained_without_id : int
        Number of training bags with neither patient nor slide id, which nobody can know again.
    teacher_report : DataFrame or None
        What the fits saw when they chose the weight of an omics teacher: a row per repeat, fold and
        weight, with ``chosen`` and the columns of the classifier's ``teacher_report_``.

    See Also
    --------
    evaluate : Makes it.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.dummy import DummyClassifier
    >>> from sk_momkd import Bag, BagSequence, evaluate
    >>> bags = BagSequence(Bag(np.ones((2, 3)), patient_id=f"P{i:02d}") for i in range(20))
    >>> result = evaluate(DummyClassifier(), bags, np.arange(20) % 2, n_bootstrap=100)
    >>> result.summary.loc["auroc", ["value", "low", "high"]].round(2).tolist()
    [0.5, 0.27, 0.73]
    >>> result.folds["n_test"].tolist()
    [4, 4, 4, 4, 4]
    """

    name: str
    summary: pd.DataFrame
    folds: pd.DataFrame
    predictions: pd.DataFrame
    sites: pd.DataFrame | None
    classes: tuple[Any, ...]
    bootstrap: Bootstrap
    models: tuple[Any, ...]
    trained_patients: frozenset[Any] = field(repr=False)
    repeats: tuple[PatientPredictions, ...] = field(repr=False)
    prior: Any = None
    failed: pd.DataFrame | None = None
    label_names: dict[Any, str] = field(default_factory=dict, repr=False)
    n_trained_without_id: int = 0
    prior_shares: dict[Any, float] | None = None
    teacher_report: pd.DataFrame | None = None

    _displayed = ("summary", "sites", "failed")

    def threshold(
        self, criterion: str | tuple[str, float] = "youden", *, by: str = "pooled"
    ) -> DecisionThreshold:
        """Choose a threshold for the final model on the out-of-fold predictions of patients.

        Parameters
        ----------
        criterion : "youden", "f1", ("sensitivity", share) or ("specificity", share)
            What is largest at the threshold: sensitivity + specificity, or F1 of the positive
            class. With a share, the highest threshold with at least this sensitivity, or the
            lowest with at least this specificity.
        by : {"pooled", "fold"}, default="pooled"
            "pooled" takes the patients of all folds together. "fold" chooses one in each fold,
            whose patients one model scored, and takes the median; it needs folds of many patients.
            Of several repeats it is the mean.

        Returns
        -------
        DecisionThreshold
            With the interval of a bootstrap over patients, the number of patients of each class,
            sensitivity and specificity at it with exact intervals, and both where the threshold of
            each fold is chosen on the other folds, which no patient of the fold has influenced.

        Raises
        ------
        ValueError
            If there are more than two classes, an argument is unusable, a repeat has predictions of
            one class only, or no threshold reaches the specificity.

        Warns
        -----
        UserWarning
            If it rests on fewer than 20 patients of a class.

        Notes
        -----
        Give it to the final model: ``clf.set_params(decision_threshold=threshold)``, before or
        after `fit`. For other estimators, with ``t`` the threshold,
        ``FixedThresholdClassifier(model, threshold=t.value, pos_label=t.pos_label)`` of
        scikit-learn does the same. It is chosen on the mean probability of a patient's slides, and
        `predict` of a classifier applies it to slides.

        Its ``prior`` is `prior_shares`, so that a final model that was trained on data with
        another prevalence moves it.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.pipeline import make_pipeline
        >>> from sk_momkd import Bag, BagPooling, BagSequence, evaluate
        >>> random, y = np.random.default_rng(0), np.arange(60) % 2
        >>> patches = [random.normal(0.5 * label, 1, size=(5, 3)) for label in y]
        >>> bags = BagSequence(Bag(x, patient_id=f"P{i}") for i, x in enumerate(patches))
        >>> result = evaluate(make_pipeline(BagPooling(), LogisticRegression()), bags, y)
        >>> threshold = result.threshold(("sensitivity", 0.9))
        >>> threshold.sensitivity >= 0.9, threshold.low <= threshold.value <= threshold.high
        (True, True)
        """
        return choose_threshold(
            self.repeats,
            self.classes,
            criterion,
            self.bootstrap,
            by=by,
            prior=self.prior if self.prior_shares is None else self.prior_shares,
            name=self.name,
        )

    @property
    def headline(self) -> str:
        """Estimator, patients, positive class and folds."""
        y, n_folds = labels_of_patients(self.repeats), count_folds(self.repeats)
        repeats = f" x {len(self.repeats)} repeats" if len(self.repeats) > 1 else ""
        sites = "" if self.sites is None else f", {len(self.sites)} groups"
        return (
            f"{self.name}: {len(y)} patients ({count_classes(self.classes, y)})"
            f"{positive_text(self.classes, self.label_names)}{sites}, "
            f"{n_folds} folds{repeats}"
        )

    @property
    def note(self) -> str:
        """Folds that failed, what was decided in the folds, how to read intervals of few patients.

        What was decided are thresholds of `predict`, and weights of an omics teacher.
        """
        return " ".join(part for part in (self.cautions, weights_note(self.folds)) if part)

    @property
    def cautions(self) -> str:
        """`note` without the weights of an omics teacher, which do not limit the numbers."""
        notes = [
            self.failures,
            threshold_note(self.folds),
            small_sample_note(self.classes, labels_of_patients(self.repeats)),
        ]
        return " ".join(part for part in notes if part)

    @property
    def failures(self) -> str:
        """How many folds failed, and what that means for the numbers; empty if none has."""
        if self.failed is None:
            return ""
        return (
            f"{len(self.failed)} of {len(self.failed) + len(self.folds)} folds of {self.name} "
            f"failed (table `failed`): {self.failed['n_test'].sum()} predictions of patients are "
            "missing, and all numbers are about the others."
        )


def two_aurocs(evaluation: Evaluation) -> dict[str, Any]:
    """AUROC pooled and within folds, each with its interval, and its spread over folds."""
    pooled, within = (evaluation.summary.loc[metric] for metric in ("auroc", "fold_auroc"))
    return {
        "auroc": pooled["value"],
        "low": pooled["low"],
        "high": pooled["high"],
        "fold_auroc": within["value"],
        "fold_low": within["low"],
        "fold_high": within["high"],
        "fold_std": within["fold_std"],
    }


def positive_text(classes: Sequence[Any], names: Mapping[Any, str] | None = None) -> str:
    """Positive one of two classes, as a part of a headline; empty for more classes.

    Examples
    --------
    >>> positive_text(["HER2-", "HER2+"])
    ", positive class 'HER2+'"
    >>> positive_text([0, 1], {1: "'Positive' of 'HER2'"})
    ", positive class 1 ('Positive' of 'HER2')"
    """
    if len(classes) != 2:
        return ""
    named = (names or {}).get(classes[1])
    return f", positive class {classes[1]!r}" + (f" ({named})" if named else "")


def count_classes(classes: Sequence[Any], y: NDArray) -> str:
    """Number of patients of each class as text, e.g. ``20 x 'mut', 20 x 'wt'``."""
    counts = np.bincount(y, minlength=len(classes))
    return ", ".join(f"{n} x {c!r}" for c, n in zip(classes, counts, strict=True))
