"""Functions, tests, parameters and files that the documents name exist."""

import inspect
import re
from fnmatch import filter as matching
from pathlib import Path
from pkgutil import resolve_name

import pandas as pd
import pytest
from scipy.stats import t

import sk_momkd

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("docs/guide/*.md")),
    *sorted(ROOT.glob("docs/results/*.md")),
    *sorted(ROOT.glob("docs/decisions/*.md")),
]
EQUATIONS = (ROOT / "docs" / "equations.md").read_text(encoding="utf-8")
TESTS = [
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in [path.stem, *re.findall(r"^def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)]
]
ERRORS = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
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


def slug(heading):
    """Name of a heading in a link."""
    text = re.sub(r"[`*]", "", heading.strip().lower())
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def headings(path):
    """Names of the headings of a page and of what it includes."""
    text = path.read_text("utf-8")
    for included in re.findall(r"\{include\} (\S+)", text):
        text += (path.parent / included).read_text("utf-8")
    return {slug(found) for found in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


def written_when_built(path):
    """Whether the site builds the page: the API reference. Examples are linked to their code."""
    return path == ROOT / "docs" / "api" / "index.md"


@EVERY_PAGE
def test_links_of_a_page_lead_somewhere(page):
    dead = []
    for link in re.findall(r"\]\(((?!https?:|mailto:)[^)\s]+)\)", page.read_text("utf-8")):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            dead += [] if written_when_built(target) else [link]
        elif anchor and target.suffix == ".md" and anchor not in headings(target):
            dead.append(link)
    assert dead == []


def short(value, sign=""):
    """`.84` and, with a sign, `+.03`."""
    return f"{value:{sign}.2f}".replace("0.", ".")


@pytest.mark.parametrize("name", ["README.md", "docs/quickstart.md"])
def test_range_of_the_demonstration_is_that_of_its_table(name):
    page = (ROOT / name).read_text("utf-8")
    table = pd.read_csv(ROOT / "docs" / "results" / "demo.csv", index_col="seed")
    for arm in ("without omics", "with omics"):
        low, high = map(short, table[arm].agg(["min", "max"]))
        assert f"| trained {arm} | {low} to {high} |" in page
    gain = table["difference"]
    half = t.ppf(0.975, len(gain) - 1) * gain.sem()
    low, high, mean, below, above = (
        short(value, "+")
        for value in (gain.min(), gain.max(), gain.mean(), gain.mean() - half, gain.mean() + half)
    )
    shown = f"{low} to {high} in each pair; mean {mean}, 95 % interval [{below}, {above}]"
    assert f"| difference | {shown} |" in page


def test_every_error_and_warning_is_in_the_index():
    classes = {
        name: value
        for name, value in vars(sk_momkd.exceptions).items()
        if inspect.isclass(value) and value.__module__ == "sk_momkd.exceptions"
    }
    rows = dict(re.findall(r"^\| `(\w+)`.*? \| (.+ \| .+) \|$", ERRORS, re.MULTILINE))
    assert sorted(rows) == sorted(classes)


def test_every_page_of_the_site_is_in_a_table_of_contents():
    trees = "\n".join(page.read_text("utf-8") for page in ROOT.glob("docs/**/*.md"))
    entries = set(re.findall(r"^[\w/*]+$", trees, re.MULTILINE))
    pages = [*ROOT.glob("docs/*.md"), *ROOT.glob("docs/guide/*.md")]
    names = {page.relative_to(ROOT / "docs").with_suffix("").as_posix() for page in pages}
    missing = {n for n in names if not any(matching([n, n.split("/")[-1]], e) for e in entries)}
    assert missing == {"index"}
