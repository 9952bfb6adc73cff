"""The training loop: skorch's `NeuralNet` for MIL modules, and the function that runs it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from typing import Any

import pandas as pd
import torch
from sklearn.base import clone
from skorch import NeuralNet
from skorch.callbacks import Callback
from skorch.helper import predefined_split
from torch import Tensor, nn
from torch.nn import functional as F

from ..exceptions import TrainingError
from ..io.checkpoint_files import CheckpointFiles
from ..nn.dropout import set_dropout_generator
from ..nn.workspace import clear_workspaces
from .batches import (
    BagDataset,
    BagLoader,
    batches_within,
    draw_batches,
    forward,
    instance_budget,
)
from .callbacks import (
    AverageWeights,
    BestEpoch,
    ClipGradients,
    LossTerms,
    Progress,
    ReadingTime,
    StopEarly,
    ValidationScores,
)
from .checkpoints import RunState, ended_with, findings_before, restore_ended
from .config import Objective, TrainingConfig, weighted_total
from .epoch_tasks import EpochTasks
from .input_dropout import InputDropout
from .interrupts import EarlyStop, watch_interrupts
from .numerical_watch import NumericalWatch, raise_diverged, report_findings
from .optimizers import optimizer_settings, schedule


class MILNet(NeuralNet):
    """`NeuralNet` for flat graph batches, named loss terms and gradient accumulation.

    If the module has a method ``update_average``, it is called before the first and after every
    step. A KeyboardInterrupt that a callback itself raises at the end of an epoch stops training
    early, as in skorch. An interrupt of the user always ends `fit` with that error. Where a
    callback of scikit-learn stops training, ``cut_short_`` is True: without it the training would
    not have ended.

    What does not change within an epoch is looked up once: the parameters, the mode of the modules,
    and which callbacks have something to do in a step.
    """

    def __init__(
        self,
        *args: Any,
        accumulation_steps: int = 1,
        train_batches: Any = None,
        valid_batches: Any = None,
        input_dropout: Any = None,
        data: Any = None,
        checkpoints: Any = None,
        epoch_tasks: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.data, self.checkpoints, self.epoch_tasks = data, checkpoints, epoch_tasks
        self.accumulation_steps = accumulation_steps
        self.train_batches, self.valid_batches = train_batches, valid_batches
        self.input_dropout = input_dropout

    def get_iterator(self, dataset: BagDataset, training: bool = False) -> BagLoader:
        batches = self.train_batches if training else self.valid_batches
        return BagLoader(dataset, batches, self.device)

    def initialize_criterion(self) -> MILNet:
        """Keep the objective as it is; it has no parameters."""
        self.criterion_ = self.criterion
        return self

    def get_all_learnable_params(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters of the module, which are collected once per fit."""
        return iter(self._learnable)

    @cached_property
    def _learnable(self) -> list[tuple[str, nn.Parameter]]:
        return list(super().get_all_learnable_params())

    def _set_training(self, training: bool = True) -> None:
        if self.module_.training != training:
            self.module_.train(training)

    def infer(self, x: Any, **fit_params: Any) -> Any:
        batch, training = x.to(self.device), self.module_.training
        if training and self.input_dropout is not None:
            batch = self.input_dropout(batch)
        return forward(self.module_, batch, training=training)

    def get_loss(self, y_pred: Any, y_true: Tensor, X: Any = None, training: bool = False) -> Any:
        y_true = X.y.to(self.device)  # there already, as the batch is
        if training:
            self.terms_ = self.criterion_.of(y_pred, y_true, X)
            of_bags = self.criterion_.bag_weights(X, self.device)
            loss = weighted_total(self.terms_, self.criterion_.weights, of_bags)
        elif X.weight is None:
            loss = F.cross_entropy(y_pred.logits, y_true)
        else:
            losses = F.cross_entropy(y_pred.logits, y_true, reduction="none")
            loss = (X.weight.to(self.device) * losses).mean()
        # Elsewhere than on a CPU a step would wait for it: `_read_losses` checks those of an epoch.
        if loss.device.type == "cpu" and not math.isfinite(loss.item()):
            raise_diverged(self, loss, X, training=training)
        return loss

    def train_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        step = self.train_step_single(batch, **fit_params)
        self.accumulated_ += 1
        if self.accumulated_ == self.accumulation_steps:
            self._update(batch)
        return step

    def run_single_epoch(
        self, iterator: Any, training: bool, prefix: str, step_fn: Any, **fit_params: Any
    ) -> None:
        """Run all batches; the history and the callbacks get what skorch gives them."""
        if iterator is None:
            return
        self.accumulated_, rows = 0, self.history[-1, "batches"]
        before, after = self._hooks("on_batch_begin"), self._hooks("on_batch_end")
        self.before_step_ = self._hooks("on_grad_computed")
        for batch in iterator:
            row: dict[str, Any] = {}
            rows.append(row)
            for hook in before:
                hook(self, batch=batch, training=training)
            step = step_fn(batch, **fit_params)
            loss = step["loss"].detach()
            row[f"{prefix}_loss"] = loss.item() if self.device == "cpu" else loss
            row[f"{prefix}_batch_size"] = len(batch[0])
            for hook in after:
                hook(self, batch=batch, training=training, **step)
        if self.accumulated_:  # the last batches of an epoch, fewer than accumulation_steps
            self._update(None)
        if self.device != "cpu":
            self._read_losses(rows, prefix)
        self.history.record(f"{prefix}_batch_count", len(iterator))

    def _read_losses(self, rows: list[dict[str, Any]], prefix: str) -> None:
        """Replace the losses of an epoch on a GPU by numbers: a step does not wait for its own.

        Raises
        ------
        TrainingError
            If one of them is not finite.
        """
        name = f"{prefix}_loss"
        waiting = [row for row in rows if isinstance(row.get(name), Tensor)]
        losses = torch.stack([row[name] for row in waiting]).tolist() if waiting else []
        for k, (row, loss) in enumerate(zip(waiting, losses, strict=True)):
            row[name] = loss
            if not math.isfinite(loss):
                raise TrainingError(
                    f"Training diverged in epoch {len(self.history)}: the {prefix} loss is {loss} "
                    f"from batch {k + 1} on. Scale the features (InstanceTransformer), lower the "
                    "learning rate, or use device='cpu', whose message names the bag."
                )

    def _hooks(self, name: str) -> list[Callable[..., None]]:
        """Methods of this name, of those callbacks that do something in it."""
        methods = [getattr(callback, name) for _, callback in self.callbacks_]
        idle = getattr(Callback, name)
        return [method for method in methods if getattr(method, "__func__", None) is not idle]

    def fit_dataset(self, dataset: BagDataset) -> MILNet:
        """Train for `max_epochs` or until a callback stops early."""
        self.initialize()
        self.terms_, self.cut_short_ = {}, False
        self._update_average()
        self.notify("on_train_begin", X=dataset, y=None)
        self.state_ = None if self.checkpoints is None else self.checkpoints(self)
        n_run = 0 if self.state_ is None else self.state_.restore()
        with watch_interrupts() as self.interrupted_, suppress(EarlyStop):
            self.fit_loop(dataset, epochs=self.max_epochs - n_run)
        self.notify("on_train_end", X=dataset, y=None)
        return self

    def notify(self, method_name: str, **cb_kwargs: Any) -> None:
        try:
            super().notify(method_name, **cb_kwargs)
        except KeyboardInterrupt:
            if method_name != "on_epoch_end" or self.interrupted_():
                raise
            raise EarlyStop from None
        if method_name == "on_epoch_end" and len(self.history) < self.max_epochs:
            self._go_on()

    def _go_on(self) -> None:
        """Write a checkpoint, and stop where callbacks of scikit-learn ask for it.

        After the last epoch, what the network ends with takes the place of a checkpoint.
        """
        if self.state_ is not None:
            self.state_.save()
        if self.epoch_tasks is not None and self.epoch_tasks.stop_:
            self.cut_short_ = True
            raise EarlyStop

    def _update(self, batch: Any) -> None:
        if self.accumulated_ > 1:
            for _, parameter in self._learnable:
                if parameter.grad is not None:
                    parameter.grad.div_(self.accumulated_)
        for hook in self.before_step_:
            hook(self, named_parameters=self._learnable, batch=batch, training=True)
        self.optimizer_.step()
        for _, parameter in self._learnable:
            parameter.grad = None
        self.accumulated_ = 0
        self._update_average()

    def _update_average(self) -> None:
        update = getattr(self.module_, "update_average", None)
        if update is not None:
            update()


