"""A random validation part: whole groups, every class on both sides, the asked size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..messages import warn

_DRAWS = 25
_NEAR = 0.15  # times the asked size: a deviation that does not matter
_OFTEN = 2 / 3  # of the acceptable parts; a group is in no more of them
_ROUNDING = 1e-9


def stratified_group_split(
    y: NDArray,
    groups: NDArray,
    *,
    fraction: float,
    random_state: np.random.RandomState,
    patients: NDArray | None = None,
    classes: Sequence[Any] | None = None,
) -> tuple[NDArray, NDArray]:
    """Positions of a training and a validation part, every class on both sides.

    Several parts of whole groups are drawn at random. The acceptable ones are those near
    `fraction` of the patients of each class, and further ones while a group is in most of
    them; the validation part is a random one of these. Thus no site or patient validates under
    every seed, also where few groups have about the asked size.

    Parameters
    ----------
    y : int ndarray of shape (n_bags,)
        Class numbers.
    groups : ndarray of shape (n_bags,)
    fraction : float
    random_state : RandomState
    patients : ndarray of shape (n_bags,), optional
        Patient of each bag. The size of a part is its number of patients. By default each group
        is one patient.
    classes : sequence, optional
        Names of the class numbers, for messages.

    Raises
    ------
    ValueError
        If a class has a single group, so that it cannot be on both sides.
    """
    held = _PatientsOfGroups.count(y, groups, groups if patients is None else patients)
    held.require_two_groups(len(y), np.unique(y), classes)
    drawn = [part for _ in range(_DRAWS) if (part := held.draw(fraction, random_state)) is not None]
    if not drawn:
        raise ValueError(
            "No grouped split has every class on both sides. Use smaller groups, another "
            "validation_fraction, or early_stopping=False."
        )
    parts = np.array(drawn)
    deviations = np.array([held.deviation(part, fraction) for part in parts])
    acceptable = _acceptable(parts, deviations, _NEAR * fraction * held.counts.sum())
    part = acceptable[random_state.randint(len(acceptable))]
    held.warn_of_size(part, fraction)
    validates = part[held.group_of_bag]
    return np.flatnonzero(~validates), np.flatnonzero(validates)


def _acceptable(parts: NDArray, deviations: NDArray, near: float) -> NDArray:
    """The parts that are `near`, and the next ones while a group is in most; (n, n_groups)."""
    order = np.argsort(deviations, kind="stable")
    often = parts[order].cumsum(axis=0).max(axis=1) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(often <= _OFTEN)
    last = order[enough[0] if len(enough) else -1]
    return parts[deviations <= max(deviations[last], near) + _ROUNDING]


@dataclass(frozen=True)
class _PatientsOfGroups:
    """Number of patients of each group and class.

    Attributes
    ----------
    counts : float ndarray of shape (n_groups, n_classes)
        A patient whose bags have several labels counts for each by its share of the bags.
    group_of_bag : int ndarray of shape (n_bags,)
        Row of `counts` of each bag.
    """

    counts: NDArray
    group_of_bag: NDArray

    @classmethod
    def count(cls, y: NDArray, groups: NDArray, patients: NDArray) -> Self:
        """Count the patients of each group and class number."""
        names, group_of_bag = np.unique(groups, return_inverse=True)
        _, patient, n_bags = np.unique(patients, return_inverse=True, return_counts=True)
        classes, label = np.unique(y, return_inverse=True)
        counts = np.zeros((len(names), len(classes)))
        np.add.at(counts, (group_of_bag, label), 1 / n_bags[patient])
        return cls(counts, group_of_bag)

    def require_two_groups(
        self, n_bags: int, numbers: NDArray, classes: Sequence[Any] | None
    ) -> None:
        """Raise if a class is in one group only."""
        n_groups = (self.counts > 0).sum(axis=0)
        rarest = int(np.argmin(n_groups))
        if n_groups[rarest] < 2:
            number = int(numbers[rarest])
            name = f"number {number}" if classes is None else repr(classes[number])
            raise ValueError(
                f"Class {name} has a single patient or group (n_samples = {n_bags}), so "
                "no validation part with every class can be set apart. Add patients or groups, use "
                "early_stopping=False, or pass no groups (evaluate takes folds of two sites as "
                "cv=[(train, test), ...])."
            )

    def draw(self, fraction: float, random: np.random.RandomState) -> NDArray | None:
        """One random part as a mask of groups, or None if a class would be absent from a side.

        A random group of each class that is still absent comes first, the rarest class first.
        Then groups are added in random order, where that brings the part nearer to its size.
        """
        part = np.zeros(len(self.counts), dtype=bool)
        holds = self.counts > 0
        remaining = holds.sum(axis=0)  # groups with each class that are left for training
        order = random.permutation(len(part))
        for c in np.argsort(remaining, kind="stable"):
            free = (remaining - holds).min(axis=1) > 0  # training keeps every class without it
            fitting = order[(holds[:, c] & free)[order]]
            if part[holds[:, c]].any():
                continue
            if not len(fitting):
                return None
            part[fitting[0]] = True
            remaining = remaining - holds[fitting[0]]
        return self._fill(part, remaining, order, fraction)

    def _fill(self, part: NDArray, remaining: NDArray, order: NDArray, fraction: float) -> NDArray:
        target = fraction * self.counts.sum(axis=0)
        size = self.counts[part].sum(axis=0)
        for group in order[~part[order]]:
            if size.sum() >= target.sum():
                break  # what a class gains now, the sum loses
            enlarged, left = size + self.counts[group], remaining - (self.counts[group] > 0)
            gain = _distance(size, target) - _distance(enlarged, target)
            if left.min() > 0 and gain > _ROUNDING:
                part[group], size, remaining = True, enlarged, left
        return part

    def deviation(self, part: NDArray, fraction: float) -> float:
        """Number of patients, in all and of each class, by which a part is off its size."""
        return _distance(self.counts[part].sum(axis=0), fraction * self.counts.sum(axis=0))

    def warn_of_size(self, part: NDArray, fraction: float) -> None:
        """Warn if a part is off its size by half and by more than a patient per class."""
        total = self.counts.sum()
        size, asked = self.counts[part].sum(), fraction * total
        if abs(size - asked) <= max(asked / 2, self.counts.shape[1]):
            return
        warn(
            f"The validation part has {size:.0f} of {total:.0f} patients, where "
            f"validation_fraction={fraction:g} asks for {asked:.0f}: the {len(part)} groups are "
            "too few or too unequal for that. Use smaller groups, another validation_fraction, or "
            "early_stopping=False.",
            UserWarning,
        )


def _distance(size: NDArray, target: NDArray) -> float:
    difference = size - target
    return float(abs(difference.sum()) + np.abs(difference).sum())
