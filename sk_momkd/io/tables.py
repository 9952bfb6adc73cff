"""Tables in CSV, TSV and Excel files, and STAMP's two tables as one table of slides."""

from __future__ import annotations

import warnings
from os import PathLike
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import pandas as pd

from ..exceptions import CohortError, CohortWarning
from ..messages import first_few, repeated
from .local_files import check_zip, require_local
from .slide_files import slide_stem

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
    require_local(path, CohortError)
    try:
        if suffix in _EXCEL:
            check_zip(path)
            return pd.read_excel(path, **options)
        if suffix in _SEPARATORS:
            return pd.read_csv(path, sep=_SEPARATORS[suffix], low_memory=False, **options)
    except FileNotFoundError:
        raise
    except ImportError as error:
        raise CohortError(f"{path}: reading Excel needs openpyxl, pip install openpyxl.") from error
    except (OSError, ValueError, KeyError, BadZipFile, SyntaxError, EOFError) as error:
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


def _complete_rows(
    table: str | PathLike | pd.DataFrame, name: str, columns: list[str]
) -> pd.DataFrame:
    """The rows in which no cell of `columns` is empty, these columns as text."""
    frame = table
    if not isinstance(frame, pd.DataFrame):
        frame = read_table(frame, dtype=dict.fromkeys(columns, str))
    missing = [column for column in columns if column not in frame]
    if missing:
        raise CohortError(
            f"The {name} table has no column {first_few(missing)}; it has "
            f"{first_few(frame.columns, 12)}."
        )
    empty = frame[columns].isna().any(axis=1)
    if empty.any():
        known = frame.loc[empty, columns].stack().astype(str)
        message = f"{empty.sum()} rows of the {name} table have no {' or '.join(columns)}"
        named = f" ({first_few(known)})" if len(known) else ""
        warnings.warn(f"{message}{named}, they are left out.", CohortWarning, stacklevel=3)
    frame = frame[~empty]
    texts = {column: integers_where_possible(frame[column]).astype(str) for column in columns}
    return frame.assign(**texts)


def stamp_table(
    patients: str | PathLike | pd.DataFrame, slides: str | PathLike | pd.DataFrame
) -> pd.DataFrame:
    """Join STAMP's two tables to one row per slide, for `load_cohort`.

    Parameters
    ----------
    patients : path or DataFrame
        Columns ``PATIENT`` and the labels.
    slides : path or DataFrame
        Columns ``PATIENT`` and ``FILENAME``, with or without ``.h5``.

    Returns
    -------
    DataFrame
        ``slide_id``, ``case_id``, and the other columns of `patients`; a column of that table with
        one of these names, or ``FILENAME``, is dropped.

    Raises
    ------
    CohortError
        If a column is missing, a patient has two rows, or no patient has a slide.

    Warns
    -----
    CohortWarning
        Names patients without slides, slides without patients and rows with an empty cell, which
        are left out.

    Examples
    --------
    >>> import pandas as pd
    >>> from sk_momkd import stamp_table
    >>> patients = pd.DataFrame({"PATIENT": ["P1"], "isMSIH": ["MSIH"]})
    >>> stamp_table(patients, pd.DataFrame({"PATIENT": ["P1"], "FILENAME": ["S1.h5"]}))
      slide_id case_id isMSIH
    0       S1      P1   MSIH
    """
    labels = _complete_rows(patients, "patients", ["PATIENT"])
    labels = labels.drop(columns=["slide_id", "case_id", "FILENAME", "_merge"], errors="ignore")
    files = _complete_rows(slides, "slides", ["PATIENT", "FILENAME"])
    if twice := repeated(labels["PATIENT"]):
        raise CohortError(f"Patients occur more than once: {first_few(twice)}.")
    merged = files[["PATIENT", "FILENAME"]].merge(labels, on="PATIENT", how="outer", indicator=True)
    for side, what, column in (
        ("left_only", "slides without patient", "FILENAME"),
        ("right_only", "patients without slide", "PATIENT"),
    ):
        lost = merged.loc[merged["_merge"] == side, column]
        if len(lost):
            message = f"{len(lost)} {what} are left out: {first_few(lost)}."
            warnings.warn(message, CohortWarning, stacklevel=2)
    both = merged[merged["_merge"] == "both"].drop(columns="_merge")
    if not len(both):
        raise CohortError("The two tables have no PATIENT in common.")
    slide_ids = both["FILENAME"].map(slide_stem)
    table = both.drop(columns="FILENAME").rename(columns={"PATIENT": "case_id"})
    table.insert(0, "slide_id", slide_ids)
    return table.reset_index(drop=True)
