"""Estimators and option objects of this package as JSON, arrays and skops files, and back."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context

from .. import estimators, model_selection, preprocessing
from ..data.training_patients import HashedIds
from ..estimators.base import BaseMILClassifier
from ..estimators.fit_tasks import OF_CALLBACKS
from ..estimators.network_state import weights_of, without_omics
from ..estimators.pooled_head import PooledHead
from ..estimators.validation_scores import SavedThresholds
from ..exceptions import ModelFileError
from ..io.values import ValueReader, ValueWriter
from ..messages import first_few
from ..training.feature_summary import FeatureSummary
from .archive import model_errors
from .sklearn_steps import dump_step, is_of_sklearn, load_step

_RECORDS: dict[str, type] = {
    record.__name__: record for record in (FeatureSummary, HashedIds, PooledHead, SavedThresholds)
}
_KINDS: dict[str, tuple[type, ...]] = {  # by the annotation of a field of these
    "bytes": (bytes,),
    "NDArray": (np.ndarray,),
    "NDArray | None": (np.ndarray, type(None)),
    "dict": (dict,),
    "int": (int,),
    "float": (float,),
}
_PACKAGES = (estimators, preprocessing, model_selection)
_ALWAYS = ("n_features_in_", "feature_names_in_")
_REQUESTS, _OUTPUT, _LEFT_OUT = "_metadata_request", "_sklearn_output_config", "_left_out"


def class_named(name: Any) -> type | None:
    """The estimator, option object or splitter of this package that has this name, or None."""
    for package in _PACKAGES:
        if isinstance(name, str) and name in package.__all__:
            found = getattr(package, name)
            return found if inspect.isclass(found) else None
    return None


def _parameter_names(cls: type) -> list[str]:
    return list(inspect.signature(cls).parameters)


def _saved_attributes(cls: type) -> set[str]:
    return {*_ALWAYS, *getattr(cls, "_fitted", ()), *getattr(cls, "_fitted_omics", ())}


class ModelWriter(ValueWriter):
    """Encodes an estimator; `objects` are those of this package, `steps` those of scikit-learn."""

    def __init__(self, *, include_omics: bool, include_validation: bool) -> None:
        super().__init__()
        self.objects: list[dict[str, Any]] = []
        self.steps: dict[str, bytes] = {}
        self._n_begun = 0
        self._options = {"include_omics": include_omics, "include_validation": include_validation}

    def encode_object(self, value: Any, name: str) -> Any:
        """Reference to an object of this package, or to a step of scikit-learn."""
        number = self._number(value)
        if number is not None:
            return {"object": number}
        if type(value) in _RECORDS.values():
            own = {field.name: getattr(value, field.name) for field in fields(value)}
            return {"record": [type(value).__name__, self.encode(own, name)]}
        if not is_of_sklearn(value):
            kind = f"{type(value).__module__}.{type(value).__qualname__}"
            raise ModelFileError(
                f"{name} is a {kind}, which cannot be saved: a model file holds plain values, "
                "arrays, estimators of this package and steps of scikit-learn. Set it to None with "
                "set_params before saving, if prediction does not need it."
            )
        content = dump_step(value, self._number, name)
        file = f"sklearn_{len(self.steps)}.skops"
        self.steps[file] = content
        return {"sklearn": file}

    def _number(self, value: Any) -> int | None:
        """Number of an object of this package, which is encoded first; None for another value."""
        name = type(value).__name__
        if class_named(name) is not type(value):
            return None
        record = {"class": name, **self._record(value, name)}
        self.objects.append(record)
        return len(self.objects) - 1

    def _record(self, value: Any, name: str) -> dict[str, Any]:
        self._n_begun += 1
        cls, place = type(value), f"{name}{self._n_begun}"
        parameters = {key: getattr(value, key) for key in _parameter_names(cls)}
        for key in getattr(cls, "_parameters_of_machine", ()):
            parameters[key] = None
        if not self._options["include_validation"]:
            for key in getattr(cls, "_parameters_of_patients", ()):
                parameters[key] = None if parameters[key] is None else {}
        record = {
            "parameters": {k: self.encode(v, f"{place}.{k}") for k, v in parameters.items()},
            **self._fitted(value, place),
        }
        record |= {"networks": self._networks(value, place), "place": place}
        return {key: content for key, content in record.items() if content}

    def _fitted(self, value: Any, place: str) -> dict[str, Any]:
        """Fitted attributes, requests of metadata and output, and what is left out."""
        cls, state = type(value), self._state(value)
        for key in (*_parameter_names(cls), *OF_CALLBACKS, *getattr(cls, "_not_saved", ())):
            state.pop(key, None)
        left_out = dict(state.pop(_LEFT_OUT, {}))
        for key in () if self._options["include_omics"] else getattr(cls, "_fitted_omics", ()):
            if state.pop(key, None) is not None:
                left_out[key] = "include_omics"
        requests, output = state.pop(_REQUESTS, None), state.pop(_OUTPUT, None)
        unknown = sorted(state.keys() - _saved_attributes(cls))
        if unknown:
            raise ModelFileError(
                f"{cls.__name__} has attributes that do not belong to it: {first_few(unknown)}. "
                "Delete them before saving."
            )
        return {
            "fitted": {k: self.encode(v, f"{place}.{k}") for k, v in state.items()},
            "left_out": left_out,
            "requests": {} if requests is None else _requests(requests),
            "output": {} if output is None else output,
        }

    def _state(self, value: Any) -> dict[str, Any]:
        """Attributes, with patients where they are asked for."""
        if isinstance(value, BaseMILClassifier):
            return value._state(with_patients=self._options["include_validation"])
        return dict(vars(value))

    def _networks(self, value: Any, place: str) -> int:
        """Number of networks, whose weights become arrays."""
        for number, module in enumerate(vars(value).get("modules_", ())):
            weights = weights_of(module)
            kept = weights if self._options["include_omics"] else without_omics(weights)
            for name, array in kept.items():
                self.arrays[_weight(place, number, name)] = array
        return len(vars(value).get("modules_", ()))


def _requests(requested: Any) -> dict[str, dict[str, Any]]:
    """What `set_fit_request` and its like have set, by method."""
    found = {name: getattr(requested, name).requests for name in ("fit", "predict", "score")}
    return {name: dict(asked) for name, asked in found.items() if asked}


def _weight(place: str, number: int, name: str) -> str:
    return f"{place}.network{number}.{name}"


class ModelReader(ValueReader):
    """Decodes what a `ModelWriter` encoded.

    Parameters
    ----------
    records : list
        Objects of this package, each after those that it holds.
    arrays : mapping of str to ndarray
    steps : mapping of str to bytes
        skops files. Of arrays and steps, those that are read are taken out.
    """

    def __init__(self, records: Any, arrays: dict[str, NDArray], steps: dict[str, bytes]) -> None:
        super().__init__(arrays)
        self.steps = steps
        self._built: list[Any] = []
        if not isinstance(records, list):
            raise ModelFileError("its objects are no list.")
        for record in records:
            self._built.append(self._build(record))

    def decode_object(self, kind: str, stored: Any) -> Any:
        """An object that was built before, or a step of scikit-learn."""
        if kind == "object" and type(stored) is int and 0 <= stored < len(self._built):
            return self._built[stored]
        if kind == "record":
            return self._record(stored)
        if kind == "sklearn" and isinstance(stored, str) and stored in self.steps:
            return load_step(self.steps.pop(stored), self._built, stored)
        raise ModelFileError(f"it refers to {kind!r:.100} {stored!r:.100}, which is not there.")

    def _record(self, stored: Any) -> Any:
        """Hashed ids or thresholds; their parts have the types that they were annotated with."""
        name, content = stored if isinstance(stored, list) and len(stored) == 2 else (None, None)
        known, values = _RECORDS.get(str(name)), self.decode(content)
        expected = {} if known is None else {field.name: field.type for field in fields(known)}
        if known is None or not isinstance(values, dict) or values.keys() != expected.keys():
            raise ModelFileError(f"it holds a {name!r:.100}, which this sk_momkd does not have.")
        for key, value in values.items():
            kinds = _KINDS[str(expected[key]).partition("[")[0]]
            if not isinstance(value, kinds):
                raise ModelFileError(f"{key} of its {name} is a {type(value).__name__}.")
        return known(**values)

    def _build(self, record: Any) -> Any:
        if not isinstance(record, dict):
            raise ModelFileError("one of its objects has no class.")
        name = record.get("class")
        cls = class_named(name)
        if cls is None:
            raise ModelFileError(
                f"it holds a {name!r:.100}, which this version of sk_momkd does not have."
            )
        with model_errors(f"its {name} cannot be made"):
            value = self._with_parameters(cls, record)
            self._restore(value, record)
        return value

    def _with_parameters(self, cls: type, record: dict[str, Any]) -> Any:
        stored, known = _mapping(record, "parameters"), _parameter_names(cls)
        unknown = sorted(stored.keys() - set(known))
        if unknown:
            raise ModelFileError(
                f"its {cls.__name__} has the parameters {first_few(unknown)}, which this version "
                f"of sk_momkd does not have; it has {', '.join(known)}. Upgrade sk_momkd."
            )
        value = cls(**{key: self.decode(content) for key, content in stored.items()})
        if hasattr(cls, "_parameter_constraints"):
            value._validate_params()
        return value

    def _restore(self, value: Any, record: dict[str, Any]) -> None:
        cls = type(value)
        fitted = {k: self.decode(v) for k, v in _mapping(record, "fitted").items()}
        unknown = sorted(fitted.keys() - _saved_attributes(cls))
        if unknown:
            raise ModelFileError(
                f"its {cls.__name__} has the fitted attributes {first_few(unknown)}, which this "
                "version of sk_momkd does not have. Upgrade sk_momkd."
            )
        vars(value).update(fitted)
        left_out = _mapping(record, "left_out")
        if left_out:
            vars(value)[_LEFT_OUT] = {str(k): str(v) for k, v in left_out.items()}
        output = _mapping(record, "output")
        if output:
            vars(value)[_OUTPUT] = {"transform": str(output.get("transform"))}
        with config_context(enable_metadata_routing=True):
            for method, asked in _mapping(record, "requests").items():
                if method in ("fit", "predict", "score"):
                    getattr(value, f"set_{method}_request")(**asked)
        networks = record.get("networks", 0)
        if networks:
            _require_consistent(vars(value))
            weights = self._weights(networks, str(record.get("place")))
            value._restore_networks(list(weights))

    def _weights(self, n_networks: Any, place: str) -> Iterator[dict[str, NDArray]]:
        if type(n_networks) is not int or n_networks < 0:
            raise ModelFileError(f"it has {n_networks!r:.100} networks.")
        for number in range(n_networks):
            start = _weight(place, number, "")
            names = [name for name in self.arrays if name.startswith(start)]
            if not names:
                raise ModelFileError(
                    f"the weights of network {number} of {n_networks} are missing."
                )
            yield {name.removeprefix(start): self.take_array(name) for name in names}


def _mapping(record: dict[str, Any], key: str) -> dict[str, Any]:
    found = record.get(key, {})
    if not isinstance(found, dict):
        raise ModelFileError(f"{key} of an object is a {type(found).__name__}.")
    return found


def _require_consistent(known: dict[str, Any]) -> None:
    """Raise unless classes, widths and shares of a fitted classifier fit together."""
    classes, width = known.get("classes_"), known.get("n_features_in_")
    if not isinstance(classes, np.ndarray) or classes.ndim != 1 or type(width) is not int:
        raise ModelFileError("it has weights, but no classes_ or no n_features_in_.")
    if len(set(classes.tolist())) != len(classes) or len(classes) < 2:
        raise ModelFileError(f"its classes_ are not different labels: {first_few(classes)}.")
    validation = known.get("_validation")
    if not isinstance(validation, SavedThresholds | tuple | None):
        raise ModelFileError(f"its validation part is a {type(validation).__name__}.")
    summary = known.get("feature_summary_")
    if not isinstance(summary, FeatureSummary | None):
        raise ModelFileError(f"its feature_summary_ is a {type(summary).__name__}.")
    if summary is not None:
        parts = (summary.mean, summary.spread, summary.within)
        if {part.shape for part in parts} != {(width,)}:
            raise ModelFileError(f"its feature_summary_ is not of {width} features.")
    _require_head(known.get("pooled_head_"), len(classes), width)
    shapes = dict.fromkeys(("class_prior_", "sampled_prior_"), (len(classes),))
    for name, shape in (shapes | {"mean_patch_": (width,)}).items():
        if name in known and np.shape(known[name]) != shape:
            raise ModelFileError(f"its {name} is {np.shape(known[name])}, expected {shape}.")


def _require_head(head: Any, n_classes: int, width: int) -> None:
    """Raise unless a regression on pooled slides is of these classes and features."""
    if not isinstance(head, PooledHead | None):
        raise ModelFileError(f"its pooled_head_ is a {type(head).__name__}.")
    if head is None:
        return
    parts = (head.center, head.spread, head.coef, head.intercept)
    expected = [(2 * width,), (2 * width,), (n_classes, 2 * width), (n_classes,)]
    if [part.shape for part in parts] != expected:
        raise ModelFileError(f"its pooled_head_ is not of {width} features, {n_classes} classes.")
    if not 0 <= head.share < 1:
        raise ModelFileError(f"its pooled_head_ has a share of {head.share}.")
    if any(part.dtype != np.float64 for part in parts):
        raise ModelFileError("its pooled_head_ has other numbers than float64.")
