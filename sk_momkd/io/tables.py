"""Tables as people keep them: CSV, TSV, Excel; expression with patients in rows or in columns."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from os import PathLike
from pathlib import Path
from zipfile import BadZipFile

import pandas as pd

from ..data.sequence import BagSequence
from ..exceptions import CohortError, CohortWarning, OmicsError
from ..messages import first_few
from .readers import slide_stem

_SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
_EXCEL = (".xlsx", ".xls")
_NO_NAME = "Unnamed: 0"  # pandas' own
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


def whole_numbers(values: pd.Series) -> pd.Series:
    """`values` as integers where they are whole and floats only because some are missing."""
    known = values.dropna()
    if not pd.api.types.is_float_dtype(known):
        return values
    whole = ((known % 1 == 0) & (known.abs() < 2**53)).all()
    return known.astype(int).astype(object).reindex(values.index) if whole else values


def patients_by_genes(
    path: str | PathLike, bags: BagSequence, *, name_of: Callable[[str], str] = str
) -> pd.DataFrame:
    """Expression of a CSV or TSV, patients in rows; turned if the file has them in columns.

    The side on which more ids of `bags` stand is that of the patients; `name_of` tells the id in
    a name of the file, such as the patient in a barcode.

    Raises
    ------
    OmicsError
        If the file is no text table, its first column counts the rows or has no place in the
        header, or no id stands on either side, or as many on both.
    """
    if _suffix(path) not in _SEPARATORS:
        raise OmicsError(f"{path}: expression is read from .h5ad, .csv or .tsv.")
    frame = _with_row_names(path)
    ids = {i for bag in bags for i in (bag.patient_id, bag.bag_id) if i is not None}
    in_rows = len(ids.intersection(map(name_of, frame.index)))
    in_columns = len(ids.intersection(map(name_of, frame.columns)))
    if in_rows == in_columns:
        raise OmicsError(
            f"{path}: {in_rows} ids of the cohort stand in its rows and {in_columns} in its "
            f"columns, so it is unclear which are patients. Rows: {first_few(frame.index)}; "
            f"columns: {first_few(frame.columns)}; cohort: {first_few(sorted(ids))}."
        )
    return frame if in_rows > in_columns else frame.T


def stamp_table(
    patients: str | PathLike | pd.DataFrame, slides: str | PathLike | pd.DataFrame
) -> pd.DataFrame:
    """STAMP's two tables as one row per slide, for `load_cohort`.

    Parameters
    ----------
    patients : path or DataFrame
        Columns ``PATIENT`` and the labels.
    slides : path or DataFrame
        Columns ``PATIENT`` and ``FILENAME``, with or without ``.h5``.

    Returns
    -------
    DataFrame
        ``slide_id``, ``case_id`` and the columns of `patients`, but those of these two names or
        of ``FILENAME``.

    Raises
    ------
    CohortError
        If a column is missing, a patient has two rows, or no patient has a slide.

    Warns
    -----
    CohortWarning
        Naming patients without slides and slides without patients, which are left out; and rows
        with an empty cell.

    Examples
    --------
    >>> import pandas as pd
    >>> from sk_momkd import stamp_table
    >>> patients = pd.DataFrame({"PATIENT": ["P1"], "isMSIH": ["MSIH"]})
    >>> stamp_table(patients, pd.DataFrame({"PATIENT": ["P1"], "FILENAME": ["S1.h5"]}))
      slide_id case_id isMSIH
    0       S1      P1   MSIH
    """
    labels = _stamp_part(patients, "patients", ["PATIENT"])
    labels = labels.drop(columns=["slide_id", "case_id", "FILENAME", "_merge"], errors="ignore")
    files = _stamp_part(slides, "slides", ["PATIENT", "FILENAME"])
    twice = labels["PATIENT"][labels["PATIENT"].duplicated()]
    if len(twice):
        raise CohortError(f"Patients occur more than once: {first_few(twice.unique())}.")
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
        raise CohortError("No PATIENT stands in both tables.")
    slide_ids = both["FILENAME"].map(slide_stem)
    table = both.drop(columns="FILENAME").rename(columns={"PATIENT": "case_id"})
    table.insert(0, "slide_id", slide_ids)
    return table.reset_index(drop=True)


def _stamp_part(
    table: str | PathLike | pd.DataFrame, name: str, columns: list[str]
) -> pd.DataFrame:
    frame = table if isinstance(table, pd.DataFrame) else read_table(table, text=columns)
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
    frame = frame.assign(**{column: whole_numbers(frame[column]) for column in columns})
    return frame.assign(**{column: frame[column].astype(str) for column in columns})


def _with_row_names(path: str | PathLike) -> pd.DataFrame:
    """The table with its first column, the ids of its rows, as index."""
    header = _raw_header(path)
    frame = read_table(path, text=header[:1])
    if not isinstance(frame.index, pd.RangeIndex):
        raise OmicsError(
            f"{path}: its rows have a cell more than its header, as R's write.table writes them. "
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
    corner = _NO_NAME if pd.isna(first.iloc[0]) else str(first.iloc[0])
    return [corner, *first.iloc[1:].astype(str)]


def _suffix(path: str | PathLike) -> str:
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""
