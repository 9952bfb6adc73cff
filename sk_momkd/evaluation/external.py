"""`evaluate_external`: fitted models and their ensemble on another cohort."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..data.training_patients import WITHOUT_IDS, Encounter, meet
from ..estimators.decisions import Predictions, known_classes, predictions
from ..estimators.inner_pos_labels import agreed_pos_label
from ..exceptions import LeakageError
from ..messages import first_few, warn
from .fold_fit import threshold_of
from .fold_results import PatientPredictions
from .metrics import patient_metrics
from .result_tables import TableResult
from .results import Evaluation, count_classes, positive_text
from .routing import estimator_name, final_estimator
from .small_samples import small_sample_intervals, small_sample_note
from .statistics import Bootstrap
from .study import Study, as_study
from .thresholds import source_of, threshold_note

_SEPARATE = "It is checked by ids that no patient of training is in the external cohort."


@dataclass(frozen=True, repr=False)
class ExternalEvaluation(TableResult):
    """Results of fitted models on another cohort, made by :func:`evaluate_external`.

    Attributes
    ----------
    name : str
        Class of the models.
    summary : DataFrame, index metric
        Columns ``ensemble`` (metric of the mean probability, the result to report) with interval
        ``ensemble_low``, ``ensemble_high``; ``value`` (mean over the models) with ``low``, ``high``
        and ``std`` over models; with groups also the intervals with the suffix ``_sites``.
    by_model : DataFrame, index model
        Columns ``threshold``, ``threshold_source`` (the estimator whose `predict` decides at it,
        or the inner validation part) and each metric.
    predictions : DataFrame
        One row per patient. Columns ``patient_id``, ``group`` (if groups were given), ``n_bags``,
        ``y``, ``p_<class>`` and ``predicted`` of the ensemble, ``p_<class>_model<i>``.
    classes : tuple
        Of two classes, the last is the positive one.
    bootstrap : Bootstrap
        Settings of the intervals: ``n_draws``, ``confidence_level``, ``random_state``.
    separation : str
        Whether training patients are in the cohort, or why that could not be checked.
    label_names : dict of label to str
        What labels were in the table, where :func:`load_cohort` has coded them; else empty.

    See Also
    --------
    evaluate_external : Makes it.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.dummy import DummyClassifier
    >>> from sk_momkd import Bag, BagSequence, evaluate_external
    >>> bags = BagSequence(Bag(np.ones((2, 3)), patient_id=f"P{i:02d}") for i in range(20))
    >>> y = np.arange(20) % 2
    >>> fitted = [DummyClassifier().fit(bags[:10], y[:10])]
    >>> result = evaluate_external(fitted, bags[10:], y[10:], n_bootstrap=100)
    >>> result.predictions["p_1"].unique().tolist()
    [0.5]
    """

    name: str
    summary: pd.DataFrame
    by_model: pd.DataFrame
    predictions: pd.DataFrame
    classes: tuple[Any, ...]
    bootstrap: Bootstrap
    separation: str
    _y: NDArray = field(repr=False)
    label_names: dict[Any, str] = field(default_factory=dict, repr=False)

    _displayed = ("summary", "by_model")

    @property
    def note(self) -> str:
        """Training patients that may be in the cohort, thresholds of `predict`, few patients.

        Empty where it is checked that there are none, there is no threshold, and no class has few.
        """
        notes = ["" if self.separation == _SEPARATE else self.separation]
        notes += [threshold_note(self.by_model), small_sample_note(self.classes, self._y)]
        return " ".join(part for part in notes if part)

    @property
    def headline(self) -> str:
        """Models, patients, positive class, and the AUROC of the ensemble and of its models."""
        auroc = self.summary.loc["auroc"]
        found = "AUROC {ensemble:.3f} [{ensemble_low:.3f}, {ensemble_high:.3f}]".format(**auroc)
        if len(self.by_model) > 1:
            found = f"{found} of the ensemble, {auroc['value']:.3f} of its models on average"
        return (
            f"{len(self.by_model)} fitted {self.name} on {len(self._y)} external patients "
            f"({count_classes(self.classes, self._y)})"
            f"{positive_text(self.classes, self.label_names)}: {found}"
        )


def evaluate_external(
    fitted_models: Any,
    bags: Any,
    y: Any,
    *,
    groups: Any = None,
    pos_label: Any = None,
    allow_training_patients: bool = False,
    n_bootstrap: int = 2000,
    confidence_level: float = 0.95,
    random_state: int = 0,
) -> ExternalEvaluation:
    """Evaluate models that are fitted already on another cohort.

    Parameters
    ----------
    fitted_models : Evaluation with kept models, fitted classifier, or list of them
        An `Evaluation`, the classifiers of this package and what is built around them, also when
        they are loaded from files, know the patients and slides that they were trained on: none of
        them may be in the external cohort.
    bags : BagSequence or input of `as_bags`
    y : array-like of shape (n_bags,)
        Labels of the same classes as in training.
    groups : array-like of shape (n_bags,), optional
        Sites. They add a second interval for which whole sites are drawn.
    pos_label : label, optional
        The positive one of two classes; by default that of the `Evaluation` or of the models, else
        the one that sorts last.
    allow_training_patients : bool, default=False
        Evaluate although patients or slides of training are in the cohort, e.g. because two
        hospitals number their patients alike. The result says so.
    n_bootstrap : int, default=2000
        Number of bootstrap samples.
    confidence_level : float, default=0.95
        Confidence level of the intervals.
    random_state : int, default=0
        Seed of the bootstrap.

    Returns
    -------
    ExternalEvaluation

    Raises
    ------
    LeakageError
        If patients of the external cohort were in training, unless they are allowed.
    ValueError
        If there is no model, labels are unusable or unknown to the models, or `pos_label`
        contradicts the models.

    Warns
    -----
    UserWarning
        If the cohort lacks one of several classes: AUROC, AUPRC and balanced accuracy are then
        means over the classes that it has. If it cannot be checked whether training patients are
        in the cohort, as models of scikit-learn do not remember them, or if they are allowed. If
        the AUROC is below that of chance, as of exchanged labels.

    Notes
    -----
    Accuracies, F1, sensitivity and specificity are those of each model's `predict`, by patient as
    in :func:`evaluate`. The ensemble takes the most probable class if all models do, decides at
    the mean of their thresholds if `predict` of each has one, else as most models do. Thresholds
    that were moved to another prior are averaged, with the probabilities, at the prior of their
    choice, so that decisions do not depend on `prior`. Metrics with the suffix ``_tuned`` are at
    these thresholds, or, where `predict` has none, at those of the inner validation parts. No label
    of the external cohort changes predictions or thresholds. Averaging models raises most metrics,
    so compare an ensemble with an ensemble.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sk_momkd import Bag, BagPooling, BagSequence, evaluate, evaluate_external
    >>> def cohort(name, seed):
    ...     random, y = np.random.default_rng(seed), np.arange(40) % 2
    ...     patches = [random.normal(label, 1, size=(5, 3)) for label in y]
    ...     return BagSequence(Bag(x, patient_id=f"{name}{i}") for i, x in enumerate(patches)), y
    >>> pooled = make_pipeline(BagPooling(), LogisticRegression())
    >>> here = evaluate(pooled, *cohort("A", 0), keep_models=True)
    >>> evaluate_external(here, *cohort("B", 1)).headline.partition(": AUROC")[0]
    '5 fitted LogisticRegression on 40 external patients (20 x 0, 20 x 1), positive class 1'
    """
    bootstrap = Bootstrap(n_bootstrap, confidence_level, random_state)
    models: Sequence[Any] = fitted_models
    if isinstance(fitted_models, Evaluation):
        models = fitted_models.models
    elif hasattr(fitted_models, "predict_proba"):
        models = [fitted_models]
    if not isinstance(models, Sequence):
        raise TypeError(
            "fitted_models must be an Evaluation, a fitted classifier or a list of them, got "
            f"{type(models).__name__}."
        )
    if not models:
        raise ValueError("There is no fitted model. Use evaluate(..., keep_models=True).")
    pos_label = agreed_pos_label(models, pos_label)
    if pos_label is None:
        pos_label = _positive_of(fitted_models, models)
    known = np.unique(
        np.concatenate([np.asarray(known_classes(model)) for model in models])
    ).tolist()
    study = as_study(bags, y, groups=groups, pos_label=pos_label, classes=known)
    separation = _check_no_overlap(study, fitted_models, models, allow=allow_training_patients)
    _warn_if_classes_are_absent(study)
    found = [predictions(model, study.bags, study.classes) for model in models]
    parts = [_of_patients(study, *both) for both in zip(models, found, strict=True)]
    ensemble = _ensemble(study, parts, found)
    summary = _summary(study, parts, ensemble, bootstrap)
    _warn_if_reversed(study, summary)
    return ExternalEvaluation(
        " and ".join(dict.fromkeys(map(estimator_name, models))),
        summary,
        _by_model(study, parts, found),
        _predictions(study, parts, ensemble),
        tuple(study.classes),
        bootstrap,
        separation,
        study.labels,
        study.label_names,
    )


def _positive_of(fitted_models: Any, models: Sequence[Any]) -> Any:
    """Positive class of the evaluation, or the one that all models were fitted with."""
    if isinstance(fitted_models, Evaluation):
        return fitted_models.classes[1] if len(fitted_models.classes) == 2 else None
    fitted_with = {getattr(final_estimator(model), "pos_label_", None) for model in models}
    return fitted_with.pop() if len(fitted_with) == 1 else None


def _warn_if_reversed(study: Study, summary: pd.DataFrame) -> None:
    """Warn of an AUROC below chance, as of labels that are coded the other way round."""
    value, high = summary["value"]["auroc"], summary["high"]["auroc"]
    if len(study.classes) == 2 and high < 0.5:
        meant = study.label_names.get(study.pos_label, repr(study.pos_label))
        warn(
            f"The AUROC is {value:.3f}, below that of chance: the labels may be coded the other "
            f"way round than for the training. Here the positive class is {meant}.",
            UserWarning,
        )


def _warn_if_classes_are_absent(study: Study) -> None:
    absent = [c for k, c in enumerate(study.classes) if not (study.labels == k).any()]
    if absent:
        warn(
            f"The external cohort has no patient of class {first_few(absent)}. AUROC, AUPRC and "
            "balanced accuracy are means over the classes that it has, and are not comparable with "
            "those of training; the models may still predict the absent class.",
            UserWarning,
        )


def _check_no_overlap(study: Study, given: Any, models: Sequence[Any], *, allow: bool) -> str:
    """Check that no patient and no slide was in training, and return what is known of it.

    Raises
    ------
    LeakageError
        Naming the first of them, unless `allow`.
    """
    met = _encounter(study, given, models)
    if met.names and not allow:
        raise LeakageError(
            f"{met} of the external cohort were in training. Leave them out. If only their ids "
            "are the same, allow_training_patients=True."
        )
    if met.names:
        found = f"{met} were in training, by their ids, and were allowed by the caller."
    elif met.unchecked:
        found = f"It could not be checked that all patients are new: {met.unchecked}."
    else:
        return _SEPARATE
    warn(found, UserWarning)
    return found


def _encounter(study: Study, given: Any, models: Sequence[Any]) -> Encounter:
    """Training patients of the `models`, or of the evaluation that was `given`, in the cohort.

    An evaluation also knows the patients of models that do not remember them.
    """
    if not isinstance(given, Evaluation):
        return meet(models, study.bags)
    met = meet(models, study.bags, known_otherwise=True)
    met = met.joined(_known_by_name(study, given.trained_patients))
    if given.n_trained_without_id and WITHOUT_IDS not in met.unchecked:
        reasons = [met.unchecked, WITHOUT_IDS] if met.unchecked else [WITHOUT_IDS]
        met = replace(met, unchecked=" and ".join(reasons))
    return met


def _known_by_name(study: Study, trained: frozenset[Any]) -> list[str]:
    """Patients that are among `trained`, or have a slide that is, as names of :func:`meet`.

    Where no patient was given in training, the name there is that of the slide.
    """
    found: dict[str, str] = {}
    for bag, patient in zip(study.bags, study.patient_of, strict=True):
        name = study.names[patient]
        if bag.patient_id is None and bag.bag_id is None:
            continue
        if name in trained:
            found[name] = name
        elif any(slide.name in trained for slide in bag.stored_slides):
            found.setdefault(name, f"{name}, by its slide {bag.bag_id}")
    return list(found.values())


class _ExternalPredictions(PatientPredictions):
    """Predictions for a cohort that may lack a class which the models know."""

    def metrics(self, weights: NDArray) -> dict[str, NDArray]:
        """All metrics, over the classes that the cohort has."""
        weights = weights[:, self.patients]
        return patient_metrics(
            self.y, self.proba, weights, self.tuned, predicted=self.predicted, absent="skip"
        )


def _of_patients(study: Study, model: Any, found: Predictions) -> PatientPredictions:
    proba, predicted = found.of_patients(study.patient_of)
    threshold = threshold_of(model, found, study.classes)
    return _predictions_of_all(study, proba, threshold, predicted, own=bool(found.source))


def _ensemble(
    study: Study, parts: Sequence[PatientPredictions], found: Sequence[Predictions]
) -> PatientPredictions:
    """Mean probability, and what the models' ways to decide say of it.

    If all take the most probable class, so does the ensemble; if all have a threshold, it is at
    their mean, with each model at the prior at which its threshold was chosen; else most models
    decide, and on a tie the lower class number.
    """
    proba = np.mean([part.proba for part in parts], axis=0)
    threshold = float(np.mean([part.threshold[0] for part in parts]))
    own = all(part.own_threshold.all() for part in parts)
    votes = np.mean([np.eye(proba.shape[1])[part.predicted] for part in parts], axis=0)
    predicted = votes.argmax(axis=1)
    if own:
        predicted = _reached_together(study, found)
    elif all(np.array_equal(part.proba.argmax(axis=1), part.predicted) for part in parts):
        predicted = proba.argmax(axis=1)
    if len(parts) == 1:
        predicted = parts[0].predicted
    return _predictions_of_all(study, proba, threshold, predicted, own=own)


def _reached_together(study: Study, found: Sequence[Predictions]) -> NDArray:
    """Decisions of the mean of the models at the mean of their thresholds, before these moved.

    The mean of probabilities that have moved to another prior would be another rule at each prior.
    """
    of_class, thresholds = [], []
    for one in found:
        proba, threshold = one.at_choice(study.patient_of)
        of_class.append(proba if one.column == 1 else 1 - proba)
        thresholds.append(threshold if one.column == 1 else 1 - threshold)
    return (np.mean(of_class, axis=0) >= np.mean(thresholds)).astype(int)


def _predictions_of_all(
    study: Study, proba: NDArray, threshold: float, predicted: NDArray, *, own: bool
) -> PatientPredictions:
    n = len(study.names)
    n_bags = np.bincount(study.patient_of, minlength=n)
    return _ExternalPredictions(
        np.arange(n),
        np.zeros(n, dtype=int),
        study.labels,
        proba,
        np.full(n, threshold),
        n_bags,
        predicted,
        np.full(n, own),
    )


def _summary(
    study: Study,
    parts: Sequence[PatientPredictions],
    ensemble: PatientPredictions,
    bootstrap: Bootstrap,
) -> pd.DataFrame:
    n = len(study.names)
    drawn = {"": bootstrap.patients(n)}
    if study.sites is not None:
        drawn["_sites"] = bootstrap.sites(study.sites)
    once = [part.metrics(np.ones((1, n))) for part in (*parts, ensemble)]
    values = {m: np.array([scores[m][0] for scores in once]) for m in once[0]}
    rows: dict[str, dict[str, float]] = {
        m: {"value": v[:-1].mean(), "std": pd.Series(v[:-1]).std(), "ensemble": v[-1]}
        for m, v in values.items()
    }
    for kind, weights in drawn.items():
        draws = [part.metrics(weights) for part in (*parts, ensemble)]
        for m, row in rows.items():
            mean = np.mean([scores[m] for scores in draws[:-1]], axis=0)
            row[f"low{kind}"], row[f"high{kind}"] = bootstrap.interval(mean)
            low, high = bootstrap.interval(draws[-1][m])
            row |= {f"ensemble_low{kind}": low, f"ensemble_high{kind}": high}
    for m, columns in _small_sample_columns(study, values, bootstrap.confidence_level).items():
        rows[m] |= columns
    table = pd.DataFrame.from_dict(rows, orient="index")
    ensemble_first = sorted(table, key=lambda c: not str(c).startswith("ensemble"))
    return table[ensemble_first].rename_axis("metric")


def _small_sample_columns(
    study: Study, values: dict[str, NDArray], confidence_level: float
) -> dict[str, dict[str, float]]:
    """Intervals that replace those of the bootstrap where a class has few patients, by metric."""
    found: dict[str, dict[str, float]] = {m: {} for m in values}
    if len(study.classes) != 2:
        return found
    for prefix, part in (("", slice(None, -1)), ("ensemble_", slice(-1, None))):
        mean = {m: float(v[part].mean()) for m, v in values.items()}
        corrected = small_sample_intervals(mean, study.labels, [], confidence_level)
        for m, (low, high) in corrected.items():
            found[m] |= {f"{prefix}low": low, f"{prefix}high": high}
    return found


def _by_model(
    study: Study, parts: Sequence[PatientPredictions], found: Sequence[Predictions]
) -> pd.DataFrame:
    once = np.ones((1, len(study.names)))
    rows = [
        {"threshold": part.threshold[0], "threshold_source": source_of(part.threshold[0], source)}
        | {m: v[0] for m, v in part.metrics(once).items()}
        for part, source in ((part, one.source) for part, one in zip(parts, found, strict=True))
    ]
    return pd.DataFrame(rows).rename_axis("model")


def _predictions(
    study: Study, parts: Sequence[PatientPredictions], ensemble: PatientPredictions
) -> pd.DataFrame:
    classes = np.array(study.classes, dtype=object)
    columns: dict[str, Any] = {"patient_id": study.names}
    if study.sites is not None:
        columns["group"] = study.sites
    columns |= {"n_bags": ensemble.n_bags, "y": pd.Series(classes[study.labels]).infer_objects()}
    columns |= {f"p_{c}": ensemble.proba[:, k] for k, c in enumerate(study.classes)}
    columns["predicted"] = pd.Series(classes[ensemble.predicted]).infer_objects()
    for i, part in enumerate(parts):
        columns |= {f"p_{c}_model{i}": part.proba[:, k] for k, c in enumerate(study.classes)}
    return pd.DataFrame(columns)
