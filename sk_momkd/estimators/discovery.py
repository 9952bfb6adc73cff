"""All estimators of the package, found in its modules."""

from __future__ import annotations

from importlib import import_module
from inspect import getattr_static, getmembers, isclass
from pkgutil import iter_modules
from typing import Any

from sklearn.base import BaseEstimator

_HERE = f"{__package__.rpartition('.')[0]}."
_MARKS = {
    None: "fit",
    "classifier": "predict_proba",
    "transformer": "transform",
    "meta": "estimator",
}


def all_estimators(kind: str | None = None) -> list[tuple[str, type[BaseEstimator]]]:
    """Names and classes of all public estimators, in alphabetical order.

    Parameters
    ----------
    kind : {"classifier", "transformer", "meta"}, optional
        Only these. A classifier that also transforms is both; "meta" are those that are made
        around another classifier, and of no other kind.

    Returns
    -------
    list of (str, class)

    Raises
    ------
    ValueError
        If `kind` is none of these.

    Examples
    --------
    >>> from sk_momkd import all_estimators
    >>> [name for name, _ in all_estimators("classifier")][:2]
    ['ABMILClassifier', 'DSMILClassifier']
    """
    if kind not in _MARKS:
        raise ValueError(f"kind must be one of {list(_MARKS)}, got {kind!r}.")
    found: dict[str, type[BaseEstimator]] = {}
    for name in ("..estimators", "..preprocessing"):
        package = import_module(name, __package__)
        for module in iter_modules(package.__path__, f"{package.__name__}."):
            found |= getmembers(import_module(module.name), _is_estimator)
    return sorted((name, cls) for name, cls in found.items() if _is_of(cls, kind))


def _is_of(cls: type[BaseEstimator], kind: str | None) -> bool:
    if kind is None:
        return hasattr(cls, _MARKS[None])
    is_meta = _MARKS["meta"] in cls._get_param_names()
    return is_meta if kind == "meta" else not is_meta and hasattr(cls, _MARKS[kind])


def _is_estimator(member: Any) -> bool:
    """Whether `member` is an estimator of this package without abstract methods."""
    if not isclass(member) or not issubclass(member, BaseEstimator):
        return False
    parts = (getattr_static(member, name) for name in dir(member))
    abstract = any(getattr(part, "__isabstractmethod__", False) for part in parts)
    return member.__module__.startswith(_HERE) and not abstract
