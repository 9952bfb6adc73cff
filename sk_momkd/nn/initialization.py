"""Initial weights from a given generator, torch's own distributions."""

from __future__ import annotations

import torch
from torch import nn


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw every weight of `module` anew from `generator`.

    Linear and convolution layers get torch's default, U(+-1/sqrt(fan_in)); layer norms the
    identity; modules with a ``reset_parameters(generator)`` of their own use that, and answer
    for everything inside them. A parameter that stands directly in a module without one keeps
    its value.
    """
    if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
        bound = module.weight[0].numel() ** -0.5
        nn.init.uniform_(module.weight, -bound, bound, generator=generator)
        if module.bias is not None:
            nn.init.uniform_(module.bias, -bound, bound, generator=generator)
    elif isinstance(module, nn.LayerNorm):
        module.reset_parameters()
    elif callable(reset := getattr(module, "reset_parameters", None)):
        reset(generator)
    else:
        for child in module.children():
            initialise(child, generator)


def initialise_orthogonal(module: nn.Module, generator: torch.Generator) -> None:
    """Orthogonal weights and zero biases for every linear and convolution layer inside."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d):
            nn.init.orthogonal_(part.weight, generator=generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
