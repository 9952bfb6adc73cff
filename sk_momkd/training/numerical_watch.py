"""Training that goes wrong though its numbers are finite, and errors that name what is not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import torch
from sklearn.exceptions import ConvergenceWarning
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import Tensor

from ..exceptions import TrainingError
from ..messages import listed, warn
from ..nn.blocks import materialize

_LARGE_LOSS, _GROWTH = 1e3, 10.0
_WORSE_THAN_GUESSING = 3.0
_ENTROPIES = ("train_ce", "train_tier2", "train_bag", "train_ce_path")  # of the logits that predict
_SATURATED = 30.0  # difference of two logits, with which a probability is 1 - 1e-13
_DEAD, _FEWEST_COMPONENTS = 1.5, 4  # effective components of a memory; memories of fewer may shrink


class NumericalWatch(Callback):
    """Keep, of the last epoch, the training bags and their logits, which warnings name."""

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        self.on_epoch_begin(net)

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        self.bags_: list[Tensor] = []
        self.logits_: list[Tensor] = []

    def on_batch_end(
        self, net: NeuralNet, batch: Any = None, training: bool = False, **kwargs: Any
    ) -> None:
        if training:
            self.bags_.append(batch[0].index)
            self.logits_.append(kwargs["y_pred"].logits.detach())

    def state_dict(self) -> dict[str, Any]:
        """Nothing: a training that goes on runs at least one epoch."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Do nothing."""

    def findings(self, net: NeuralNet, history: pd.DataFrame) -> list[str]:
        """What is wrong at the end of training, with what helps against it, in sentences."""
        entropy = _entropy(history)
        n_classes = self.logits_[0].shape[1]
        unstable = (
            self._runaway_loss(net, history)
            or _worse_than_guessing(entropy, n_classes, self._bag_of_largest_loss(net))
            or self._saturated(net)
        )
        found = [f"{unstable} {_remedy(net)}"] if unstable else []
        return found + _dead_memories(net, history)

    def _runaway_loss(self, net: NeuralNet, history: pd.DataFrame) -> str:
        losses = history["train_loss"].to_numpy()
        limit = min(_LARGE_LOSS, _GROWTH * max(losses[0], 1.0))
        if not losses[-1] > limit:
            return ""
        below = np.flatnonzero(losses <= limit)
        since = below[-1] + 2 if len(below) else 1
        weighted = {
            name: abs(weight * float(history[f"train_{name}"].iloc[-1]))
            for name, weight in net.criterion.weights.items()
            if weight and f"train_{name}" in history
        }
        term = max(weighted, key=lambda name: weighted[name])
        return (
            f"The training loss is {losses[-1]:.3g} in the last epoch and was {losses[0]:.3g} in "
            f"the first; it is above {limit:.3g} since epoch {since} of {len(losses)}. Its largest "
            f"term is {term!r} ({weighted[term]:.3g}), and the largest loss is that of "
            f"{self._bag_of_largest_loss(net)}."
        )

    def _bag_of_largest_loss(self, net: NeuralNet) -> str:
        losses = [row["train_loss"] for row in net.history[-1, "batches"] if "train_loss" in row]
        return _names(net, self.bags_[int(np.argmax(losses))])

    def _saturated(self, net: NeuralNet) -> str:
        two = torch.cat(self.logits_).float().topk(2, dim=1).values.cpu()
        gaps, bags = two[:, 0] - two[:, 1], torch.cat(self.bags_)
        n_saturated = int((gaps > _SATURATED).sum())
        if n_saturated * 2 <= len(gaps):
            return ""
        return (
            f"Probabilities are 0 or 1 to 13 digits for {n_saturated} of {len(gaps)} slides of the "
            f"last epoch, e.g. {_names(net, bags[gaps.argmax()][None])}, whose logits differ by "
            f"{gaps.max():.3g}."
        )


def report_findings(findings: list[str], *, strict: bool) -> None:
    """Warn of findings, or raise the first.

    Raises
    ------
    TrainingError
        With `strict`.
    """
    for finding in findings:
        if strict:
            raise TrainingError(finding)
        warn(finding, ConvergenceWarning)


def raise_diverged(net: NeuralNet, loss: Tensor, batch: Any, *, training: bool) -> NoReturn:
    """Raise for a loss that is not finite.

    Raises
    ------
    TrainingError
        Naming epoch, bags, terms and features.
    """
    sound = all(parameter.isfinite().all() for _, parameter in net.get_all_learnable_params())
    before = "" if sound else ", after weights that the step before left not finite"
    raise TrainingError(
        f"Training diverged in epoch {len(net.history)}: the loss of "
        f"{_names(net, batch.index, training=training)} is {loss.item()}{before}"
        f"{_details(net.terms_ if training else {}, batch)}"
    )


