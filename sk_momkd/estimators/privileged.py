"""Privileged omics as training data: joined by id, fitted in the training part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import clone

from ..data.omics import OmicsTable
from ..exceptions import OmicsError
from ..preprocessing.expression_outliers import check_expression


@dataclass(frozen=True)
class PrivilegedOmics:
    """Omics vectors of the training bags.

    Attributes
    ----------
    vectors : float32 ndarray of shape (n_bags, n_genes) or None
        Rows of bags without omics are zero; see `paired`. None for soft labels alone.
    paired : bool ndarray of shape (n_bags,)
    genes : ndarray of str, shape (n_genes,)
    teacher : float32 ndarray of shape (n_bags, n_classes) or None
        Soft labels of the paired bags.
    """

    vectors: NDArray | None
    paired: NDArray
    genes: NDArray
    teacher: NDArray | None = None

    @property
    def n_genes(self) -> int:
        """Width of the vectors."""
        return 0 if self.vectors is None else self.vectors.shape[1]


def seeded_clone(estimator: Any, random_state: int) -> Any:
    """Clone `estimator` and set each `random_state` that is None, so that a fit can be repeated."""
    copy = clone(estimator)
    names = [
        name
        for name, value in copy.get_params().items()
        if name.rpartition("__")[2] == "random_state" and value is None
    ]
    return copy.set_params(**dict.fromkeys(names, random_state)) if names else copy


def fit_omics(
    transformer: Any, table: OmicsTable, rows: NDArray, labels: NDArray
) -> PrivilegedOmics:
    """Fit `transformer` on the patients of the training bags and transform them.

    Parameters
    ----------
    transformer : scikit-learn transformer
        Fitted in place on a DataFrame of patients x genes. A patient with several bags counts
        once per label.
    table : OmicsTable
    rows : int ndarray of shape (n_bags,)
        Row of each training bag in `table`, -1 for none.
    labels : int ndarray of shape (n_bags,)

    Raises
    ------
    OmicsError
        If no training bag has omics, no gene differs between patients, or the transformer's output
        is not finite.
    """
    require_paired(rows)
    paired = rows >= 0
    once = pd.DataFrame({"row": rows[paired], "label": labels[paired]}).drop_duplicates()
    expression = table.rows(once["row"].to_numpy())
    check_expression(expression)
    transformer.fit(expression, once["label"].to_numpy())
    return transform_omics(transformer, table, rows)


def require_paired(rows: NDArray) -> None:
    """Raise if no training bag has a row in omics.

    Raises
    ------
    OmicsError
    """
    if not (rows >= 0).any():
        raise OmicsError(
            f"None of the {len(rows)} bags left for training has omics (the inner validation part "
            "not counted). Pair more patients, or pass omics=None."
        )


def transform_omics(transformer: Any, table: OmicsTable, rows: NDArray) -> PrivilegedOmics:
    """Transform the omics of bags by a fitted transformer; bags without omics give zeros.

    Raises
    ------
    OmicsError
        If the transformer's output is not finite.
    """
    paired = rows >= 0
    if not paired.any():
        return PrivilegedOmics(np.zeros((len(rows), 0), np.float32), paired, np.array([], object))
    values = _finite_table(transformer.transform(table.rows(rows[paired])), int(paired.sum()))
    vectors = np.zeros((len(rows), values.shape[1]), dtype=np.float32)
    vectors[paired] = values
    return PrivilegedOmics(vectors, paired, _gene_names(transformer, table.genes, values.shape[1]))


def _finite_table(values: Any, n_rows: int) -> NDArray:
    values = np.asarray(values.toarray() if sparse.issparse(values) else values, dtype=np.float32)
    sound = values.ndim == 2 and len(values) == n_rows and values.shape[1] > 0
    if not sound or not np.isfinite(values).all():
        raise OmicsError(
            f"The omics transformer returned shape {values.shape}, or values that are not finite; "
            f"expected a finite table of {n_rows} patients and at least one gene."
        )
    return values


def _gene_names(transformer: Any, genes: NDArray, n_out: int) -> NDArray:
    try:
        return np.asarray(transformer.get_feature_names_out(genes), dtype=object)
    except (AttributeError, ValueError):  # a step that does not name its output
        kept = n_out == len(genes)
        return genes if kept else np.array([f"omics{j}" for j in range(n_out)], dtype=object)
