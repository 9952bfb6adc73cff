"""A results page: what a person wrote about it on top, what a script measured below."""

from __future__ import annotations

from pathlib import Path

MARK = "<!-- written by the script from here on -->"


def write_page(path: Path, title: str, measured: str) -> None:
    """Put `measured` below the mark; what stands above it, a title at first, is kept."""
    above = f"# {title}\n\n"
    if path.exists():
        above, mark, _ = path.read_text(encoding="utf-8").partition(MARK)
        if not mark:
            raise ValueError(f"{path} has no line {MARK!r}: add it below what shall be kept.")
    path.write_text(f"{above}{MARK}\n\n{measured}\n", encoding="utf-8")


def line(cells: list[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def short(value: float, sign: str = "") -> str:
    """``.612``, with ``sign="+"`` ``+.012``."""
    text = f"{value:{sign}.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text
