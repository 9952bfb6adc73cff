"""Text and digests by which parameters, arrays and functions are known again in another process."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

_SIZE = 12  # bytes of a digest
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
WITHOUT_EFFECT = ("n_jobs", "verbose")  # on any result, of whichever estimator
_NOT_OF_RESULTS = ("random_state", *WITHOUT_EFFECT)  # set by the evaluation, or without effect


def digest(*parts: bytes | memoryview | str | NDArray) -> str:
    """Digest of bytes, text and arrays, in hexadecimal digits; no two lists of parts run together.

    Examples
    --------
    >>> digest("ab", "c") == digest("a", "bc")
    False
    """
    made = hashlib.blake2b(digest_size=_SIZE)
    for part in parts:
        part = array_digest(part) if isinstance(part, np.ndarray) else part
        content = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        made.update(len(content).to_bytes(8, "little"))
        made.update(content)
    return made.hexdigest()


def array_digest(values: NDArray) -> str:
    """Digest of type, shape and content of an array; of objects that of their texts."""
    if values.dtype.hasobject:
        return digest(str(values.shape), *map(value_text, values.ravel().tolist()))
    content = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    return digest(values.dtype.str, str(values.shape), content.data)


def configuration(estimator: BaseEstimator) -> dict[str, str]:
    """Class and parameters of an estimator and of all inside it, as text that can be compared.

    Left out are `random_state`, which an evaluation sets, `n_jobs` and `verbose`, on which no
    result depends, and what the class of an estimator names in ``_without_effect``.

    Raises
    ------
    TypeError
        If a parameter cannot be known again; names it.
    """
    parameters = estimator.get_params(deep=True)
    inside = frozenset(id(v) for v in parameters.values() if isinstance(v, BaseEstimator))
    known = {"estimator": _class_name(type(estimator)) + _frozen(estimator)}
    idle = _without_effect(estimator, parameters)
    for name, value in sorted(parameters.items()):
        if name.rpartition("__")[2] not in _NOT_OF_RESULTS and name not in idle:
            try:
                known[name] = value_text(value, inside)
            except (pickle.PicklingError, TypeError, AttributeError) as error:
                raise TypeError(
                    f"{type(estimator).__name__} has the parameter {name}={value!r:.100}, which "
                    f"cannot be known again in another process: {error}"
                ) from error
    return known


def _without_effect(estimator: BaseEstimator, parameters: Mapping[str, Any]) -> set[str]:
    """Names of the parameters on which no result depends, as their classes state."""
    everyone = {"": estimator} | {f"{name}__": value for name, value in parameters.items()}
    return {
        f"{prefix}{name}"
        for prefix, value in everyone.items()
        for name in getattr(type(value), "_without_effect", ())
    }


def value_text(value: Any, inside: frozenset[int] = frozenset()) -> str:
    """Text of a value that is the same in another process: plain values readable, others a digest.

    Of estimators that are `inside` another one (by their `id`), it is the class alone.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, np.ndarray):
        return f"array of {value.dtype}, shape {value.shape}, {array_digest(value)}"
    if isinstance(value, Mapping):
        pairs = [f"{value_text(k, inside)}: {value_text(v, inside)}" for k, v in value.items()]
        return f"{{{', '.join(sorted(pairs))}}}"
    if isinstance(value, list | tuple):
        return f"[{_listed(value, inside)}]"
    if isinstance(value, set | frozenset | range):
        return f"{{{', '.join(sorted(value_text(item, inside) for item in value))}}}"
    if isinstance(value, BaseEstimator):
        return _estimator_text(value, inside)
    return _other_text(value, inside)


def _listed(values: Iterable[Any], inside: frozenset[int]) -> str:
    return ", ".join(value_text(value, inside) for value in values)


def _class_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _estimator_text(estimator: BaseEstimator, inside: frozenset[int]) -> str:
    name = _class_name(type(estimator)) + _frozen(estimator)
    if id(estimator) in inside:
        return name
    own = configuration(estimator).items()
    return f"{name}({', '.join(f'{k}={v}' for k, v in own if k != 'estimator')})"


def _frozen(estimator: BaseEstimator) -> str:
    """What a `FrozenEstimator` has learned, which its clones keep; empty for others."""
    if type(estimator).__name__ != "FrozenEstimator":
        return ""
    return f" {joblib.hash(estimator)}"


def _other_text(value: Any, inside: frozenset[int]) -> str:
    if isinstance(value, type):
        return _class_name(value)
    if isinstance(value, partial):
        parts = (value.func, value.args, value.keywords)
        return f"partial({_listed(parts, inside)})"
    if isinstance(value, MethodType):
        return f"{_function_text(value.__func__)} of {value_text(value.__self__, inside)}"
    if isinstance(value, FunctionType):
        return _function_text(value)
    if isinstance(value, BuiltinFunctionType | np.ufunc):
        return str(value.__name__)
    if is_dataclass(value):
        own = {f.name: getattr(value, f.name) for f in fields(value)}
        return f"{_class_name(type(value))}{value_text(own, inside)}"
    return f"{_class_name(type(value))} {joblib.hash(value)}"


def _function_text(function: Callable[..., Any]) -> str:
    """Name of a function and a digest of its code, defaults and what it has closed over."""
    code = getattr(function, "__code__", None)
    if code is None:  # compiled
        return f"{function.__module__}.{function.__qualname__}"
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    bound = value_text([function.__defaults__, function.__kwdefaults__, cells])
    return f"{function.__module__}.{function.__qualname__} {digest(_code_text(code), bound)}"


def _code_text(code: CodeType) -> str:
    constants = [
        _code_text(part) if isinstance(part, CodeType) else value_text(part)
        for part in code.co_consts
    ]
    return repr((code.co_code, code.co_names, constants))
