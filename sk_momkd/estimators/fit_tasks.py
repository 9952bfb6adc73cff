"""scikit-learn's callbacks (``sklearn.callback``, from 1.9 on): the tasks of a fit.

The task ``fit`` holds a task ``network`` for each trained network, and that an ``epoch`` for each
epoch. After an epoch callbacks may predict with the network as it is, and stop the training.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from .. import training as engine

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # before 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Raises where scikit-learn has no callbacks."""

        def set_callbacks(self, *callbacks: Any) -> Any:
            """Raise, since the installed scikit-learn has no callbacks."""
            raise ImportError(
                "set_callbacks needs scikit-learn 1.9 or later: pip install 'scikit-learn>=1.9'. "
                "Callbacks of skorch, training__callbacks=[...], work with every version."
            )

    def with_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:
        """Leave the method as it is."""
        return method


OF_RUNNING_FIT = ("_callback_fit_ctx", "_skl_callbacks_to_teardown")  # attributes of an estimator
OF_CALLBACKS = (*OF_RUNNING_FIT, "_skl_callbacks", "_parent_callback_ctx")  # all of scikit-learn's


@contextmanager
def teardown_of_callbacks(estimator: Any) -> Iterator[None]:
    """Tear the callbacks down at the end, however it comes.

    `with_callbacks` around `fit` would do so too, but warnings would name its line as the user's.
    """
    try:
        yield
    finally:
        _tear_down(estimator)


@with_callbacks
def _tear_down(estimator: Any) -> None:
    """Nothing itself; what follows is the decorator's."""


class FitTasks:
    """The task ``fit`` of an estimator that has callbacks.

    Parameters
    ----------
    estimator : classifier
    X, y : bags and labels, as given to `fit`
    """

    def __init__(self, estimator: Any, X: Any, y: Any) -> None:
        self._estimator, self._data = estimator, {"X": X, "y": y}
        self._context = estimator._init_callback_context(max_subtasks=estimator.n_models)
        self._context.call_on_fit_task_begin(estimator=estimator, **self._data)

    def epochs_of_network(self) -> engine.EpochTasks:
        """The callback of skorch that reports the epochs of the next network."""
        context = self._context.subcontext("network", max_subtasks=self._estimator.max_epochs)
        return engine.EpochTasks(self._estimator, self._data, context, self._as_fitted)

    def _as_fitted(self, network: nn.Module) -> dict[str, Any]:
        """Attributes of an estimator that ends with the network as it is now."""
        return self._estimator._with_networks([copy.deepcopy(network).to("cpu").eval()])

    def end(self) -> None:
        """Report that the estimator is fitted."""
        self._context.call_on_fit_task_end(
            estimator=self._estimator, reconstruction_attributes=dict, **self._data
        )


def fit_tasks(estimator: Any, X: Any, y: Any) -> FitTasks | None:
    """The tasks of this fit; None without callbacks."""
    return FitTasks(estimator, X, y) if getattr(estimator, "_skl_callbacks", None) else None
