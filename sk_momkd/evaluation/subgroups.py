"""Metrics of subgroups of patients: by sex, stage, scanner or any other column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..messages import first_few
from .fold_results import nan_mean
from .metrics import patient_metrics
from .small_samples import ClassSizes, auroc_interval, is_small

_UNKNOWN = "unknown"
MANY_VALUES = 8  # distinct numbers of a column above which it is split at its median
_METRICS = ("balanced_accuracy", "sensitivity", "specificity", "brier")


def subgroup_metrics(result: Any, subgroups: pd.DataFrame) -> pd.DataFrame:
    """Metrics of the patients of each subgroup, with those of all patients for comparison.

    Parameters
    ----------
    result : Evaluation or ExternalEvaluation
        Of a comparison, one of its ``evaluations``.
    subgroups : DataFrame, index patient id
        One column per variable. Numbers of more than 8 values are split at their median. Patients
        without a value are the subgroup ``unknown``.

    Returns
    -------
    DataFrame
        Columns ``variable``, ``subgroup``, ``n_patients``, ``n_<class>``, ``auroc``, ``low``,
        ``high``, ``balanced_accuracy``, for two classes ``sensitivity`` and ``specificity`` of
        `predict`, and ``brier``; means over repeats, NaN where a class has no patient. The interval
        of the AUROC is a bootstrap over patients; with few patients of a class it is computed from
        their number.

    Raises
    ------
    TypeError
        If `result` is no result of one method, or `subgroups` is no DataFrame.
    ValueError
        If no patient of the result, or a patient more than once, is in `subgroups`.

    Notes
    -----
    Many subgroups are compared at once, and small ones differ by chance: of 20 subgroups without
    any difference, one is expected to have an interval that leaves out the AUROC of all patients.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from sklearn.dummy import DummyClassifier
    >>> from sk_momkd import Bag, BagSequence, evaluate, subgroup_metrics
    >>> bags = BagSequence(Bag(np.ones((2, 3)), patient_id=f"P{i:02d}") for i in range(20))
    >>> result = evaluate(DummyClassifier(), bags, np.arange(20) % 2, n_bootstrap=100)
    >>> sex = pd.DataFrame({"sex": ["f"] * 12 + ["m"] * 8}, index=[f"P{i:02d}" for i in range(20)])
    >>> subgroup_metrics(result, sex)[["variable", "subgroup", "n_patients", "auroc"]]
      variable     subgroup  n_patients  auroc
    0           all patients         20    0.5
    1      sex            f          12    0.5
    2      sex            m           8    0.5
    """
    _check(result, subgroups)
    table = result.predictions
    patients = table["patient_id"].astype(str)
    known = _of_patients(subgroups, patients)
    rows = [{"variable": "", "subgroup": "all patients"} | _row(result, table)]
    for variable in known.columns:
        names, groups = _as_groups(known[variable])
        of_row = groups.reindex(patients).fillna(_UNKNOWN).to_numpy()
        for name in dict.fromkeys([*names, _UNKNOWN]):
            if (of_row == name).any():
                row = _row(result, table[of_row == name])
                rows.append({"variable": variable, "subgroup": name} | row)
    return pd.DataFrame(rows)


def _check(result: Any, subgroups: Any) -> None:
    if not isinstance(subgroups, pd.DataFrame):
        raise TypeError(
            "subgroups must be a DataFrame with a column per variable and patient ids as index, "
            f"got {type(subgroups).__name__}. Of a Series, pass .to_frame()."
        )
    if not hasattr(result, "predictions"):
        raise TypeError(
            "Expected the result of evaluate(...) or evaluate_external(...), got "
            f"{type(result).__name__}. Of a comparison, pass one of its .evaluations."
        )


def _of_patients(subgroups: pd.DataFrame, patients: pd.Series) -> pd.DataFrame:
    """The rows of `subgroups` whose patients are in the result."""
    frame = subgroups.set_axis(subgroups.index.astype(str))
    twice = frame.index[frame.index.duplicated()].unique()
    if len(twice):
        raise ValueError(
            f"subgroups has several rows of a patient: {first_few(twice.tolist())}. Give one row "
            "per patient, e.g. subgroups.groupby(level=0).first()."
        )
    known = frame[frame.index.isin(patients)]
    if not len(known):
        raise ValueError(
            f"No patient of the result is in the index of subgroups. The result has "
            f"{first_few(patients.unique().tolist())}, the index has "
            f"{first_few(frame.index.tolist())}. Set the patient id as index: "
            "subgroups.set_index('patient_id')."
        )
    return known


def _as_groups(values: pd.Series) -> tuple[list[str], pd.Series]:
    """Names of the subgroups in their order, and that of each patient with a value."""
    known = values.dropna()
    if pd.api.types.is_numeric_dtype(known) and known.nunique() > MANY_VALUES:
        return _halves(known.astype(float))
    unique = known.unique().tolist()
    try:
        unique = sorted(unique)
    except TypeError:  # values of several types
        unique = sorted(unique, key=str)
    names = {value: _text(value) for value in unique}
    return list(dict.fromkeys(names.values())), known.map(names)


def _halves(numbers: pd.Series) -> tuple[list[str], pd.Series]:
    """Below the median and from it on; up to it and above where nobody is below."""
    middle = numbers.median()
    low = numbers < middle
    names = [f"< {middle:.4g}", f">= {middle:.4g}"]
    if not low.any():
        low, names = numbers <= middle, [f"<= {middle:.4g}", f"> {middle:.4g}"]
    return names, low.map({True: names[0], False: names[1]})


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _row(result: Any, table: pd.DataFrame) -> dict[str, Any]:
    classes: Sequence[Any] = result.classes
    patients, first = np.unique(table["patient_id"].astype(str).to_numpy(), return_index=True)
    y = _numbers(table["y"].iloc[first], classes)
    counts = np.bincount(y, minlength=len(classes))
    weights = np.concatenate([np.ones((1, len(y))), result.bootstrap.patients(len(y))])
    repeats = [table] if "repeat" not in table else [part for _, part in table.groupby("repeat")]
    absent = "skip" if hasattr(result, "by_model") else "nan"  # as in the summary of each
    each = [_metrics(p, classes, weights[:, _places(p, patients)], absent) for p in repeats]
    auroc = nan_mean([metrics["auroc"] for metrics in each])
    low, high = _interval(result, auroc, y)
    of_class = {f"n_{c}": int(n) for c, n in zip(classes, counts, strict=True)}
    row: dict[str, Any] = {"n_patients": len(y), **of_class}
    row |= {"auroc": auroc[0], "low": low, "high": high}
    return row | {k: nan_mean([m[k] for m in each])[0] for k in _METRICS if k in each[0]}


def _places(part: pd.DataFrame, patients: NDArray) -> NDArray:
    return np.searchsorted(patients, part["patient_id"].astype(str).to_numpy())


def _interval(result: Any, auroc: NDArray, y: NDArray) -> tuple[float, float]:
    """Interval of ``auroc[0]``, of which the others are those of bootstrap samples."""
    if not np.isfinite(auroc[0]):
        return np.nan, np.nan
    if len(result.classes) == 2 and is_small(np.bincount(y, minlength=2)):
        sizes = [ClassSizes.of(y)]
        return auroc_interval(float(auroc[0]), sizes, result.bootstrap.confidence_level)
    low, high = result.bootstrap.interval(auroc[1:])
    return low, high


def _metrics(
    part: pd.DataFrame, classes: Sequence[Any], weights: NDArray, absent: str
) -> dict[str, NDArray]:
    proba = part[[f"p_{c}" for c in classes]].to_numpy(dtype=float)
    y, predicted = _numbers(part["y"], classes), _numbers(part["predicted"], classes)
    return patient_metrics(y, proba, weights, predicted=predicted, absent=absent)


def _numbers(labels: pd.Series, classes: Sequence[Any]) -> NDArray:
    number = {c: k for k, c in enumerate(classes)}
    return np.array([number[label] for label in labels], dtype=int)
