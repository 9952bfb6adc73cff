"""Results as tables: printed, in a notebook, and as CSV files."""

from __future__ import annotations

import html
from dataclasses import fields
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from ..io.atomic import atomic_set

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how spreadsheets recognise one


class TableResult:
    """Base of the frozen result classes: a headline and tables.

    Every field that is a DataFrame is a table; :meth:`to_csv` names its file after the field.
    """

    _displayed: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        """What was done, and on how many patients."""
        return type(self).__name__

    @property
    def note(self) -> str:
        """How to read intervals of few patients; empty where no class has few."""
        return ""

    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables by name."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return {k: v for k, v in own.items() if isinstance(v, pd.DataFrame)}

    def to_csv(self, folder: str | PathLike, *, escape_formulas: bool = False) -> list[Path]:
        """Write each table, and the text of the result, into `folder`.

        No file is replaced before all are written.

        Parameters
        ----------
        folder : path
            Created if it does not exist.
        escape_formulas : bool, default=False
            Whether text that a spreadsheet would run as a formula, because it begins with ``=``,
            ``+``, ``-`` or ``@``, gets an apostrophe in front. Ids and class names such as "+" then
            differ from those of the cohort; use it for tables of ids that others wrote.

        Returns
        -------
        list of Path
            One ``<table>.csv`` for each table, and ``result.txt``.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tables = self.tables()
        written = [*(folder / f"{name}.csv" for name in tables), folder / "result.txt"]
        with atomic_set(written) as parts:
            for table, part in zip(tables.values(), parts, strict=False):
                table = escaped(table) if escape_formulas else table
                table.to_csv(part, index=table.index.name is not None)
            Path(parts[-1]).write_text(f"{self}\n", encoding="utf-8")
        return written

    def __str__(self) -> str:
        texts = [text for text in (self.headline, self.note) if text]
        return "\n\n".join([*texts, *map(_as_text, self._displayed_tables())])

    def __repr__(self) -> str:
        return f"<{self.headline}>"

    def _repr_html_(self) -> str:
        texts = [f"<p>{html.escape(text)}</p>" for text in (self.headline, self.note) if text]
        return "".join([*texts, *map(_as_html, self._displayed_tables())])

    def _displayed_tables(self) -> list[pd.DataFrame]:
        tables = self.tables()
        return [_drop_empty(tables[name]) for name in self._displayed if name in tables]


def escaped(table: pd.DataFrame) -> pd.DataFrame:
    """The table with an apostrophe before text that a spreadsheet would run as a formula."""

    def escape(value: Any) -> Any:
        return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value

    return table.map(escape).rename(index=escape, columns=escape)


def _as_html(table: pd.DataFrame) -> str:
    return table.to_html(float_format="{:.3f}".format, na_rep="")


def _as_text(table: pd.DataFrame) -> str:
    named = table.index.name is not None
    return table.to_string(float_format="{:.3f}".format, na_rep="", index=named)


def _drop_empty(table: pd.DataFrame) -> pd.DataFrame:
    """Table without metrics that have no value, such as ``_tuned`` ones without thresholds."""
    if "value" in table:
        table = table.dropna(subset="value")
    return table.dropna(how="all").dropna(how="all", axis="columns")
