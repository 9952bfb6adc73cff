"""Random generators of one fit, one for each purpose."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state

# Each use has a generator of its own, so that switching one off leaves the others as they are.
_USES = (
    "split",
    "weights",
    "omics_weights",
    "sampling",
    "dropout",
    "omics_dropout",
    "model",
    "teacher",
    "input_dropout",
    "soft_labels",
)


class RandomGenerators:
    """Seeds and generators by use.

    Parameters
    ----------
    random_state : int, RandomState or None
    device : str
        Device of the dropout generators; the others are on the CPU.
    """

    def __init__(self, random_state: Any, device: str) -> None:
        drawn = check_random_state(random_state).randint(2**31 - 1, size=len(_USES))
        self.seeds = dict(zip(_USES, map(int, drawn), strict=True))
        self.device = device

    def generator(self, use: str) -> torch.Generator:
        """New generator of this use, at its start."""
        device = self.device if use in {"dropout", "omics_dropout"} else "cpu"
        return torch.Generator(device).manual_seed(self.seeds[use])

    def generators(self) -> dict[str, torch.Generator]:
        """New generators of all uses."""
        return {use: self.generator(use) for use in _USES}

    def for_teacher(self) -> RandomGenerators:
        """Generators of a teacher network that is trained within the fit."""
        return RandomGenerators(self.seeds["teacher"], self.device)

    def for_model(self, number: int) -> RandomGenerators:
        """Generators of one model of an ensemble; those of model 0 are these."""
        if number == 0:
            return self
        seed = np.random.SeedSequence([self.seeds["weights"], number]).generate_state(1)[0]
        return RandomGenerators(int(seed), self.device)
