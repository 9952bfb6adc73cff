"""Nystroem approximation of self-attention over sequences of one length (Xiong et al. 2021)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .dropout import Dropout

_ALL_HEADS_AT_ONCE = 10_000  # up to as many tokens; longer sequences save memory


class WeightedRows(NamedTuple):
    """Rows of which the first may represent several equal rows.

    Attributes
    ----------
    rows : Tensor of shape (..., n, dim)
    bias : Tensor of shape (n,) or None
        Logarithm of the number of rows that each represents, added to softmax scores. None where
        each represents itself.
    """

    rows: Tensor
    bias: Tensor | None


class NystromAttention(nn.Module):
    """Self-attention through m landmarks, ``A1 Z (A3 v)``, and a convolution of the values.

    ``A1 = softmax(q k~')``, ``A2 = softmax(q~ k~')``, ``A3 = softmax(q~ k')``, and Z approximates
    the pseudo-inverse of A2. The products with A1 and A3 are attention operations, so that with
    fused kernels no (n, m) matrix is stored. The sequence is padded on the left with zeros to a
    multiple of m; as in the original, the padding is not masked.

    Landmarks that consist of padding are equal, and so are padded tokens. One of each is computed
    and weighted by their number, which changes no value: 10 tokens and 256 landmarks need
    matrices of 11 x 11.

    Parameters
    ----------
    dim : int
        Width of the tokens, all heads together.
    n_heads : int
        Must divide `dim`.
    n_landmarks : int
        Number m of landmarks, which are means of consecutive tokens.
    n_iterations : int, default=6
        Of the pseudo-inverse.
    kernel_size : int, default=33
        Of the convolution along the sequence, odd.
    dropout : float, default=0.1
        On the output.

    References
    ----------
    Xiong et al. Nystroemformer. AAAI 2021.
    """

    def __init__(
        self,
        dim: int,
        n_heads: int,
        n_landmarks: int,
        *,
        n_iterations: int = 6,
        kernel_size: int = 33,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.n_heads, self.n_landmarks, self.n_iterations = n_heads, n_landmarks, n_iterations
        self.scale = (dim // n_heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim)
        self.along = nn.Conv2d(
            n_heads,
            n_heads,
            (kernel_size, 1),
            padding=(kernel_size // 2, 0),
            groups=n_heads,
            bias=False,
        )
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Attended tokens, and the weight of every token in the first of them.

        The weights are the first row of ``A1 Z A3``, mean of the heads, without gradient. They
        are no distribution: the padding has weight, too, and weights can be negative.

        (g, n, dim) -> (g, n, dim), (g, n)
        """
        n = x.shape[1]
        n_padding = -n % self.n_landmarks
        size = (n + n_padding) // self.n_landmarks  # tokens per landmark
        n_empty = n_padding // size  # landmarks that consist of padding
        tokens = _after_zeros(x, n_padding, together=n_empty > 1)  # n' rows
        means = F.pad(x, (0, 0, n_padding % size, 0)).unflatten(1, (-1, size)).mean(dim=2)
        landmarks = _after_zeros(means, n_empty, together=True)  # m' rows
        marks, keys, cores = self._cores(landmarks)
        together = self.n_heads if n <= _ALL_HEADS_AT_ONCE else 1
        heads = [slice(h, h + together) for h in range(0, self.n_heads, together)]
        parts = [
            self._read(
                tokens, n, h, (marks[:, h], landmarks._replace(rows=keys[:, h]), cores[:, h])
            )
            for h in heads
        ]
        mixed, rows = zip(*parts, strict=True)
        return self.dropout(self.out(torch.cat(mixed, dim=2))), torch.cat(rows, dim=1).mean(dim=1)

    def _cores(self, landmarks: WeightedRows) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys of the landmarks, (g, heads, m', c), and Z, (g, heads, m', m').

        The projection of a mean of tokens is the mean of their projections.
        """
        split = self.qkv(landmarks.rows).unflatten(2, (3, self.n_heads, -1))
        query, key, _ = split.permute(2, 0, 3, 1, 4)
        a = self._softmax(query, key, landmarks.bias)
        return query, key, pseudo_inverse(a, self.n_iterations, landmarks.bias)

    def _read(
        self,
        tokens: WeightedRows,
        n: int,
        heads: slice,
        landmarks: tuple[Tensor, WeightedRows, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Output of h heads for the last n positions, and the weights in the first of them.

        The padding is on the left, so that the tokens are the last n positions.
        The results have the shapes (g, n, h c) and (g, h, n).
        """
        marks, marked, core = landmarks
        weight = self.qkv.weight.unflatten(0, (3, self.n_heads, -1))[:, heads]  # (3, h, c, dim)
        split = F.linear(tokens.rows, weight.flatten(0, 2)).unflatten(2, weight.shape[:3])
        query, key, value = split.permute(2, 0, 3, 1, 4)  # (g, h, n', c) each
        query = query[:, :, -n:]
        read = self._attend(marks, WeightedRows(key, tokens.bias), value)  # A3 v (g, h, m', c)
        mixed = self._attend(query, marked, core @ read)  # (g, h, n, c)
        # Every head has one kernel for its c columns; a convolution of one channel is slow on CPUs.
        kernel = self.along.weight[heads, :, :, 0].repeat_interleave(value.shape[3], dim=0)
        columns = value[:, :, -n:].transpose(2, 3).flatten(1, 2)  # (g, h c, n)
        along = F.conv1d(columns, kernel, padding=kernel.shape[2] // 2, groups=len(kernel))
        with torch.no_grad():
            through = self._softmax(query[:, :, :1], marked.rows, marked.bias) @ core
            row = (through @ self._softmax(marks, key, tokens.bias))[:, :, 0, -n:]  # (g, h, n)
        return along.transpose(1, 2).add_(mixed.transpose(1, 2).flatten(2)), row

    def _softmax(self, query: Tensor, key: Tensor, bias: Tensor | None) -> Tensor:
        scores = (query @ key.transpose(-1, -2)).mul_(self.scale)
        return (scores if bias is None else scores.add_(bias)).softmax(dim=-1)

    def _attend(self, query: Tensor, keys: WeightedRows, value: Tensor) -> Tensor:
        """``softmax(query keys' / sqrt(c)) value``, by a fused kernel."""
        bias = None if keys.bias is None else keys.bias.expand(*query.shape[:3], -1)
        attend = F.scaled_dot_product_attention
        return attend(query, keys.rows, value, attn_mask=bias, scale=self.scale)


def _after_zeros(x: Tensor, n_zeros: int, *, together: bool) -> WeightedRows:
    """Put rows of zeros before `x`, or one row that represents all of them."""
    if n_zeros < 2 or not together:
        return WeightedRows(F.pad(x, (0, 0, n_zeros, 0)), None)
    bias = x.new_zeros(1 + x.shape[-2])
    bias[0] = math.log(n_zeros)
    return WeightedRows(F.pad(x, (0, 0, 1, 0)), bias)


def pseudo_inverse(a: Tensor, n_iterations: int, bias: Tensor | None = None) -> Tensor:
    """Pseudo-inverse of row-stochastic matrices by a cubic iteration: (..., heads, m, m).

    ``Z <- Z (13 I - A Z (15 I - A Z (7 I - A Z))) / 4`` from ``A' / (max row-sum max column-sum)``;
    as in the original, the maxima are taken over all heads of a sequence. With `bias`, the
    logarithm of D, each row and column of `a` represents D equal ones whose columns are summed:
    `a` is ``B D`` and the result ``Z D``, where B and Z hold one of each. The start is then
    ``B' D = D^-1 (B D)' D``.
    """
    eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    count = a.new_ones(len(eye)) if bias is None else bias.exp()  # D
    columns = (count.unsqueeze(1) * a).sum(dim=-2) / count  # column sums over all represented rows
    highest = [sums.amax(dim=(-2, -1), keepdim=True) for sums in (a.sum(dim=-1), columns)]
    scale = (highest[0] * highest[1]).unsqueeze(-1)  # (..., 1, 1, 1)
    z = a.transpose(-1, -2) / count.unsqueeze(1) * count / scale
    for _ in range(n_iterations):
        az = a @ z
        z = z @ (13 * eye - az @ (15 * eye - az @ (7 * eye - az))) / 4
    return z
