"""The floors of the house: imports go down only, and some things have one place."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import sk_momkd

ROOT = Path(sk_momkd.__file__).parent
SOURCES = {p.relative_to(ROOT).as_posix(): p.read_text() for p in sorted(ROOT.rglob("*.py"))}

_BASE = {"bag_warnings", "exceptions", "messages", "output", "parallel", "progress"}
_DATA = _BASE | {"data"}
_COHORTS = _DATA | {"io", "model_selection"}
_ENGINE = _DATA | {"nn", "models", "losses"}
_STEPS = _COHORTS | {"preprocessing"}
_CONTRACT = _ENGINE | _STEPS | {"training"}
_ANSWERS = _CONTRACT | {"estimators"}
_PICTURES = _ANSWERS | {"evaluation", "inspection", "persistence"}
MAY_IMPORT = {
    "exceptions": set(),
    "bag_warnings": {"messages"},
    "messages": set(),
    "output": set(),
    "parallel": {"bag_warnings", "messages"},
    "progress": set(),
    "data": _BASE,
    "io": _DATA,
    "model_selection": _DATA | {"io"},
    "nn": _BASE,
    "models": _BASE | {"nn"},
    "losses": _BASE | {"nn", "models"},
    "training": _ENGINE | {"io"},
    "preprocessing": _COHORTS,
    "estimators": _CONTRACT | {"versions", "__version__"},
    "evaluation": _ANSWERS | {"persistence", "versions", "__version__"},
    "inspection": _ANSWERS,
    "persistence": _ANSWERS | {"versions", "__version__"},
    "reporting": _PICTURES | {"versions"},
    "cli": _PICTURES | {"reporting", "versions", "__version__"},
    "versions": {"nn", "__version__"},
    "__main__": {"cli"},
}
ONLY_IN = {
    "sklearn": set(MAY_IMPORT) - {"models", "nn", "losses"},
    "skorch": {"training"},
    "matplotlib": {"reporting"},
    "jinja2": {"reporting"},
    "typer": {"cli"},
    "rich": {"cli"},
    "ruamel": {"cli"},
}
NOT_AT_MODULE_LEVEL = {"shap"}
TOO_BROAD = {"Exception", "BaseException"}


class Import(NamedTuple):
    target: str  # dotted and absolute: "sk_momkd.data.bag.Bag"
    line: int
    at_module_level: bool


def floor_of(path: str) -> str:
    """data/bag.py -> data, output.py -> output."""
    return path.split("/")[0].removesuffix(".py")


def dotted(path: str) -> str:
    """data/bag.py -> sk_momkd.data.bag, data/__init__.py -> sk_momkd.data."""
    return f"sk_momkd/{path}".removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(path: str, source: str) -> Iterator[Import]:
    """All imports of a module, also those inside functions and conditions."""
    package = f"sk_momkd/{path}".split("/")[:-1]
    stack: list[tuple[ast.AST, bool]] = [(ast.parse(source), True)]
    while stack:
        node, outside = stack.pop()
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, outside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = base + node.module.split(".") if node.module else base
            for alias in node.names:
                yield Import(".".join([*base, alias.name]), node.lineno, outside)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        stack += [(child, outside and not inside) for child in ast.iter_child_nodes(node)]


def wrong_imports(path: str, source: str) -> Iterator[str]:
    floor = floor_of(path)
    for target, line, at_module_level in imports(path, source):
        package, _, rest = target.partition(".")
        below = rest.split(".")[0]
        if package == "sk_momkd" and below != floor and below not in MAY_IMPORT[floor]:
            yield f"{path}:{line}: {floor} may not import {below or 'the root'}"
        elif floor not in ONLY_IN.get(package, {floor}):
            yield f"{path}:{line}: {floor} may not import {package}"
        elif package in NOT_AT_MODULE_LEVEL and at_module_level:
            yield f"{path}:{line}: {package} belongs inside the function that needs it"


def wrong_statements(path: str, source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        where = f"{path}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Assert):
            yield f"{where}: assert"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == "print":
                yield f"{where}: print"
        elif isinstance(node, ast.ExceptHandler):
            caught = [node.type] if not isinstance(node.type, ast.Tuple) else node.type.elts
            if None in caught or TOO_BROAD & {getattr(c, "id", None) for c in caught}:
                yield f"{where}: broad except"


def violations(path: str, source: str) -> list[str]:
    """What a module does against the rules; the root ``__init__`` may import everything."""
    found = list(wrong_statements(path, source))
    if path == "__init__.py":
        return found
    if floor_of(path) not in MAY_IMPORT:
        return [*found, f"{path}: no floor {floor_of(path)!r}; add it to MAY_IMPORT"]
    return [*found, *wrong_imports(path, source)]


def import_cycle(sources: dict[str, str]) -> list[str]:
    """Modules of the package that import each other in a ring, or nothing."""
    modules = {dotted(path) for path in sources}
    graph: dict[str, set[str]] = {}
    for path, source in sources.items():
        targets = {_module_of(i.target, modules) for i in imports(path, source)}
        graph[dotted(path)] = targets - {None, dotted(path)}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def _module_of(target: str, modules: set[str]) -> str | None:
    """The longest known module that `target` begins with."""
    while target and target not in modules:
        target = target.rpartition(".")[0]
    return target or None


def test_sources_of_the_package_are_found():
    assert {"__init__.py", "exceptions.py", "data/bag.py", "models/momkd.py"} <= set(SOURCES)


@pytest.mark.parametrize("path", SOURCES)
def test_module_keeps_the_rules_of_the_house(path):
    assert violations(path, SOURCES[path]) == []


@pytest.mark.slow
def test_package_has_no_import_cycle():
    assert import_cycle(SOURCES) == []


@pytest.mark.parametrize(
    ("path", "source", "said"),
    [
        ("data/new.py", "from ..estimators.base import X", "data may not import estimators"),
        ("data/new.py", "from ..nn import segment", "data may not import nn"),
        ("nn/new.py", "from ..data.bag import Bag", "nn may not import data"),
        ("nn/new.py", "from ..models.momkd import MoMKD", "nn may not import models"),
        ("models/new.py", "from ..losses import total", "models may not import losses"),
        ("losses/new.py", "import sk_momkd.data.graph", "losses may not import data"),
        ("training/new.py", "from sk_momkd.estimators import base", "may not import estimators"),
        ("data/__init__.py", "from .. import training", "data may not import training"),
        ("data/deep/new.py", "from ...training.loop import train", "data may not import training"),
        ("exceptions.py", "from .data.bag import Bag", "exceptions may not import data"),
        ("estimators/new.py", "from sk_momkd import Bag", "estimators may not import Bag"),
        ("estimators/new.py", "import sk_momkd", "estimators may not import the root"),
        (
            "estimators/new.py",
            "from ..reporting import html",
            "estimators may not import reporting",
        ),
        ("data/new.py", "def f():\n    from ..training import loop", ":2: data may not"),
        ("nn/new.py", "if 1:\n    from ..data import bag", ":2: nn may not import data"),
        ("models/new.py", "from sklearn.base import clone", "models may not import sklearn"),
        ("nn/new.py", "import sklearn", "nn may not import sklearn"),
        ("losses/new.py", "def f():\n    import sklearn.metrics", "may not import sklearn"),
        ("estimators/new.py", "from skorch import NeuralNet", "may not import skorch"),
        ("inspection/new.py", "import matplotlib.pyplot as plt", "may not import matplotlib"),
        ("inspection/new.py", "def f():\n    import jinja2", "may not import jinja2"),
        ("reporting/new.py", "import shap", "shap belongs inside the function"),
        ("inspection/new.py", "class A:\n    from shap import Explainer", "shap belongs inside"),
        ("nn/new.py", "def f(x):\n    assert x", ":2: assert"),
        ("nn/new.py", "print('x')", "print"),
        ("nn/new.py", "try:\n    f()\nexcept:\n    pass", ":3: broad except"),
        ("nn/new.py", "try:\n    f()\nexcept Exception:\n    pass", "broad except"),
        ("nn/new.py", "try:\n    f()\nexcept (OSError, BaseException) as e:\n    pass", "broad"),
        ("__init__.py", "print(1)", "print"),
        ("utils/new.py", "import torch", "no floor 'utils'"),
    ],
)
def test_checker_of_a_module_finds_what_is_wrong(path, source, said):
    found = violations(path, source)
    assert len(found) == 1
    assert said in found[0]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("__init__.py", "from .cli import main"),
        ("data/new.py", "from ..exceptions import BagError\nfrom .bag import Bag\nimport sklearn"),
        ("losses/new.py", "from ..models.momkd import MoMKDOutput\nfrom ..nn import segment"),
        ("training/new.py", "import skorch\nfrom ..losses.momkd import momkd_terms"),
        ("reporting/new.py", "import jinja2\nfrom matplotlib import pyplot"),
        ("inspection/new.py", "def genes():\n    import shap\n    return shap"),
        ("nn/new.py", "def f():\n    '''print(1); assert 2'''\n    net.print()"),
        ("nn/new.py", "try:\n    f()\nexcept (OSError, ValueError):\n    pass"),
    ],
)
def test_checker_of_a_sound_module_finds_nothing(path, source):
    assert violations(path, source) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"data/bag.py": "from .sequence import as_bags"},
        {"data/bag.py": "def f():\n    from . import sequence"},
        {"data/bag.py": "import sk_momkd.io.cohort"},
    ],
)
def test_checker_of_cycles_finds_a_ring(change):
    assert "sk_momkd.data.bag" in import_cycle(SOURCES | change)
