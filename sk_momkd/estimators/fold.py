"""What one fit learns from: its data, and its sources of chance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state

from ..training.batches import BagDataset
from ..training.net import fresh_callbacks

# Every use of chance has a stream of its own, so that switching one off leaves the others alone.
_USES = (
    "split",
    "weights",
    "omics_weights",
    "sampling",
    "dropout",
    "omics_dropout",
    "model",
    "teacher",
    "thinning",
    "soft_labels",
)


class Streams:
    """Seeds and generators by use.

    Parameters
    ----------
    random_state : int, RandomState or None
    device : str
        Where dropout is drawn; the rest is drawn on the CPU.
    """

    def __init__(self, random_state: Any, device: str) -> None:
        drawn = check_random_state(random_state).randint(2**31 - 1, size=len(_USES))
        self.seeds = dict(zip(_USES, map(int, drawn), strict=True))
        self.device = device

    def generator(self, use: str) -> torch.Generator:
        """A generator at the start of its stream."""
        device = self.device if "dropout" in use else "cpu"
        return torch.Generator(device).manual_seed(self.seeds[use])

    def generators(self) -> dict[str, torch.Generator]:
        """All of them."""
        return {use: self.generator(use) for use in _USES}

    def within(self, use: str) -> Streams:
        """Streams of a network that is trained within a fit, such as a teacher."""
        return Streams(self.seeds[use], self.device)

    def of_model(self, number: int) -> Streams:
        """Streams of a further model of an ensemble; those of model 0 are these."""
        if number == 0:
            return self
        seed = np.random.SeedSequence([self.seeds["weights"], number]).generate_state(1)[0]
        return Streams(int(seed), self.device)


@dataclass(frozen=True)
class Fold:
    """Data of one fit.

    Attributes
    ----------
    training : BagDataset
    validation : BagDataset or None
    n_genes : int
        Width of the omics vectors, 0 without omics.
    streams : Streams
    callbacks : list
        The user's.
    """

    training: BagDataset
    validation: BagDataset | None
    n_genes: int
    streams: Streams
    callbacks: list[Any]

    def of_model(self, number: int) -> Fold:
        """The same data for a further model of an ensemble."""
        callbacks = self.callbacks if number == 0 else fresh_callbacks(self.callbacks)
        return replace(self, streams=self.streams.of_model(number), callbacks=callbacks)

    def for_teacher(self) -> Fold:
        """The same data for a network that is trained first, out of the user's sight."""
        return replace(self, streams=self.streams.within("teacher"), callbacks=[])
