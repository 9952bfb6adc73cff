"""Dropout that draws from a given generator, and masks computed from a counter.

A `Mask` is two random numbers; whether entry i is dropped follows from them and from i. Compiled
and uncompiled code, forward and backward, thus drop the same entries without storing them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Stochastic(nn.Module):
    """A module that draws random numbers in training, from `generator` if one is set."""

    def __init__(self) -> None:
        super().__init__()
        self.generator: torch.Generator | None = None


class Dropout(Stochastic):
    """Inverted dropout whose mask comes from a given generator.

    Parameters
    ----------
    p : float
        Probability of dropping an entry.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        return x * self.factors(x.shape, x)

    def factors(self, shape: tuple[int, ...], like: Tensor | None = None) -> Tensor:
        """Factors of the next mask, 0 or 1 / (1 - p), in the type and place of `like`."""
        new = torch.empty(shape) if like is None else torch.empty_like(like)
        if not self.training or self.p == 0:
            return new.fill_(1.0)
        return new.bernoulli_(1 - self.p, generator=self.generator).div_(1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"


def draw_masks(dropouts: Sequence[Dropout]) -> list[Mask]:
    """Draw the next masks of several layers of one network, which share a generator."""
    shares = [dropout.p if dropout.training else 0.0 for dropout in dropouts]
    n_drawn, generator = sum(p > 0 for p in shares), dropouts[0].generator
    if not n_drawn:
        return [Mask(0.0, (0, 0))] * len(dropouts)
    device = torch.device("cpu") if generator is None else generator.device
    drawn = torch.randint(2**32, (2 * n_drawn,), generator=generator, device=device)
    bits = drawn.tolist() if device.type == "cpu" else drawn.int().unbind()
    keys = iter(zip(bits[::2], bits[1::2], strict=True))
    return [Mask(p, next(keys)) if p else Mask(0.0, (0, 0)) for p in shares]


_SATURATION = -1.7580993408473766  # limit of SELU at minus infinity: -scale * alpha


class AlphaDropout(Dropout):
    """Dropout that sets entries to the lower limit of SELU and keeps mean 0 and variance 1.

    A dropped entry becomes -1.758; an affine map then restores mean and variance.

    Parameters
    ----------
    p : float
        Probability of dropping an entry, below one.

    References
    ----------
    Klambauer et al. Self-Normalizing Neural Networks. NeurIPS 2017.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        keep = torch.empty_like(x).bernoulli_(1 - self.p, generator=self.generator)
        scale = ((1 - self.p) * (1 + self.p * _SATURATION**2)) ** -0.5
        shift = -scale * _SATURATION * self.p
        return scale * (keep * x + (1 - keep) * _SATURATION) + shift


class Mask(NamedTuple):
    """A dropout mask that is computed from a key and the position of each entry.

    On a GPU the key is two tensors, because numbers would have to be waited for.
    """

    p: float
    key: tuple[Any, Any]

    @property
    def threshold(self) -> int:
        """An entry is dropped if its 32 random bits are below this."""
        return int(self.p * 2**32)

    def factors(self, counter: Tensor, dtype: torch.dtype) -> Tensor:
        """Factors of inverted dropout of the entries with these numbers, 0 or 1 / (1 - p)."""
        bits = _bits(counter, self.key)
        # Unsigned order of signed numbers: the highest bit is flipped in both.
        keep = (bits ^ _HIGHEST_BIT) >= self.threshold + _HIGHEST_BIT
        return keep.to(dtype).mul_(1 / (1 - self.p))


_HIGHEST_BIT = -(2**31)


def counter_bits(counter: Tensor, key: tuple[int, int]) -> Tensor:
    """32 pseudo-random bits of each counter, as int64; `kernels.primitives` has the same."""
    return _bits(counter, key).long() & 0xFFFFFFFF


def _bits(counter: Tensor, key: tuple[Any, Any]) -> Tensor:
    """The same as int32, whose products are those of 32 unsigned bits."""
    first, second = (_signed(part) for part in key)
    return _hash(_hash(counter.int() ^ first) ^ second)


def _hash(x: Tensor) -> Tensor:
    """Hash 32-bit numbers one to one; each input bit changes about half of the output bits."""
    x = (x ^ _shift(x, 16)) * 0x7FEB352D
    x = (x ^ _shift(x, 15)) * _signed(0x846CA68B)
    return x ^ _shift(x, 16)


def _shift(x: Tensor, n: int) -> Tensor:
    """Shift to the right, zeros coming in on the left."""
    return (x >> n) & (2 ** (32 - n) - 1)


def _signed(bits: Any) -> Any:
    """A 32-bit number as int32 has it; a tensor is one already."""
    return bits if isinstance(bits, Tensor) or bits < 2**31 else bits - 2**32


def set_dropout_generator(module: nn.Module, generator: torch.Generator | None) -> None:
    """Set the generator of every `Dropout` and other `Stochastic` module inside `module`."""
    for part in module.modules():
        if isinstance(part, Stochastic):
            part.generator = generator
