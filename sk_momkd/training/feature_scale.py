"""Features whose scale a network cannot have learned from, or that are unlike those of training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..bag_warnings import warn_of_bag
from ..exceptions import BagError, FeatureShiftWarning
from ..messages import listed, warn
from ..nn.blocks import Blocks
from .batches import BagDataset, largest_value
from .feature_summary import FeatureSummary

_UNSCALED = 1e5
_UNSEEN = 100.0  # times the largest value of the training part
_FAR, _FAR_TOGETHER = 4.0, 2.0  # times the usual distance: one slide, half of several
_SEVERAL = 5  # slides
_DISTANCES: ContextVar[dict[str, float] | None] = ContextVar("_DISTANCES", default=None)
REMEDY = (
    "Their predictions are not to be trusted; prepare them as the slides of training: by the same "
    "encoder and scaling, at the same magnification, with the same stain."
)


def check_scale(dataset: BagDataset, *, strict: bool = False) -> float:
    """Largest absolute value of a feature; warn if it is beyond what a network learns from.

    Raises
    ------
    BagError
        In place of the warning, with `strict`.
    """
    largest = float(dataset.largest.max())
    if largest > _UNSCALED:
        name = dataset.bags.name(int(dataset.largest.argmax()))
        message = (
            f"{name}: features reach {largest:.3g}, from which networks hardly learn. Scale them, "
            "e.g. make_pipeline(InstanceTransformer(StandardScaler()), classifier)."
        )
        if strict:
            raise BagError(message)
        warn(message, UserWarning)
    return largest


class UnlikeTraining:
    """Slides that are all zero, have far larger features than in training, or lie far from it.

    Parameters
    ----------
    largest : float or None
        Largest absolute value in training, None where it is unknown.
    summary : FeatureSummary or None
        Of the training slides, None where there is none.
    strict : bool
        Whether such slides raise.

    Raises
    ------
    ValueError
        With `strict`, if `largest` is unknown.
    """

    def __init__(
        self, largest: float | None, summary: FeatureSummary | None = None, *, strict: bool = False
    ) -> None:
        if strict and largest is None:
            raise ValueError(
                "training__strict=True, but this model does not know the features that it was "
                "trained on, with which slides could be compared: it was made by an older "
                "sk_momkd, or from a checkpoint of the authors' program. Set "
                "training__strict=False, or fit anew."
            )
        self.largest, self.summary, self.strict = largest, summary, strict
        self.out_of_scale: dict[str, float] = {}  # by name, the largest value
        self.distances: list[float] = []
        self.names: list[str] = []

    def look_at(self, x: Tensor | Blocks, name: str) -> None:
        """Note a slide; of one that stays in its file, the first block is looked at.

        Raises
        ------
        BagError
            With `strict`, for a slide that is out of scale or far from training.
        """
        if self.largest:
            x = next(iter(x)) if isinstance(x, Blocks) else x
            self._note(largest_value(x), mean_patch(x), len(x), name)

    def look_at_all(self, dataset: BagDataset) -> None:
        """Note all slides of a dataset, by what it knows of them.

        Raises
        ------
        BagError
            With `strict`, for slides that are out of scale or far from training.
        """
        if self.largest:
            known = (dataset.largest.tolist(), dataset.means, dataset.sizes.tolist())
            for i, (largest, mean, size) in enumerate(zip(*known, strict=True)):
                self._note(largest, mean, size, dataset.bags.name(i))
        if self.strict:
            self.warn()

    def _note(self, largest: float, mean: NDArray, size: int, name: str) -> None:
        unlike = not 0 < largest <= _UNSEEN * (self.largest or 0.0)
        if unlike:
            self.out_of_scale[name] = abs(largest)
        elif self.summary is not None:
            self.distances.append(self.summary.distance(mean, size))
            self.names.append(name)
            unlike = self._is_far(self.distances[-1])
        if self.strict and unlike:
            raise BagError(self.messages()[0])

    def warn(self) -> None:
        """Warn once of all slides that were noted; or, in `noted_distances`, note each of them.

        Raises
        ------
        BagError
            With `strict`.
        """
        distances = _DISTANCES.get()
        if distances is not None:
            self._note_each(distances)
        for message in self.messages():
            if self.strict:
                raise BagError(message)
            if distances is None:
                warn(message, FeatureShiftWarning)

    def _note_each(self, distances: dict[str, float]) -> None:
        usual = 1.0 if self.summary is None else self.summary.usual
        for name, distance in zip(self.names, self.distances, strict=True):
            distances[name] = max(distance / usual, distances.get(name, 0.0))
        for name, largest in self.out_of_scale.items():
            text = f"its features are {_out_of_scale(self.largest)}: up to {largest:.3g}."
            warn_of_bag(name, text, FeatureShiftWarning)

    def far(self) -> list[int]:
        """Positions of the slides that are far by themselves."""
        return [i for i, distance in enumerate(self.distances) if self._is_far(distance)]

    def _is_far(self, distance: float) -> bool:
        return self.summary is not None and distance > _FAR * self.summary.usual

    def messages(self) -> list[str]:
        """The warnings of the slides that were noted."""
        found = []
        if self.out_of_scale:
            names = (f"{name} (up to {value:.3g})" for name, value in self.out_of_scale.items())
            found.append(
                f"{len(self.out_of_scale)} slides have features that are "
                f"{_out_of_scale(self.largest)}: {listed(names)}. {REMEDY}"
            )
        if message := self._shift_message():
            found.append(f"{message} {REMEDY}")
        return found

    def _shift_message(self) -> str:
        if self.summary is None or not self.distances:
            return ""
        n, middle, far = len(self.distances), float(np.median(self.distances)), self.far()
        farthest = sorted(far, key=lambda i: -self.distances[i])
        names = [f"{self.names[i]} ({self.distances[i]:.2g})" for i in farthest]
        if n >= _SEVERAL and middle > _FAR_TOGETHER * self.summary.usual:
            message = f"The features of {n} slides lie together far from those of training: half "
            message += f"of the slides are at least {middle:.2g} away."
            message += f" The farthest are {listed(names)}." if names else ""
        elif far:
            message = f"The features of {len(far)} of {n} slides lie far from those of training: "
            message += f"{listed(names)}."
        else:
            return ""
        return (
            f"{message} A distance counts standard deviations between slides (root mean square "
            "over the features), and 90 % of the training slides are within "
            f"{self.summary.usual:.2g}."
        )


@contextmanager
def noted_distances() -> Iterator[dict[str, float]]:
    """Inside, `UnlikeTraining` notes distances by name and warns of none; in this thread only.

    They are in units of the distance within which 90 % of the training slides lie.
    """
    distances: dict[str, float] = {}
    before = _DISTANCES.set(distances)
    try:
        yield distances
    finally:
        _DISTANCES.reset(before)


def far_from_training(distances: Iterable[float]) -> float:
    """From which of these distances on, in the units of `noted_distances`, a slide is far.

    Nearer slides are far, too, where several lie so far away together.
    """
    known = [distance for distance in distances if not np.isnan(distance)]
    are_far = len(known) >= _SEVERAL and np.median(known) > _FAR_TOGETHER
    return _FAR_TOGETHER if are_far else _FAR


def _out_of_scale(largest: float | None) -> str:
    return f"all zero, or more than {_UNSEEN:g} times those in training (up to {largest:.3g})"


def mean_patch(x: Tensor) -> NDArray:
    """Mean over the patches, (n, n_features) -> (n_features,)."""
    return x.mean(dim=0, dtype=torch.float32).double().cpu().numpy()
