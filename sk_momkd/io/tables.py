"""Tables in CSV, TSV and Excel files."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import pandas as pd

from ..exceptions import CohortError

_SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
_EXCEL = (".xlsx", ".xls")
_COMPRESSED = (".gz", ".bz2", ".xz", ".zip")


def _suffix(path: str | PathLike) -> str:
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def is_text_table(path: str | PathLike) -> bool:
    """Whether the suffix is that of a CSV or TSV file, compressed or not."""
    return _suffix(path) in _SEPARATORS


def is_table(path: str | PathLike) -> bool:
    """Whether the suffix is that of a CSV, TSV or Excel file."""
    return is_text_table(path) or _suffix(path) in _EXCEL


def read_table(path: str | PathLike, **options: Any) -> pd.DataFrame:
    """Read a CSV, TSV (also compressed) or Excel file, by its suffix.

    Parameters
    ----------
    path : path
    **options
        For ``pandas.read_csv`` or ``pandas.read_excel``, such as ``dtype={"slide_id": str}``, with
        which ids keep their leading zeros.

    Raises
    ------
    CohortError
        If the suffix is unknown, the file is not such a table, or openpyxl is missing for Excel.
    FileNotFoundError
    """
    suffix = _suffix(path)
    try:
        if suffix in _EXCEL:
            return pd.read_excel(path, **options)
        if suffix in _SEPARATORS:
            return pd.read_csv(path, sep=_SEPARATORS[suffix], low_memory=False, **options)
    except FileNotFoundError:
        raise
    except ImportError as error:
        raise CohortError(f"{path}: reading Excel needs openpyxl, pip install openpyxl.") from error
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise CohortError(f"{path} is not a readable {suffix} table: {error}") from error
    if not Path(path).exists():
        raise FileNotFoundError(f"{path} does not exist.")
    known = ", ".join((*_SEPARATORS, *_EXCEL))
    raise CohortError(f"{path}: the suffix must be one of {known}.")


def integers_where_possible(values: pd.Series) -> pd.Series:
    """`values` as integers if they are floats only because some are missing."""
    known = values.dropna()
    if not pd.api.types.is_float_dtype(known):
        return values
    exact = ((known % 1 == 0) & (known.abs() < 2**53)).all()
    return known.astype(int).astype(object).reindex(values.index) if exact else values