def train(
    module: nn.Module,
    objective: Objective,
    data: tuple[BagDataset, BagDataset | None],
    config: TrainingConfig,
    generators: Mapping[str, torch.Generator],
    *,
    model_callbacks: Sequence[Callback] = (),
    user_callbacks: Sequence[Any] = (),
    epoch_tasks: EpochTasks | None = None,
    checkpoints: CheckpointFiles | None = None,
) -> pd.DataFrame:
    """Train `module` in place and return its history, one row per epoch.

    With `checkpoints`, a training that has ended is not repeated, and one that was stopped goes on,
    also one that `epoch_tasks` stopped.

    Parameters
    ----------
    module : Module
    objective : Objective
    data : (training set, validation set or None)
        With a validation set, the best epoch is restored and training may stop early.
    config : TrainingConfig
    generators : mapping with keys "sampling", "input_dropout", "dropout" and "omics_dropout"
    model_callbacks, user_callbacks : sequence of skorch callbacks
    epoch_tasks : EpochTasks, optional
        Reports the network and its epochs to callbacks of scikit-learn.
    checkpoints : CheckpointFiles, optional

    Returns
    -------
    DataFrame
    """
    ended = None if checkpoints is None else checkpoints.finished()
    if ended is not None:
        report_findings(findings_before(ended), strict=config.strict)
        history = restore_ended(module.eval(), user_callbacks, ended)
        if epoch_tasks is not None:
            epoch_tasks.report_ended(module)
        return history
    watch = NumericalWatch()
    first, last = _callbacks(config, [watch, *model_callbacks], data[1] is not None)
    reporting = [] if epoch_tasks is None else [("engine_tasks", epoch_tasks)]
    net = MILNet(
        module,
        criterion=objective,
        max_epochs=config.max_epochs,
        accumulation_steps=config.accumulation_steps,
        callbacks=[*first, *user_callbacks, *reporting, *last],
        callbacks__print_log=None,
        device=config.device,
        verbose=0,
        checkpoints=None if checkpoints is None else partial(RunState, generators, checkpoints),
        epoch_tasks=epoch_tasks,
        **_reading_settings(data, config, generators),
        **optimizer_settings(config),
    )
    set_dropout_generator(module, generators["dropout"])
    omics_branch = getattr(module, "omics_branch", None)
    if omics_branch is not None:
        set_dropout_generator(omics_branch, generators["omics_dropout"])
    try:
        net.fit_dataset(data[0])
    finally:
        set_dropout_generator(module, None)
        clear_workspaces(module)
    module.to("cpu").eval()
    if not all(p.isfinite().all() for p in module.parameters()):
        raise TrainingError("Training diverged in its last step: weights are not finite.")
    history = _history(net)
    findings = watch.findings(net, history)
    report_findings(findings, strict=config.strict)
    if checkpoints is not None and not net.cut_short_:
        checkpoints.finish(ended_with(module, history, user_callbacks, n_findings=len(findings)))
    return history


