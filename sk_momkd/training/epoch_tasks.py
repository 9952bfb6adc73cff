"""Epochs reported to callbacks of scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import nn


class EpochTasks(Callback):
    """Report a network and its epochs to the callbacks of the estimator.

    Parameters
    ----------
    estimator : estimator
    data : dict
        Bags and labels, as given to `fit`.
    context : CallbackContext
        Of the task of the network.
    as_fitted : callable
        Gives the attributes of an estimator that is fitted with a network.

    Attributes
    ----------
    stop_ : bool
        Whether one of them has asked to stop after the last epoch that ended.
    """

    def __init__(
        self,
        estimator: Any,
        data: dict[str, Any],
        context: Any,
        as_fitted: Callable[[nn.Module], dict[str, Any]],
    ) -> None:
        self.estimator, self.data, self.context = estimator, data, context
        self.as_fitted = as_fitted

    def report_ended(self, module: nn.Module) -> None:
        """Report a network that an earlier process has trained; its epochs were reported there."""
        self._begin(self.context)
        self._end(self.context, module)

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        self.n_begun_, self.stop_ = 0, False
        self._begin(self.context)

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        while self.n_begun_ < len(net.history):  # those of an earlier process take their numbers
            self.epoch_ = self.context.subcontext("epoch")
            self.n_begun_ += 1
        self._begin(self.epoch_)

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        self.stop_ = self._end(self.epoch_, net.module_)

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        self._end(self.context, net.module_)

    def _begin(self, context: Any) -> None:
        context.call_on_fit_task_begin(estimator=self.estimator, **self.data)

    def _end(self, context: Any, network: nn.Module) -> bool:
        return context.call_on_fit_task_end(
            estimator=self.estimator,
            reconstruction_attributes=partial(self.as_fitted, network),
            **self.data,
        )
