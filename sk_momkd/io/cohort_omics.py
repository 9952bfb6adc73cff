"""Omics of a cohort: read from a file, with patients in the rows, and joined to bags by id."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..data.ids import counts_rows, is_row_number_name, normalise_id
from ..data.omics import (
    OmicsTable,
    as_omics,
    backed_rows,
    check_names,
    genes_only,
    hint_on_ids,
    ids_of_rows,
    is_anndata,
    known_ids,
    require_expression,
    warn_of_excel,
)
from ..data.sequence import BagSequence
from ..exceptions import BagFileError, CohortError, OmicsError
from ..messages import first_few
from .expression_files import (
    expression_frame,
    is_expression_table,
    is_zarr,
    read_zarr,
    require_h5ad_name,
)
from .hdf5_checks import check_h5ad, require_survivable
from .local_files import missing, require_path, require_regular
from .read_errors import errors_that_name, h5ad_errors, is_out_of_memory
from .tables import is_text_table, open_text, read_header, require_file, separator_of
from .tcga import choose_aliquots, patient_of

if TYPE_CHECKING:
    from anndata import AnnData

_MISSING = ["", "NA", "N/A", "#N/A", "NaN", "nan", "-nan", "<NA>", "null", "NULL", "None"]


class CohortOmics(NamedTuple):
    """Omics of the bags in use, the rows that are not used, and ids that were changed.

    Attributes
    ----------
    adata : AnnData or None
        Rows of the bags in use, in their order.
    has_omics : ndarray of bool, shape (n_bags,)
    unmatched : list of str
        Rows that belong to no bag.
    left_out : DataFrame
        ``id`` and ``status`` of the rows that were left out before the join.
    changed_ids : DataFrame
        ``column`` ("omics"), ``given`` and ``id`` of ids that were normalised.
    """

    adata: AnnData | None
    has_omics: NDArray
    unmatched: list[str]
    left_out: pd.DataFrame
    changed_ids: pd.DataFrame


def _with_row_names(path: str | PathLike, id_column: str | None) -> pd.DataFrame:
    """The table with its first column, the ids of its rows, or `id_column` as index."""
    require_file(path)
    header = read_header(path)
    place = 0
    if id_column is not None:
        if header.count(id_column) != 1:
            raise OmicsError(
                f"{path} has {header.count(id_column)} columns of the name {id_column!r}; it has "
                f"{first_few(header, 8)}."
            )
        place = header.index(id_column)
    frame = _values(path, len(header), place)
    names = pd.Index(frame[place].astype(str).to_numpy(), name=header[place] or None)
    if id_column is None:
        _refuse_row_numbers(path, names, "the first column")
    others = [i for i in range(len(header)) if i != place]
    if id_column is not None and is_row_number_name(header[0]) and place:
        others.remove(0)  # row numbers beside the ids
    return frame[others].set_axis([header[i] for i in others], axis=1).set_axis(names)


def _values(path: str | PathLike, width: int, ids: int) -> pd.DataFrame:
    """The cells below the header: the column `ids` as text, numbers where the others are."""
    options: dict[str, Any] = {"dtype": {ids: str}, "keep_default_na": False}
    options["na_values"] = {i: _MISSING for i in range(width) if i != ids}
    with open_text(path) as file:
        next(row for row in csv.reader(file, delimiter=separator_of(path)) if any(row))
        try:
            frame = pd.read_csv(
                file, sep=separator_of(path), header=None, low_memory=False, **options
            )
        except pd.errors.EmptyDataError as error:
            raise OmicsError(f"{path} has a header, but no rows below it.") from error
        except pd.errors.ParserError as error:
            raise OmicsError(f"{path} has rows of different length: {error}.") from error
    if frame.shape[1] == width + 1 and not frame[width].isna().all():
        raise OmicsError(
            f"{path}: its rows have one cell more than its header, as R's write.table writes them. "
            "Give the column of ids a name; in R write.table(..., col.names=NA)."
        )
    if frame.shape[1] < width:
        raise OmicsError(f"{path}: its rows have {frame.shape[1]} cells, its header {width}.")
    return frame[range(width)]


def _refuse_row_numbers(path: str | PathLike, names: pd.Index, where: str) -> None:
    if not counts_rows(names):
        return
    called = f"is called {names.name!r}" if names.name else "has no name"
    raise OmicsError(
        f"{path}: {where} {called} and counts the rows ({first_few(names, 4)}), so it "
        "holds no ids. Name the column that does, id_column=..., or write the table without row "
        "numbers, frame.to_csv(path, index=False)."
    )


def patients_by_genes(
    path: str | PathLike,
    bags: BagSequence,
    *,
    name_of: Callable[[str], str] = normalise_id,
    id_column: str | None = None,
) -> pd.DataFrame:
    """Expression in a table, transposed if the file has patients in its columns.

    The patients are on the side that has more ids of `bags`; `name_of` gives the id in a name of
    the file, such as the patient in a barcode. With `id_column` they are in the rows.

    Raises
    ------
    OmicsError
        If the file is no table, its first column counts the rows, is missing in the header
        or holds a patient's values, or both sides have equally many ids of the bags.
    """
    if is_text_table(path):
        frame = _with_row_names(path, id_column)
    else:
        frame = expression_frame(path, id_column)
        if id_column is None:
            _refuse_row_numbers(path, frame.index, "the index or first column")
    if id_column is not None:
        return frame
    ids = known_ids(bags)
    if name_of(str(frame.index.name)) in ids:
        raise OmicsError(
            f"{path}: its first column is called {frame.index.name!r}, an id of the cohort, so it "
            "holds values and not the names of the rows. Write the table with its row names."
        )
    in_rows = len(ids.intersection(map(name_of, frame.index)))
    in_columns = len(ids.intersection(map(name_of, frame.columns)))
    if in_rows == in_columns:
        raise OmicsError(
            f"{path} has {in_rows} ids of the cohort in its rows and {in_columns} in its columns, "
            f"so it is unclear which are patients. Rows: {first_few(frame.index)}; columns: "
            f"{first_few(frame.columns)}; cohort: {first_few(sorted(ids))}."
            + hint_on_ids(map(name_of, [*frame.index, *frame.columns]), None, ids)
        )
    if in_rows > in_columns:
        return frame
    if "0" in frame.columns:  # patients may be called 1, 2, 3, but pandas counts from 0
        _refuse_row_numbers(path, frame.columns, "the header")
    return frame.T


def _open_h5ad(path: str | PathLike, *, allow_external: bool) -> AnnData:
    import anndata

    if Path(path).exists():
        path = os.path.realpath(path)  # a link that the caller names is as good as its target
    elif not os.path.islink(path):
        raise FileNotFoundError(str(missing(path)))
    try:
        if is_zarr(path):
            return read_zarr(path, allow_external=allow_external)
        require_h5ad_name(path)
        require_regular(path, allow_external=allow_external)
        require_survivable(path)
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
    omics: Any,
    bags: BagSequence,
    name_of: Callable[[str], str],
    id_column: str | None,
    *,
    allow_external: bool,
) -> tuple[AnnData, pd.Index]:
    """`omics` as an AnnData, and the ids of its rows as they are given."""
    if is_anndata(omics) or not (isinstance(omics, pd.DataFrame) or is_expression_table(omics)):
        adata = omics
        if not is_anndata(omics):
            adata = _open_h5ad(omics, allow_external=allow_external)
        warn_of_excel(adata.var_names)
        return adata, ids_of_rows(adata.obs_names.astype(str), adata.obs, id_column, bags)
    from anndata import AnnData

    frame = omics
    if not isinstance(omics, pd.DataFrame):
        frame = patients_by_genes(omics, bags, name_of=name_of, id_column=id_column)
        id_column = None  # is the index now
    given = ids_of_rows(frame.index, frame, id_column, bags)
    table = as_omics(frame, bags=bags, id_column=id_column)  # raises on text and duplicates
    return AnnData(table.rows(np.arange(len(table.ids)), finite=False)), given


@contextmanager
def _opened(
    omics: str | PathLike | AnnData | pd.DataFrame,
    bags: BagSequence,
    name_of: Callable[[str], str],
    id_column: str | None,
    *,
    allow_external: bool,
) -> Iterator[tuple[AnnData, pd.Index]]:
    """Yield `omics` as an AnnData, with its ids; a file is opened backed, and closed afterwards."""
    adata, ids = _as_anndata(omics, bags, name_of, id_column, allow_external=allow_external)
    try:
        yield adata, ids
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
    id_column: str | None = None,
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
        return CohortOmics(None, np.zeros(len(bags), dtype=bool), [], nothing, _changed([], []))
    if not isinstance(omics, pd.DataFrame) and not is_anndata(omics):
        require_path(omics, "omics", "a path, an AnnData, or a DataFrame with ids as index")
    name_of = patient_of if tcga else normalise_id
    opened = _opened(omics, bags, name_of, id_column, allow_external=allow_external)
    with opened as (adata, given):
        if layer is not None and layer not in adata.layers:
            known = first_few(sorted(adata.layers), 8) or "none"
            raise OmicsError(f"omics has no layer {layer!r}; it has {known}.")
        if layer is None:
            require_expression(adata)
        ids, genes = check_names(given, adata.var_names)
        rows = _rows_to_join(ids, tcga=tcga, sample_type=sample_type)
        used = rows[rows["status"] == "used"]
        matched = OmicsTable(None, used["joins"].to_numpy(), genes).match(bags)
        kept = used.iloc[pd.unique(matched[matched >= 0])]
        if not len(kept):
            raise CohortError(
                f"No omics row belongs to any slide: omics has {first_few(used['id'])}, the table "
                f"has patients {first_few(pd.unique(bags.patient_ids))} and slides "
                f"{first_few(bags.ids)}.{hint_on_ids(used['id'], adata.obs, known_ids(bags))}"
            )
        block = _in_memory(adata, kept.index.to_numpy(), layer)
    unmatched = [str(i) for i in used["id"].drop(kept.index)]
    left_out = rows.loc[rows["status"] != "used", ["id", "status"]].reset_index(drop=True)
    if tcga:
        block.obs["barcode"] = kept["id"].to_numpy(dtype=object)
    block = _named(block, kept["joins"].to_numpy(dtype=object))
    return CohortOmics(block, matched >= 0, unmatched, left_out, _changed(given, ids))


def _named(block: AnnData, ids: NDArray) -> AnnData:
    """The genes of `block` with the `ids` as obs_names, which a name marks as ids."""
    genes = genes_only(block.var_names)
    block = block if genes.all() else block[:, genes].copy()
    name = block.obs_names.name
    block.obs_names = ids
    block.obs_names.name = name or (None if "id" in block.obs else "id")
    return block


def _changed(given: Iterable[Any], ids: Iterable[str]) -> pd.DataFrame:
    """Ids that were normalised."""
    pairs = [("omics", str(g), i) for g, i in zip(given, ids, strict=True) if str(g) != i]
    return pd.DataFrame(pairs, columns=["column", "given", "id"], dtype=object)
