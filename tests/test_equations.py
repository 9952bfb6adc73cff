"""Each equation of MoMKD's paper is cited where `docs/equations.md` says that it is computed."""

import inspect
import re
from pathlib import Path
from pkgutil import resolve_name

import pytest

from sk_momkd.losses import momkd

PAGE = (Path(__file__).parents[1] / "docs" / "equations.md").read_text(encoding="utf-8")
TABLE, _ = PAGE.split("\n## ", maxsplit=1)
LOSSES = [
    function
    for name, function in inspect.getmembers(momkd, inspect.isfunction)
    if function.__module__ == momkd.__name__ and not name.startswith("_")
]


def cited(text):
    """Numbers of the equations in a text: "Eq. 6", and both ends and all between of "Eq. 3-5"."""
    ranges = re.findall(r"Eq\. (\d+)(?:-(\d+))?", text)
    return {n for first, last in ranges for n in range(int(first), int(last or first) + 1)}


def functions_of(equation):
    """Names of the functions in the rows of the table that cite an equation."""
    rows = [line.split("|") for line in TABLE.splitlines() if line.startswith("| ")]
    cells = [row[3] for row in rows if equation in cited(row[1])]
    return [name for cell in cells for name in re.findall(r"`([\w.]+)`", cell)]


@pytest.mark.parametrize(
    ("text", "numbers"), [("(Eq. 6)", {6}), ("Eq. 3-5.", {3, 4, 5}), ("Eq. 10", {10}), ("", set())]
)
def test_cited_ranges_include_both_ends(text, numbers):
    assert cited(text) == numbers


@pytest.mark.parametrize("equation", range(1, 11))
def test_equation_is_cited_where_it_is_computed(equation):
    names = functions_of(equation)
    sources = {name: inspect.getsource(resolve_name(f"sk_momkd.{name}")) for name in names}
    assert names, f"no row of docs/equations.md has Eq. {equation}"
    assert [name for name in names if equation not in cited(sources[name])] == []


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
def test_first_line_of_a_loss_ends_with_its_equation(loss):
    first = inspect.getdoc(loss).splitlines()[0]
    assert re.search(r"\((Eq\. \d+(-\d+)?|L_mse|ours)\)\.$", first), first
