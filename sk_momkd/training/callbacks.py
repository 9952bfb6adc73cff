"""Callbacks of every training: scores, best epoch, early stop, averages, clipping, progress."""

from __future__ import annotations

import copy
from dataclasses import astuple
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_
from torch.optim.swa_utils import AveragedModel

from ..progress import progress_bar
from .batches import BagDataset
from .interrupts import EarlyStop
from .numerical_watch import require_finite_norm, require_finite_norms

_SMALL = 4096  # numbers in a gradient that takes longer to ask for than to sum
_LOSS_PROGRESS = 0.01  # share by which the loss must fall for a tie of the score to be progress


class LossTerms(Callback):
    """Record the mean of each named loss term over the bags of an epoch."""

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        self.values_: dict[str, list[Tensor]] = {}

    def on_batch_end(self, net: NeuralNet, training: bool = False, **kwargs: Any) -> None:
        for name, values in net.terms_.items() if training else ():
            self.values_.setdefault(name, []).append(values.detach())

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        for name, values in self.values_.items():
            net.history.record(f"train_{name}", float(torch.cat(values).double().mean()))
        net.history.record("learning_rate", net.optimizer_.param_groups[0]["lr"])
        self.values_ = {}  # a checkpoint would hold them


class ReadingTime(Callback):
    """Record the bytes read from files in an epoch, and the seconds that training waited for them.

    Nothing is recorded where all features are in memory.
    """

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        self.before_ = [astuple(part.reading) for part in self._parts(net)]

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        parts = self._parts(net)
        if all(part.in_memory for part in parts):
            return
        now = np.array([astuple(part.reading) for part in parts])
        n_bytes, seconds = (now - self.before_).sum(axis=0)
        net.history.record("bytes_read", int(n_bytes))
        net.history.record("seconds_waiting", float(seconds))

    @staticmethod
    def _parts(net: NeuralNet) -> list[BagDataset]:
        return [part for part in net.data if part is not None]


class ValidationScores(Callback):
    """Record the AUC of the validation part, for several classes the mean of one versus rest.

    Bags count by their weights.
    """

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        self.logits_: list[Tensor] = []
        self.labels_: list[Tensor] = []
        self.bag_weights_: list[Tensor] = []

    def on_batch_end(
        self, net: NeuralNet, batch: Any = None, training: bool = False, **kwargs: Any
    ) -> None:
        if not training:
            self.logits_.append(kwargs["y_pred"].logits)
            self.labels_.append(batch[1])
            if batch[0].weight is not None:
                self.bag_weights_.append(batch[0].weight.cpu())

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        proba = torch.cat(self.logits_).cpu().double().softmax(dim=1).numpy()
        labels = torch.cat(self.labels_).numpy()
        n_classes = proba.shape[1]
        scores = proba[:, 1] if n_classes == 2 else proba
        weight = torch.cat(self.bag_weights_).numpy() if self.bag_weights_ else None
        known = {"multi_class": "ovr", "labels": np.arange(n_classes), "sample_weight": weight}
        auc = roc_auc_score(labels, scores, **known)
        net.history.record("valid_auc", float(auc))
        self.logits_, self.labels_, self.bag_weights_ = [], [], []  # a checkpoint would hold them


class BestEpoch(Callback):
    """Keep the weights of the best epoch, stop without progress, restore them at the end.

    With ``tie_break="loss"``, of epochs with the same score the one with the lower validation loss
    is the best. Such a tie is progress, from which `patience` counts anew, only if the loss is
    lower by 1 % than at the progress before: while the learning rate falls, the loss improves in
    ever smaller steps without an end.

    Parameters
    ----------
    monitor : str
        Column of the history.
    sign : {1, -1}
        1 where more is better.
    tie_break : {"loss", "latest"}
        Which epochs that equal the best in `monitor` replace it: those with a lower validation
        loss, or all, which then are progress too.
    patience : int
        Stop after this many epochs without progress.
    min_epochs : int
        Do not stop before this many epochs.
    first_best : int, default=1
        The first epoch that can be the best; `patience` counts from there.
    """

    def __init__(
        self,
        monitor: str,
        sign: int,
        tie_break: str,
        patience: int,
        min_epochs: int,
        first_best: int = 1,
    ) -> None:
        self.monitor, self.sign, self.tie_break = monitor, sign, tie_break
        self.patience, self.min_epochs = patience, min_epochs
        self.first_best = first_best

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        self.best_, self.loss_ = -np.inf, np.inf
        self.reset_loss_ = np.inf  # when `waited_` was last set to 0
        self.waited_ = 0
        self.weights_: dict[str, Tensor] | None = None

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        score = self.sign * net.history[-1, self.monitor]
        eligible = len(net.history) >= self.first_best
        loss = net.history[-1, "valid_loss"]
        latest, tie = self.tie_break == "latest", score == self.best_
        better = eligible and (score > self.best_ or (tie and (latest or loss < self.loss_)))
        progress = better and (not tie or latest or loss <= self.reset_loss_ * (1 - _LOSS_PROGRESS))
        net.history.record("best_so_far", bool(better))
        net.history.record(f"{self.monitor}_best", bool(better))  # read by skorch's Checkpoint
        if better:
            self.best_, self.loss_ = score, loss
            self.weights_ = copy.deepcopy(net.module_.state_dict())
        if progress:
            self.waited_, self.reset_loss_ = 0, loss
        elif eligible:
            self.waited_ += 1

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        if self.weights_ is not None:
            net.module_.load_state_dict(self.weights_)


