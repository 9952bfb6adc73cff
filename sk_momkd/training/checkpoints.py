"""The state of a training run after an epoch, and how a run goes on from it.

Everything that the next epochs depend on is in it: weights and buffers, optimizer, random
generators, history, and the attributes of all callbacks, among them the learning-rate schedule, the
best weights and early stopping.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from skorch import NeuralNet
from torch import nn

from ..exceptions import CheckpointError
from ..io.checkpoint_files import CheckpointFiles, can_be_stored
from .epoch_tasks import EpochTasks


class RunState:
    """Writes the state of a run after each epoch, and restores it.

    It is made after ``on_train_begin`` of the callbacks. Of a callback, every attribute is kept
    that is a plain value, an array or a tensor, or has ``state_dict`` and ``load_state_dict``; one
    that has these methods itself decides what is kept. Any other attribute must stay the object
    that it is now.

    Parameters
    ----------
    generators : mapping of str to Generator
    files : CheckpointFiles
    net : NeuralNet
    """

    def __init__(
        self, generators: Mapping[str, torch.Generator], files: CheckpointFiles, net: NeuralNet
    ) -> None:
        self.net, self.generators, self.files = net, generators, files
        self._at_start = {name: dict(vars(callback)) for name, callback in named_callbacks(net)}

    def restore(self) -> int:
        """Go to the newest checkpoint; return the number of epochs that were run, 0 without one."""
        found = self.files.newest()
        if found is None:
            return 0
        n_epochs, state = found
        net = self.net
        net.module_.load_state_dict(state["weights"])
        net.optimizer_.load_state_dict(state["optimizer"])
        for name, generator in self.generators.items():
            generator.set_state(state["generators"][name])
        net.history.extend({**row, "batches": []} for row in state["history"])
        for name, callback in named_callbacks(net):
            # A progress bar may be new, since `verbose` may change.
            restore_callback(callback, state["callbacks"].get(name, {}))
        return n_epochs

    def save(self) -> None:
        """Write the state after the epoch that has just ended."""
        net = self.net
        callbacks = {
            name: callback_state(name, callback, self._at_start[name])
            for name, callback in named_callbacks(net)
        }
        state = {
            "weights": dict(net.module_.state_dict()),
            "optimizer": net.optimizer_.state_dict(),
            "generators": {name: g.get_state() for name, g in self.generators.items()},
            "history": history_rows(net),
            "callbacks": callbacks,
        }
        self.files.save(len(net.history), state)


def named_callbacks(net: NeuralNet) -> Iterator[tuple[str, Any]]:
    """Callbacks with the names that skorch gives them, which are unique.

    Those of scikit-learn are not among them: they may differ between the processes of a fit.
    """
    yield from (pair for pair in net.callbacks_ if not isinstance(pair[1], EpochTasks))


def history_rows(net: NeuralNet) -> list[dict[str, Any]]:
    """History without what was recorded for each batch, which would grow with every epoch."""
    return [{key: value for key, value in row.items() if key != "batches"} for row in net.history]


def callback_state(name: str, callback: Any, at_start: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint keeps of a callback.

    Raises
    ------
    CheckpointError
        If it has an attribute that cannot be stored and is another object than at the start of
        training; names it.
    """
    if _has_state(callback):
        return {"own": callback.state_dict()}
    kept: dict[str, Any] = {}
    for key, value in vars(callback).items():
        if isinstance(value, torch.Generator):
            kept[key] = {"generator": value.get_state()}
        elif _has_state(value):
            kept[key] = {"state_dict": _storable(value.state_dict())}
        elif can_be_stored(value):
            kept[key] = {"value": value}
        elif key not in at_start or at_start[key] is not value:
            raise CheckpointError(
                f"The callback {name!r}, a {type(callback).__name__}, has an attribute {key!r}, a "
                f"{type(value).__name__} made during training, which a checkpoint cannot hold. "
                "Give the callback state_dict() and load_state_dict(state), make the attribute in "
                "on_train_begin, or fit without checkpoint_dir."
            )
    return kept


def restore_callback(callback: Any, state: Mapping[str, Any]) -> None:
    """Give a callback what `callback_state` kept of it."""
    if "own" in state and _has_state(callback):
        callback.load_state_dict(state["own"])
        return
    for key, kept in state.items():
        ((kind, content),) = kept.items()
        if kind == "generator":
            getattr(callback, key).set_state(content)
        elif kind == "state_dict":
            getattr(callback, key).load_state_dict(content)
        else:
            setattr(callback, key, content)


def ended_with(
    module: nn.Module, history: pd.DataFrame, callbacks: Sequence[Any], *, n_findings: int
) -> dict[str, Any]:
    """What is kept of a training that has ended: weights, history, the user's callbacks.

    Of findings the number alone is kept, because they name slides.
    """
    states = [
        callback_state(str(i), _bare(one), vars(_bare(one))) for i, one in enumerate(callbacks)
    ]
    return {
        "weights": dict(module.state_dict()),
        "history": history,
        "callbacks": states,
        "n_findings": n_findings,
    }


def findings_before(state: Mapping[str, Any]) -> list[str]:
    """The message on a training that had ended with findings, which were shown then."""
    n = state["n_findings"]
    if not n:
        return []
    return [
        f"This training had ended before with {n} warnings of numbers that are not to be trusted. "
        "They name slides, which no checkpoint does: fit with another checkpoint_dir to see them."
    ]


def restore_ended(
    module: nn.Module, callbacks: Sequence[Any], state: Mapping[str, Any]
) -> pd.DataFrame:
    """Give a network and the user's callbacks what they ended with; return the history."""
    module.load_state_dict(state["weights"])
    for callback, kept in zip(callbacks, state["callbacks"], strict=True):
        restore_callback(_bare(callback), kept)
    return state["history"]


def _bare(callback: Any) -> Any:
    """The callback of a (name, callback) pair."""
    return callback[1] if isinstance(callback, tuple) else callback


def _has_state(value: Any) -> bool:
    has = hasattr(value, "state_dict") and hasattr(value, "load_state_dict")
    return has and not isinstance(value, type)


def _storable(state: Mapping[str, Any]) -> dict[str, Any]:
    """State of a schedule or a module, of which functions and the like are left as they are."""
    return {key: value for key, value in state.items() if can_be_stored(value)}
