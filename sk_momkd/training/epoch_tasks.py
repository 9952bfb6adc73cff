"""Epochs reported to callbacks of scikit-learn."""

from __future__ import annotations

import copy
from typing import Any

from skorch import NeuralNet
from skorch.callbacks import Callback

from .interrupts import EarlyStop


class EpochTasks(Callback):
    """Report a network and its epochs to the callbacks of the estimator."""

    def __init__(self, estimator: Any, data: dict[str, Any], context: Any) -> None:
        self.estimator, self.data, self.context = estimator, data, context

    def state_dict(self) -> dict[str, Any]:
        """Nothing: each process reports the epochs that it runs."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing."""

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        self.context.call_on_fit_task_begin(estimator=self.estimator, **self.data)

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        self.epoch_ = self.context.subcontext("epoch")
        self.epoch_.call_on_fit_task_begin(estimator=self.estimator, **self.data)

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        if self._end(self.epoch_, net):
            raise EarlyStop

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        self._end(self.context, net)

    def _end(self, context: Any, net: NeuralNet) -> bool:
        def as_fitted() -> dict[str, Any]:
            module = copy.deepcopy(net.module_)
            return {"modules_": [module], "module_": module}

        return context.call_on_fit_task_end(
            estimator=self.estimator, reconstruction_attributes=as_fitted, **self.data
        )
