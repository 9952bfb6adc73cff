"""Steps of scikit-learn as skops files; estimators of this package inside them are numbered."""

from __future__ import annotations

import inspect
import io
import math
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from ..estimators.fit_tasks import OF_CALLBACKS
from ..exceptions import ModelFileError
from ..messages import first_few
from .archive import LARGEST_JSON, model_errors, parsed_json, zip_entries
from .compiled_steps import ELSE, require_sound
from .stored_trees import StoredTree, is_tree
from .trusted_types import BY_LOADER, TRUSTED

_SCHEMA = "schema.json"
_OF_PATIENTS = "_sample_weight"  # forests and bagging keep the weights of the training slides


class Placeholder:
    """Where an estimator of this package belongs in a step of scikit-learn."""

    def __init__(self, number: int) -> None:
        self.number = number


def is_of_sklearn(value: Any) -> bool:
    """Whether the class of `value` is one of scikit-learn's."""
    return type(value).__module__.partition(".")[0] == "sklearn"


def dump_step(step: Any, number: Callable[[Any], int | None], name: str) -> bytes:
    """A step of scikit-learn as the content of a skops file.

    Parameters
    ----------
    step : object
    number : callable
        Number of an estimator of this package; None for everything else.
    name : str
        Where it belongs, for messages.

    Raises
    ------
    ModelFileError
        If the step holds anything that is not trusted.
    """
    import skops.io

    def swap(value: Any) -> Any:
        if is_tree(value):
            return StoredTree(value)
        found = number(value)
        return value if found is None else Placeholder(found)

    with model_errors(f"{name} cannot be saved"):
        content = skops.io.dumps(_swapped(step, swap, {}))
    _audit(content, name, saving=True)
    require_sound(step, name, saving=True)
    return content


def load_step(content: bytes, estimators: list[Any], name: str) -> Any:
    """The step that `dump_step` wrote, with `estimators` in the places of their numbers.

    Raises
    ------
    ModelFileError
        If the file is damaged, or holds anything that is not trusted.
    """
    _audit(content, name, saving=False)
    import skops.io

    def swap(value: Any) -> Any:
        if type(value) is StoredTree:
            return value.restored(name)
        if type(value) is not Placeholder:
            return value
        wanted = vars(value).get("number")
        if type(wanted) is not int or not 0 <= wanted < len(estimators):
            raise ModelFileError(f"{name} needs the estimator {wanted!r:.100}, which is not there.")
        return estimators[wanted]

    with model_errors(f"{name} cannot be loaded"):
        step = _swapped(skops.io.loads(content, trusted=TRUSTED), swap, {})
        require_sound(step, name)
        return step


def _swapped(value: Any, swap: Callable[[Any], Any], done: dict[int, Any]) -> Any:
    """A copy of `value` with `swap` applied to what it holds; arrays are shared."""
    other = swap(value)
    if other is not value:
        return other
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, tuple):
        return tuple(_swapped(item, swap, done) for item in value)
    if isinstance(value, list | dict):
        new: Any = type(value)()
        done[id(value)] = new
        if isinstance(value, list):
            new.extend(_swapped(item, swap, done) for item in value)
        else:  # also a Bunch
            new.update({key: _swapped(item, swap, done) for key, item in value.items()})
        return new
    if is_of_sklearn(value) and _is_plain(value):
        done[id(value)] = step = object.__new__(type(value))
        step.__dict__.update(_defaults(value))
        for key, item in vars(value).items():
            if key == _OF_PATIENTS:
                step.__dict__[key] = None
            elif key not in OF_CALLBACKS:
                step.__dict__[key] = _swapped(item, swap, done)
        return step
    return value


def _defaults(step: Any) -> dict[str, Any]:
    """Defaults of the parameters that the version which wrote a step did not have any more."""
    if not isinstance(step, BaseEstimator):
        return {}
    parameters = inspect.signature(type(step)).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _is_plain(value: Any) -> bool:
    """Whether a value consists of its attributes, as one of a compiled class does not."""
    try:
        vars(value)
        object.__new__(type(value))
    except TypeError:
        return False
    return not isinstance(value, type)


def _audit(content: bytes, name: str, *, saving: bool) -> None:
    """Raise unless a skops file holds trusted types alone, and arrays as large as their bytes."""
    found: set[str] = set()
    with model_errors(f"{name} is a damaged skops file"):
        archive = zipfile.ZipFile(io.BytesIO(content))
        entries = zip_entries(archive, len(content), name)
        if _SCHEMA not in entries or entries[_SCHEMA].file_size > LARGEST_JSON:
            raise ModelFileError(f"{name} is no skops file: it has no usable {_SCHEMA}.")
        _untrusted(parsed_json(archive.read(_SCHEMA), f"{name}: {_SCHEMA}"), found)
    if found:
        raise ModelFileError(_cannot_save(name, found) if saving else _cannot_load(name, found))
    with model_errors(f"{name} is a damaged skops file"):
        for entry in entries:
            if entry != _SCHEMA:
                _require_array(archive.read(entry), f"{name}: {entry}")


def _require_array(content: bytes, name: str) -> None:
    """Raise unless this is an array of numbers or text in numpy's format, of its stated size."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ModelFileError(f"{name} is an array of version {version}.")
    shape, _, dtype = readers[version](file)
    if (
        dtype.hasobject
        or dtype.fields
        or math.prod(shape) * dtype.itemsize != len(content) - file.tell()
    ):
        raise ModelFileError(f"{name} declares {shape} of {dtype}, which is not what it holds.")


def _untrusted(node: Any, found: set[str]) -> None:
    """Collect what is not trusted anywhere below a node of the schema."""
    if isinstance(node, list):
        for item in node:
            _untrusted(item, found)
    elif isinstance(node, dict):
        if "__loader__" in node or "__class__" in node or "__module__" in node:
            loader, kind = (
                node.get("__loader__"),
                f"{node.get('__module__')}.{node.get('__class__')}",
            )
            if not isinstance(loader, str) or kind not in BY_LOADER.get(loader, ()):
                found.add(kind[:200])
        for item in node.values():
            _untrusted(item, found)


def _cannot_save(name: str, found: set[str]) -> str:
    said = f"{name} holds {first_few(sorted(found))}, which save_model does not write."
    if any(kind.endswith("SearchCV") for kind in found):
        return f"{said} Of a search, save its best_estimator_."
    if any(kind.endswith(("KDTree", "BallTree")) for kind in found):
        return f"{said} Fit neighbours with algorithm='brute', which finds the same. {ELSE}"
    if any("tree" in kind.casefold() for kind in found):
        return (
            f"{said} scikit-learn uses the content of fitted boosting and isolation forests "
            "unchecked, so that a file could crash the process that loads it. Fit a "
            f"RandomForestClassifier or an ExtraTreesClassifier, which can be saved. {ELSE}"
        )
    return (
        f"{said} Remove it, e.g. with set_params, or take a step that can be saved; docs/models.md "
        f"lists them. {ELSE}"
    )


def _cannot_load(name: str, found: set[str]) -> str:
    return (
        f"{name} holds {first_few(sorted(found))}, which load_model does not make from a file. "
        "It was made by another version of this package, or it is not a model of save_model."
    )
