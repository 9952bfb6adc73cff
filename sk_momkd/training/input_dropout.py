"""Input and instance dropout: features and patches of training batches left out at random."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..nn.blocks import materialize
from .batches import FlatBatch


@dataclass
class InputDropout:
    """Set entries of the patch features to zero, and remove patches together with their edges.

    Parameters
    ----------
    input_dropout : float
        Share of feature entries set to zero; the others are scaled up, as in any dropout.
    instance_dropout : float
        Share of patches removed; every bag keeps at least one.
    generator : torch.Generator
        On the CPU.
    """

    input_dropout: float
    instance_dropout: float
    generator: torch.Generator

    def __call__(self, batch: FlatBatch) -> FlatBatch:
        """New batch after dropout; the same batch where both shares are 0."""
        if self.instance_dropout:
            batch = self._drop_instances(batch)
        if self.input_dropout:
            x = materialize(batch.x)
            keep = self._uniform(x.shape).to(x.device).ge_(self.input_dropout).to(x.dtype)
            batch = replace(batch, x=keep.mul_(x).div_(1 - self.input_dropout))
        return batch

    def _drop_instances(self, batch: FlatBatch) -> FlatBatch:
        draw = self._uniform((len(batch.batch),)).to(batch.batch.device)
        highest = draw.new_zeros(batch.n_bags).scatter_reduce(0, batch.batch, draw, "amax")
        keep = (draw >= self.instance_dropout) | (draw == highest[batch.batch])
        return replace(
            batch,
            x=materialize(batch.x)[keep],
            edges=batch.edges.among(keep),
            batch=batch.batch[keep],
        )

    def _uniform(self, shape: tuple[int, ...]) -> Tensor:
        return torch.rand(shape, generator=self.generator)
