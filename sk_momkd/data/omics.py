"""Omics of patients, from AnnData, DataFrame or array, joined to bags by id."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_numeric_dtype
from scipy import sparse

from ..exceptions import CohortWarning, OmicsError, PairingWarning
from ..messages import first_few, repeated, warn
from .arrays import to_numpy
from .ids import (
    column_of_ids,
    counts_rows,
    is_numeric_index,
    normalise_id,
    normalise_ids,
    samples_as_patients,
)
from .sequence import BagSequence, as_bags
from .stored_sparse import check_stored_sparse

if TYPE_CHECKING:
    from anndata import AnnData

_NO_GENE = re.compile(  # summaries of STAR, and of HTSeq with and without underscores
    r"N_(unmapped|multimapping|noFeature|ambiguous)|__\w+"
    r"|no_feature|ambiguous|too_low_aQual|not_aligned|alignment_not_unique",
    re.IGNORECASE,
)


_OF_EXCEL = re.compile(  # dates and numbers that were MARCH1, SEPT2 and 2310009E13
    r"\d{1,2}[-. ](jan|feb|m[a\u00e4]r|mrz|apr|ma[yi]|jun|jul|aug|sep|o[ck]t|nov|de[cz])[a-z]*\.?"
    r"|(mar|mrz|sep|dec|dez)[a-z]*-\d{2}|\d{4}-\d{2}-\d{2}([ T]00:00:00)?"
    r"|\d{1,2}/\d{1,2}/\d{2,4}|\d[.,]\d+E[+]?\d{2}",
    re.IGNORECASE,
)
_WRITTEN_NUMBER = re.compile(r"[+-]?\d[\d.,'\u2019 \u00a0\u202f]*")


def is_anndata(values: Any) -> TypeGuard[AnnData]:
    """Whether `values` is an AnnData; does not import anndata, which takes seconds."""
    anndata = sys.modules.get("anndata")
    return anndata is not None and isinstance(values, anndata.AnnData)


@contextmanager
def left_as_found(adata: AnnData) -> Iterator[None]:
    """Use the file of a backed AnnData, and leave it open or closed as the caller had it."""
    was_open = adata.file.is_open
    if not was_open:
        adata.file.open()
    try:
        yield
    finally:
        if not was_open:
            adata.file.close()


_CHECKED: dict[str, tuple[int, int]] = {}  # size and time of files with a sound sparse X


def _check_once(group: Any) -> None:
    found = os.stat(group.file.filename)
    state = (found.st_size, found.st_mtime_ns)
    if _CHECKED.get(group.file.filename) != state:
        check_stored_sparse(group)
        _CHECKED[group.file.filename] = state


def backed_rows(adata: AnnData, positions: NDArray) -> Any:
    """Rows of X of a backed AnnData or of a view of one, dense or sparse, in memory."""
    base = adata._adata_ref if adata.is_view else adata
    rows = np.arange(base.n_obs)[adata._oidx][positions] if adata.is_view else positions
    order, back = np.unique(rows, return_inverse=True)  # files need sorted rows
    with left_as_found(base):
        values = base.X
        if hasattr(values, "group"):
            _check_once(values.group)
        block = values[order]
    columns = adata._vidx if adata.is_view else slice(None)
    return block[back][:, columns]


class OmicsTable:
    """Expression of patients by id, which scikit-learn does not slice by position.

    scikit-learn slices every fit parameter whose length equals that of `X` by *position*. An
    `OmicsTable` has no length, so every fold receives all rows and joins them by id.
    :func:`align_omics` returns one.

    Parameters
    ----------
    values : ndarray, sparse array or backed AnnData of shape (n_rows, n_genes)
    ids : ndarray of str, shape (n_rows,)
        Patient (or bag) ids.
    genes : ndarray of str, shape (n_genes,)

    Attributes
    ----------
    ids : ndarray of str, shape (n_rows,)
    genes : ndarray of str, shape (n_genes,)

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import OmicsTable
    >>> table = OmicsTable(np.eye(2), np.array(["P1", "P2"]), np.array(["ERBB2", "ESR1"]))
    >>> table
    OmicsTable(2 patients x 2 genes)
    >>> table.rows(np.array([1]))
        ERBB2  ESR1
    P2    0.0   1.0
    """

    def __init__(self, values: Any, ids: NDArray, genes: NDArray) -> None:
        self._values = values
        self._columns: NDArray | slice = slice(None)  # of `values`, if some are no genes
        self.ids = np.array([normalise_id(name) for name in ids], dtype=object)
        self.genes = genes

    def rows(self, positions: NDArray, *, finite: bool = True) -> pd.DataFrame:
        """Rows at `positions`, dense float32, with ids and gene names.

        Parameters
        ----------
        positions : int ndarray of shape (n,)
        finite : bool, default=True
            Whether values that are NaN or infinite raise.

        Returns
        -------
        DataFrame of shape (n, n_genes)

        Raises
        ------
        OmicsError
            If a value is NaN or infinite and `finite`; names the patient and the gene.
        """
        block = self._block(positions)
        dense = block.toarray() if sparse.issparse(block) else np.asarray(block)
        frame = pd.DataFrame(dense.astype(np.float32), self.ids[positions], self.genes)
        values = frame.to_numpy()
        if finite and not np.isfinite(values).all():
            bad = np.argwhere(~np.isfinite(values))
            raise OmicsError(
                f"{len(bad)} NaN or infinite omics values, the first for patient "
                f"{frame.index[bad[0][0]]!r}, gene {frame.columns[bad[0][1]]!r}. Impute them, or "
                "drop the gene or the patient."
            )
        return frame

    def select_genes(self, genes: NDArray) -> OmicsTable:
        """Table of these genes, in this order.

        Parameters
        ----------
        genes : array-like of str

        Returns
        -------
        OmicsTable

        Raises
        ------
        OmicsError
            If the table lacks some of them; names them.
        """
        place = pd.Index(self.genes).get_indexer(pd.Index(genes))
        missing = [gene for gene, i in zip(genes, place, strict=True) if i < 0]
        if missing:
            raise OmicsError(
                f"{len(missing)} of {len(place)} genes are missing in omics: {first_few(missing)}. "
                "Give omics with the genes of the earlier fit."
            )
        table = OmicsTable(self._values, self.ids, np.asarray(genes, dtype=object))
        table._columns = np.arange(self._values.shape[1])[self._columns][place]
        return table

    def take(self, positions: NDArray) -> OmicsTable:
        """Table of the rows at `positions`; a sparse table stays sparse.

        Parameters
        ----------
        positions : int ndarray

        Returns
        -------
        OmicsTable
        """
        return OmicsTable(self._block(positions), self.ids[positions], self.genes)

    def _block(self, positions: NDArray) -> Any:
        if is_anndata(self._values):
            return backed_rows(self._values, positions)[:, self._columns]
        return self._values[positions][:, self._columns]

    def match(self, bags: BagSequence) -> NDArray:
        """Row of each bag, by patient id and then by bag id.

        Parameters
        ----------
        bags : BagSequence

        Returns
        -------
        int ndarray of shape (n_bags,)
            -1 for a bag without a row.

        Raises
        ------
        OmicsError
            If a bag has a row of its patient and another of its own id.
        """
        row = {name: i for i, name in enumerate(self.ids)}
        by_patient = np.array([row.get(bag.patient_id, -1) for bag in bags], dtype=int)
        by_bag = np.array([row.get(bag.bag_id, -1) for bag in bags], dtype=int)
        both = np.flatnonzero((by_patient >= 0) & (by_bag >= 0) & (by_patient != by_bag))
        if len(both):
            bag = bags[int(both[0])]
            raise OmicsError(
                f"{len(both)} bags have one omics row by their patient and another by their own "
                f"id; the first is {bag.name} of patient {bag.patient_id!r}. Name the rows by "
                "patients, or by bags in ids that no patient has."
            )
        return np.where(by_patient >= 0, by_patient, by_bag)

    def __repr__(self) -> str:
        return f"OmicsTable({len(self.ids)} patients x {len(self.genes)} genes)"


def _has_stored_x(adata: AnnData) -> bool:
    with left_as_found(adata):
        return "X" in adata.file


def _without_x(adata: AnnData) -> str:
    layers, raw = sorted(adata.layers), adata.raw is not None
    found = [f"the layers {first_few(layers, 8)}"] if layers else []
    found += ["raw"] if raw else []
    remedy = "adata.X = adata.layers[name], or layer=name in load_cohort" if layers else ""
    remedy = "adata = adata.raw.to_adata()" if raw and not layers else remedy
    return (
        f"The AnnData has no X; it has {' and '.join(found)}. Choose one: {remedy}."
        if found
        else "The AnnData has no X; put the expression there."
    )


def check_sparse(values: Any) -> None:
    """Raise if the indices of a sparse matrix are outside it; scipy takes them as they are."""
    if not hasattr(values, "check_format"):
        return
    try:
        values.check_format(full_check=True)
    except ValueError as error:
        raise OmicsError(
            f"X of the AnnData is a damaged sparse matrix: {error}. Write the file again."
        ) from error


def _numbers(frame: pd.DataFrame) -> NDArray:
    try:
        if any(dtype.kind in "cmM" for dtype in frame.dtypes):
            raise TypeError("dates or complex numbers")
        return frame.to_numpy(dtype=np.float32)
    except (TypeError, ValueError) as error:
        kinds = zip(frame.columns, frame.dtypes, strict=True)
        text = [c for c, kind in kinds if kind.kind == "c" or not is_numeric_dtype(kind)]
        raise OmicsError(
            f"omics must be numbers; these columns are not: {first_few(text)}."
            + _no_number(frame, text)
        ) from error


def _no_number(frame: pd.DataFrame, columns: list[Any]) -> str:
    """The first cell that is no number, and what may be the matter with it."""
    cells = frame[columns[0]] if columns else frame.iloc[:, 0]
    if cells.ndim > 1:
        return " Move the ids into the index."
    wrong = cells[pd.to_numeric(cells, errors="coerce").isna() & cells.notna()]
    if not len(wrong):
        return " Move the ids into the index."
    found = f" {columns[0]!r} holds {str(wrong.iloc[0])!r} for {wrong.index[0]!r}."
    if _WRITTEN_NUMBER.fullmatch(str(wrong.iloc[0]).strip()):
        return (
            f"{found} Numbers must be written as 1234.5, without separators of thousands and with "
            "a point: pd.read_csv(path, index_col=0, decimal=',', thousands='.'), or as it was "
            "written."
        )
    if len(wrong) < len(cells) / 2:
        return f"{found} Leave cells empty where nothing was measured."
    return f"{found} Move the ids into the index."


def _refuse_duplicates(names: NDArray, what: str, remedy: str) -> None:
    if twice := repeated(names):
        raise OmicsError(
            f"{len(twice)} {what} occur more than once in omics: {first_few(twice)}. {remedy}"
        )


def check_names(patients: pd.Index, names: pd.Index) -> tuple[NDArray, NDArray]:
    """Return normalised ids, and gene names as text; raises as :func:`as_omics` does."""
    if patients.nlevels > 1 or names.nlevels > 1:
        raise OmicsError("omics has a MultiIndex; give it one level of ids and one of genes.")
    if len(patients) == 0 or len(names) == 0:
        raise OmicsError(f"omics is empty: {len(patients)} patients x {len(names)} genes.")
    if lacking := int(np.sum(patients.isna())):
        raise OmicsError(f"{lacking} rows of omics have no id. Name them, or leave them out.")
    unnamed = np.flatnonzero(names.isna() | (names.astype(str).str.strip() == ""))
    if len(unnamed):
        raise OmicsError(
            f"{len(unnamed)} genes of omics have no name, the first is column {unnamed[0]}. Name "
            "them, or leave them out."
        )
    ids = np.array(normalise_ids(patients, "ids of omics", OmicsError), dtype=object)
    genes = np.array(names.astype(str), dtype=object)
    _refuse_duplicates(ids, "patients", "Keep one row per patient.")
    _refuse_duplicates(genes, "genes", "Sum or drop them, e.g. adata.var_names_make_unique().")
    return ids, genes


def known_ids(bags: BagSequence | None) -> set[str]:
    """Ids of the patients and slides of `bags`."""
    return {i for bag in bags or () for i in (bag.patient_id, bag.bag_id) if i is not None}


def ids_of_rows(
    index: pd.Index, columns: pd.DataFrame, id_column: str | None, bags: BagSequence | None
) -> pd.Index:
    """The ids of omics rows: the index, or the column that the caller names.

    Raises
    ------
    OmicsError
        If there is no such column; or if the index counts the rows: integers that nobody named
        (names of AnnData are text), or any numbers while a column holds the ids of the bags.
    """
    if id_column is not None:
        if id_column not in columns:
            known = first_few(columns, 8) or "none"
            raise OmicsError(f"omics has no column {id_column!r} of ids; it has {known}.")
        return pd.Index(columns[id_column])
    if not counts_rows(index):
        return index
    fitting = column_of_ids(columns, known_ids(bags), index)
    if fitting is None and not is_numeric_index(index):
        return index
    shown = f"{first_few(index, 4)}, {len(index)} rows"
    kinds = {dtype: is_numeric_dtype(dtype) for dtype in set(columns.dtypes)}
    is_text = [not kinds[dtype] for dtype in columns.dtypes]
    texts = list(columns.columns[is_text]) if fitting is None else []
    column = texts[0] if texts else "case_id" if fitting is None else fitting
    held = "" if fitting is None else f", while column {fitting!r} holds ids of the bags"
    raise OmicsError(
        f"The index of omics counts the rows ({shown}), so it holds no ids{held}. Move the ids "
        f"into it, e.g. omics.set_index({column!r}) or adata.obs_names = adata.obs[{column!r}], "
        f"or pass id_column={column!r} to align_omics or load_cohort. If the numbers are the ids, "
        "name the index: omics.rename_axis('case_id')."
    )


def warn_of_excel(names: Iterable[Any]) -> None:
    """Warn of genes that Excel has turned into dates and rounded numbers."""
    changed = [name for name in map(str, names) if _OF_EXCEL.fullmatch(name)]
    if changed:
        warn(
            f"{len(changed)} genes are called as dates or rounded numbers: {first_few(changed)}. "
            "Excel makes them of names such as MARCH1 and 2310009E13, and two genes may have "
            "become one: take the names from where the table was made.",
            CohortWarning,
        )


def genes_only(names: Iterable[str]) -> NDArray:
    """Which names are genes; warns of rows that count reads instead, as STAR and HTSeq write."""
    names = [str(name) for name in names]
    genes = np.array([not _NO_GENE.fullmatch(name) for name in names], dtype=bool)
    if not genes.all():
        dropped = [name for name, is_gene in zip(names, genes, strict=True) if not is_gene]
        warn(
            f"{len(dropped)} columns of omics are no genes and are left out: "
            f"{first_few(dropped, 8)}.",
            CohortWarning,
        )
    return genes


def as_omics(
    omics: Any, *, bags: BagSequence | None = None, id_column: str | None = None
) -> OmicsTable:
    """Return `omics` as an `OmicsTable` with checked ids and gene names.

    Parameters
    ----------
    omics : AnnData (in memory or backed), DataFrame with ids as index, or OmicsTable
    bags : BagSequence, optional
        By their ids a column is recognised that holds ids while the index counts rows.
    id_column : str, optional
        Column with the ids, if the index does not hold them.

    Raises
    ------
    OmicsError
        If ids or genes are duplicated, the index counts the rows, or the table is empty.
    """
    if isinstance(omics, OmicsTable):
        return omics
    if is_anndata(omics):
        return _of_anndata(omics, bags, id_column)
    if not isinstance(omics, pd.DataFrame):
        raise OmicsError(
            "omics must be an AnnData or a DataFrame with ids as index, got "
            f"{type(omics).__name__}."
            + (
                " Convert it: omics.to_pandas().set_index('case_id')."
                if hasattr(omics, "to_pandas")
                else ""
            )
        )
    index = ids_of_rows(omics.index, omics, id_column, bags)
    if id_column is not None:
        omics = omics.drop(columns=id_column)
    ids, genes = check_names(index, omics.columns)
    warn_of_excel(genes)
    keep = genes_only(genes)
    return OmicsTable(_numbers(omics.loc[:, keep]), ids, genes[keep])


def _of_anndata(adata: AnnData, bags: BagSequence | None, id_column: str | None) -> OmicsTable:
    index = ids_of_rows(adata.obs_names.astype(str), adata.obs, id_column, bags)
    require_expression(adata)
    ids, genes = check_names(index, adata.var_names)
    warn_of_excel(genes)
    keep = genes_only(genes)
    table = OmicsTable(adata if adata.isbacked else adata.X, ids, genes[keep])
    table._columns = slice(None) if keep.all() else np.flatnonzero(keep)
    return table


def require_expression(adata: AnnData) -> None:
    """Raise unless the AnnData has numbers in its X."""
    if not _has_stored_x(adata) if adata.isbacked else adata.X is None:
        raise OmicsError(_without_x(adata))
    if adata.isbacked:
        return
    if sparse.issparse(adata.X):
        check_sparse(adata.X)
    if not np.can_cast(adata.X.dtype, np.float64, "same_kind"):
        raise OmicsError(f"X of the AnnData must be numbers, got dtype {adata.X.dtype}.")


def hint_on_ids(ids: Iterable[str], columns: Any, known: set[str]) -> str:
    """Why no id of omics is one of the `known`, if the reason shows; for messages."""
    if isinstance(columns, pd.DataFrame):
        column = column_of_ids(columns, known, columns.index)
        if column is not None:
            return f" Column {column!r} holds ids of the bags: pass id_column={column!r}."
    ids = list(ids)
    if any(own in known for own in samples_as_patients(ids)):
        return (
            " The rows are TCGA samples or aliquots of the patients: use omics_by_patient(adata), "
            "or load_cohort(..., barcodes='tcga')."
        )
    if any(i.startswith("X") and i[1:] in known for i in ids):
        return " R has put an X before ids that begin with a digit: check.names=FALSE keeps them."
    if any(i.casefold() in {k.casefold() for k in known} for i in ids):
        return " They differ in letter case."
    if any(i.lstrip("0") in {k.lstrip("0") for k in known} - {""} for i in ids):
        return " They differ in leading zeros."
    return ""


def _require_match(table: OmicsTable, bags: BagSequence, rows: NDArray, omics: Any) -> None:
    if (rows >= 0).any():
        return
    known = [i for b in bags for i in (b.patient_id, b.bag_id) if i is not None]
    if not known:
        raise OmicsError(
            "The bags have no ids, so omics cannot be joined. Give them some, "
            "Bag(..., bag_id=..., patient_id=...) or as_bags(X, patient_ids=...), or pass omics as "
            "an array in bag order."
        )
    columns = omics.obs if is_anndata(omics) else omics
    hint = hint_on_ids(table.ids, columns, set(known))
    cut = (
        " If scikit-learn cut both, as in cross-validation, pass omics=align_omics(omics, bags), "
        "made from all bags of the cohort."
    )
    raise OmicsError(
        f"No omics row belongs to any bag. Omics has {first_few(table.ids)}; the bags have "
        f"{first_few(known)}.{hint} Use the same ids, or omics=None for histology alone."
        + (cut if len(table.ids) == len(bags) else "")
    )


def align_omics(omics: Any, bags: Any, *, id_column: str | None = None) -> OmicsTable:
    """Join `omics` to `bags` by id, before scikit-learn slices the bags.

    Pass the result as ``omics=`` to cross-validation or a grid search, nested or not: it is never
    sliced by position.

    Parameters
    ----------
    omics : AnnData or DataFrame
        obs_names (index) are patient ids or bag ids; row numbers are refused.
    bags : BagSequence or list of Bag
    id_column : str, optional
        Column of `omics` (of ``obs`` of an AnnData) with the ids, if its index holds none.

    Returns
    -------
    OmicsTable
        The rows that belong to a bag, in the order of the bags.

    Raises
    ------
    OmicsError
        If no row belongs to any bag, or the index counts the rows.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from sk_momkd import Bag, align_omics
    >>> bags = [Bag(np.ones((2, 3)), bag_id=f"S{i}", patient_id=f"P{i}") for i in range(3)]
    >>> rna = pd.DataFrame([[1.0], [2.0], [3.0]], index=["P2", "P0", "P9"], columns=["ERBB2"])
    >>> align_omics(rna, bags).ids
    array(['P0', 'P2'], dtype=object)
    """
    bags = as_bags(bags)
    table = as_omics(omics, bags=bags, id_column=id_column)
    rows = table.match(bags)
    _require_match(table, bags, rows, omics)
    return table.take(pd.unique(rows[rows >= 0]))


def _in_bag_order(omics: Any, bags: BagSequence) -> tuple[OmicsTable, NDArray]:
    values: Any = omics.tocsr() if sparse.issparse(omics) else to_numpy(omics)
    if values.ndim != 2 or values.shape[0] != len(bags) or 0 in values.shape:
        raise OmicsError(
            f"omics of type {type(omics).__name__} and shape {values.shape} must have one row for "
            f"each of the {len(bags)} bags, in their order. For other numbers of rows pass an "
            "AnnData or a DataFrame with ids."
        )
    ids = np.array([bags.name(i) for i in range(len(bags))], dtype=object)
    genes = np.array([f"gene_{j}" for j in range(values.shape[1])], dtype=object)
    values = values if sparse.issparse(values) else _numbers(pd.DataFrame(values))
    return OmicsTable(values, ids, genes), np.arange(len(bags))


def join_omics(omics: Any, bags: BagSequence) -> tuple[OmicsTable, NDArray]:
    """Return the omics table and the row of each bag, -1 where it has none.

    Raises
    ------
    OmicsError
        If nothing matches; or if bags have no row although there are as many rows as bags:
        scikit-learn may have sliced such a table by position.
    """
    is_polars = hasattr(omics, "to_pandas")
    if not (is_anndata(omics) or is_polars or isinstance(omics, pd.DataFrame | OmicsTable)):
        return _in_bag_order(omics, bags)
    table = as_omics(omics, bags=bags)
    rows = table.match(bags)
    _require_match(table, bags, rows, omics)
    lacking = np.flatnonzero(rows < 0)
    idle = np.setdiff1d(np.arange(len(table.ids)), rows)
    sliceable = not isinstance(omics, OmicsTable)
    if sliceable and len(lacking) and len(table.ids) == len(bags):
        raise OmicsError(
            f"{len(lacking)} of {len(bags)} bags have no omics (first {bags.name(lacking[0])}) "
            f"while {len(idle)} omics rows have no bag (first {table.ids[idle[0]]!r}), and there "
            "are as many rows as bags. scikit-learn slices a table of that length by position, "
            "which gives patients the rows of others. Pass omics=align_omics(omics, bags), made "
            "from all bags of the cohort: it is joined by id and never sliced."
        )
    if 2 * len(lacking) > len(bags):
        warn(
            f"Only {len(bags) - len(lacking)} of {len(bags)} bags have omics; the first without "
            f"is {bags.name(lacking[0])}. Check that both sides use the same ids.",
            PairingWarning,
        )
    return table, rows
