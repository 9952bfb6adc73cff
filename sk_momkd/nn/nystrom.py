"""Nystroem approximation of self-attention over one sequence (Xiong et al. 2021)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .dropout import Dropout


class Landmarks(NamedTuple):
    """Landmarks of one head, (m, c) each; ``core`` is Z, their attention inverted, (m, m)."""

    query: Tensor
    key: Tensor
    core: Tensor


class NystromAttention(nn.Module):
    """Self-attention through m landmarks, ``A1 Z (A3 v)``, and a convolution of the values.

    ``A1 = softmax(q k~')``, ``A2 = softmax(q~ k~')``, ``A3 = softmax(q~ k')``, Z about the
    pseudo-inverse of A2. Both outer products are attentions of their own, so that with fused
    kernels no (n, m) matrix is ever stored. The sequence is padded on the left with zeros to a
    multiple of m; as in the original, the padding is not masked.

    Parameters
    ----------
    dim : int
        Width of the tokens, all heads together.
    n_heads : int
        Must divide `dim`.
    n_landmarks : int
        m; landmarks are means of consecutive tokens.
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
        """Tokens, and what the first of them reads from every token.

        The latter is the first row of ``A1 Z A3``, mean of the heads, without gradient. It is no
        distribution: the padding holds a part, and the pseudo-inverse has signs.

        (n, dim) -> (n, dim), (n,)
        """
        # The zeros stand on the left, so the tokens are the last n positions.
        tokens, row = self.positions(x)
        return tokens[-len(x) :], row[-len(x) :]

    def positions(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`forward` at every position, the padding's too: (n, dim) -> (n', dim), (n',)."""
        padded = F.pad(x, (0, 0, -len(x) % self.n_landmarks, 0))  # (n', dim)
        # One head at a time: a slide of 100,000 patches has 200 MB per (n', dim) matrix.
        heads = [
            self._head(padded, len(padded) - len(x), h, landmarks)
            for h, landmarks in enumerate(self._landmarks(padded))
        ]
        mixed, rows = zip(*heads, strict=True)
        tokens = self.dropout(self.out(torch.cat(mixed, dim=1)))  # (n', dim)
        return tokens, torch.stack(rows).mean(dim=0)

    def _landmarks(self, padded: Tensor) -> list[Landmarks]:
        """Landmarks of each head; a mean of tokens projected is the mean of their projections."""
        means = padded.unflatten(0, (self.n_landmarks, -1)).mean(dim=1)  # (m, dim)
        split = self.qkv(means).view(self.n_landmarks, 3, self.n_heads, -1)  # (m, 3, heads, c)
        query, key, _ = split.permute(1, 2, 0, 3)  # (heads, m, c) each
        core = pseudo_inverse(self._softmax(query, key), self.n_iterations)  # Z (heads, m, m)
        return [Landmarks(*of_head) for of_head in zip(query, key, core, strict=True)]

    def _head(
        self, padded: Tensor, first: int, h: int, landmarks: Landmarks
    ) -> tuple[Tensor, Tensor]:
        """What head h gives each position, (n', c), and the row of position `first`, (n',)."""
        weight = self.qkv.weight.unflatten(0, (3, self.n_heads, -1))[:, h].flatten(0, 1)
        query, key, value = F.linear(padded, weight).chunk(3, dim=1)  # (n', c) each
        read = self._attend(landmarks.query, key, value)  # A3 v (m, c)
        mixed = self._attend(query, landmarks.key, landmarks.core @ read)  # (n', c)
        # The same taps for each of the c columns; one channel alone would be slow on a CPU.
        taps = self.along.weight[h, :, :, 0].expand(value.shape[1], 1, -1)  # (c, 1, taps)
        half, columns = taps.shape[2] // 2, value.T[None]  # (1, c, n')
        along = F.conv1d(columns, taps, padding=half, groups=len(taps))[0].T  # (n', c)
        with torch.no_grad():
            through = self._softmax(query[first : first + 1], landmarks.key) @ landmarks.core
            row = (through @ self._softmax(landmarks.query, key))[0]  # (n',)
        return along.add_(mixed), row

    def _softmax(self, query: Tensor, key: Tensor) -> Tensor:
        return (query @ key.transpose(-1, -2)).mul_(self.scale).softmax(dim=-1)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """``softmax(query key' / sqrt(c)) value`` for one head, by a fused kernel."""
        query, key, value = (part[None, None] for part in (query, key, value))
        return F.scaled_dot_product_attention(query, key, value, scale=self.scale)[0, 0]


def pseudo_inverse(a: Tensor, n_iterations: int) -> Tensor:
    """Pseudo-inverse of row-stochastic matrices by a cubic iteration: (heads, m, m).

    ``Z <- Z (13 I - A Z (15 I - A Z (7 I - A Z))) / 4`` from ``A' / (max row-sum max column-sum)``;
    as in the original, the maxima are taken over all heads.
    """
    eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    z = a.transpose(-1, -2) / (a.sum(dim=-1).max() * a.sum(dim=-2).max())
    for _ in range(n_iterations):
        az = a @ z
        z = z @ (13 * eye - az @ (15 * eye - az @ (7 * eye - az))) / 4
    return z