def _reading_settings(
    data: tuple[BagDataset, BagDataset | None],
    config: TrainingConfig,
    generators: Mapping[str, torch.Generator],
) -> dict[str, Any]:
    """What a `MILNet` reads, in which batches and with which dropout of inputs."""
    training, validation = data
    dropout = InputDropout(
        config.input_dropout, config.instance_dropout, generators["input_dropout"]
    )
    batches = draw_batches(training.y, config.sampler, config.batch_size, generators["sampling"])
    return {
        "data": data,
        "train_split": None if validation is None else predefined_split(validation),
        "train_batches": batches,
        "valid_batches": None
        if validation is None
        else batches_within(validation.sizes, instance_budget(config.device)),
        "input_dropout": dropout,
    }


def _callbacks(
    config: TrainingConfig, of_model: Sequence[Callback], has_validation: bool
) -> tuple[list[Any], list[Any]]:
    """Named callbacks that run before the user's, and those that run after them."""
    callbacks = [
        LossTerms(),
        ReadingTime(),
        *of_model,
        ClipGradients(config.max_grad_norm, config.clip),
    ]
    last: list[Any] = []
    monitored, sign = "train_loss", -1
    if has_validation:
        monitored, sign = ("valid_auc", 1) if config.monitor == "auc" else ("valid_loss", -1)
        stopping = (config.tie_break, config.patience, config.min_epochs, config.first_best)
        best = BestEpoch(monitored, sign, *stopping)
        callbacks += [ValidationScores(), best]
        last = [("stop_early", StopEarly(best))]
    if config.first_averaged is not None:
        callbacks += [AverageWeights(config.first_averaged)]
    callbacks += schedule(config, monitored, sign)
    callbacks += [Progress(config.max_epochs)] if config.verbose else []
    return [(f"engine_{i}", callback) for i, callback in enumerate(callbacks)], last


def _history(net: NeuralNet) -> pd.DataFrame:
    hidden = ("batches", "train_batch_count", "valid_batch_count", "event_lr")
    rows = [
        {k: v for k, v in epoch.items() if k not in hidden and not k.endswith("_best")}
        for epoch in net.history
    ]
    return pd.DataFrame(rows)


def fresh_callbacks(callbacks: Sequence[Any] | None) -> list[Any]:
    """Clones of the user's callbacks, so that `fit` does not change the given ones.

    Raises
    ------
    TypeError
        If one is neither a skorch callback nor a (name, callback) pair.
    """
    for entry in callbacks or ():
        named = isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[0], str)
        callback = entry[1] if named else entry
        if not isinstance(callback, Callback):
            raise TypeError(
                f"callbacks must be skorch callbacks or (name, callback) pairs, got {entry!r}."
            )
    return clone(list(callbacks or ()), safe=False)
