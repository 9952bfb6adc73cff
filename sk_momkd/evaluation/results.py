"""Results of an evaluation: out-of-fold predictions, metrics with intervals, tables."""

from __future__ import annotations

import html
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import groupby
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..estimators.decision_threshold import DecisionThreshold
from ..io.atomic import atomic_set
from .metrics import patient_metrics, placements, pooled_auroc
from .small_samples import small_sample_intervals, small_sample_note
from .statistics import Bootstrap
from .study import Study
from .thresholds import choose_threshold, count_folds, labels_of_patients

VALIDATION_PART = "inner validation part"  # source of a threshold that `predict` does not use
FEW_IN_VALIDATION = 10  # patients of a class; with fewer, a threshold is chance
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how spreadsheets recognise one
_SITE_METRICS = ("auroc", "balanced_accuracy", "accuracy", "brier")


class TableResult:
    """Base of the frozen result classes: a headline and tables.

    Every field that is a DataFrame is a table; :meth:`to_csv` names its file after the field.
    """

    _displayed: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        """What was done, and on how many patients."""
        return type(self).__name__

    @property
    def note(self) -> str:
        """How to read intervals of few patients; empty where no class has few."""
        return ""

    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables by name."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return {k: v for k, v in own.items() if isinstance(v, pd.DataFrame)}

    def to_csv(self, folder: str | PathLike, *, escape_formulas: bool = False) -> list[Path]:
        """Write each table, and the text of the result, into `folder`.

        No file is replaced before all are written.

        Parameters
        ----------
        folder : path
            Created if it does not exist.
        escape_formulas : bool, default=False
            Whether text that a spreadsheet would run as a formula, because it begins with ``=``,
            ``+``, ``-`` or ``@``, gets an apostrophe in front. Ids and class names such as "+" then
            differ from those of the cohort; use it for tables of ids that others wrote.

        Returns
        -------
        list of Path
            One ``<table>.csv`` for each table, and ``result.txt``.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tables = self.tables()
        written = [*(folder / f"{name}.csv" for name in tables), folder / "result.txt"]
        with atomic_set(written) as parts:
            for table, part in zip(tables.values(), parts, strict=False):
                table = escaped(table) if escape_formulas else table
                table.to_csv(part, index=table.index.name is not None)
            Path(parts[-1]).write_text(f"{self}\n", encoding="utf-8")
        return written

    def __str__(self) -> str:
        said = [text for text in (self.headline, self.note) if text]
        return "\n\n".join([*said, *map(_as_text, self._displayed_tables())])

    def __repr__(self) -> str:
        return f"<{self.headline}>"

    def _repr_html_(self) -> str:
        said = [f"<p>{html.escape(text)}</p>" for text in (self.headline, self.note) if text]
        return "".join([*said, *map(_as_html, self._displayed_tables())])

    def _displayed_tables(self) -> list[pd.DataFrame]:
        tables = self.tables()
        return [_drop_empty(tables[name]) for name in self._displayed if name in tables]


def escaped(table: pd.DataFrame) -> pd.DataFrame:
    """The table with an apostrophe before text that a spreadsheet would run as a formula."""

    def escape(value: Any) -> Any:
        return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value

    return table.map(escape).rename(index=escape, columns=escape)


def _as_html(table: pd.DataFrame) -> str:
    return table.to_html(float_format="{:.3f}".format, na_rep="")


def _as_text(table: pd.DataFrame) -> str:
    named = table.index.name is not None
    return table.to_string(float_format="{:.3f}".format, na_rep="", index=named)


def _drop_empty(table: pd.DataFrame) -> pd.DataFrame:
    """Table without metrics that have no value, such as ``_tuned`` ones without thresholds."""
    if "value" in table:
        table = table.dropna(subset="value")
    return table.dropna(how="all").dropna(how="all", axis="columns")


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
        """Folds that failed, thresholds of `predict`, and how to read intervals of few patients."""
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


@dataclass(frozen=True)
class FoldResult:
    """Predictions and costs of one fold.

    Attributes
    ----------
    repeat, fold : int
    trained, tested : int ndarray
        Patient numbers.
    proba : ndarray of shape (n_tested, n_classes)
        Mean over the bags of a patient.
    n_bags : int ndarray of shape (n_tested,)
    threshold : float
        At which `predict` decides; else chosen on the inner validation part; NaN without either.
    fit_seconds, predict_seconds : float
    fit_mib : float or None
        Memory that the fit held at most above what was there; None unless measured.
    model : estimator or None
    predicted : int ndarray of shape (n_tested,) or None
        Classes that `predict` says; None for the most probable ones.
    threshold_source : str
        Whose threshold it is, where `predict` decides at it; else empty.
    prior : str, dict, array or None
        Population that the probabilities of this package's classifiers refer to.
    shares : dict of label to float, or None
        Its class shares.
    n_validation : int ndarray of shape (n_classes,) or None
        Patients of each class in the inner validation part, if `threshold` was chosen there.
    """

    repeat: int
    fold: int
    trained: NDArray
    tested: NDArray
    proba: NDArray
    n_bags: NDArray
    threshold: float
    fit_seconds: float
    predict_seconds: float
    fit_mib: float | None = None
    model: Any = None
    predicted: NDArray | None = None
    threshold_source: str = ""
    prior: Any = None
    n_validation: NDArray | None = None
    shares: dict[Any, float] | None = None

    @property
    def decided(self) -> NDArray:
        """Class numbers of the tested patients."""
        return self.proba.argmax(axis=1) if self.predicted is None else self.predicted


@dataclass(frozen=True)
class FailedFold:
    """A fold whose fit or prediction failed, with ``error_score=numpy.nan``.

    Attributes
    ----------
    repeat, fold : int
    trained, tested : int ndarray
        Patient numbers.
    error : Exception
    """

    repeat: int
    fold: int
    trained: NDArray
    tested: NDArray
    error: Exception

    def __str__(self) -> str:
        return (
            f"Fold {self.fold} (repeat {self.repeat}) failed, so its {len(self.tested)} test "
            f"patients have no prediction in it: {type(self.error).__name__}: {self.error}"
        )


@dataclass(frozen=True)
class PatientPredictions:
    """Predictions of one repeat, or of one model, sorted by patient.

    Attributes
    ----------
    patients, fold, y : int ndarray of shape (n_tested,)
    proba : ndarray of shape (n_tested, n_classes)
    threshold : ndarray of shape (n_tested,)
        Threshold of the patient's fold.
    n_bags : int ndarray of shape (n_tested,)
    predicted : int ndarray of shape (n_tested,)
        Classes that `predict` says; by default the most probable ones.
    own_threshold : bool ndarray of shape (n_tested,)
        Whether `predict` decides at the threshold of the patient's fold.
    """

    patients: NDArray
    fold: NDArray
    y: NDArray
    proba: NDArray
    threshold: NDArray
    n_bags: NDArray
    predicted: NDArray = None  # type: ignore[assignment]
    own_threshold: NDArray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.predicted is None:
            object.__setattr__(self, "predicted", self.proba.argmax(axis=1))
        if self.own_threshold is None:
            object.__setattr__(self, "own_threshold", np.zeros(len(self.y), dtype=bool))

    @property
    def tuned(self) -> NDArray | None:
        """Classes predicted at the thresholds of the folds; None where a fold has none."""
        if np.isnan(self.threshold).any():
            return None
        reached = (self.proba[:, 1] >= self.threshold).astype(int)
        return np.where(self.own_threshold, self.predicted, reached)

    def take(self, rows: NDArray) -> PatientPredictions:
        """Some of the patients."""
        return PatientPredictions(*(getattr(self, f.name)[rows] for f in fields(self)))

    def of_folds(self) -> list[PatientPredictions]:
        """Predictions of each fold."""
        return [self.take(self.fold == fold) for fold in np.unique(self.fold)]

    def metrics(self, weights: NDArray) -> dict[str, NDArray]:
        """All metrics for weights (n_weights, n_all_patients), in the order of the tables."""
        weights = weights[:, self.patients]
        return patient_metrics(self.y, self.proba, weights, self.tuned, predicted=self.predicted)

    def auroc(self, weights: NDArray) -> NDArray:
        """AUROC of the pooled predictions."""
        return pooled_auroc(self.y, self.proba, weights[:, self.patients])

    def fold_auroc(self, weights: NDArray) -> NDArray:
        """Mean of the folds' AUROCs, over the folds that have one."""
        return nan_mean([fold.auroc(weights) for fold in self.of_folds()])


