"""Expression in files other than ``.h5ad`` and text tables: Excel, parquet, GCT and zarr."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..data.ids import is_row_number_name
from ..exceptions import BagFileError, OmicsError
from ..messages import install_hint
from .local_files import require_plausible_size, require_regular
from .read_errors import PARSER_ERRORS, errors_that_name, h5ad_errors
from .slide_files import PICKLES
from .tables import is_table, open_text, read_table
from .zarr_stores import require_expression_chunks, require_store

if TYPE_CHECKING:
    from anndata import AnnData

_MISSING = ("", "NA", "NaN", "nan", "na")
_READ = ".h5ad, .zarr, .csv, .tsv, .txt, .xlsx, .parquet or .gct"


def _kind(path: str | PathLike) -> str:
    """Kind of a file by its suffix: gct, parquet, zarr, or nothing for any other."""
    name = Path(path).name.lower().removesuffix(".gz")
    return next((kind for kind in ("gct", "parquet", "zarr") if name.endswith(f".{kind}")), "")


def is_expression_table(path: str | PathLike) -> bool:
    """Whether a file holds a table of patients and genes, and no AnnData."""
    return is_table(path) or _kind(path) in ("gct", "parquet")


def is_zarr(path: str | PathLike) -> bool:
    """Whether a path is that of a zarr store."""
    return _kind(path) == "zarr"


def require_h5ad_name(path: str | PathLike) -> None:
    """Raise for a file that is called otherwise than those in which expression is read.

    Raises
    ------
    OmicsError
        With what is read.
    """
    suffix = Path(path).suffix.lower()
    if suffix in (".h5ad", ".h5", ".hdf5", ""):
        return
    why = {
        ".rds": " In R, write.csv(x, 'rna.csv') writes a table.",
        ".rdata": " In R, write.csv(x, 'rna.csv') writes a table.",
        ".loom": " anndata.io.read_loom(path).write_h5ad('rna.h5ad') converts it.",
        **dict.fromkeys(PICKLES, " Pickles could run any code and are not read."),
    }.get(suffix, "")
    raise OmicsError(f"{path}: expression is read from {_READ}.{why}")


def read_zarr(path: str | PathLike, *, allow_external: bool) -> AnnData:
    """An AnnData in a zarr store, in memory."""
    try:
        import anndata
        import zarr
    except ImportError as error:
        raise OmicsError(f"{path}: reading zarr needs zarr: {install_hint('zarr')}.") from error
    require_store(os.fspath(path), allow_external=allow_external)
    with errors_that_name(path, "zarr store of an AnnData", h5ad_errors()):
        require_expression_chunks(os.fspath(path), zarr.open_group(os.fspath(path), mode="r"))
        return anndata.read_zarr(path)


def expression_frame(path: str | PathLike, id_column: str | None = None) -> pd.DataFrame:
    """Table of an Excel, parquet or GCT file, with the names of its rows as index.

    Parameters
    ----------
    path : path
    id_column : str, optional
        Column with the names of the rows; by default the first, in parquet the stored index.

    Raises
    ------
    OmicsError
        If the suffix is unknown, the column is missing, or a cell is no number.
    """
    readers = {"gct": _gct, "parquet": _parquet, "": _excel}
    if not is_expression_table(path):
        raise OmicsError(f"{path}: expression is read from {_READ}.")
    try:
        require_regular(path, allow_external=True)
        frame = readers[_kind(path)](path)
    except BagFileError as error:
        raise OmicsError(str(error)) from error
    first = frame.columns[0] if frame.shape[1] else None
    if id_column is None and isinstance(frame.index, pd.RangeIndex):
        id_column = str(first)
    elif id_column not in (None, first) and is_row_number_name(first):
        frame = frame.iloc[:, 1:]  # row numbers beside the ids
    if id_column is not None:
        if list(frame.columns).count(id_column) != 1:
            raise OmicsError(
                f"{path} has not one column {id_column!r}; it has {frame.columns[:8]}."
            )
        frame = frame.set_index(id_column)
    frame.index = frame.index.astype(str).rename(frame.index.name)
    columns = [_numbers(path, frame.iloc[:, i]) for i in range(frame.shape[1])]
    return pd.concat(columns, axis=1) if columns else frame


def _numbers(path: str | PathLike, column: pd.Series) -> pd.Series:
    if pd.api.types.is_numeric_dtype(column):
        return column
    known = column.mask(column.isin(_MISSING))
    try:
        return pd.to_numeric(known)
    except (ValueError, TypeError) as error:
        raise OmicsError(f"{path}: column {column.name!r} is not numeric: {error}") from error


def _excel(path: str | PathLike) -> pd.DataFrame:
    return read_table(path)


def _parquet(path: str | PathLike) -> pd.DataFrame:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise OmicsError(
            f"{path}: reading parquet needs pyarrow: {install_hint('pyarrow')}."
        ) from error
    with errors_that_name(path, "parquet file", PARSER_ERRORS):
        stored = parquet.ParquetFile(path)
        n_values = stored.metadata.num_rows * stored.metadata.num_columns
        require_plausible_size(os.fspath(path), n_values, os.path.getsize(path))
        return stored.read().to_pandas()


def _gct(path: str | PathLike) -> pd.DataFrame:
    """A GCT file, version 1.2 or 1.3, without descriptions and metadata."""
    with errors_that_name(path, "GCT file", PARSER_ERRORS), open_text(path) as file:
        version, sizes = file.readline().strip(), file.readline().split()
        if version not in ("#1.2", "#1.3") or len(sizes) < 2:
            raise ValueError(f"it begins with {version!r}, expected #1.2 or #1.3 of GCT")
        n_described = 1 if version == "#1.2" else int(sizes[2])
        n_annotated = 0 if version == "#1.2" else int(sizes[3])
        header = file.readline().rstrip("\r\n").split("\t")
        options: dict[str, Any] = {"dtype": str, "keep_default_na": False, "header": None}
        frame = pd.read_csv(file, sep="\t", skiprows=n_annotated, **options)
    if frame.shape != (int(sizes[0]), len(header)):
        raise OmicsError(
            f"{path} has {len(frame)} rows of {frame.shape[1]} cells, its header promises "
            f"{sizes[0]} rows of {len(header)}."
        )
    frame.columns = pd.Index(header)
    kept = [0, *range(1 + n_described, len(header))]
    return frame.iloc[:, kept]
