"""Methods by the name that people use, as estimators."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .keys import Model
from .problems import UsageProblem, nearest

_POOLED = {"logistic": "logistic regression on pooled patches"}
_RECOMMENDED = {"momkd": "small"}


def networks() -> dict[str, Any]:
    """Classifier of each name, such as momkd."""
    from ..estimators.discovery import all_estimators

    found = all_estimators("classifier")
    return {name.removesuffix("Classifier").lower(): cls for name, cls in found}


def method_names() -> list[str]:
    """Everything that `method` may be."""
    return [*networks(), *_POOLED]


def make_model(options: Model, method: str | None = None) -> Any:
    """Unfitted estimator of a run, or another `method` under the same options.

    Preset and parameters are those of the run's own method; other methods have their default.

    Raises
    ------
    UsageProblem
        If there is no such method, preset or parameter, a parameter has an impossible value, or
        the method does not take what is given.
    """
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from ..preprocessing.instance_transformer import InstanceTransformer

    own = method is None or method.lower() == options.method.lower()
    name = (options.method if method is None else method).lower()
    if name in _POOLED:
        if own:
            _refuse_options_of_networks(options)
        return _logistic(options.parameters if own else {}, options.random_state)
    known = networks()
    if name not in known:
        raise UsageProblem(nearest(name, method_names(), "method"))
    classifier = _classifier(known[name], name, options, own=own)
    scaler = InstanceTransformer(StandardScaler())
    return make_pipeline(scaler, classifier) if options.scale else classifier


def resolved_preset(options: Model, method: str | None = None) -> str | None:
    """The preset that is taken: the one that is asked for, else the recommended one."""
    name = (options.method if method is None else method).lower()
    asked = options.preset if method is None or name == options.method.lower() else None
    return asked or recommended_preset(name)


def recommended_preset(method: str) -> str | None:
    """The preset of a method where none is asked for; None where it has none."""
    name = method.lower()
    return None if name in _POOLED else _RECOMMENDED.get(name, "unified")


def check_methods(options: Model, methods: list[str]) -> None:
    """Refuse a preset or parameters that none of the compared methods would have.

    Raises
    ------
    UsageProblem
    """
    own = options.method.lower()
    if own in {method.lower() for method in methods}:
        return
    changed = options.preset != recommended_preset(own)
    given = {"--preset": changed, "--set": bool(options.parameters)}
    for option in (name for name, is_given in given.items() if is_given):
        raise UsageProblem(
            f"{option} is for the method {own}, which is not among those compared: "
            f"{', '.join(methods)}. Leave it out, or choose its method with --method."
        )
    if all(method.lower() in _POOLED for method in methods):
        _refuse_options_of_networks(replace(options, preset=None))


def _refuse_options_of_networks(options: Model) -> None:
    default = Model()
    for name in ("preset", "scale", "device"):
        value = getattr(options, name)
        if value != getattr(default, name):
            raise UsageProblem(
                f"{', '.join(_POOLED)} takes no {name} (got {value!r}), which is for networks. "
                f"Leave --{name} out."
            )


def _classifier(cls: Any, name: str, options: Model, *, own: bool) -> Any:
    preset = str(resolved_preset(options, name))
    if preset not in cls._presets:
        raise UsageProblem(nearest(preset, sorted(cls._presets), f"preset of {name}"))
    fixed = {"device": options.device, "random_state": options.random_state}
    classifier = cls.preset(preset, **fixed)
    return _with_parameters(classifier, options.parameters if own else {}, name)


def _with_parameters(estimator: Any, parameters: dict[str, Any], name: str) -> Any:
    known = estimator.get_params()
    for parameter in parameters:
        if parameter not in known:
            raise UsageProblem(nearest(parameter, list(known), f"parameter of {name}"))
    estimator.set_params(**parameters)
    try:
        estimator._validate_params()
    except ValueError as error:
        raise UsageProblem(f"{error} It is a parameter of {name}.") from error
    return estimator


def _logistic(parameters: dict[str, Any], random_state: int) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from ..preprocessing.bag_pooling import BagPooling

    regression = LogisticRegression(max_iter=5000, random_state=random_state)
    regression = _with_parameters(regression, parameters, "logistic")
    return make_pipeline(BagPooling("mean+std"), StandardScaler(), regression)
