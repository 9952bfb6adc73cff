"""Shared parameters are documented once, in the base classes, and copied into each classifier.

    python tests/estimators/shared_docstrings.py

rewrites the docstrings in the sources, so that editors and static tools show them whole; a test
holds that they are up to date.
"""

import ast
import inspect
import re
from pathlib import Path
from textwrap import fill, indent

from sk_momkd import all_estimators
from sk_momkd.estimators.base import BaseMILClassifier
from sk_momkd.estimators.privileged_base import PrivilegedMILClassifier

BASES = (PrivilegedMILClassifier, BaseMILClassifier)
NEXT_SECTION = r"(?=\n    [A-Z][A-Za-z ]+\n    -+\n|\s*\Z)"


def docstring(cls: type) -> str:
    """Docstring as it is in the source; from Python 3.13 on, `__doc__` is not indented."""
    return ast.get_docstring(ast.parse(inspect.getsource(cls)).body[0], clean=False)


def section(doc: str, title: str) -> str:
    """Body of a section of a docstring."""
    found = re.search(rf"\n    {title}\n    -+\n(.*?){NEXT_SECTION}", doc, re.DOTALL)
    return found.group(1).strip("\n") if found else ""


def entries(body: str) -> dict[str, str]:
    """Entries of a section, by name."""
    parts = re.split(r"\n(?=    \S)", body) if body else []
    return {re.match(r"    ([\w, *]+)", part).group(1).strip(): part for part in parts}


def shared(cls: type, title: str) -> dict[str, str]:
    """Entries that the base classes of `cls` document."""
    bases = [base for base in BASES if issubclass(cls, base)]
    return {k: v for base in bases for k, v in entries(section(docstring(base), title)).items()}


def with_default(cls: type, name: str, entry: str) -> str:
    """The entry of a shared parameter with the default of `cls`."""
    header, _, text = entry.partition("\n")
    value = repr(getattr(cls, name)).replace("'", '"')
    header = re.sub(r"default=.*", lambda _: f"default={value}", header)
    if name == "training":
        auto = ", ".join(f"{k}={v!r}" for k, v in cls._auto_training.items()).replace("'", '"')
        text = " ".join(text.split()) + f' Here "auto" is {auto}.'
        text = indent(fill(text, 92, break_on_hyphens=False), " " * 8)
    return f"{header}\n{text}"


def whole_docstring(cls: type) -> str:
    """Docstring of a classifier with its own and all shared entries."""
    doc = docstring(cls)
    for title in ("Parameters", "Attributes"):
        common = shared(cls, title)
        own = {k: v for k, v in entries(section(doc, title)).items() if k not in common}
        if title == "Parameters":
            common = {k: with_default(cls, k, v) for k, v in common.items()}
            listed = own | common
        else:
            listed = common | own
        body = "\n".join(listed.values())
        pattern = rf"(\n    {title}\n    -+\n)(.*?){NEXT_SECTION}"
        doc = re.sub(pattern, lambda m, body=body: f"{m.group(1)}{body}\n", doc, flags=re.DOTALL)
    return doc


def classifiers() -> list[type]:
    return [cls for _, cls in all_estimators("classifier") if issubclass(cls, BaseMILClassifier)]


def main() -> None:
    for cls in classifiers():
        path = Path(inspect.getfile(cls))
        source = path.read_text(encoding="utf-8")
        path.write_text(source.replace(docstring(cls), whole_docstring(cls)), encoding="utf-8")


if __name__ == "__main__":
    main()
