"""Building blocks of the page: paragraphs, tables, figures, and sections of these."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd

from ..displays.style import off_screen, styled

_ROWS_AT_ONCE = 100  # rows of a long table in each collapsed part
_MOST_ROWS = 2_000  # rows of a table in the page
_PER_INCH = 96  # CSS pixels
_HEAVY = 600_000  # bytes of a picture above which it is reduced to 256 colours
_SHARPER = 1.5  # pixels of a picture per CSS pixel


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of kind ``plain``, ``note`` (small print) or ``warning`` (highlighted)."""

    text: str
    kind: str = "plain"
    block: str = "paragraph"


@dataclass(frozen=True)
class Table:
    """A table with cells as text; the parts of a long one are collapsed."""

    caption: str
    columns: list[str]
    parts: list[tuple[str, list[list[str]]]]
    closed: bool = False
    block: str = "table"


@dataclass(frozen=True)
class Picture:
    """An embedded picture with its size in CSS pixels."""

    source: str
    width: int
    height: int
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Pictures:
    """Pictures side by side, as far as the width of the page allows."""

    pictures: list[Picture]
    block: str = "pictures"


@dataclass(frozen=True)
class Flow:
    """Flow diagram: boxes from top to bottom, each with the exclusions at this step."""

    steps: list[tuple[str, list[str]]]
    block: str = "flow"


@dataclass(frozen=True)
class Answers:
    """Questions, each with its answer."""

    answers: list[tuple[str, str]]
    block: str = "answers"


Block = Paragraph | Table | Pictures | Flow | Answers


@dataclass(frozen=True)
class Section:
    """A section of the page; `missing` gives the reason if it cannot be filled."""

    name: str
    title: str
    blocks: list[Block] = field(default_factory=list)
    missing: str = ""


def table(frame: pd.DataFrame, caption: str, *, index: bool = True, closed: bool = False) -> Table:
    """Convert a DataFrame to a table of text, with three decimals for floats."""
    if index:
        frame = frame.reset_index()
    shown = frame.iloc[:_MOST_ROWS]
    columns = [[_cell(v) for v in shown.iloc[:, j]] for j in range(shown.shape[1])]
    rows = [list(row) for row in zip(*columns, strict=True)]
    parts = []
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = rows[start : start + _ROWS_AT_ONCE]
        parts.append((f"{start + 1} to {start + len(part)}", part))
    if len(frame) > len(shown):
        caption = f"{caption} (the first {len(shown)} of {len(frame)} rows)"
    return Table(caption, [str(c) for c in frame.columns], parts, closed or len(parts) > 1)


def _cell(value: Any) -> str:
    if isinstance(value, float | np.floating):
        value = float(value)
        if not np.isfinite(value):
            return "" if np.isnan(value) else str(value)
        return f"{value:.0f}" if value % 1 == 0 and abs(value) >= 10 else f"{value:.3f}"
    return "" if value is None or value is pd.NA else str(value)


def chart(draw: Callable[[], Any], alt: str, caption: str = "") -> Picture:
    """Render the figure of the display that `draw` returns, as SVG."""
    return _picture(draw, alt, caption, raster=False)


def photograph(draw: Callable[[], Any], alt: str, caption: str = "") -> Picture:
    """Render the figure as PNG, for maps and tissue."""
    return _picture(draw, alt, caption, raster=True)


def _picture(draw: Callable[[], Any], alt: str, caption: str, *, raster: bool) -> Picture:
    with off_screen(), styled():
        figure = draw().figure_
        width, height = (round(side * _PER_INCH) for side in figure.get_size_inches())
        content = BytesIO()
        if raster:
            figure.savefig(content, format="png", dpi=_PER_INCH * _SHARPER)
            content = _lighter(content)
        else:
            figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    kind = "image/png" if raster else "image/svg+xml"
    encoded = base64.b64encode(content.getvalue()).decode()
    return Picture(f"data:{kind};base64,{encoded}", width, height, alt, caption)


def _lighter(png: BytesIO) -> BytesIO:
    if len(png.getvalue()) < _HEAVY:
        return png
    from PIL import Image  # comes with matplotlib

    lighter = BytesIO()
    picture = Image.open(png).convert("RGB")
    picture.quantize(256, method=Image.Quantize.FASTOCTREE).save(lighter, format="png")
    return lighter


def listed(names: Sequence[Any], most: int = 5) -> str:
    """List the first names and the number of the others."""
    shown = ", ".join(str(n) for n in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
