"""Tables in CSV, TSV and Excel files as text, and STAMP's two tables as one table of slides.

No cell is interpreted while it is read: "NA" and "None" stay words, "007" and "1.0" stay as they
are written, and a header that occurs twice is not renamed. What a cell means is decided where the
column is used.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import lzma
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from io import TextIOWrapper
from lzma import LZMAError
from os import PathLike
from pathlib import Path
from typing import IO, Any, Literal
from zipfile import BadZipFile, ZipFile
from zlib import error as ZlibError

import numpy as np
import pandas as pd

from ..data.ids import normalise_id, normalise_ids
from ..exceptions import CohortError, CohortWarning
from ..messages import first_few, install_hint, repeated, warn
from .local_files import check_zip, describe_content, missing, require_local
from .table_content import (
    check_first_line,
    encoding_of,
    not_excel,
    not_utf8,
    require_text,
    start_of,
)

_SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
_NAMES = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
_EXCEL = (".xlsx", ".xls")
_COMPRESSED = (".gz", ".bz2", ".xz", ".zip")
_EXCEL_DIGITS = 15  # a number in Excel keeps no more


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


def separator_of(path: str | PathLike) -> str:
    """What separates the cells of a text table, by its suffix."""
    return _SEPARATORS[_suffix(path)]


def read_table(path: str | PathLike) -> pd.DataFrame:
    """Read a CSV, TSV (also compressed) or Excel file, by its suffix, as text.

    Parameters
    ----------
    path : path

    Returns
    -------
    DataFrame of str
        Cells as they are written, "" for an empty one; rows without any text are left out. The
        names of the columns are those of the first row, also if one occurs twice.

    Raises
    ------
    CohortError
        If the suffix is unknown, the file is not such a table, is separated by another character,
        begins with comments, or a package that reads it is missing.
    FileNotFoundError

    Warns
    -----
    CohortWarning
        If an Excel file holds numbers of more than 15 digits, whose last digits it has changed, or
        several sheets, of which the first is read.
    """
    require_file(path)
    cells = _excel_cells(path) if _suffix(path) in _EXCEL else _text_cells(path)
    if not len(cells):
        raise CohortError(f"{path} is empty; expected a first row with the names of the columns.")
    frame = cells.iloc[1:].set_axis([str(name).strip() for name in cells.iloc[0]], axis=1)
    return frame[frame.map(_is_visible).any(axis=1)].reset_index(drop=True)


def _is_visible(cell: str) -> bool:
    return bool(cell) and not cell.isspace()


def require_file(path: str | PathLike) -> None:
    """Raise unless `path` is a file whose suffix is that of a table."""
    require_local(path, CohortError)
    if not os.path.exists(path):
        raise FileNotFoundError(str(missing(path)))
    if not is_table(path):
        known = ", ".join((*_SEPARATORS, *_EXCEL))
        raise CohortError(f"{path}: the suffix must be one of {known}.")


@contextmanager
def open_text(path: str | PathLike) -> Iterator[IO[str]]:
    """Open a text table, compressed or not; errors on its content name it."""
    opener, encoding = _OPENERS.get(Path(path).suffix.lower(), open), "utf-8-sig"
    try:
        if opener is open:
            require_text(path)
            encoding = encoding_of(start_of(path))
        with opener(path, "rt", encoding=encoding, newline="") as file:
            yield file
    except UnicodeError as error:
        raise CohortError(not_utf8(path, separator_of(path))) from error
    except (OSError, EOFError, csv.Error, BadZipFile, ZlibError, LZMAError) as error:
        hint = describe_content(path, "gzip")
        raise CohortError(
            f"{path} is not a readable {_suffix(path)} table: {error}.{hint}"
        ) from error


def _open_zip(path: str | PathLike, mode: str, **options: Any) -> IO[str]:
    archive = ZipFile(path)
    names = archive.namelist()
    if len(names) != 1:
        raise BadZipFile(f"it holds {len(names)} files, expected one")
    return TextIOWrapper(archive.open(names[0]), **options)


_OPENERS: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zip": _open_zip,
}


def _text_cells(path: str | PathLike) -> pd.DataFrame:
    header = read_header(path)
    with open_text(path) as file:
        reader = csv.reader(file, delimiter=separator_of(path))
        rows = [row for row in reader if any(row)]
    if rows and any("\n" in cell for cell in rows[-1]):
        _require_closed_quotes(path)
    longer = next((i for i, row in enumerate(rows) if any(row[len(header) :])), None)
    if longer is not None:
        raise CohortError(
            f"{path}: row {longer} has {len(rows[longer])} cells, the header {len(header)}: "
            f"{first_few(rows[longer], 8)}. Put cells that hold a separator into quotes, and give "
            "each column a name."
        )
    width = len(header)
    return pd.DataFrame([(row + [""] * width)[:width] for row in rows], dtype=object)


def _require_closed_quotes(path: str | PathLike) -> None:
    """Raise if a quote is never closed, so that the rest of the file is one cell."""
    with open_text(path) as file:
        reader, n = csv.reader(file, delimiter=separator_of(path), strict=True), 0
        try:
            for row in reader:
                n = n + 1 if any(row) else n
        except csv.Error as error:
            if "unexpected end" not in str(error):
                return
            raise CohortError(
                f"{path}: row {n} has a cell with a quote that is never closed, so that the rest "
                "of the file is one cell. Remove the quote, or double it within a cell."
            ) from error


def read_header(path: str | PathLike) -> list[str]:
    """The cells of the first row of a text table.

    Raises
    ------
    CohortError
        If the file is empty, begins with comments, or is separated by another character than its
        suffix says.
    """
    separator = separator_of(path)
    with open_text(path) as file:
        lines = [line for _, line in zip(range(2), filter(str.strip, file), strict=False)]
    if not lines:
        raise CohortError(f"{path} is empty; expected a first row with the names of the columns.")
    _check_first_lines(path, lines, separator)
    with open_text(path) as file:
        return next(row for row in csv.reader(file, delimiter=separator) if any(row))


def _check_first_lines(path: str | PathLike, lines: list[str], separator: str) -> None:
    check_first_line(path, lines[0].strip())
    head, remedy = lines[0].strip(), "or pass a DataFrame: pd.read_csv(path, dtype=str, "
    if head.startswith("#") and not _is_header(head, lines[1:], separator):
        kind, rows = ("the header of a GCT file", 2) if head[:3] == "#1." else ("a comment", 1)
        raise CohortError(
            f"{path} begins with {kind}, {head[:40]!r}; expected the names of the columns. Remove "
            f"the lines above them, {remedy}keep_default_na=False, sep={separator!r}, "
            f"skiprows={rows})."
        )
    for other in [s for s in _NAMES if s != separator and separator not in head and s in head]:
        if len(lines) > 1 and lines[1].count(other) == head.count(other):
            raise CohortError(
                f"{path} is separated by {_NAMES[other]} ({other!r}), but {_suffix(path)} is read "
                f"with {_NAMES[separator]}: {head[:60]!r}. Save it with {_NAMES[separator]}, "
                f"{remedy}keep_default_na=False, sep={other!r})."
            )


def _is_header(head: str, rows: list[str], separator: str) -> bool:
    """Whether a line that begins with # has as many cells as the row below it, which does not."""
    if not rows or rows[0].startswith("#"):
        return False
    return head.count(separator) == rows[0].count(separator) > 0