def require_finite_norm(net: NeuralNet, norm: float, batch: Any) -> None:
    """Raise if the gradients, or the squares that their norm sums, are not finite.

    Clipping to such a norm would set all gradients to zero or to NaN without a warning.

    Raises
    ------
    TrainingError
        Naming epoch, bags, terms and features, and the largest gradient.
    """
    if math.isfinite(norm):
        return
    reached = {
        name: float(p.grad.abs().max())
        for name, p in net.get_all_learnable_params()
        if p.grad is not None
    }
    ranks = {name: value if math.isfinite(value) else math.inf for name, value in reached.items()}
    largest = max(ranks, key=lambda name: ranks[name])  # NaN is no number that max() could compare
    of_bags = "the last bags of it" if batch is None else _names(net, batch[0].index)
    raise TrainingError(
        f"Training diverged in epoch {len(net.history)}: the gradient of {of_bags} overflows; it "
        f"reaches {reached[largest]:.3g} in {largest!r}, and its norm is {norm}"
        + _details(net.terms_, None if batch is None else batch[0])
    )


def require_finite_norms(net: NeuralNet, norms: list[Tensor]) -> None:
    """Raise if a norm of the gradients of an epoch on a GPU is not finite.

    Raises
    ------
    TrainingError
        Naming the epoch.
    """
    found = torch.stack(norms) if norms else torch.zeros(1)
    n_unsound = int((~found.isfinite()).sum())
    if n_unsound:
        raise TrainingError(
            f"Training diverged in epoch {len(net.history)}: {n_unsound} of {len(norms)} norms of "
            "gradients in it are not finite. Scale the features (InstanceTransformer), lower the "
            "learning rate, or use device='cpu', whose message names the bag."
        )


def _details(terms: Mapping[str, Tensor], batch: Any) -> str:
    means = {name: float(values.detach().mean()) for name, values in terms.items()}
    of_terms = f", its terms {means}" if means else ""
    reach = "" if batch is None else f"; features reach {_largest(batch):.3g}"
    return (
        f"{of_terms}{reach}. Scale the features (InstanceTransformer), or lower the learning rate."
    )


def _largest(batch: Any) -> float:
    return float(materialize(batch.x).abs().max())


def _names(net: NeuralNet, index: Tensor, *, training: bool = True) -> str:
    bags = net.data[0 if training else 1].bags
    return listed(bags.name(i) for i in index.tolist())


def _entropy(history: pd.DataFrame) -> float:
    """Cross-entropy of the training slides in the last epoch, 0 where there is none."""
    columns = [history[column] for column in _ENTROPIES if column in history]
    return float(columns[0].iloc[-1]) if columns else 0.0


def _worse_than_guessing(entropy: float, n_classes: int, bag: str) -> str:
    """A cross-entropy far above that of a guess: probabilities near 1 for wrong classes."""
    if entropy <= _WORSE_THAN_GUESSING * np.log(n_classes):
        return ""
    return (
        f"The cross-entropy of the training slides is {entropy:.3g} in the last epoch, where "
        f"guessing gives {np.log(n_classes):.3g}; the largest loss is that of {bag}."
    )


def _remedy(net: NeuralNet) -> str:
    return (
        "Training was unstable, and probabilities may be near 0 and 1 without reason. Lower the "
        f"learning rate ({net.lr:g}), or scale the features (InstanceTransformer)."
    )


def _dead_memories(net: NeuralNet, history: pd.DataFrame) -> list[str]:
    """Memories of MoMKD in which the patches use one component alone."""
    start = "memory_perplexity_"
    columns = [column for column in map(str, history) if column.startswith(start)]
    used = {column.removeprefix(start): history[column].iloc[-1] for column in columns}
    dead = {name: n for name, n in used.items() if n < _DEAD}
    n_components = net.module_.memory.rows.shape[1] if dead else 0
    if n_components < _FEWEST_COMPONENTS:
        return []
    message = " and ".join(f"that of class {name!r} {n:.2f}" for name, n in dead.items())
    return [
        f"The memory is dead: of the {n_components} components of a class, the patches of the "
        f"training slides use effectively {message} in epoch {len(history)} (memory_perplexity in "
        "history_). Set memory__reseed_unused=True, lower learning_rate, or scale the features "
        "(InstanceTransformer)."
    ]
