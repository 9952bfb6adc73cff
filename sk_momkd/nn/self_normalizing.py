"""Parts of self-normalizing networks, which encode expression in several methods."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .dropout import Dropout

_SATURATION = -1.7580993408473766  # where SELU goes for large negative input: -scale * alpha


class AlphaDropout(Dropout):
    """Dropout to SELU's negative saturation, rescaled to keep mean 0 and variance 1.

    A dropped entry becomes -1.758 before the affine map, so the result is signed.

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


def normal_weights(module: nn.Module, generator: torch.Generator) -> None:
    """Draw every linear layer inside `module` from N(0, 1/fan_in), biases zero."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=part.in_features**-0.5, generator=generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
