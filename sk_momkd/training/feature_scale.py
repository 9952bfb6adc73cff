"""Warnings of features whose scale a network cannot have learned from, or has not seen."""

from __future__ import annotations

import warnings

from torch import Tensor

from ..nn.blocks import Blocks
from .batches import BagDataset, largest_value

_UNSCALED = 1e5
_UNSEEN = 100.0  # times the largest value of the training part


def check_scale(dataset: BagDataset) -> float:
    """Largest absolute value of a feature; warn if it is beyond what a network learns from."""
    largest = float(dataset.largest.max())
    if largest > _UNSCALED:
        name = dataset.bags.name(int(dataset.largest.argmax()))
        warnings.warn(
            f"{name}: features reach {largest:.3g}, from which networks hardly learn. Scale them, "
            "e.g. make_pipeline(InstanceTransformer(StandardScaler()), classifier).",
            UserWarning,
            stacklevel=2,
        )
    return largest


def warn_of_scale(x: Tensor | Blocks, known: float | None, name: str) -> None:
    """Warn if a slide is all zero, or its features are far larger than those of training.

    Of a slide that stays in its file, the first block is looked at. `known` is the largest absolute
    value in training, None where it is unknown.
    """
    if not known:
        return
    largest = largest_value(next(iter(x)) if isinstance(x, Blocks) else x)
    if 0 < largest <= _UNSEEN * known:
        return
    what = f"reach {largest:.3g}, in training {known:.3g}" if largest else "are all zero"
    warnings.warn(
        f"{name}: its features {what}. The prediction is not to be trusted; prepare the slide as "
        "those of training.",
        UserWarning,
        stacklevel=2,
    )
