"""Initial weights from a given generator, torch's own distributions."""

from __future__ import annotations

import torch
from torch import nn


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw every weight of `module` anew from `generator`.

    Linear layers get torch's default, U(+-1/sqrt(fan_in)); layer norms the identity; modules
    with a ``reset_parameters(generator)`` of their own use that.
    """
    for child in module.children():
        if isinstance(child, nn.Linear):
            bound = child.in_features**-0.5
            nn.init.uniform_(child.weight, -bound, bound, generator=generator)
            if child.bias is not None:
                nn.init.uniform_(child.bias, -bound, bound, generator=generator)
        elif isinstance(child, nn.LayerNorm):
            child.reset_parameters()
        elif callable(reset := getattr(child, "reset_parameters", None)):
            reset(generator)
        else:
            initialise(child, generator)
