"""Transformers of omics, fitted inside the training fold: log of counts, gene selection."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.feature_selection import SelectorMixin
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted, validate_data

from ..exceptions import ExpressionScaleWarning, OmicsError
from ..messages import warn
from .expression_outliers import ExpressionClipper, are_counts, expression_values

_LARGEST_LOG2 = 50.0  # far above any expression on a log scale
_FEW_PATIENTS = 0.1  # share with larger values that are outliers, not another unit


class LogCounts(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Transform counts to log2(x + 1), and leave other data unchanged.

    Data are counts if every training value is a whole number.

    Attributes
    ----------
    is_counts_ : bool
        Whether the training data are counts.
    n_features_in_ : int
        Number of genes.

    See Also
    --------
    GeneSelector : Keeps the genes that differ most between classes.
    ExpressionClipper : Clips values far from all others.

    Examples
    --------
    >>> LogCounts().fit_transform([[0.0, 3.0], [1.0, 7.0]])
    array([[0., 2.],
           [1., 3.]])
    >>> LogCounts().fit_transform([[0.5, -3.0]])
    array([[ 0.5, -3. ]])
    """

    _fitted: ClassVar[tuple[str, ...]] = ("is_counts_",)

    def fit(self, X: Any, y: Any = None) -> Self:
        """Decide whether `X` holds counts.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_patients, n_genes)
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        OmicsError
            If counts are negative; names the gene and, where `X` is a DataFrame, the patient.
        """
        values = expression_values(self, X, reset=True)
        self.is_counts_ = are_counts(values)
        self._refuse_negative(X, values)
        if not self.is_counts_ and values.min() >= 0 and _many_are_large(values):
            warn(
                f"Expression has fractional values, no negative ones, and a maximum of "
                f"{values.max():.4g}: it looks like TPM or a similar unit without a logarithm. It "
                "is used unchanged; take log2(x + 1) first, e.g. FunctionTransformer(np.log1p) in "
                "omics_transformer.",
                ExpressionScaleWarning,
            )
        return self

    def transform(self, X: Any) -> NDArray:
        """Transform `X` if the training data were counts.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_patients, n_genes)

        Returns
        -------
        ndarray of shape (n_patients, n_genes)
            log2(X + 1) for counts, else `X`.

        Raises
        ------
        OmicsError
            If counts are negative; names the gene and, where `X` is a DataFrame, the patient.
        """
        check_is_fitted(self)
        values = expression_values(self, X, reset=False)
        self._refuse_negative(X, values)
        return np.log2(values + 1) if self.is_counts_ else values

    def _refuse_negative(self, X: Any, values: NDArray) -> None:
        if not self.is_counts_ or values.min() >= 0:
            return
        negative = np.argwhere(values < 0)
        i, j = negative[0]
        frame = X if isinstance(X, pd.DataFrame) else pd.DataFrame(values)
        raise OmicsError(
            f"{len(negative)} negative counts in omics, the first ({values[i, j]:g}) for patient "
            f"{frame.index[i]!r}, gene {frame.columns[j]!r}. If these are not counts, pass an "
            "omics_transformer without LogCounts, e.g. "
            "make_pipeline(GeneSelector(768), StandardScaler())."
        )


def _many_are_large(values: NDArray) -> bool:
    """Whether more than a few patients have a value that no logarithm of expression reaches."""
    return (values > _LARGEST_LOG2).any(axis=1).mean() > _FEW_PATIENTS


class GeneSelector(SelectorMixin, BaseEstimator):
    """Keep the genes that differ most between a class and the rest, by Welch's t.

    The score of a gene is its largest absolute t over the classes. Genes with equal scores are
    ordered by variance.

    Parameters
    ----------
    n_genes : int, default=768
        Number of genes to keep; all genes are kept if there are fewer.

    Attributes
    ----------
    scores_ : ndarray of shape (n_genes_in,)
        Largest absolute t of each gene.
    support_ : bool ndarray of shape (n_genes_in,)
        Whether each gene is kept.
    n_features_in_ : int
        Number of genes before the selection.

    See Also
    --------
    LogCounts : Takes the logarithm of counts.

    Examples
    --------
    >>> X = [[0.0, 5.0], [0.1, 4.0], [3.0, 5.1], [3.1, 4.1]]
    >>> GeneSelector(1).fit(X, [0, 0, 1, 1]).get_support()
    array([ True, False])
    """

    _fitted: ClassVar[tuple[str, ...]] = ("scores_", "support_")

    def __init__(self, n_genes: int = 768) -> None:
        self.n_genes = n_genes

    def fit(self, X: Any, y: Any) -> Self:
        """Score the genes.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_patients, n_genes_in)
        y : array-like of shape (n_patients,)

        Returns
        -------
        self

        Raises
        ------
        OmicsError
            If `y` has a single class.
        ValueError
            If `n_genes` is less than 1.
        """
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        if self.n_genes < 1:
            raise ValueError(f"n_genes must be at least 1, got {self.n_genes}.")
        classes = np.unique(y)
        if len(classes) < 2:
            raise OmicsError(
                f"GeneSelector needs patients of at least two classes, but all {len(y)} training "
                "patients with omics are of one class. Add omics of patients of other classes."
            )
        self.scores_ = np.max([_welch_t(X, y == c) for c in classes], axis=0)
        order = np.lexsort((-X.var(axis=0), -self.scores_))
        self.support_ = np.zeros(X.shape[1], dtype=bool)
        self.support_[order[: self.n_genes]] = True
        return self

    def _get_support_mask(self) -> NDArray:
        check_is_fitted(self)
        return self.support_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


def _welch_t(X: NDArray, inside: NDArray) -> NDArray:
    """|t| of each column between the rows inside and outside; 0 where nothing differs."""
    a, b = X[inside].astype(np.float64), X[~inside].astype(np.float64)
    ddof_a, ddof_b = min(1, len(a) - 1), min(1, len(b) - 1)
    spread = np.sqrt(a.var(axis=0, ddof=ddof_a) / len(a) + b.var(axis=0, ddof=ddof_b) / len(b))
    difference = np.abs(a.mean(axis=0) - b.mean(axis=0))
    t = np.divide(difference, spread, out=np.zeros_like(spread), where=spread > 0)
    # Without spread, t would be a quotient of rounding errors; the exact value is 0 or infinite.
    flat = (np.ptp(a, axis=0) == 0) & (np.ptp(b, axis=0) == 0)
    t[flat] = np.where(a[0, flat] == b[0, flat], 0, np.inf)
    return t


def default_omics_transformer(n_genes: int) -> Pipeline:
    """`LogCounts`, `ExpressionClipper`, `GeneSelector` for `n_genes` genes, `StandardScaler`."""
    steps = (LogCounts(), ExpressionClipper(), GeneSelector(n_genes), StandardScaler())
    return make_pipeline(*steps)
