"""The share of the positive class that probabilities refer to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .problems import UsageProblem


def check_prior(text: str, classifier: Any, classes: Sequence[Any]) -> str | float:
    """What `text` asks for: "training", "sampler", or the share of the positive of two classes.

    Raises
    ------
    UsageProblem
        If it is something else, or a number for a classifier that has no prior or more classes.
    """
    if "prior" not in classifier.get_params():
        raise UsageProblem(f"{type(classifier).__name__} has no prior; leave out --prior.")
    if text in ("training", "sampler"):
        return text
    try:
        share = float(text)
    except ValueError as error:
        raise UsageProblem(f"prior is training, sampler or a share, got {text!r}.") from error
    if not 0 < share < 1 or len(classes) != 2:
        raise UsageProblem(
            f"prior={text} must be between 0 and 1, for two classes; there are {len(classes)}."
        )
    return share


def prior_of(text: str, classifier: Any) -> Any:
    """What `prior` of a fitted classifier is: "training", "sampler", or shares of two classes.

    Raises
    ------
    UsageProblem
        As :func:`check_prior`.
    """
    classes = classifier.classes_.tolist()
    share = check_prior(text, classifier, classes)
    if isinstance(share, str):
        return share
    return {label: share if label == classifier.pos_label_ else 1 - share for label in classes}
