"""Pages of the API reference: a page per public name, grouped by package; and llms.txt.

They are written from the package when the site is built, so that no name can be forgotten.
"""

import inspect
import re
from pathlib import Path

import sk_momkd

DOCS = Path(__file__).parent
GROUPS = {
    "data": "Bags, patients and omics",
    "io": "Reading and writing",
    "preprocessing": "Preparation of patches and omics",
    "estimators": "Classifiers and their options",
    "model_selection": "Splits",
    "evaluation": "Evaluation",
    "inspection": "Inspection of fitted classifiers",
    "reporting": "Figures and the report",
    "persistence": "Saving and loading",
    "exceptions": "Errors and warnings",
    "versions": "Versions",
}


def grouped() -> dict[str, list[str]]:
    """The public names of each package."""
    found = {package: [] for package in GROUPS}
    for name in sorted(sk_momkd.__all__):
        module = getattr(getattr(sk_momkd, name), "__module__", None)
        if module is not None and not name.startswith("__"):
            found[module.split(".")[1]].append(name)
    return found


def members_of(public: type) -> list[str]:
    """Directives of the public methods and properties that the package defines for a class."""
    found = []
    for member in sorted(dir(public)):
        value = inspect.getattr_static(public, member)
        inner = getattr(value, "fget", None) or getattr(value, "__func__", value)
        ours = (getattr(inner, "__module__", None) or "").startswith("sk_momkd")
        documented = bool(getattr(inner, "__doc__", None))
        if ours and documented and not member.startswith("_") and not inspect.isclass(value):
            directive = "autoproperty" if isinstance(value, property) else "automethod"
            found.append(f".. {directive}:: {public.__name__}.{member}\n")
    return found


def page_of(name: str) -> str:
    """The page of a public name in reStructuredText."""
    public = getattr(sk_momkd, name)
    directive, members = "autofunction", []
    if inspect.isclass(public):
        error = issubclass(public, BaseException)
        directive = "autoexception" if error else "autoclass"
        members = [] if error else members_of(public)
    title = f"{name}\n{'=' * len(name)}\n"
    head = [title, ".. currentmodule:: sk_momkd\n", f".. {directive}:: {name}\n"]
    return "\n".join([*head, *members])


def summary_of(name: str) -> str:
    """First line of the docstring of a public name."""
    first = inspect.getdoc(getattr(sk_momkd, name)).splitlines()[0]
    return re.sub(r":\w+:(?=`)", "", first)


def index() -> str:
    """The table of all public names in Markdown."""
    parts = ["# API reference\n\nEvery public name, imported from `sk_momkd`.\n"]
    for package, names in grouped().items():
        if names:
            rows = [f"| [`{n}`]({n}.rst) | {summary_of(n)} |" for n in names]
            parts.append(
                f"\n## {GROUPS[package]}\n\n| name | |\n|---|---|\n" + "\n".join(rows) + "\n"
            )
    names = "\n".join(sorted(n for group in grouped().values() for n in group))
    parts.append(f"\n```{{toctree}}\n:hidden:\n:maxdepth: 1\n\n{names}\n```\n")
    return "".join(parts)


def llms_txt() -> str:
    """What the package is and where its pages are, for programs that read documentation."""
    head = (
        "# sk_momkd\n\n> Slide classifiers for scikit-learn that learn from privileged omics. A "
        "whole slide image is a bag of patch features; expression is used in training only; "
        "prediction needs the slide alone.\n"
    )
    pages = ["\n## Pages\n"]
    for path in [*sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("guide/*.md"))]:
        title = re.search(r"^# (.+)$", path.read_text("utf-8"), re.MULTILINE)
        if title:
            address = path.relative_to(DOCS).with_suffix(".html").as_posix()
            pages.append(f"- [{title.group(1)}]({address})")
    names = ["\n## Public names\n"]
    for package, group in grouped().items():
        names += [f"- {n} ({package}): {summary_of(n)}" for n in group]
    return "\n".join([head, *pages, *names]) + "\n"


def write_if_changed(path: Path, text: str) -> None:
    """Write a file unless it is the same, so that only what changed is built again."""
    path.parent.mkdir(exist_ok=True)
    if not path.exists() or path.read_text("utf-8") != text:
        path.write_text(text, encoding="utf-8")


def write_pages(app) -> None:
    """Write all pages into docs/api, and llms.txt."""
    for names in grouped().values():
        for name in names:
            write_if_changed(DOCS / "api" / f"{name}.rst", page_of(name))
    write_if_changed(DOCS / "api" / "index.md", index())
    write_if_changed(DOCS / "_extra" / "llms.txt", llms_txt())


def escape_underscores(app, what, name, public, options, lines) -> None:
    """Keep names that end in an underscore, in the types of docstrings, from being links."""
    in_types = r"(?<=[( ])n_features_in_(?=[,)]| \*)"
    lines[:] = [re.sub(in_types, r"n_features_in\\_", line) for line in lines]


def setup(app):
    """Write the pages before Sphinx looks for sources."""
    app.connect("autodoc-process-docstring", escape_underscores, priority=400)
    app.connect("builder-inited", write_pages, priority=1)
    return {"parallel_read_safe": True}