def _excel_cells(path: str | PathLike) -> pd.DataFrame:
    suffix = _suffix(path)
    package: Literal["xlrd", "openpyxl"] = "xlrd" if suffix == ".xls" else "openpyxl"
    try:
        check_zip(path)
        cells, unread = _first_sheet(path, package)
    except ImportError as error:
        other = " Or save the file as .xlsx or .csv." if package == "xlrd" else ""
        raise CohortError(
            f"{path}: reading {suffix} needs {package}: {install_hint(package)}.{other}"
        ) from error
    except (OSError, ValueError, KeyError, BadZipFile, TypeError, SyntaxError, EOFError) as error:
        raise CohortError(not_excel(path, suffix, error)) from error
    if unread:
        warn(
            f"{path} has {len(unread)} more sheets ({first_few(unread)}); only the first one is "
            "read. Put all rows into one sheet, or the sheet that is meant in front.",
            CohortWarning,
        )
    for header, *values in cells.T.to_numpy():
        numbers = [v for v in values if isinstance(v, int | float)]
        warn_of_long_numbers(numbers, f"{path}, column {header!r}")
    return cells.map(_cell_text)


def _first_sheet(
    path: str | PathLike, package: Literal["xlrd", "openpyxl"]
) -> tuple[pd.DataFrame, list[str]]:
    """The cells of the first sheet, and the names of others that are not empty."""
    options: dict[str, Any] = {"header": None, "dtype": object, "na_filter": False}
    with pd.ExcelFile(Path(path), engine=package) as book:
        cells = book.parse(0, **options)
        others = [str(name) for name in book.sheet_names[1:]]
        return cells, [name for name in others if len(book.parse(name, nrows=1, **options))]


