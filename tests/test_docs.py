"""Functions, tests, parameters and files that the documents name exist."""

import inspect
import re
from fnmatch import filter as matching
from pathlib import Path
from pkgutil import resolve_name

import pytest

import sk_momkd

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("docs/decisions/*.md")),
]
EQUATIONS = (ROOT / "docs" / "equations.md").read_text(encoding="utf-8")
TESTS = [
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in [path.stem, *re.findall(r"^def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)]
]
EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def exists(name):
    """Whether sk_momkd has the object `package.module.attribute`."""
    try:
        resolve_name(f"sk_momkd.{name}")
    except (ImportError, AttributeError):
        return False
    return True


def test_functions_of_the_equations_exist():
    named = re.findall(r"`(?:sk_momkd\.)?([a-z]\w*(?:\.\w+)+)`", EQUATIONS)
    assert len(named) >= 15
    assert [name for name in named if not exists(name)] == []


def test_tests_of_the_equations_exist():
    patterns = re.findall(r"\b(test_\w+\*?)", EQUATIONS)
    assert len(patterns) >= 15
    assert [pattern for pattern in patterns if not matching(TESTS, pattern)] == []


def test_tests_of_the_guarantees_exist():
    named = re.findall(r"\btest_\w+", (ROOT / "docs" / "security.md").read_text("utf-8"))
    assert len(named) >= 15
    assert [name for name in named if name not in TESTS] == []


@pytest.mark.slow
@EVERY_PAGE
def test_nested_parameters_of_a_page_exist(page):
    classifiers = sk_momkd.all_estimators("classifier")
    known = {name for _, classifier in classifiers for name in classifier().get_params()}
    nested = r"\b(?:training|network|memory|loss)__\w+"
    assert set(re.findall(nested, page.read_text("utf-8"))) <= known


@EVERY_PAGE
def test_files_of_a_page_exist(page):
    folders = r"(?:benchmarks|docs|examples|sk_momkd|tests)"
    files = re.findall(rf"\b{folders}/[\w/]+\.\w+", page.read_text("utf-8"))
    assert [name for name in files if not (ROOT / name).exists()] == []


def test_methods_page_has_the_notes_of_the_docstrings():
    page = (ROOT / "docs" / "methods.md").read_text("utf-8")
    for name, classifier in sk_momkd.all_estimators("classifier"):
        notes = re.search(r"\nNotes\n-+\n(.*?)\n\n\w+\n---", inspect.getdoc(classifier), re.DOTALL)
        text = " ".join(notes.group(1).split())
        assert text in page, f"Run python benchmarks/methods_table.py: {name} has changed."
