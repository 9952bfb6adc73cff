"""ABMIL and DSMIL networks side by side: every weight has a first axis M for the fit.

The fits have the same settings, the same seed and equally many training bags, as the folds of a
cross-validation have. Start weights, order of the bags, dropout, optimizer and schedule are the
library's own, so each network ends where `fit` ends (`tests/test_lockstep.py`). Each step takes one
bag of each fit; if all fits have their bags in order of size, the bags of a step are about equally
large and little is padded. Shapes: M fits, I instances, D width, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, stack_module_state
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.optim.lr_scheduler import CosineAnnealingLR

from sk_momkd import ABMILClassifier, BagSequence, DSMILClassifier
from sk_momkd.nn.initialization import initialise
from sk_momkd.training.batches import draw_batches
from sk_momkd.training.config import TrainingConfig
from sk_momkd.training.optimizers import optimizer_settings
from sk_momkd.training.random_generators import RandomGenerators


class Lockstep:
    """Networks of one classifier, trained on a list of training sets.

    Parameters
    ----------
    clf : ABMILClassifier or DSMILClassifier
        With batches of one bag, an integer `random_state` and without early stopping; ABMIL without
        dropout in the attention.
    bags : list of BagSequence
        Training bags of each fit, equally many.
    labels : list of int ndarray
        Class 0 or 1 of each training bag.
    """

    def __init__(
        self,
        clf: ABMILClassifier | DSMILClassifier,
        bags: Sequence[BagSequence],
        labels: Sequence[NDArray],
    ) -> None:
        self.clf, self.config = clf, _config(clf)
        generators = [RandomGenerators(clf.random_state, "cpu") for _ in bags]
        rows = [[torch.as_tensor(bag.features) for bag in part] for part in bags]
        modules = [clf._make_module(rows[0][0].shape[1], 0, 2).eval() for _ in bags]
        for module, own in zip(modules, generators, strict=True):
            initialise(module, own.generator("weights"))
        self.module, stacked = modules[0], stack_module_state(modules)[0]
        # Matrices are kept as (M, in, out): their gradients come so, and need not be copied.
        self._leaves = {
            name: (w.mT if w.dim() == 3 else w).detach().contiguous().requires_grad_()
            for name, w in stacked.items()
        }
        self.dropout = [own.generator("dropout") for own in generators]
        sampling, y = generators[0].generator("sampling"), np.stack(labels, axis=1)
        self.order = draw_batches(labels[0], self.config.sampler, 1, sampling)
        self.y = torch.from_numpy(y)  # (training bags, M)
        together = list(zip(*rows, strict=True))
        self.sizes = [[len(x) for x in step] for step in together]
        self.x = [pad_sequence(list(step), batch_first=True) for step in together]  # (M, I, D) each

    @property
    def weights(self) -> dict[str, Tensor]:
        """Parameters of the modules by name, with a first axis for the fit."""
        return {name: w.mT if w.dim() == 3 else w for name, w in self._leaves.items()}

    def epochs(self) -> Iterator[int]:
        """Train; yields the number of each epoch after it."""
        settings = optimizer_settings(self.config)
        kind, settings = settings.pop("optimizer"), dict(settings)
        known = {name.removeprefix("optimizer__"): value for name, value in settings.items()}
        optimizer = kind(list(self._leaves.values()), **known)
        cosine = CosineAnnealingLR(optimizer, self.config.max_epochs)
        for epoch in range(1, self.config.max_epochs + 1):
            for (position,) in self.order:
                self._losses(position).sum().backward()
                optimizer.step()
                optimizer.zero_grad()
            if self.config.lr_schedule == "cosine":
                cosine.step()
            yield epoch

    @torch.no_grad()
    def probabilities(self, bags: Sequence[BagSequence]) -> list[NDArray]:
        """Probability of class 1 of other bags of each fit, by the library's own module."""
        found = []
        for i, part in enumerate(bags):
            x = [torch.as_tensor(bag.features) for bag in part]
            batch = torch.arange(len(x)).repeat_interleave(torch.tensor([len(rows) for rows in x]))
            weights = {name: weight[i] for name, weight in self.weights.items()}
            output = functional_call(self.module, weights, (torch.cat(x), None, batch, len(x)))
            found.append(output.logits.softmax(dim=1)[:, 1].numpy())
        return found

    def _losses(self, position: int) -> Tensor:
        """Loss of each fit on its bag at this position, (M,)."""
        x, y, sizes = self.x[position], self.y[position], self.sizes[position]
        absent = None
        if min(sizes) < max(sizes):
            absent = torch.arange(x.shape[1]) >= torch.tensor(sizes)[:, None]  # (M, I)
        if isinstance(self.clf, DSMILClassifier):
            return self._dsmil(x, y, absent)
        return self._abmil(x, y, absent, sizes)

    def _abmil(self, x: Tensor, y: Tensor, absent: Tensor | None, sizes: list[int]) -> Tensor:
        for name in ("embedding", *(f"deeper.{i}" for i in range(len(self.clf.hidden_dims)))):
            x = self._dropped(F.relu(self._linear(name, x)), sizes)
        hidden = torch.tanh(self._linear("attention.content", x))
        if self.clf.gated:
            hidden = hidden * torch.sigmoid(self._linear("attention.gate", x))
        attention = _softmax(self._linear("attention.score", hidden), absent)  # (M, I, 1)
        logits = self._linear("head", attention.mT @ x)[:, 0]  # (M, K)
        return F.cross_entropy(logits, y, reduction="none")

    def _dsmil(self, x: Tensor, y: Tensor, absent: Tensor | None) -> Tensor:
        scores = _without(self._linear("instance", x), absent)  # (M, I, K)
        critical = scores.argmax(dim=1)  # (M, K)
        query = self._linear("query.0", x)
        if self.clf.nonlinear:
            query = torch.tanh(self._linear("query.2", F.relu(query)))  # (M, I, Q)
        keys = query[torch.arange(len(x))[:, None], critical]  # (M, K, Q)
        attention = _softmax(query @ keys.mT / query.shape[2] ** 0.5, absent)  # (M, I, K)
        if self.clf.value_layer:
            x = self._linear("value.1.0", x)
            x = F.relu(x) if self.clf.nonlinear else x
        kernel, bias = self._leaves["head.weight"], self._leaves["head.bias"]
        bag_logits = torch.einsum("mkd,mokd->mo", attention.mT @ x, kernel) + bias  # (M, K)
        max_logits = scores.gather(1, critical[:, None])[:, 0]
        targets = F.one_hot(y, 2).to(x)
        losses = [
            F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)
            for logits in (bag_logits, max_logits)
        ]
        return 0.5 * losses[0] + 0.5 * losses[1]

    def _linear(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self._leaves[f"{name}.weight"], self._leaves[f"{name}.bias"]
        return torch.baddbmm(bias[:, None], x, weight)

    def _dropped(self, x: Tensor, sizes: list[int]) -> Tensor:
        """Dropout, each fit with its own generator."""
        share = self.clf.dropout
        if not share:
            return x
        keep = torch.zeros_like(x)
        for rows, size, generator in zip(keep, sizes, self.dropout, strict=True):
            rows[:size].bernoulli_(1 - share, generator=generator)
        return x * keep.div_(1 - share)


def _config(clf: Any) -> TrainingConfig:
    """Settings of the loop, if they can be trained in lockstep."""
    clf.device_ = "cpu"
    config = clf._training_config()
    unusual = {
        "batch_size": (config.batch_size, 1),
        "early_stopping": (clf.early_stopping, False),
        "n_models": (clf.n_models, 1),
        "sampler": (config.sampler, "shuffle"),
        "max_grad_norm": (config.max_grad_norm, None),
        "average_after": (config.average_after, None),
        "dropout in the attention": (_attention_dropout(clf), 0),
        "learning rate schedule": (config.lr_schedule in (None, "cosine"), True),
        "dropout of instances or features": (config.input_dropout + config.instance_dropout, 0),
    }
    for name, (given, needed) in unusual.items():
        if given != needed:
            raise ValueError(f"{name} must be {needed!r} in lockstep, got {given!r}.")
    return config


def _attention_dropout(clf: Any) -> float:
    if isinstance(clf, DSMILClassifier):
        return clf.dropout
    return clf.dropout if clf.attention_dropout is None else clf.attention_dropout


def _without(x: Tensor, absent: Tensor | None) -> Tensor:
    return x if absent is None else x.masked_fill(absent[..., None], -torch.inf)


def _softmax(scores: Tensor, absent: Tensor | None) -> Tensor:
    return _without(scores, absent).softmax(dim=1)
