"""Dropout with a random stream of its own, and masks that are a function of a counter."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Stochastic(nn.Module):
    """A module that draws while training, from `generator` where one is set."""

    def __init__(self) -> None:
        super().__init__()
        self.generator: torch.Generator | None = None


class Dropout(Stochastic):
    """Inverted dropout whose mask comes from a given generator, never from the global one.

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
        keep = torch.empty_like(x).bernoulli_(1 - self.p, generator=self.generator)
        return x * keep.div_(1 - self.p)

    def mask(self) -> Mask:
        """The next mask, not yet drawn out: entry i depends on its key and i alone."""
        if not self.training or self.p == 0:
            return Mask(0.0, (0, 0))
        device = "cpu" if self.generator is None else self.generator.device
        words = torch.randint(2**32, (2,), generator=self.generator, device=device)
        return Mask(self.p, tuple(words.tolist()))

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Mask(NamedTuple):
    """A dropout mask as a rule, so that forward, backward and every backend agree on it."""

    p: float
    key: tuple[int, ...]

    @property
    def threshold(self) -> int:
        """An entry is dropped if its 32 bits are below this."""
        return int(self.p * 2**32)

    def apply(self, x: Tensor) -> Tensor:
        """Inverted dropout of `x`, its entries counted in C order."""
        if self.p == 0:
            return x
        counter = torch.arange(x.numel(), device=x.device).view(x.shape)
        keep = counter_bits(counter, self.key) >= self.threshold
        return x * keep / (1 - self.p)


def counter_bits(counter: Tensor, key: tuple[int, ...]) -> Tensor:
    """32 random-looking bits of each counter, as int64; `kernels.words.bits` is the same."""
    return _mix(_mix((counter & 0xFFFFFFFF) ^ key[0]) ^ key[1])


def _mix(x: Tensor) -> Tensor:
    """A bijection of 32-bit words in which every bit in changes half of the bits out."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    return x ^ (x >> 16)


def set_dropout_generator(module: nn.Module, generator: torch.Generator | None) -> None:
    """Let every `Dropout` and other `Stochastic` part of `module` draw from `generator`."""
    for part in module.modules():
        if isinstance(part, Stochastic):
            part.generator = generator
