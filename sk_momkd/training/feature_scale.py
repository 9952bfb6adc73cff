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


class UnlikeTraining:
    """Slides that are all zero, or whose features are far larger than those of training.

    Parameters
    ----------
    known : float or None
        Largest absolute value in training, None where it is unknown.
    """

    def __init__(self, known: float | None) -> None:
        self.known = known
        self.found: list[str] = []

    def look_at(self, x: Tensor | Blocks, name: str) -> None:
        """Note a slide; of one that stays in its file, the first block is looked at."""
        if not self.known:
            return
        largest = largest_value(next(iter(x)) if isinstance(x, Blocks) else x)
        if not 0 < largest <= _UNSEEN * self.known:
            self.found.append(f"{name} (up to {abs(largest):.3g})")

    def warn(self) -> None:
        """Warn once of all slides that were noted."""
        if not self.found:
            return
        warnings.warn(
            f"{len(self.found)} slides have features that are all zero, or more than "
            f"{_UNSEEN:g} times those in training (up to {self.known:.3g}): "
            f"{', '.join(self.found[:3])}{', ...' * (len(self.found) > 3)}. Their predictions are "
            "not to be trusted; prepare them as the slides of training.",
            UserWarning,
            stacklevel=3,
        )
