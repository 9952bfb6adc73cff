"""Initial weights, drawn from a given generator."""

from __future__ import annotations

import torch
from torch import nn


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw every weight of `module` from `generator`.

    Linear and convolution layers are drawn from torch's default, U(+-1/sqrt(fan_in)), and layer
    norms become the identity. A module with its own ``reset_parameters(generator)`` draws
    everything inside it by that. A parameter that belongs to none of these keeps its value.
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
    """Orthogonal weights and zero biases for every linear and convolution layer of `module`."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d):
            nn.init.orthogonal_(part.weight, generator=generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def initialise_normal(module: nn.Module, generator: torch.Generator) -> None:
    """Weights from N(0, 1/fan_in) and zero biases for every linear layer of `module`."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=part.in_features**-0.5, generator=generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
