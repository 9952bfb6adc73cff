"""The first linear map of a slide, which is where its features are read."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from .blocks import Blocks, by_blocks
from .precision import linear_as, wide


def embed(x: Tensor | Blocks, linear: nn.Linear) -> Tensor:
    """`linear` in the type of `x`, then float32; block by block where `x` comes in blocks.

    (n, in_features) -> (n, out_features)
    """
    parts = [wide(linear_as(block, linear)) for _, block in by_blocks(x)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class Embedding(nn.Sequential):
    """Layers on patches, the first of them linear; see `embed`."""

    def __init__(self, linear: nn.Linear, *others: nn.Module) -> None:
        super().__init__(linear, *others)

    def forward(self, x: Tensor | Blocks) -> Tensor:
        linear, *others = self
        h = embed(x, cast(nn.Linear, linear))
        for layer in others:
            h = layer(h)
        return h
