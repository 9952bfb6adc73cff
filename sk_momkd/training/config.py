"""Arguments of the training loop: objective, settings, device and precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..nn.precision import native_bfloat16

Terms = Callable[[Any, Tensor], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Objective:
    """Named loss terms of a model's output and labels, and their weights."""

    terms: Terms
    weights: Mapping[str, float]


def weighted_total(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Total objective, ``sum_t w_t mean_b l_tb`` over terms t and bags b (MoMKD's Eq. 9).

    Parameters
    ----------
    terms : mapping of str to Tensor of shape (n_bags_of_the_term,)
    weights : mapping of str to float
        A term of weight 0 is left out of the graph.
    """
    parts = [weights[name] * values.mean() for name, values in terms.items() if weights[name]]
    return torch.stack(parts).sum()


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Settings of the loop, which have the names and meanings of the estimators' parameters.

    By default the settings that few methods use are off.
    """

    max_epochs: int
    batch_size: int
    accumulation_steps: int
    optimizer: str
    learning_rate: float
    weight_decay: float
    lr_schedule: str | None
    sampler: str
    max_grad_norm: float | None
    monitor: str
    tie_break: str
    patience: int
    min_epochs: int
    device: str
    verbose: int
    input_dropout: float = 0.0
    instance_dropout: float = 0.0
    average_after: float | None = None
    clip: str = "global"
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.9
    best_after: float = 0.0

    @property
    def first_best(self) -> int:
        """The first epoch that may be the best, counted from 1."""
        return self._after(self.best_after)

    @property
    def first_averaged(self) -> int | None:
        """The first epoch whose weights enter the average, counted from 1; None for no average."""
        return None if self.average_after is None else self._after(self.average_after)

    def _after(self, share: float) -> int:
        epochs = round(share * self.max_epochs, 9)  # 0.29 * 100 falls short of 29
        return int(epochs) + 1


def resolve_device(device: str) -> str:
    """The device to use; "auto" is CUDA if it is available.

    Raises
    ------
    ValueError
        If torch does not know the device, or cannot use it.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device={device!r} cannot be used here: {error}") from error
    return device


def resolve_precision(precision: str, device: str) -> str:
    """Type of the features: "auto" is bfloat16 if `device` has instructions for it."""
    if precision == "auto":
        return "bfloat16" if native_bfloat16(device) else "float32"
    return precision
