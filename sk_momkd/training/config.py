"""Arguments of the training loop: objective, settings, device and precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..losses.mil import soft_labels
from ..nn.precision import native_bfloat16
from .batches import FlatBatch

Terms = Callable[[Any, Tensor, Tensor | None], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Objective:
    """Named loss terms of a model's output and labels, and their weights.

    Attributes
    ----------
    terms : callable
        Takes the output, the labels and soft labels or None, and returns the terms by name.
    weights : mapping of str to float
        Of each term.
    paired : frozenset of str
        Terms with a value for each bag with omics; the others have one for each bag.
    of_batch : frozenset of str
        Terms with a single value for a batch or for the network, which no bag weighs.
    teacher_weight : float
        Share of the soft labels of a batch in the targets of its bags with omics.
    label_smoothing : float
        Share of the label that is spread evenly over the classes.
    """

    terms: Terms
    weights: Mapping[str, float]
    paired: frozenset[str] = frozenset()
    of_batch: frozenset[str] = frozenset()
    teacher_weight: float = 0.0
    label_smoothing: float = 0.0

    def of(self, output: Any, y: Tensor, batch: FlatBatch) -> Mapping[str, Tensor]:
        """Terms of a batch, with soft labels where there is a teacher or smoothing."""
        has_soft_labels = batch.teacher is not None and self.teacher_weight > 0
        if not has_soft_labels and not self.label_smoothing:
            return self.terms(output, y, None)
        target = soft_labels(
            y,
            output.logits.shape[1],
            smoothing=self.label_smoothing,
            teacher=None if batch.teacher is None else batch.teacher.to(y.device),
            paired=batch.paired.to(y.device),
            weight=self.teacher_weight,
        )
        return self.terms(output, y, target)

    def bag_weights(self, batch: FlatBatch, device: Any) -> dict[str, Tensor]:
        """Weights of the bags in each term; empty where all bags weigh the same."""
        if batch.weight is None or batch.paired_weight is None:
            return {}
        of_all, of_paired = batch.weight.to(device), batch.paired_weight.to(device)
        names = set(self.weights) - self.of_batch
        return {name: of_paired if name in self.paired else of_all for name in names}


def weighted_total(
    terms: Mapping[str, Tensor],
    weights: Mapping[str, float],
    of_bags: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Total objective, ``sum_t w_t mean_b l_tb`` over terms t and bags b (MoMKD's Eq. 9).

    With weights v of bags, a term is ``mean_b v_b l_tb``.

    Parameters
    ----------
    terms : mapping of str to Tensor of shape (n_bags_of_the_term,)
    weights : mapping of str to float
        A term of weight 0 is left out of the graph.
    of_bags : mapping of str to Tensor of shape (n_bags_of_the_term,), optional
        Weights of the bags in some of the terms.
    """
    if of_bags:
        terms = {name: of_bags.get(name, 1.0) * values for name, values in terms.items()}
    used = [(weights[name], values) for name, values in terms.items() if weights[name]]
    values = torch.cat([values for _, values in used])
    sizes = tuple((weight, len(values)) for weight, values in used)
    return values.dot(_shares(sizes, values.dtype, values.device))


@lru_cache(maxsize=64)
def _shares(
    terms: tuple[tuple[float, int], ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Weight over number of bags of each value, for terms (weight, number of bags)."""
    shares = [weight / n for weight, n in terms for _ in range(n)]
    return torch.tensor(shares, dtype=dtype, device=device)


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
    strict: bool = False

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
