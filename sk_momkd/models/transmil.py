"""TransMIL: transformer-based correlated multiple instance learning (arXiv 2106.00908)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..nn.blocks import Blocks, embed
from ..nn.initialization import initialise
from ..nn.nystrom import NystromAttention
from ..nn.segment import segment_map
from ..output import MILOutput


class TransMIL(nn.Module):
    """Slide classifier on the class token of two Nystroem attention layers.

    The patches are arranged row by row on a square, so that their order matters. Slides of one
    size are computed together; no slide depends on the others.

    Parameters
    ----------
    in_features : int
        Width of the patch features.
    n_classes : int
    dim : int, default=512
        Width d of the tokens; there are d / 2 landmarks.
    n_heads : int, default=8
        Must divide `dim`.
    dropout : float, default=0.1
        On the output of both attention layers.

    Notes
    -----
    ``nystrom-attention`` 0.0.9, which the authors pinned, keeps the first n positions of the
    sequence that it padded on the left; here the last n are kept. ``output.attention``
    is ours: the share of each patch in the class token of the second layer, mean of the heads,
    with copies added to their patch, negative shares cut off, and the rest scaled to sum to one.

    References
    ----------
    Shao et al. TransMIL: Transformer based Correlated Multiple Instance Learning for Whole Slide
    Image Classification. NeurIPS 2021.
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        *,
        dim: int = 512,
        n_heads: int = 8,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.empty(1, 1, dim))
        self.embedding = nn.Linear(in_features, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.attention1 = NystromAttention(dim, n_heads, dim // 2, dropout=dropout)
        self.position = PositionEncoding(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.attention2 = NystromAttention(dim, n_heads, dim // 2, dropout=dropout)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, n_classes)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the class token from N(0, 1), all else as torch does."""
        nn.init.normal_(self.class_token, generator=generator)
        for part in self.children():
            initialise(part, generator)

    def forward(
        self,
        x: Tensor | Blocks,  # (n, in_features), float32 or bfloat16
        edge_index: Tensor,  # not used
        batch: Tensor,  # (n,), ascending
        n_bags: int,
        *,
        y: Tensor | None = None,
        omics: Tensor | None = None,
        paired: Tensor | None = None,
    ) -> MILOutput:
        embedding = F.relu(embed(x, self.embedding))  # h (n, d)
        slides = segment_map(self._slides, embedding, batch, n_bags)
        tokens = torch.stack([token for token, _ in slides])  # (B, d)
        attention = torch.cat([weights for _, weights in slides]).unsqueeze(1)  # (n, 1)
        return MILOutput(self.head(self.norm(tokens)), attention, batch)

    def _slides(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Class tokens and patch weights of g slides: (g, N, d) -> (g, d), (g, N)."""
        g, n, _ = h.shape
        side = math.isqrt(n - 1) + 1  # s
        token, n_copies = self.class_token.expand(g, -1, -1), side**2 - n
        tokens = torch.cat([token, h, h[:, :n_copies]], dim=1)  # (g, 1 + s^2, d)
        tokens = tokens + self.attention1(self.norm1(tokens))[0]  # (g, 1 + s^2, d)
        tokens = self.position(tokens, side)  # (g, 1 + s^2, d)
        update, row = self.attention2(self.norm2(tokens))  # (g, 1 + s^2, d), (g, 1 + s^2)
        return tokens[:, 0] + update[:, 0], _patch_weights(row[:, 1:], n)


class PositionEncoding(nn.Module):
    """Depth-wise convolutions over the square of patches, added to the patches (PPEG)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.wide, self.middle, self.narrow = (
            nn.Conv2d(dim, dim, size, padding=size // 2, groups=dim) for size in (7, 5, 3)
        )

    def forward(self, tokens: Tensor, side: int) -> Tensor:
        """(g, 1 + side^2, dim) -> the same shape; the class token is not changed."""
        square = tokens[:, 1:].transpose(1, 2).unflatten(2, (side, side))  # (g, d, s, s)
        square = square + self.wide(square) + self.middle(square) + self.narrow(square)
        return torch.cat([tokens[:, :1], square.flatten(2).transpose(1, 2)], dim=1)


def _patch_weights(row: Tensor, n: int) -> Tensor:
    """Add the shares of copies to those of their patches; scale to sum to one, (g, n)."""
    share = row[:, :n].clone()
    share[:, : row.shape[1] - n] += row[:, n:]
    share = share.clamp(min=torch.finfo(row.dtype).tiny)
    return share / share.sum(dim=1, keepdim=True)