class StopEarly(Callback):
    """Stop training after the patience of `BestEpoch`; it runs after all other callbacks."""

    def __init__(self, best: BestEpoch) -> None:
        self.best = best

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        best = self.best
        if best.waited_ >= best.patience and len(net.history) >= best.min_epochs:
            raise EarlyStop


class AverageWeights(Callback):
    """Replace the weights at the end of training by their mean over the last epochs.

    It runs after `BestEpoch` and replaces the weights that were restored.

    Parameters
    ----------
    first : int
        The first epoch of the mean, counted from 1. If training ends earlier, nothing is replaced.
    """

    def __init__(self, first: int) -> None:
        self.first = first

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        # Made here, so that a run that goes on has it before its state is restored.
        self.averaged_ = AveragedModel(net.module_, avg_fn=_running_mean, use_buffers=True)

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        if len(net.history) >= self.first:
            self.averaged_.update_parameters(net.module_)

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        if int(self.averaged_.n_averaged):
            net.module_.load_state_dict(self.averaged_.module.state_dict())


def _running_mean(mean: Tensor, current: Tensor, n_averaged: Tensor | int) -> Tensor:
    """Mean with one more value; counters and other integers are not averaged."""
    if not mean.is_floating_point():
        return current
    return mean.lerp(current, 1 / (int(n_averaged) + 1))


class ClipGradients(Callback):
    """Clip the gradient norm, over all parameters or within each branch of the model.

    Gradients whose norm is not finite are refused, whether they would be clipped or not: after a
    step with them the optimizer no longer learns, without a warning. On a GPU they are refused at
    the end of the epoch, because a step would wait for its norm.
    """

    def __init__(self, max_norm: float | None, clip: str) -> None:
        self.max_norm, self.clip = max_norm, clip
        self.norms_: list[Tensor] = []

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        self.norms_ = []

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        require_finite_norms(net, self.norms_)
        self.norms_ = []  # a checkpoint would hold them

    def on_grad_computed(self, net: NeuralNet, named_parameters: Any, **kwargs: Any) -> None:
        groups = [[p for _, p in named_parameters]]
        if self.clip == "branch" and hasattr(net.module_, "branches"):
            groups = list(net.module_.branches().values())
        for group in groups:
            norm = _total_norm([p.grad for p in group if p.grad is not None])
            if norm.device.type == "cpu":
                require_finite_norm(net, norm.item(), kwargs.get("batch"))
                if self.max_norm is None or norm.item() + 1e-6 <= self.max_norm:
                    continue  # so small gradients are left untouched
            else:
                self.norms_.append(norm)
            if self.max_norm is not None:
                clip_grads_with_norm_(group, self.max_norm, norm)


def _total_norm(gradients: list[Tensor]) -> Tensor:
    """`torch.nn.utils.get_total_norm` of tensors on one device, in less time.

    A call for each of many biases would take longer than their norms: they are joined.
    """
    if not gradients:
        return torch.zeros(())
    large = [gradient for gradient in gradients if gradient.numel() > _SMALL]
    small = [gradient.flatten() for gradient in gradients if gradient.numel() <= _SMALL]
    joined = [torch.cat(small)] if small else []
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(large + joined)))


class StartMasking(Callback):
    """Set ``module.masking`` from an epoch on, counted from 0 (first stage of TDC)."""

    def __init__(self, first_epoch: int) -> None:
        self.first_epoch = first_epoch

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        net.module_.masking = len(net.history) > self.first_epoch


class Progress(Callback):
    """Progress bar over the epochs, with training loss and validation AUC.

    skorch's ``ProgressBar`` counts the batches of an epoch and disappears after it.
    """

    def __init__(self, max_epochs: int) -> None:
        self.max_epochs = max_epochs

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        title = f"training {type(net.module_).__name__}"
        self.bar_ = progress_bar(self.max_epochs, "epoch", title, shown=True)

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        row = net.history[-1]
        shown = {k: row[k] for k in ("train_loss", "valid_auc") if k in row}
        self.bar_.set_postfix({k: f"{v:.3f}" for k, v in shown.items()}, refresh=False)
        self.bar_.update(len(net.history) - self.bar_.n)  # a run that goes on has more than one

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        self.bar_.close()
