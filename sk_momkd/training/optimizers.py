"""Optimisers and learning-rate schedules, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import lr_scheduler

from .config import TrainingConfig

if TYPE_CHECKING:
    from skorch.callbacks import Callback

OPTIMIZERS = ("adamw", "adam", "lookahead_radam", "sgd")
SCHEDULES = ("plateau", "cosine", "linear", "step")


class LookaheadRAdam(torch.optim.RAdam):
    """RAdam whose weights move half of the way back every six steps (Lookahead).

    Weight decay is decoupled, as in AdamW.

    References
    ----------
    Zhang, Lucas, Hinton, Ba. Lookahead Optimizer: k steps forward, 1 step back. NeurIPS 2019.
    """

    _interval, _share = 6, 0.5

    def __init__(self, params: Any, **settings: Any) -> None:
        super().__init__(params, decoupled_weight_decay=True, **settings)
        self._slow = [p.detach().clone() for p in self._fast()]
        self._n_steps = 0

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = super().step(closure)
        self._n_steps += 1
        if self._n_steps % self._interval == 0:
            for slow, fast in zip(self._slow, self._fast(), strict=True):
                fast.copy_(slow.lerp_(fast, self._share))
        return loss

    def _fast(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]


def optimizer_settings(config: TrainingConfig) -> dict[str, Any]:
    """Class and arguments of the optimiser, as arguments of `skorch.NeuralNet`."""
    settings: dict[str, Any] = {
        "lr": config.learning_rate,
        "optimizer__weight_decay": config.weight_decay,
    }
    if config.optimizer == "sgd":
        momentum = {"optimizer__momentum": config.momentum, "optimizer__fused": True}
        return settings | momentum | {"optimizer": torch.optim.SGD}
    settings["optimizer__betas"] = tuple(config.betas)
    if config.optimizer == "lookahead_radam":
        return settings | {"optimizer": LookaheadRAdam}
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return settings | {"optimizer": kind, "optimizer__fused": True}


def schedule(config: TrainingConfig, monitored: str, sign: int) -> list[Callback]:
    """Callback that changes the learning rate after each epoch; none without a schedule."""
    epochs = config.max_epochs
    if config.lr_schedule is None:
        return []
    policies: dict[str, tuple[type, dict[str, Any]]] = {
        "plateau": (
            lr_scheduler.ReduceLROnPlateau,
            {"mode": "max" if sign > 0 else "min", "factor": 0.2, "patience": 5},
        ),
        "cosine": (lr_scheduler.CosineAnnealingLR, {"T_max": epochs}),
        "linear": (
            lr_scheduler.LambdaLR,
            {"lr_lambda": lambda epoch: 1 - (epoch + 1) / (epochs + 1)},
        ),
        "step": (lr_scheduler.StepLR, {"step_size": -(-epochs // 2), "gamma": 0.2}),
    }
    policy, settings = policies[config.lr_schedule]
    from skorch.callbacks import LRScheduler  # skorch takes seconds to import

    return [LRScheduler(policy, monitor=monitored, **settings)]