def _cell_text(value: Any) -> str:
    """A cell of Excel as text; whole numbers have no decimal point."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, date):
        return value.isoformat()
    return "" if value is None else str(value)


def warn_of_long_numbers(numbers: Iterable[float], where: str) -> None:
    """Warn of numbers of more than 15 digits, which Excel and floats hold inexactly."""
    long = [_cell_text(value) for value in numbers if abs(value) >= 10**_EXCEL_DIGITS]
    if long:
        warn(
            f"{where} holds {len(long)} numbers of more than {_EXCEL_DIGITS} digits, the first is "
            f"{long[0]}. Excel and floats keep no more digits, so different ids may have become "
            "one. Write such ids as text where the table was made.",
            CohortWarning,
        )


def named_columns(
    table: str | PathLike | pd.DataFrame, columns: Iterable[str], what: str, hint: str = ""
) -> pd.DataFrame:
    """The table, read if it is a file; raises if one of `columns` is missing or there twice."""
    frame = table if isinstance(table, pd.DataFrame) else read_table(table)
    columns = list(columns)
    lacking = [column for column in columns if not is_column(column, frame)]
    if lacking:
        wanted = {str(column).casefold() for column in lacking}
        alike = [own for own in frame.columns if str(own).casefold() in wanted]
        other = f" {first_few(alike)} differs in letter case." if alike else ""
        raise CohortError(
            f"The {what} has no column {first_few(lacking)}; it has "
            f"{first_few(frame.columns, 12)}.{other}{hint}"
        )
    doubled = [column for column in columns if frame[column].ndim > 1]
    if doubled:
        raise CohortError(f"The {what} has several columns of the name {first_few(doubled)}.")
    # Series.map gives categories instead of booleans for a categorical one.
    categories = [c for c in columns if isinstance(frame[c].dtype, pd.CategoricalDtype)]
    return frame.astype(dict.fromkeys(categories, object)) if categories else frame


def is_column(name: Any, frame: pd.DataFrame) -> bool:
    """Whether a column of `frame` has this name; a list of names is none."""
    return pd.api.types.is_hashable(name) and name in frame


def is_missing(values: pd.Series) -> pd.Series:
    """Which cells are empty: None, NaN, or text without a visible character."""
    return values.isna() | values.map(lambda value: isinstance(value, str) and not value.strip())


def integers_where_possible(values: pd.Series) -> pd.Series:
    """`values` as integers if they are floats only because some are missing."""
    known = values.dropna()
    if not pd.api.types.is_float_dtype(known):
        return values
    exact = ((known % 1 == 0) & (known.abs() < 2**53)).all()
    return known.astype(int).astype(object).reindex(values.index) if exact else values


def as_text(values: pd.Series) -> pd.Series:
    """Cells as text, whole floats without a point; missing ones stay so."""
    values = integers_where_possible(values)
    return values.astype(object).where(values.isna(), values.astype(str))


def _complete_rows(
    table: str | PathLike | pd.DataFrame, name: str, columns: list[str]
) -> pd.DataFrame:
    """The rows in which no cell of `columns` is empty, these columns as text."""
    frame = named_columns(table, columns, f"{name} table")
    empty = np.logical_or.reduce([is_missing(frame[column]) for column in columns])
    if empty.any():
        known = [v for c in columns for v in frame.loc[empty & ~is_missing(frame[c]), c]]
        message = f"{empty.sum()} rows of the {name} table have no {' or '.join(columns)}"
        named = f" ({first_few(known)})" if len(known) else ""
        warn(f"{message}{named}, they are left out.", CohortWarning)
    frame = frame[~empty]
    return frame.assign(**{column: as_text(frame[column]) for column in columns})


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
        ``slide_id``, ``case_id``, and the other columns of `patients`, as text if they come from a
        file; a column of that table with one of these names, or ``FILENAME``, is dropped.

    Raises
    ------
    CohortError
        If a column is missing or there twice, a patient has two rows, an id is written in two
        ways, or no patient has a slide.

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
    if twice := repeated(labels.columns):
        raise CohortError(f"The patients table has several columns of the name {first_few(twice)}.")
    files = _complete_rows(slides, "slides", ["PATIENT", "FILENAME"])
    for frame in (labels, files):
        frame["PATIENT"] = normalise_ids(frame["PATIENT"], "ids of PATIENT")
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
            warn(message, CohortWarning)
    both = merged[merged["_merge"] == "both"].drop(columns="_merge")
    if not len(both):
        raise CohortError(
            f"The two tables have no PATIENT in common: the patients table has "
            f"{first_few(labels['PATIENT'])}, the slides table {first_few(files['PATIENT'])}."
        )
    slide_ids = both["FILENAME"].map(normalise_id)
    table = both.drop(columns="FILENAME").rename(columns={"PATIENT": "case_id"})
    table.insert(0, "slide_id", slide_ids)
    return table.reset_index(drop=True)


def value_counts(values: Iterable[Any], n: int = 12) -> str:
    """List the values of a column with their types and counts, as in ``'HER2+' (12), 1 (3)``."""
    counts = Counter((type(v).__name__, _plain(v)) for v in values)
    listed = [f"{value!r} ({count})" for (_, value), count in counts.most_common(n)]
    return ", ".join(listed) + (f" and {len(counts) - n} more" if len(counts) > n else "")


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
