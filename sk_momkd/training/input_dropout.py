"""Training batches with features and patches left out at random."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..nn.blocks import whole
from .batches import FlatBatch


@dataclass
class Thinning:
    """Leaves out entries of the patch features, and whole patches with their edges.

    Every bag keeps at least one patch.

    Parameters
    ----------
    input_dropout : float
        Share of feature entries set to zero; the others grow, as in any dropout.
    instance_dropout : float
        Share of patches left out.
    generator : torch.Generator
        On the CPU.
    """

    input_dropout: float
    instance_dropout: float
    generator: torch.Generator

    def __call__(self, batch: FlatBatch) -> FlatBatch:
        """The thinned batch; itself where nothing is to be left out."""
        if self.instance_dropout:
            batch = self._without_patches(batch)
        if self.input_dropout:
            x = whole(batch.x)
            kept = self._uniform(x.shape).to(x.device) >= self.input_dropout
            batch = replace(batch, x=x * kept / (1 - self.input_dropout))
        return batch

    def _without_patches(self, batch: FlatBatch) -> FlatBatch:
        draw = self._uniform((len(batch.batch),)).to(batch.batch.device)
        highest = draw.new_zeros(batch.n_bags).scatter_reduce(0, batch.batch, draw, "amax")
        kept = (draw >= self.instance_dropout) | (draw == highest[batch.batch])
        return replace(
            batch,
            x=whole(batch.x)[kept],
            edges=batch.edges.among(kept),
            batch=batch.batch[kept],
        )

    def _uniform(self, shape: tuple[int, ...]) -> Tensor:
        return torch.rand(shape, generator=self.generator)
