"""How results show themselves: as text, as HTML in a notebook, as CSV files."""

from __future__ import annotations

import html
from dataclasses import fields
from os import PathLike
from pathlib import Path

import pandas as pd


class Tables:
    """Base of the frozen results: a headline and tables.

    A field that is a DataFrame is written by :meth:`to_csv` under the field's name.
    """

    _shown: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        """What was done, and on how many patients."""
        return type(self).__name__

    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables by name."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return {k: v for k, v in own.items() if isinstance(v, pd.DataFrame)}

    def to_csv(self, folder: str | PathLike) -> list[Path]:
        """Write each table, and the text of the result, into `folder`.

        Parameters
        ----------
        folder : path
            Made where it does not exist.

        Returns
        -------
        list of Path
            One ``<table>.csv`` for each table, and ``result.txt``.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for name, table in self.tables().items():
            written.append(folder / f"{name}.csv")
            table.to_csv(written[-1], index=table.index.name is not None)
        written.append(folder / "result.txt")
        written[-1].write_text(f"{self}\n", encoding="utf-8")
        return written

    def __str__(self) -> str:
        tables = self.tables()
        parts = [_as_text(tables[name]) for name in self._shown if name in tables]
        return "\n\n".join([self.headline, *parts])

    def __repr__(self) -> str:
        return f"<{self.headline}>"

    def _repr_html_(self) -> str:
        tables = self.tables()
        parts = [_as_html(tables[name]) for name in self._shown if name in tables]
        return "".join([f"<p>{html.escape(self.headline)}</p>", *parts])


def _as_html(table: pd.DataFrame) -> str:
    return _known(table).to_html(float_format="{:.3f}".format, na_rep="")


def _as_text(table: pd.DataFrame) -> str:
    named = table.index.name is not None
    return _known(table).to_string(float_format="{:.3f}".format, na_rep="", index=named)


def _known(table: pd.DataFrame) -> pd.DataFrame:
    """Without the metrics that have no value, such as those at thresholds nobody tuned."""
    if "value" in table:
        table = table.dropna(subset="value")
    return table.dropna(how="all").dropna(how="all", axis="columns")
