"""Tables as people keep them: CSV, TSV, Excel; expression with patients in rows or in columns."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from zipfile import BadZipFile

import pandas as pd

from ..exceptions import CohortError, OmicsError
from .sequence import BagSequence, first_few

_SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
_EXCEL = (".xlsx", ".xls")
_PACKED = (".gz", ".bz2", ".xz", ".zip")


def is_table(path: str | PathLike) -> bool:
    """Whether the suffix is that of a table in text or Excel form."""
    return _suffix(path) in (*_SEPARATORS, *_EXCEL)


def read_table(path: str | PathLike, *, text: Iterable[str] = ()) -> pd.DataFrame:
    """Table of a CSV, TSV (also packed) or Excel file, by its suffix.

    Parameters
    ----------
    path : path
    text : iterable of str
        Columns to read as text: ids keep their leading zeros.

    Raises
    ------
    CohortError
        If the suffix is unknown, the file is no such table, or Excel support is missing.
    """
    suffix, dtype = _suffix(path), dict.fromkeys(text, str)
    try:
        if suffix in _EXCEL:
            return pd.read_excel(path, dtype=dtype)
        if suffix in _SEPARATORS:
            return pd.read_csv(path, sep=_SEPARATORS[suffix], dtype=dtype, low_memory=False)
    except FileNotFoundError:
        raise
    except ImportError as error:
        raise CohortError(f"{path}: reading Excel needs openpyxl, pip install openpyxl.") from error
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise CohortError(f"{path} is not a readable {suffix} table: {error}") from error
    known = ", ".join((*_SEPARATORS, *_EXCEL))
    raise CohortError(f"{path}: the suffix must be one of {known}.")


def patients_by_genes(path: str | PathLike, bags: BagSequence) -> pd.DataFrame:
    """Expression of a CSV or TSV, patients in rows; turned if the file has them in columns.

    The side on which more ids of `bags` stand is that of the patients.

    Raises
    ------
    OmicsError
        If the file is no text table, or no id stands on either side, or as many on both.
    """
    if _suffix(path) not in _SEPARATORS:
        raise OmicsError(f"{path}: expression is read from .h5ad, .csv or .tsv.")
    header = _raw_header(path)
    frame = read_table(path, text=header[:1]).set_index(header[0])
    frame.index = frame.index.astype(str)
    frame.columns = header[1:]  # pandas would rename the second of two equal genes
    ids = {i for bag in bags for i in (bag.patient_id, bag.bag_id) if i is not None}
    in_rows, in_columns = len(ids.intersection(frame.index)), len(ids.intersection(frame.columns))
    if in_rows == in_columns:
        raise OmicsError(
            f"{path}: {in_rows} ids of the cohort stand in its rows and {in_columns} in its "
            f"columns, so it is unclear which are patients. Rows: {first_few(frame.index)}; "
            f"columns: {first_few(frame.columns)}; cohort: {first_few(sorted(ids))}."
        )
    return frame if in_rows > in_columns else frame.T


def _raw_header(path: str | PathLike) -> list[str]:
    """The first line as it stands; an empty corner, as of a row index, becomes "Unnamed: 0"."""
    try:
        first = pd.read_csv(
            path, sep=_SEPARATORS[_suffix(path)], header=None, nrows=1, dtype=str
        ).iloc[0]
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise OmicsError(f"{path} is not a readable table: {error}") from error
    corner = "Unnamed: 0" if pd.isna(first.iloc[0]) else str(first.iloc[0])
    return [corner, *first.iloc[1:].astype(str)]


def _suffix(path: str | PathLike) -> str:
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""
