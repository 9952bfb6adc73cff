"""Values of expression far from all others: clipping in the training fold, and one warning."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin, _fit_context
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from ..exceptions import ExpressionScaleWarning, OmicsError
from ..messages import first_few, warn

_FEW = 5  # differing values among which none is called an outlier
_ABSURD, _ABSURD_LOG2 = 1000.0, 20.0  # deviations; the latter for counts, after the logarithm
_UNLIKE = 4.0  # deviations of a patient's median gene
_OTHER_UNIT = 4.0  # ratio of typical values, which is below 2 within a cohort of one unit
_GENES_FOR_UNIT = 50  # with fewer, typical values differ by chance; and all may be 0
_MOST_GENES_FOR_UNIT = 2000


def expression_values(estimator: BaseEstimator, X: Any, *, reset: bool) -> NDArray:
    """Checked values of a table of patients x genes, and its names checked or, by `reset`, kept.

    scikit-learn looks at every column of a DataFrame; one whose columns are all float is checked as
    an array.
    """
    kinds = set(X.dtypes) if isinstance(X, pd.DataFrame) else set()
    if len(kinds) == 1 and isinstance(kind := kinds.pop(), np.dtype) and kind.kind == "f":
        validate_data(estimator, X, reset=reset, skip_check_array=True)
        floats = [np.float64, np.float32]
        return check_array(X.to_numpy(), dtype=floats, estimator=estimator, input_name="X")
    return validate_data(estimator, X, reset=reset, dtype=[np.float64, np.float32])


def robust_deviation(values: NDArray) -> tuple[NDArray, NDArray]:
    """Median of each column, and a standard deviation that a tenth of the values cannot change.

    The deviation is that of a normal distribution with the same 90 % quantile of the distance from
    the median, among the values that differ from the median: a gene that most patients do not
    express has one, too. With fewer than five such values it is that of the largest distance.

    Parameters
    ----------
    values : ndarray of shape (n, k)
        Without NaN.

    Returns
    -------
    tuple of two float64 ndarrays of shape (k,)
        The deviation of a constant column is 0.
    """
    ordered = np.sort(values, axis=0).astype(np.float64, copy=False)
    median = _middle(ordered)
    distance = np.abs(np.subtract(ordered, median, out=ordered), out=ordered)
    distance.sort(axis=0)
    differing = np.count_nonzero(distance, axis=0)
    place = len(values) - differing + 9 * (differing - 1) // 10
    place = np.where(differing < _FEW, len(values) - 1, place)
    return median, np.take_along_axis(distance, place[None], axis=0)[0] / ndtri(0.95)


def _middle(ordered: NDArray) -> NDArray:
    """Median of each column of sorted values; sorting takes a fraction of the time of np.median."""
    return ordered[(len(ordered) - 1) // 2 : len(ordered) // 2 + 1].mean(axis=0)


def clip_outliers(values: NDArray, limit: float = 6.0) -> NDArray:
    """Columns with values farther than `limit` robust deviations from the median moved there."""
    median, deviation = robust_deviation(values)
    return np.clip(values, median - limit * deviation, median + limit * deviation)


class ExpressionClipper(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Clip values that are far from those of all other patients.

    The limits of a gene are `limit` robust standard deviations from its median, both of the
    patients of `fit`. One value in a wrong unit would otherwise enlarge the standard deviation of
    its gene so much that all other patients look alike.

    Parameters
    ----------
    limit : float, default=6.0
        Distance from the median at which values are clipped, in standard deviations.

    Attributes
    ----------
    median_ : ndarray of shape (n_genes,)
        Median of each gene.
    deviation_ : ndarray of shape (n_genes,)
        Robust standard deviation of each gene.
    n_features_in_ : int
        Number of genes.

    See Also
    --------
    LogCounts : Takes the logarithm of counts, before this.

    Notes
    -----
    The robust standard deviation is the 90 % quantile of the distances from the median divided by
    1.645, as in a normal distribution, among the values that differ from the median. So a tenth of
    the patients may be outliers; where most values of a gene are zero, those of the patients that
    express it count; and of fewer than five such values none is an outlier. Values of a gene that
    is constant in `fit` become that constant.

    Examples
    --------
    >>> import numpy as np
    >>> genes = np.append(np.linspace(-1, 1, 20), 4e4)[:, None]
    >>> float(ExpressionClipper().fit_transform(genes)[-1, 0].round(1))
    3.5
    """

    _fitted: ClassVar[tuple[str, ...]] = ("median_", "deviation_")

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "limit": [Interval(Real, 0, None, closed="neither")]
    }

    def __init__(self, limit: float = 6.0) -> None:
        self.limit = limit

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Find the median and the deviation of each gene.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_patients, n_genes)
        y : ignored

        Returns
        -------
        self
        """
        values = expression_values(self, X, reset=True)
        self.median_, self.deviation_ = robust_deviation(values)
        return self

    def transform(self, X: Any) -> NDArray:
        """Clip `X`.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_patients, n_genes)

        Returns
        -------
        ndarray of shape (n_patients, n_genes)
        """
        check_is_fitted(self)
        values = expression_values(self, X, reset=False)
        low, high = (self.median_ + sign * self.limit * self.deviation_ for sign in (-1, 1))
        return np.clip(values, low, high).astype(values.dtype)


def are_counts(values: NDArray) -> bool:
    """Whether all values are whole numbers."""
    return bool((values == np.round(values)).all())


def check_expression(expression: pd.DataFrame) -> None:
    """Raise if no gene differs between patients, and warn as :func:`warn_of_outliers` does.

    Parameters
    ----------
    expression : DataFrame of shape (n_patients, n_genes)
        Of the training part.

    Raises
    ------
    OmicsError
    """
    values, n_patients = expression.to_numpy(), expression.index.nunique()
    if n_patients > 1 and (values == values[0]).all():
        raise OmicsError(
            f"No gene differs between the {n_patients} training patients with omics; the first, "
            f"{expression.columns[0]!r}, is {values[0, 0]:g} for all. Check that the right matrix "
            "or layer was given, or pass omics=None."
        )
    warn_of_outliers(expression)


def warn_of_outliers(expression: pd.DataFrame) -> None:
    """Warn once of values that are absurdly far out, and of patients unlike all others.

    A value is absurdly far out at 1000 robust deviations from the median of its gene, of counts at
    20 after the logarithm. A patient is unlike all others if half of its genes are more than four
    deviations from their median. A group of patients has another unit if a typical value of
    each, the median of those that are not 0, is four times as large or as small as of the rest.

    Parameters
    ----------
    expression : DataFrame of shape (n_patients, n_genes)
        Of the training part.
    """
    values = expression.to_numpy(dtype=np.float64)
    counts = are_counts(values) and values.min() >= 0
    values = np.log2(values + 1) if counts else values
    distance = _distance(values)
    absurd = distance > (_ABSURD_LOG2 if counts else _ABSURD)
    zero = (values == 0).all(axis=1) & (values.shape[1] >= _GENES_FOR_UNIT)
    unlike = (_middle(np.sort(distance.T, axis=0)) > _UNLIKE) & ~zero
    patients = expression.index.to_numpy()
    found = [_on_values(expression, distance, absurd)] if absurd.any() else []
    found += [_on_patients(patients[unlike])] if unlike.any() else []
    if found:
        found.append(
            "The default omics transformer and teacher clip such values, unless fewer than five "
            "patients differ from the others in that gene. Check their units, and whether they are "
            "codes of missing values."
        )
    found += _on_sizes(values, patients, zero, unlike)
    if found:
        warn(" ".join(found), ExpressionScaleWarning)


def _on_sizes(values: NDArray, patients: NDArray, zero: NDArray, known: NDArray) -> list[str]:
    """On patients without any value, and on a group in another unit, that are not `known`."""
    found = []
    if zero.any():
        found.append(
            f"All values are 0 for {len(set(patients[zero]))} patients, as where nothing was "
            f"measured: {first_few(dict.fromkeys(patients[zero]))}. Leave them out."
        )
    if len(others := patients[_in_another_unit(values, zero) & ~known]):
        found.append(
            f"The values of {len(set(others))} patients are of another size than those of the "
            "others, as counts, TPM, logarithms and z-scores are: "
            f"{first_few(dict.fromkeys(others))}. Bring all patients to one unit."
        )
    return found


def _in_another_unit(values: NDArray, zero: NDArray) -> NDArray:
    """Which patients are the smaller group, where sizes of values fall into two groups."""
    if values.shape[1] < _GENES_FOR_UNIT:
        return np.zeros(len(values), dtype=bool)
    size = np.sort(np.abs(values[:, :: 1 + values.shape[1] // _MOST_GENES_FOR_UNIT]), axis=1)
    middle = (np.count_nonzero(size == 0, axis=1) + size.shape[1]) // 2
    typical = np.take_along_axis(size, np.minimum(middle, size.shape[1] - 1)[:, None], axis=1)[:, 0]
    ordered = np.sort(typical[~zero & (typical > 0)])
    ratio = ordered[1:] / ordered[:-1]
    if ratio.max(initial=0) < _OTHER_UNIT:
        return np.zeros(len(size), dtype=bool)
    larger = typical > ordered[ratio.argmax()]
    return ~zero & (larger if 2 * larger.sum() < len(larger) else ~larger)


def _distance(values: NDArray) -> NDArray:
    """Distance from the median in deviations.

    Where few values of a gene differ from its median, they have no spread of their own, and that
    of a typical gene is taken if it is smaller.
    """
    median, deviation = robust_deviation(values)
    distance = np.abs(values - median)
    few = np.count_nonzero(distance, axis=0) < _FEW
    typical = np.median(deviation[~few]) if (~few).any() else np.inf
    deviation = np.where(few, np.minimum(deviation, typical), deviation)
    return np.divide(distance, deviation, out=np.zeros_like(distance), where=deviation > 0)


def _on_values(expression: pd.DataFrame, distance: NDArray, absurd: NDArray) -> str:
    values = expression.to_numpy()
    i, j = map(int, np.unravel_index(np.argmax(distance), distance.shape))
    more = int(absurd.sum()) - 1
    n_patients = len(set(expression.index.to_numpy()[absurd.any(axis=1)]))
    others = f" So do {more} more values, of {n_patients} patients in all." if more else ""
    return (
        f"The value {values[i, j]:g} of gene {expression.columns[j]!r} for patient "
        f"{expression.index[i]!r} lies absurdly far from those of the other patients (median "
        f"{np.median(values[:, j]):g}).{others}"
    )


def _on_patients(patients: NDArray) -> str:
    names = list(dict.fromkeys(patients))
    return (
        f"The expression of {len(names)} patients is unlike that of all others in most genes, as "
        f"from another unit or library size: {first_few(names)}."
    )