def pool_folds(folds: Iterable[FoldResult], labels: NDArray) -> list[PatientPredictions]:
    """Pool the predictions of each repeat; `folds` is sorted by repeat."""
    repeats = groupby(folds, key=lambda fold: fold.repeat)
    return [_pool(list(of_repeat), labels) for _, of_repeat in repeats]


def _pool(folds: Sequence[FoldResult], labels: NDArray) -> PatientPredictions:
    sizes = [len(f.tested) for f in folds]
    patients = np.concatenate([f.tested for f in folds])
    everyone = PatientPredictions(
        patients,
        np.repeat([f.fold for f in folds], sizes),
        labels[patients],
        np.concatenate([f.proba for f in folds]),
        np.repeat([f.threshold for f in folds], sizes),
        np.concatenate([f.n_bags for f in folds]),
        np.concatenate([f.decided for f in folds]),
        np.repeat([bool(f.threshold_source) for f in folds], sizes),
    )
    return everyone.take(np.argsort(patients))


def nan_mean(values: Sequence[NDArray]) -> NDArray:
    """Mean over the first axis without NaN; NaN only where all values are."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice")
        return np.nanmean(np.asarray(values, dtype=float), axis=0)


def mean_auroc(repeats: Sequence[PatientPredictions], weights: NDArray) -> NDArray:
    """Pooled AUROC, mean over repeats."""
    return np.mean([r.auroc(weights) for r in repeats], axis=0)


def mean_fold_auroc(repeats: Sequence[PatientPredictions], weights: NDArray) -> NDArray:
    """AUROC within folds, mean over folds and repeats."""
    return np.mean([r.fold_auroc(weights) for r in repeats], axis=0)


def auroc_components(
    repeats: Sequence[PatientPredictions], *, within_folds: bool
) -> tuple[NDArray, NDArray]:
    """Structural components of the AUROC of positives and of negatives, mean over repeats.

    Within folds, a patient is compared with the patients of the fold; those of a fold without the
    other class are left out.
    """
    n = 1 + max(int(repeat.patients.max()) for repeat in repeats)
    found = np.full((len(repeats), n), np.nan)
    label = np.zeros(n, dtype=int)
    for row, repeat in zip(found, repeats, strict=True):
        label[repeat.patients] = repeat.y
        for part in repeat.of_folds() if within_folds else [repeat]:
            positive = part.y == 1
            if positive.any() and not positive.all():
                above, below = placements(positive, part.proba[:, 1])
                row[part.patients[positive]], row[part.patients[~positive]] = above, below
    mean = nan_mean(list(found))
    return mean[label == 1], mean[label == 0]


def resampled_weights(
    study: Study, repeats: Sequence[PatientPredictions], bootstrap: Bootstrap
) -> dict[str, tuple[NDArray, NDArray]]:
    """Bootstrap weights for pooled metrics and for the AUROC within folds.

    The keys are the suffixes of the columns: none where patients are drawn, ``_sites`` where
    whole sites are. Patients are drawn within the test folds of the first repeat for the AUROC
    within folds, but not within fold and class: strata of a few patients would make the interval
    too narrow.
    """
    fold = np.full(len(study.names), -1)
    fold[repeats[0].patients] = repeats[0].fold
    weights = {"": (bootstrap.patients(len(fold)), bootstrap.within_folds(fold))}
    if study.sites is not None:
        sites = bootstrap.sites(study.sites)
        weights["_sites"] = (sites, sites)
    return weights


def build_evaluation(
    name: str, study: Study, results: Sequence[FoldResult | FailedFold], bootstrap: Bootstrap
) -> Evaluation:
    """Tables and metrics of the folds of one estimator."""
    folds = [fold for fold in results if isinstance(fold, FoldResult)]
    _warn_if_thresholds_rest_on_few(name, study.classes, folds)
    repeats = pool_folds(folds, study.labels)
    table = pd.DataFrame([_fold_row(study, fold, repeats) for fold in folds])
    if any(fold.fit_mib is not None for fold in folds):
        column = table.columns.tolist().index("predict_seconds") + 1
        table.insert(column, "fit_mib", [fold.fit_mib for fold in folds])
    trained = {int(i) for fold in folds for i in fold.trained}
    used = [bag for bag, i in zip(study.bags, study.patient_of, strict=True) if int(i) in trained]
    return Evaluation(
        name,
        _summary(study, repeats, table, bootstrap),
        table,
        pd.concat([_predictions(study, i, r) for i, r in enumerate(repeats)], ignore_index=True),
        None if study.sites is None else _site_table(study, study.sites, repeats),
        tuple(study.classes),
        bootstrap,
        tuple(fold.model for fold in folds if fold.model is not None),
        frozenset(study.names[i] for i in trained),
        tuple(repeats),
        folds[0].prior if len({repr(fold.prior) for fold in folds}) == 1 else None,
        _failed_table([fold for fold in results if isinstance(fold, FailedFold)]),
        study.label_names,
        sum(bag.patient_id is None and bag.bag_id is None for bag in used),
        _mean_shares(folds, study.classes),
    )


def _mean_shares(folds: Sequence[FoldResult], classes: Sequence[Any]) -> dict[Any, float] | None:
    """Class shares of the prior, mean over the folds, where all have the same prior and classes."""
    shares = [fold.shares for fold in folds]
    if len({repr(fold.prior) for fold in folds}) > 1:
        return None
    if any(s is None or s.keys() != set(classes) for s in shares):
        return None
    return {c: float(np.mean([s[c] for s in shares if s is not None])) for c in classes}


def _failed_table(failed: Sequence[FailedFold]) -> pd.DataFrame | None:
    rows = [
        {
            "repeat": fold.repeat,
            "fold": fold.fold,
            "n_train": len(fold.trained),
            "n_test": len(fold.tested),
            "error": f"{type(fold.error).__name__}: {fold.error}",
        }
        for fold in failed
    ]
    return pd.DataFrame(rows) if rows else None


def _warn_if_thresholds_rest_on_few(
    name: str, classes: Sequence[Any], folds: Sequence[FoldResult]
) -> None:
    parts = [fold.n_validation for fold in folds if fold.n_validation is not None]
    if not parts:
        return
    counts = np.array(parts)
    fewest = int(counts.min())
    if fewest < FEW_IN_VALIDATION:
        rare = classes[int(counts.min(axis=0).argmin())]
        sizes = np.unique(counts.sum(axis=1))
        warnings.warn(
            f"{name}: the thresholds of the rows _tuned were chosen on inner validation parts of "
            f"{' to '.join(map(str, np.unique(sizes[[0, -1]])))} patients, {fewest} of {rare!r} in "
            "the smallest; with so few they are left to chance. predict does not use them. For a "
            "threshold that rests on all patients, see Evaluation.threshold.",
            UserWarning,
            stacklevel=4,
        )


def _fold_row(
    study: Study, fold: FoldResult, repeats: Sequence[PatientPredictions]
) -> dict[str, Any]:
    repeat = repeats[fold.repeat]
    tested = repeat.take(repeat.fold == fold.fold)
    metrics = tested.metrics(np.ones((1, len(study.names))))
    return {
        "repeat": fold.repeat,
        "fold": fold.fold,
        "n_train": len(fold.trained),
        "n_test": len(fold.tested),
        **_class_counts(study, tested.y),
        "threshold": fold.threshold,
        "threshold_source": source_of(fold.threshold, fold.threshold_source),
        "fit_seconds": fold.fit_seconds,
        "predict_seconds": fold.predict_seconds,
        **{metric: value[0] for metric, value in metrics.items()},
    }


def threshold_note(table: pd.DataFrame) -> str:
    """At which thresholds `predict` of the models decides; empty where it has none.

    Parameters
    ----------
    table : DataFrame
        With ``threshold`` and ``threshold_source`` of each model.
    """
    own = table[table["threshold_source"].notna() & (table["threshold_source"] != VALIDATION_PART)]
    if not len(own):
        return ""
    low, high = own["threshold"].min(), own["threshold"].max()
    span = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    sources = ", ".join(pd.unique(own["threshold_source"]))
    return (
        f"Accuracies, F1, sensitivity and specificity are at the threshold {span} of predict "
        f"({sources}), and so are the rows _tuned."
    )


def source_of(threshold: float, source: str) -> str | None:
    """Where the threshold of a model comes from; None without one."""
    return source or (None if np.isnan(threshold) else VALIDATION_PART)


def _class_counts(study: Study, y: NDArray) -> dict[str, int]:
    counts = np.bincount(y, minlength=len(study.classes)).tolist()
    return {f"n_{c}": n for c, n in zip(study.classes, counts, strict=True)}


def _summary(
    study: Study,
    repeats: Sequence[PatientPredictions],
    folds: pd.DataFrame,
    bootstrap: Bootstrap,
) -> pd.DataFrame:
    once = np.ones((1, len(study.names)))
    by_repeat = [_scores([r], once, once) for r in repeats]
    drawn = {
        suffix: _scores(repeats, *weights)
        for suffix, weights in resampled_weights(study, repeats, bootstrap).items()
    }
    first = repeats[0]
    means = {metric: float(np.mean([s[metric] for s in by_repeat])) for metric in by_repeat[0]}
    corrected = small_sample_intervals(
        means if len(study.classes) == 2 else {},
        first.y,
        [fold.y for fold in first.of_folds()],
        bootstrap.confidence_level,
    )
    rows = {}
    for metric in by_repeat[0]:
        values = np.array([scores[metric][0] for scores in by_repeat])
        row = {"value": values.mean()}
        for suffix, scores in drawn.items():
            row[f"low{suffix}"], row[f"high{suffix}"] = bootstrap.interval(scores[metric])
        row["low"], row["high"] = corrected.get(metric, (row["low"], row["high"]))
        of_folds = folds["auroc" if metric == "fold_auroc" else metric].dropna()
        row |= {"fold_mean": of_folds.mean(), "fold_std": of_folds.std(), "n_folds": len(of_folds)}
        if len(values) > 1:
            row["repeat_std"] = values.std(ddof=1)
        rows[metric] = row
    table = pd.DataFrame.from_dict(rows, orient="index").astype({"n_folds": int})
    return table.rename_axis("metric")


def _scores(
    repeats: Sequence[PatientPredictions], weights: NDArray, fold_weights: NDArray
) -> dict[str, NDArray]:
    """All metrics, mean over repeats, in the order of the summary."""
    scores = mean_metrics(repeats, weights)
    return {
        "auroc": scores.pop("auroc"),
        "fold_auroc": mean_fold_auroc(repeats, fold_weights),
        **scores,
    }


def mean_metrics(repeats: Sequence[PatientPredictions], weights: NDArray) -> dict[str, NDArray]:
    """All metrics of the pooled predictions, mean over repeats."""
    each = [r.metrics(weights) for r in repeats]
    return {name: np.mean([metrics[name] for metrics in each], axis=0) for name in each[0]}


def _predictions(study: Study, repeat: int, part: PatientPredictions) -> pd.DataFrame:
    classes = np.array(study.classes, dtype=object)
    table = pd.DataFrame({"repeat": repeat, "fold": part.fold})
    table["patient_id"] = study.names[part.patients]
    if study.sites is not None:
        table["group"] = study.sites[part.patients]
    table["n_bags"] = part.n_bags
    table["y"] = pd.Series(classes[part.y]).infer_objects()
    for k, name in enumerate(study.classes):
        table[f"p_{name}"] = part.proba[:, k]
    table["predicted"] = pd.Series(classes[part.predicted]).infer_objects()
    table["threshold"] = part.threshold
    tuned = part.tuned
    table["predicted_tuned"] = (
        np.nan if tuned is None else pd.Series(classes[tuned]).infer_objects()
    )
    return table


def _site_table(
    study: Study, sites: NDArray, repeats: Sequence[PatientPredictions]
) -> pd.DataFrame:
    once, rows = np.ones((1, len(study.names))), {}
    for site in np.unique(sites):
        parts = [r.take(sites[r.patients] == site) for r in repeats]
        parts = [part for part in parts if len(part.y)]
        if not parts:
            continue
        metrics = mean_metrics(parts, once)
        rows[site] = {"n_patients": len(parts[0].y)} | _class_counts(study, parts[0].y)
        rows[site] |= {name: metrics[name][0] for name in _SITE_METRICS}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("group")
