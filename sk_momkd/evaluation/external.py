"""Fitted models on a cohort from elsewhere: mean over the models, and their ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..exceptions import LeakageError
from ..messages import first_few
from .cross_validation import bag_probabilities, estimator_name, tuned_threshold
from .results import Bootstrap, Evaluation, OutOfFold, Tables
from .study import Study, as_study


@dataclass(frozen=True, repr=False)
class ExternalEvaluation(Tables):
    """Results of fitted models on another cohort; see :func:`evaluate_external`.

    Attributes
    ----------
    summary : DataFrame, index metric
        Mean over the models ``value, low, high`` with its ``std`` over models, and
        ``ensemble, ensemble_low, ensemble_high``; with groups also the intervals ``..._sites``.
    by_model : DataFrame, index model
        Threshold and metrics of each model.
    predictions : DataFrame
        One row per patient: ``y``, ``p_<class>`` of the ensemble, ``p_<class>_model<i>``.
    classes : tuple
    bootstrap : Bootstrap
        How the intervals were drawn: ``n_draws, confidence_level, random_state``.
    """

    name: str
    summary: pd.DataFrame
    by_model: pd.DataFrame
    predictions: pd.DataFrame
    classes: tuple[Any, ...]
    bootstrap: Bootstrap
    _counts: tuple[int, ...] = field(repr=False)

    _shown = ("summary", "by_model")

    @property
    def headline(self) -> str:
        """Models and patients."""
        classes = ", ".join(f"{n} x {c!r}" for c, n in zip(self.classes, self._counts, strict=True))
        return (
            f"{len(self.by_model)} fitted {self.name} on {sum(self._counts)} external patients "
            f"({classes})"
        )


def evaluate_external(
    fitted_models: Any,
    bags: Any,
    y: Any,
    *,
    groups: Any = None,
    pos_label: Any = None,
    n_bootstrap: int = 2000,
    confidence_level: float = 0.95,
    random_state: int = 0,
) -> ExternalEvaluation:
    """Predict another cohort with models that are fitted already.

    Parameters
    ----------
    fitted_models : Evaluation with kept models, or list of fitted classifiers
        From an `Evaluation` the patients of the training cohort are known, and none of them may
        stand in the external one.
    bags : BagSequence or whatever `as_bags` reads
    y : array-like of shape (n_bags,)
        The same classes as in training.
    groups : array-like of shape (n_bags,), optional
        Sites, drawn whole for a second interval.
    pos_label : label, optional
        As in :func:`evaluate`; by default that of the `Evaluation`.
    n_bootstrap : int, default=2000
    confidence_level : float, default=0.95
    random_state : int, default=0

    Returns
    -------
    ExternalEvaluation

    Raises
    ------
    LeakageError
        If a patient of the external cohort was in training.
    ValueError
        If there is no model, or labels are unusable.

    Notes
    -----
    Thresholds come from each model's own inner validation part; that of the ensemble is their
    mean. No label of the external cohort moves anything. Averaging models raises most metrics, so
    compare an ensemble with an ensemble.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import FunctionTransformer
    >>> from sk_momkd import Bag, BagSequence
    >>> from sk_momkd.evaluation.cross_validation import evaluate
    >>> from sk_momkd.evaluation.external import evaluate_external
    >>> def mean_patch(bags):
    ...     return np.array([bag.load().features.mean(axis=0) for bag in bags])
    >>> def cohort(name, seed):
    ...     random, y = np.random.default_rng(seed), np.arange(40) % 2
    ...     patches = [random.normal(label, 1, size=(5, 3)) for label in y]
    ...     return BagSequence(Bag(x, patient_id=f"{name}{i}") for i, x in enumerate(patches)), y
    >>> pooled = make_pipeline(FunctionTransformer(mean_patch), LogisticRegression())
    >>> here = evaluate(pooled, *cohort("A", 0), keep_models=True)
    >>> evaluate_external(here, *cohort("B", 1)).headline
    '5 fitted LogisticRegression on 40 external patients (20 x 0, 20 x 1)'
    """
    bootstrap = Bootstrap(n_bootstrap, confidence_level, random_state)
    trained: frozenset[Any] = frozenset()
    models: Sequence[Any] = fitted_models
    if isinstance(fitted_models, Evaluation):
        models, trained = fitted_models.models, fitted_models.trained_patients
        pos_label = _positive_of(fitted_models) if pos_label is None else pos_label
    if not models:
        raise ValueError("There is no fitted model. Use evaluate(..., keep_models=True).")
    study = as_study(bags, y, groups=groups, pos_label=pos_label)
    require_strangers(study, trained)
    parts = [_predict(study, model) for model in models]
    ensemble = _single(
        study,
        np.mean([p.proba for p in parts], axis=0),
        float(np.mean([p.threshold[0] for p in parts])),
    )
    name = estimator_name(models[0])
    counts = tuple(np.bincount(study.labels, minlength=len(study.classes)).tolist())
    return ExternalEvaluation(
        name,
        _summary(study, parts, ensemble, bootstrap),
        _by_model(study, parts),
        _predictions(study, parts, ensemble),
        tuple(study.classes),
        bootstrap,
        counts,
    )


def _positive_of(evaluation: Evaluation) -> Any:
    return evaluation.classes[1] if len(evaluation.classes) == 2 else None


def require_strangers(study: Study, trained: frozenset[Any]) -> None:
    """LeakageError if a patient, or a bag whose patient is unknown, was in training."""
    named = [bag.patient_id is not None or bag.bag_id is not None for bag in study.bags]
    _, first = np.unique(study.patient_of, return_index=True)
    known = [name for name, i in zip(study.names, first, strict=True) if named[i]]
    known = [name for name in known if name in trained]
    if known:
        raise LeakageError(
            f"{len(known)} patients of the external cohort were in training: {first_few(known)}. "
            "Leave them out."
        )


def _predict(study: Study, model: Any) -> OutOfFold:
    positions = np.arange(len(study.bags))
    proba = bag_probabilities(model, study.bags, study.classes)
    threshold = tuned_threshold(model, study.classes)
    return _single(study, study.mean_over_bags(positions, proba), threshold)


def _single(study: Study, proba: NDArray, threshold: float) -> OutOfFold:
    n = len(study.names)
    n_bags = np.bincount(study.patient_of, minlength=n)
    zeros = np.zeros(n, dtype=int)
    return OutOfFold(np.arange(n), zeros, study.labels, proba, np.full(n, threshold), n_bags)


def _summary(
    study: Study, parts: Sequence[OutOfFold], ensemble: OutOfFold, bootstrap: Bootstrap
) -> pd.DataFrame:
    n = len(study.names)
    drawn = {"": bootstrap.patients(n)}
    if study.sites is not None:
        drawn["_sites"] = bootstrap.sites(study.sites)
    once = [part.scores(np.ones((1, n))) for part in (*parts, ensemble)]
    values = {m: np.array([scores[m][0] for scores in once]) for m in once[0]}
    rows: dict[str, dict[str, float]] = {
        m: {"value": v[:-1].mean(), "std": pd.Series(v[:-1]).std(), "ensemble": v[-1]}
        for m, v in values.items()
    }
    for kind, weights in drawn.items():
        draws = [part.scores(weights) for part in (*parts, ensemble)]
        for m, row in rows.items():
            mean = np.mean([scores[m] for scores in draws[:-1]], axis=0)
            row[f"low{kind}"], row[f"high{kind}"] = bootstrap.interval(mean)
            low, high = bootstrap.interval(draws[-1][m])
            row |= {f"ensemble_low{kind}": low, f"ensemble_high{kind}": high}
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table[sorted(table, key=lambda c: str(c).startswith("ensemble"))].rename_axis("metric")


def _by_model(study: Study, parts: Sequence[OutOfFold]) -> pd.DataFrame:
    once = np.ones((1, len(study.names)))
    rows = [
        {"threshold": part.threshold[0]} | {m: v[0] for m, v in part.scores(once).items()}
        for part in parts
    ]
    return pd.DataFrame(rows).rename_axis("model")


def _predictions(study: Study, parts: Sequence[OutOfFold], ensemble: OutOfFold) -> pd.DataFrame:
    classes = np.array(study.classes, dtype=object)
    columns: dict[str, Any] = {"patient_id": study.names}
    if study.sites is not None:
        columns["group"] = study.sites
    columns |= {"n_bags": ensemble.n_bags, "y": pd.Series(classes[study.labels]).infer_objects()}
    columns |= {f"p_{c}": ensemble.proba[:, k] for k, c in enumerate(study.classes)}
    for i, part in enumerate(parts):
        columns |= {f"p_{c}_model{i}": part.proba[:, k] for k, c in enumerate(study.classes)}
    return pd.DataFrame(columns)
