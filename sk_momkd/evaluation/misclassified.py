"""Patients that a cross-validated classifier gets wrong, and what is known about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .result_tables import TableResult
from .results import Evaluation

_OFTEN = ["always", "sometimes", "never"]
_OPINION = ("p_true_", "wrong_")  # columns of other evaluations


@dataclass(frozen=True, repr=False)
class MisclassifiedPatients(TableResult):
    """Patients that are misclassified out of fold, made by :func:`misclassified_patients`.

    Attributes
    ----------
    name : str
        Name of the evaluation.
    patients : DataFrame
        One row per patient that is wrong in at least one repeat, the most often and most clearly
        wrong ones first. Columns ``patient_id``, ``group`` (if groups were given), ``n_bags``,
        ``y``; ``n_repeats`` and ``n_wrong``, the number of repeats and of those in which the
        patient is wrong; ``p_true``, the probability of the true class, mean over repeats;
        ``margin``, the mean distance to a correct prediction, below 0 where it is wrong; and for
        each of `others` ``p_true_<name>`` and ``wrong_<name>``, the fraction of its repeats in
        which it is wrong, NaN for patients that it did not predict.
    agreement : DataFrame, index wrong
        One row for the patients that are ``always``, ``sometimes`` and ``never`` wrong: their
        number ``n_patients`` and ``n_<class>``, and the means of ``n_bags``, ``p_true`` and of
        the columns of `others`.
    sites : DataFrame or None, index group
        Columns ``n_patients``, ``n_always`` (wrong in every repeat) and ``wrong`` (fraction of
        wrong predictions), the highest fraction first.

    See Also
    --------
    misclassified_patients : Makes it.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.dummy import DummyClassifier
    >>> from sk_momkd import Bag, BagSequence, evaluate, misclassified_patients
    >>> bags = BagSequence(Bag(np.ones((2, 3)), patient_id=f"P{i:02d}") for i in range(20))
    >>> result = evaluate(DummyClassifier(), bags, np.arange(20) // 12, n_bootstrap=100)
    >>> misclassified_patients(result).agreement["n_patients"].to_dict()
    {'always': 8, 'sometimes': 0, 'never': 12}
    """

    name: str
    patients: pd.DataFrame
    agreement: pd.DataFrame
    sites: pd.DataFrame | None
    _n_repeats: int = field(repr=False)

    _displayed = ("agreement", "sites")

    @property
    def headline(self) -> str:
        """How many patients are wrong, and how often."""
        counts = self.agreement["n_patients"]
        wrong = f"{len(self.patients)} of {counts.sum()} patients misclassified"
        if self._n_repeats == 1:
            return f"{self.name}: {wrong} out of fold"
        return (
            f"{self.name}: {wrong} in at least one of {self._n_repeats} repeats, "
            f"{counts['always']} in all of them"
        )


def misclassified_patients(
    result: Evaluation, *, tuned: bool = False, others: Mapping[str, Evaluation] | None = None
) -> MisclassifiedPatients:
    """Find the patients that an evaluated classifier gets wrong, and how often.

    Parameters
    ----------
    result : Evaluation
        Result of :func:`evaluate`. With ``n_repeats`` above 1, patients that are always wrong can
        be told from those that are wrong by chance.
    tuned : bool, default=False
        Decide at the threshold that each model chose on its inner validation part, instead of as
        the estimator's `predict` does.
    others : mapping of str to Evaluation, optional
        Evaluations of other classifiers on the same labels, whose predictions of the same patients
        are added, decided by their own `predict`. With that of a classifier on the patients'
        omics, ``p_true_<name>`` tells whether the omics of a misclassified patient agree with its
        label.

    Returns
    -------
    MisclassifiedPatients

    Raises
    ------
    ValueError
        If `tuned` is asked of an evaluation without thresholds, if another evaluation has other
        classes, or if it has another label for a patient.

    Notes
    -----
    If the omics of a patient disagree with the label, too, then the label may be wrong or the
    patient unusual. If the omics agree and only the slide is misclassified, then the slide does
    not show what the label says, or the model does not see it.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sk_momkd import Bag, BagPooling, BagSequence, evaluate, misclassified_patients
    >>> random, y = np.random.default_rng(0), np.arange(40) % 2
    >>> patches = [random.normal(label, 1, size=(5, 3)) for label in y]
    >>> patches[0] += 3  # looks like the other class
    >>> bags = BagSequence(Bag(x, patient_id=f"P{i:02d}") for i, x in enumerate(patches))
    >>> result = evaluate(make_pipeline(BagPooling(), LogisticRegression()), bags, y, n_repeats=2)
    >>> found = misclassified_patients(result)
    >>> print(*found.patients.loc[0, ["patient_id", "y", "n_wrong"]])
    P00 0 2
    """
    everyone = _by_patient(result, tuned=tuned)
    for name, other in (others or {}).items():
        everyone = everyone.join(_opinion(result, other, name, everyone["y"]))
    wrong = everyone[everyone["n_wrong"] > 0]
    share = wrong["n_wrong"] / wrong["n_repeats"]
    order = np.lexsort((wrong["margin"], -share))
    return MisclassifiedPatients(
        result.name,
        wrong.iloc[order].reset_index(),
        _agreement(result, everyone),
        _by_site(everyone) if "group" in everyone else None,
        len(result.repeats),
    )


def _by_patient(result: Evaluation, *, tuned: bool) -> pd.DataFrame:
    """Index patient_id; how often each patient is wrong, and how clearly."""
    table = result.predictions
    predicted = table["predicted_tuned" if tuned else "predicted"]
    if tuned and len(result.classes) != 2:
        raise ValueError(
            f"{result.name} has {len(result.classes)} classes, and thresholds are for two. Pass "
            "tuned=False."
        )
    if tuned and table["threshold"].isna().any():
        raise ValueError(
            f"{result.name} has folds without a threshold, since its models have no inner "
            "validation part. Pass tuned=False."
        )
    p_true, others = _split(result)
    at_threshold = tuned or all(part.own_threshold.all() for part in result.repeats)
    decided = _distance_to_threshold(result) if at_threshold else p_true - others.max(axis=1)
    known = [c for c in ("group", "n_bags", "y") if c in table]
    rows = table[["patient_id", *known]].assign(
        n_wrong=(predicted != table["y"]).astype(int), p_true=p_true, margin=decided
    )
    by = rows.groupby("patient_id", sort=True)
    return (
        by[known]
        .first()
        .assign(n_repeats=by.size(), n_wrong=by["n_wrong"].sum(), **by[["p_true", "margin"]].mean())
    )


def _split(result: Evaluation) -> tuple[NDArray, NDArray]:
    """Of each prediction the probability of the true class, and those of the others."""
    proba = result.predictions[[f"p_{c}" for c in result.classes]].to_numpy(dtype=float)
    true = result.predictions["y"].to_numpy()[:, None] == np.array(result.classes)
    return proba[true], proba[~true].reshape(len(proba), -1)


def _distance_to_threshold(result: Evaluation) -> NDArray:
    """Of two classes, how far the probability lies on the right side of the threshold."""
    table, positive = result.predictions, result.classes[-1]
    above = (table[f"p_{positive}"] - table["threshold"]).to_numpy(dtype=float)
    return np.where(table["y"] == positive, above, -above)


def _opinion(result: Evaluation, other: Evaluation, name: str, y: pd.Series) -> pd.DataFrame:
    """What another evaluation predicts for the same patients, index patient_id."""
    if set(other.classes) != set(result.classes):
        raise ValueError(
            f"{name!r} was evaluated on the classes {list(other.classes)}, {result.name} on "
            f"{list(result.classes)}. Evaluate both on the same labels."
        )
    found = _by_patient(other, tuned=False)
    shared = found.index.intersection(y.index)
    differ = shared[(found.loc[shared, "y"] != y[shared]).to_numpy()]
    if len(differ):
        raise ValueError(
            f"Patient {differ[0]!r} is {found.loc[differ[0], 'y']!r} in {name!r} and "
            f"{y[differ[0]]!r} in {result.name} ({len(differ)} patients differ). Evaluate both "
            "on the same labels."
        )
    wrong = found["n_wrong"] / found["n_repeats"]
    return pd.DataFrame({f"p_true_{name}": found["p_true"], f"wrong_{name}": wrong})


def _agreement(result: Evaluation, everyone: pd.DataFrame) -> pd.DataFrame:
    """Number and means of the patients that are always, sometimes and never wrong."""
    wrong, repeats = everyone["n_wrong"], everyone["n_repeats"]
    named = np.select([wrong == repeats, wrong > 0], _OFTEN[:2], _OFTEN[2])
    often = pd.Series(named, everyone.index).astype(pd.CategoricalDtype(_OFTEN))
    by = everyone.groupby(often, observed=False)
    table = pd.DataFrame({"n_patients": by.size()})
    for c in result.classes:
        table[f"n_{c}"] = (everyone["y"] == c).groupby(often, observed=False).sum()
    columns = map(str, everyone.columns)
    averaged = [c for c in columns if c in ("n_bags", "p_true") or c.startswith(_OPINION)]
    return table.join(by[averaged].mean()).rename_axis("wrong")


def _by_site(everyone: pd.DataFrame) -> pd.DataFrame:
    """Number of patients and fraction of wrong predictions at each site."""
    by = everyone.groupby("group")
    always = everyone["n_wrong"] == everyone["n_repeats"]
    table = pd.DataFrame(
        {
            "n_patients": by.size(),
            "n_always": always.groupby(everyone["group"]).sum(),
            "wrong": by["n_wrong"].sum() / by["n_repeats"].sum(),
        }
    )
    return table.sort_values(["wrong", "n_patients"], ascending=False, kind="stable")
