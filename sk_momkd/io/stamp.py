"""STAMP's clinical table and slide table, joined to one table of slides."""

from __future__ import annotations

import warnings
from os import PathLike

import pandas as pd

from ..exceptions import CohortError, CohortWarning
from ..messages import first_few, repeated
from .slide_files import slide_stem
from .tables import integers_where_possible, read_table


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
        ``slide_id``, ``case_id``, and the columns of `patients` except those of these two names
        or of ``FILENAME``.

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
