"""Callbacks of MoMKD's memory: initialisation, updates outside the losses, usage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import Tensor

from ..nn.memory import (
    active_ratio,
    component_usage,
    ema_update,
    memory_geometry,
    perplexity,
    spherical_kmeans,
)
from ..nn.segment import segment_split
from .batches import BagDataset, BagLoader, batches_within, instance_budget

_PENDING = 8192  # patches whose usage is counted together


class InitialMemory(Callback):
    """Set each class's memory to the centers of a spherical K-means of its patches' projections.

    Parameters
    ----------
    n_samples : int
        Patches per class, the same number from each of its slides.
    init : {"random", "k-means++"}
    warmup : int
        Number of epochs after which this is repeated with the projections learned so far; 0 for
        never.
    generator : torch.Generator
    """

    def __init__(self, n_samples: int, init: str, warmup: int, generator: torch.Generator) -> None:
        self.n_samples, self.init, self.warmup = n_samples, init, warmup
        self.generator = generator

    def on_epoch_begin(self, net: NeuralNet, dataset_train: Any = None, **kwargs: Any) -> None:
        if len(net.history) - 1 not in {0, self.warmup}:
            return
        memory = net.module_.memory
        for c in range(len(memory.rows)):
            points = sample_projections(net, dataset_train, c, self.n_samples, self.generator)
            centers = spherical_kmeans(
                points, memory.rows.shape[1], generator=self.generator, init=self.init
            )
            with torch.no_grad():
                memory.rows[c] = centers


@torch.no_grad()
def sample_projections(
    net: NeuralNet, dataset: BagDataset, c: int, n_samples: int, generator: torch.Generator
) -> Tensor:
    """Projections of random patches of class `c`, evenly over its slides: (<= n_samples, D_N)."""
    slides: NDArray = np.flatnonzero(dataset.y == c)
    slides = slides[torch.randperm(len(slides), generator=generator).numpy()]
    quota = -(-n_samples // len(slides))
    slides = slides[:n_samples]
    rows = []
    budget = instance_budget(net.device)
    batches = [slides[bags] for bags in batches_within(dataset.sizes[slides], budget)]
    for batch in BagLoader(dataset, batches, net.device):
        projections = net.evaluation_step(batch).projection
        for projection in segment_split(projections, batch[0].batch, batch[0].n_bags):
            chosen = torch.randperm(len(projection), generator=generator)[:quota]
            rows.append(projection[chosen.to(projection.device)])
    return torch.cat(rows)[:n_samples]


class MovingMemory(Callback):
    """After each step, move the memory by an exponential moving average and renormalise its rows.

    Parameters
    ----------
    ema : float or None
        Momentum; None for no moving average.
    renormalize : bool
        Scale the rows to length one.
    """

    def __init__(self, ema: float | None, renormalize: bool) -> None:
        self.ema, self.renormalize = ema, renormalize

    def on_batch_end(
        self, net: NeuralNet, batch: Any = None, training: bool = False, **kwargs: Any
    ) -> None:
        if not training:
            return
        memory, output = net.module_.memory, kwargs["y_pred"]
        if self.ema is not None:
            known = output.omics_projection
            omics = None if known is None else iter(known.detach())  # one row per paired bag
            for b, (y, paired) in enumerate(zip(batch[1], output.paired, strict=True)):
                patches = output.projection[output.batch == b].detach()
                own_omics = next(omics) if omics is not None and paired else None
                ema_update(memory, patches, own_omics, y, self.ema)
        if self.renormalize:
            memory.renormalize()


class MemoryUsage(Callback):
    """Record the usage and geometry of the memory after each epoch.

    Usage is recorded over the sampled training bags, with dropout, and over the validation part,
    each slide once and without dropout.

    Parameters
    ----------
    classes : sequence of str
        Names in the columns of the history.
    reseed : bool
        Replace a component that no patch of its class used in an epoch by a random projection.
    generator : torch.Generator
    """

    def __init__(self, classes: Sequence[str], reseed: bool, generator: torch.Generator) -> None:
        self.classes, self.reseed, self.generator = classes, reseed, generator

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        if len(net.history) == 1:  # `InitialMemory` runs before this callback
            self.start_ = net.module_.memory.directions().detach().clone()
        self.usage_: dict[str, list[Tensor]] = {"memory": [], "valid_memory": []}
        self.pending_: list[tuple[bool, Tensor, Tensor, Tensor]] = []
        self.n_pending_ = 0  # patches
        rows = net.module_.memory.rows
        self.own_ = torch.zeros(rows.shape[:2], dtype=torch.float64, device=rows.device)

    def on_batch_end(
        self, net: NeuralNet, batch: Any = None, training: bool = False, **kwargs: Any
    ) -> None:
        output = kwargs["y_pred"]
        self.pending_.append((training, output.affinity.detach(), output.batch, batch[1]))
        self.n_pending_ += len(output.batch)
        if self.n_pending_ > _PENDING:
            self._count()

    def on_epoch_end(self, net: NeuralNet, dataset_train: Any = None, **kwargs: Any) -> None:
        self._count()
        for prefix, parts in self.usage_.items():
            if parts:
                self._record(net, prefix, torch.cat(parts).mean(dim=0).cpu())
        self.usage_ = {}  # a checkpoint would hold it
        for name, value in memory_geometry(net.module_.memory, self.start_).items():
            net.history.record(f"memory_{name}", value)
        if self.reseed:
            self._replace_unused(net, dataset_train)

    def _count(self) -> None:
        """Usage of the batches that wait for it, all training batches in one pass."""
        for training, prefix in ((True, "memory"), (False, "valid_memory")):
            waiting = [batch for kind, *batch in self.pending_ if kind == training]
            if not waiting:
                continue
            affinity, labels = (torch.cat([batch[i] for batch in waiting]) for i in (0, 2))
            before = np.cumsum([0, *(len(y) for _, _, y in waiting)]).tolist()
            bags = [bag + n for (_, bag, _), n in zip(waiting, before, strict=False)]
            # Nothing is read from a GPU before the epoch ends.
            usage = component_usage(affinity, torch.cat(bags), len(labels))
            self.usage_[prefix].append(usage)
            if training:
                labels = labels.to(usage.device, non_blocking=True)
                own = usage[torch.arange(len(labels), device=usage.device), labels]
                self.own_.index_add_(0, labels, own)
        self.pending_, self.n_pending_ = [], 0

    def _record(self, net: NeuralNet, prefix: str, usage: Tensor) -> None:
        net.history.record(f"{prefix}_active_ratio", active_ratio(usage))
        net.history.record(f"{prefix}_ever_used", active_ratio(usage, 0.0))
        effective = perplexity(usage)
        for name, value in zip(self.classes, effective, strict=True):
            net.history.record(f"{prefix}_perplexity_{name}", float(value))
        joint = len(effective) * effective.log().mean().exp()
        net.history.record(f"{prefix}_effective_components", float(joint))

    def _replace_unused(self, net: NeuralNet, dataset: BagDataset) -> None:
        for c, j in (self.own_ == 0).nonzero().tolist():
            with torch.no_grad():
                net.module_.memory.rows[c, j] = sample_projections(
                    net, dataset, c, 1, self.generator
                )[0]
