"""Features whose scale a network cannot have learned from, or that are unlike those of training."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..exceptions import BagError, FeatureShiftWarning
from ..messages import listed, warn
from ..nn.blocks import Blocks
from .batches import BagDataset, largest_value
from .feature_summary import FeatureSummary

_UNSCALED = 1e5
_UNSEEN = 100.0  # times the largest value of the training part
_FAR, _FAR_TOGETHER = 4.0, 2.0  # times the usual distance: one slide, half of several
_SEVERAL = 5  # slides
_REMEDY = (
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
        self.out_of_scale: list[str] = []
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
            self.out_of_scale.append(f"{name} (up to {abs(largest):.3g})")
        elif self.summary is not None:
            self.distances.append(self.summary.distance(mean, size))
            self.names.append(name)
            unlike = self._is_far(self.distances[-1])
        if self.strict and unlike:
            raise BagError(self.messages()[0])

    def warn(self) -> None:
        """Warn once of all slides that were noted.

        Raises
        ------
        BagError
            With `strict`.
        """
        for message in self.messages():
            if self.strict:
                raise BagError(message)
            warn(message, FeatureShiftWarning)

    def far(self) -> list[int]:
        """Positions of the slides that are far by themselves."""
        return [i for i, distance in enumerate(self.distances) if self._is_far(distance)]

    def _is_far(self, distance: float) -> bool:
        return self.summary is not None and distance > _FAR * self.summary.usual

    def messages(self) -> list[str]:
        """The warnings of the slides that were noted."""
        found = []
        if self.out_of_scale:
            found.append(
                f"{len(self.out_of_scale)} slides have features that are all zero, or more than "
                f"{_UNSEEN:g} times those in training (up to {self.largest:.3g}): "
                f"{listed(self.out_of_scale)}. {_REMEDY}"
            )
        if message := self._shift_message():
            found.append(f"{message} {_REMEDY}")
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


def mean_patch(x: Tensor) -> NDArray:
    """Mean over the patches, (n, n_features) -> (n_features,)."""
    return x.mean(dim=0, dtype=torch.float32).double().cpu().numpy()
