"""The output of every model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class MILOutput:
    """Output of a model for a batch of bags.

    Attributes
    ----------
    logits : Tensor of shape (n_bags, n_classes)
    attention : Tensor of shape (n_instances, n_maps)
        Sums to one over the instances of each bag; ``n_maps`` is 1, or the number of classes
        where a model has one map per class.
    batch : Tensor of shape (n_instances,)
        Index of the bag that each instance belongs to.
    pooled_logits : Tensor of shape (n_classes,) or None
        Of the regression on pooled slides, where it has a share of the logits of a slide.
    """

    logits: Tensor
    attention: Tensor
    batch: Tensor
    pooled_logits: Tensor | None = field(default=None, kw_only=True)

    def to(self, device: torch.device | str) -> Self:
        """Copy of the output with every tensor on `device`."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {k: v.to(device) for k, v in tensors.items() if isinstance(v, Tensor)}
        return replace(self, **moved)


def mean_output(outputs: Sequence[MILOutput]) -> MILOutput:
    """Output of an ensemble: mean logits and attention; all else is the first model's."""
    if len(outputs) == 1:
        return outputs[0]
    return replace(
        outputs[0],
        logits=torch.stack([output.logits for output in outputs]).mean(dim=0),
        attention=torch.stack([output.attention for output in outputs]).mean(dim=0),
    )
