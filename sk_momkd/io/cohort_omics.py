"""Omics of a cohort: read from a file, with patients in the rows, and joined to bags by id."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..data.omics import OmicsTable, as_omics, backed_rows, check_names, is_anndata
from ..data.sequence import BagSequence
from ..exceptions import BagFileError, CohortError, OmicsError
from ..messages import first_few
from .hdf5_checks import check_h5ad
from .read_errors import errors_that_name, h5ad_errors, is_out_of_memory
from .tables import is_table, is_text_table, read_table
from .tcga import choose_aliquots, patient_of

if TYPE_CHECKING:
    from anndata import AnnData

_NO_NAME = "Unnamed: 0"  # pandas' own


class CohortOmics(NamedTuple):
    """Omics of the bags in use, and the rows that are not used.

    Attributes
    ----------
    adata : AnnData or None
        Rows of the bags in use, in their order.
    has_omics : ndarray of bool, shape (n_bags,)
    unmatched : list of str
        Rows that belong to no bag.
    left_out : DataFrame
        ``id`` and ``status`` of the rows that were left out before the join.
    """

    adata: AnnData | None
    has_omics: NDArray
    unmatched: list[str]
    left_out: pd.DataFrame


def _header(path: str | PathLike) -> list[str]:
    """The first line as it is; an empty first cell, as of a row index, becomes "Unnamed: 0"."""
    first = read_table(path, header=None, nrows=1, dtype=str).iloc[0]
    corner = _NO_NAME if pd.isna(first.iloc[0]) else str(first.iloc[0])
    return [corner, *first.iloc[1:].astype(str)]


def _with_row_names(path: str | PathLike) -> pd.DataFrame:
    """The table with its first column, the ids of its rows, as index."""
    header = _header(path)
    frame = read_table(path, dtype={header[0]: str})
    if not isinstance(frame.index, pd.RangeIndex):
        raise OmicsError(
            f"{path}: its rows have one cell more than its header, as R's write.table writes them. "
            "Give the column of ids a name; in R write.table(..., col.names=NA)."
        )
    frame = frame.set_index(header[0])
    frame.index = frame.index.astype(str)
    frame.columns = header[1:]  # pandas would rename the second of two equal genes
    if header[0] == _NO_NAME and frame.index.tolist() == [str(i) for i in range(len(frame))]:
        raise OmicsError(
            f"{path}: the first column has no name and counts the rows from 0, so it holds no ids. "
            "Write the table without it, frame.to_csv(path, index=False)."
        )
    return frame


def patients_by_genes(
    path: str | PathLike, bags: BagSequence, *, name_of: Callable[[str], str] = str
) -> pd.DataFrame:
    """Expression in a CSV or TSV file, transposed if the file has patients in its columns.

    The patients are on the side that has more ids of `bags`; `name_of` gives the id in a name of
    the file, such as the patient in a barcode.

    Raises
    ------
    OmicsError
        If the file is no text table, its first column counts the rows or is missing in the
        header, or both sides have equally many ids of the bags.
    """
    if not is_text_table(path):
        raise OmicsError(f"{path}: expression is read from .h5ad, .csv or .tsv.")
    frame = _with_row_names(path)
    ids = {i for bag in bags for i in (bag.patient_id, bag.bag_id) if i is not None}
    in_rows = len(ids.intersection(map(name_of, frame.index)))
    in_columns = len(ids.intersection(map(name_of, frame.columns)))
    if in_rows == in_columns:
        raise OmicsError(
            f"{path} has {in_rows} ids of the cohort in its rows and {in_columns} in its columns, "
            f"so it is unclear which are patients. Rows: {first_few(frame.index)}; columns: "
            f"{first_few(frame.columns)}; cohort: {first_few(sorted(ids))}."
        )
    return frame if in_rows > in_columns else frame.T


def _open_h5ad(path: str | PathLike, *, allow_external: bool) -> AnnData:
    import anndata

    if not Path(path).exists() and not os.path.islink(path):
        raise FileNotFoundError(f"{path} does not exist.")
    try:
        check_h5ad(path, allow_external=allow_external)
        with errors_that_name(path, ".h5ad file", h5ad_errors()):
            adata = anndata.read_h5ad(path, backed="r")
            if "X" in adata.file:
                return adata
            adata.file.close()  # layers alone cannot be sliced on disk
            return anndata.read_h5ad(path)
    except BagFileError as error:
        raise OmicsError(str(error)) from error


def _as_anndata(
    omics: Any, bags: BagSequence, name_of: Callable[[str], str], *, allow_external: bool
) -> AnnData:
    if is_anndata(omics):
        return omics
    if not isinstance(omics, pd.DataFrame) and not is_table(omics):
        return _open_h5ad(omics, allow_external=allow_external)
    from anndata import AnnData

    frame = omics
    if not isinstance(omics, pd.DataFrame):
        frame = patients_by_genes(omics, bags, name_of=name_of)
    as_omics(frame)  # raises on text and duplicates, with messages of this package
    return AnnData(frame.astype(np.float32))


@contextmanager
def _opened(
    omics: str | PathLike | AnnData | pd.DataFrame,
    bags: BagSequence,
    name_of: Callable[[str], str],
    *,
    allow_external: bool,
) -> Iterator[AnnData]:
    """Yield `omics` as an AnnData; a file is opened backed, and closed afterwards."""
    adata = _as_anndata(omics, bags, name_of, allow_external=allow_external)
    try:
        yield adata
    finally:
        if adata is not omics and adata.isbacked:
            adata.file.close()


def _rows_to_join(ids: NDArray, *, tcga: bool, sample_type: str | None) -> pd.DataFrame:
    """``id``, the id it ``joins`` on, and ``status`` of each row."""
    if not tcga:
        return pd.DataFrame({"id": ids, "joins": ids, "status": "used"})
    rows = choose_aliquots(ids, sample_type)
    return rows.rename(columns={"barcode": "id", "patient": "joins"})


def _in_memory(adata: AnnData, rows: NDArray, layer: str | None) -> AnnData:
    """The `rows` of `adata`, in their order; a file is left open or closed as it was."""
    try:
        block = _read_rows(adata, rows) if adata.isbacked else adata[rows].copy()
    except h5ad_errors() as error:
        if is_out_of_memory(error):
            raise MemoryError(f"{adata.filename}: not enough memory to read its X.") from error
        raise OmicsError(f"omics cannot be read from {adata.filename}: {error}") from error
    if layer is not None:
        block.X = block.layers[layer]
    return block


def _read_rows(adata: AnnData, rows: NDArray) -> AnnData:
    """Rows of a backed AnnData, of which X alone is on disk; `to_memory` would close the file."""
    from anndata import AnnData

    base = adata._adata_ref if adata.is_view else adata  # a view of a view cannot be made
    own = np.arange(base.n_obs)[adata._oidx][rows] if adata.is_view else rows
    block = base[own, adata._vidx] if adata.is_view else base[own]
    rest = ("obs", "var", "uns", "obsm", "varm", "obsp", "varp", "layers")
    parts = {name: getattr(block, name).copy() for name in rest}
    return AnnData(backed_rows(adata, rows), **parts)


def join_cohort_omics(
    omics: str | PathLike | AnnData | pd.DataFrame | None,
    bags: BagSequence,
    *,
    layer: str | None = None,
    tcga: bool = False,
    sample_type: str | None = None,
    allow_external: bool = False,
) -> CohortOmics:
    """Join `omics` to `bags` by id; with `tcga` by the patient in the barcode of the row.

    Raises
    ------
    CohortError
        If no row belongs to any bag.
    OmicsError
        If the omics is unusable, lacks the layer, or with `tcga` has other ids or no sample of
        the type.
    """
    if omics is None:
        nothing = pd.DataFrame(columns=["id", "status"], dtype=object)
        return CohortOmics(None, np.zeros(len(bags), dtype=bool), [], nothing)
    name_of = patient_of if tcga else str
    with _opened(omics, bags, name_of, allow_external=allow_external) as adata:
        if layer is not None and layer not in adata.layers:
            raise OmicsError(f"omics has no layer {layer!r}; it has {sorted(adata.layers)}.")
        if layer is None:
            as_omics(adata)  # raises without X, with the message of this package
        ids, genes = check_names(adata.obs_names, adata.var_names)
        rows = _rows_to_join(ids, tcga=tcga, sample_type=sample_type)
        used = rows[rows["status"] == "used"]
        matched = OmicsTable(None, used["joins"].to_numpy(), genes).match(bags)
        kept = used.iloc[pd.unique(matched[matched >= 0])]
        if not len(kept):
            raise CohortError(
                f"No omics row belongs to any slide: omics has {first_few(used['id'])}, the table "
                f"has patients {first_few(pd.unique(bags.patient_ids))} and slides "
                f"{first_few(bags.ids)}."
            )
        block = _in_memory(adata, kept.index.to_numpy(), layer)
    if tcga:
        block.obs["barcode"] = kept["id"].to_numpy(dtype=object)
        block.obs_names = kept["joins"].to_numpy(dtype=object)
    unmatched = [str(i) for i in used["id"].drop(kept.index)]
    left_out = rows.loc[rows["status"] != "used", ["id", "status"]].reset_index(drop=True)
    return CohortOmics(block, matched >= 0, unmatched, left_out)
