"""Optimisers and learning-rate schedules, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import lr_scheduler
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

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

    def state_dict(self) -> dict[str, Any]:
        """State with the slow weights, which `torch.optim.Optimizer` does not know."""
        return {**super().state_dict(), "slow": self._slow, "n_steps": self._n_steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state, and the slow weights."""
        super().load_state_dict(state_dict)
        for own, stored in zip(self._slow, state_dict["slow"], strict=True):
            own.copy_(stored)
        self._n_steps = state_dict["n_steps"]

    def _fast(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]


class FusedAdam(torch.optim.Adam):
    """Adam or AdamW on the CPU that looks its tensors up once instead of in every step.

    The result is that of ``fused=True`` in ``torch.optim`` to the bit. As there, a parameter
    without a gradient stays as it is and its steps are not counted. There is one group of
    parameters; AMSGrad, gradient scaling and closures are not supported.
    """

    def __init__(self, params: Any, **settings: Any) -> None:
        super().__init__(params, fused=True, **settings)
        self._prepare()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._prepare()

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        own = self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks
        if own or _global_optimizer_pre_hooks or _global_optimizer_post_hooks:
            self._update_with_hooks()
        else:
            self._update()

    # torch would wrap each step, to call hooks and to name it in its profiler.
    step.hooked = True  # type: ignore[attr-defined]

    @torch.no_grad()
    def _update(self) -> None:
        (group,) = self.param_groups
        grads = [p.grad for p in group["params"]]
        known = tuple(grad is not None for grad in grads)
        if not any(known):
            return
        if known not in self._chosen:
            self._chosen[known] = self._choose(known)
        count, *tensors = self._chosen[known]
        self._steps += count
        kernel = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
        kernel(
            tensors[0],
            [grad for grad in grads if grad is not None],
            *tensors[1:],
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )

    _update_with_hooks = torch.optim.Optimizer.profile_hook_step(_update)

    def _prepare(self) -> None:
        """Make the state of all parameters; their steps are entries of one tensor."""
        (group,) = self.param_groups
        states = [self.state[p] for p in group["params"]]
        self._steps = torch.tensor([float(state.get("step", 0)) for state in states])
        for i, (p, state) in enumerate(zip(group["params"], states, strict=True)):
            state["step"] = self._steps[i]
            for moment in ("exp_avg", "exp_avg_sq"):
                state.setdefault(moment, torch.zeros_like(p))
        self._chosen: dict[tuple[bool, ...], tuple[Any, ...]] = {}

    def _choose(self, known: tuple[bool, ...]) -> tuple[Any, ...]:
        """Step counts and the kernel's lists, for the parameters that have a gradient."""
        params = [p for p, has in zip(self.param_groups[0]["params"], known, strict=True) if has]
        states = [self.state[p] for p in params]
        means, squares, steps = (
            [state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step")
        )
        return torch.tensor(known).float(), params, means, squares, [], steps


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
    decoupled = config.optimizer == "adamw"
    if config.device == "cpu":
        lean = {"optimizer": FusedAdam, "optimizer__decoupled_weight_decay": decoupled}
        return settings | lean
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
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
