"""Usage of the memory during training (Fig. 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import pandas as pd

from .style import GREY, axes, colour, literal, styled

_PERPLEXITY = "memory_perplexity_"


@dataclass
class MemoryUsageDisplay:
    """Active ratio and perplexity of the memory per epoch.

    A component is active if its usage exceeds a tenth of 1 / n, where n is the number of
    components of its class. Perplexity is the effective number of components of a class, between 1
    and n. Solid lines are for training batches (with dropout), dashed lines for the validation
    part.

    Parameters
    ----------
    histories : dict of str to DataFrame
        ``history_`` of each run, by name. For one run, perplexity is drawn per class; for several
        runs, the geometric mean over classes is drawn per run.

    Attributes
    ----------
    figure_ : matplotlib Figure
    axes_ : list of two matplotlib Axes
        Active ratio, perplexity.

    Examples
    --------
    >>> import pandas as pd
    >>> from sk_momkd.reporting.displays.memory_usage import MemoryUsageDisplay
    >>> history = pd.DataFrame(
    ...     {
    ...         "epoch": [1, 2],
    ...         "memory_active_ratio": [0.9, 1.0],
    ...         "memory_perplexity_0": [3.1, 3.4],
    ...         "memory_perplexity_1": [2.8, 3.0],
    ...     }
    ... )
    >>> [ax.get_ylabel() for ax in MemoryUsageDisplay({"run": history}).plot().axes_]
    ['active components', 'perplexity']
    """

    histories: dict[str, pd.DataFrame]
    figure_: Any = field(init=False, default=None, repr=False)
    axes_: Any = field(init=False, default=None, repr=False)

    @classmethod
    def from_estimator(cls, clf: Any, *, ax: Any = None) -> Self:
        """Draw the memory of a fitted MoMKD, or of several by name.

        Parameters
        ----------
        clf : fitted MoMKDClassifier, pipeline that ends in one, or dict of these by name
            Of an ensemble, the first model is used.
        ax : list or array of two matplotlib Axes, optional

        Returns
        -------
        MemoryUsageDisplay

        Raises
        ------
        TypeError
            If one of them has no memory.
        """
        from ...inspection.fitted import fitted_momkd  # loads torch, which saved histories need not

        named = clf if isinstance(clf, Mapping) else {type(fitted_momkd(clf)).__name__: clf}
        histories = {str(k): _first_model(fitted_momkd(m).history_) for k, m in named.items()}
        return cls(histories).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw into two axes, or into a new figure.

        Parameters
        ----------
        ax : list or array of two matplotlib Axes, optional

        Returns
        -------
        self
        """
        with styled():
            self.axes_ = axes(ax, (8.6, 3.4), 2)
            self.figure_ = self.axes_[0].figure
            for number, (name, history) in enumerate(self.histories.items()):
                label = name if len(self.histories) > 1 else "all classes"
                _line(self.axes_[0], history, "memory_active_ratio", number, label)
                self._perplexity(history, number, name)
            self._finish()
        return self

    def _perplexity(self, history: pd.DataFrame, number: int, name: str) -> None:
        ax = self.axes_[1]
        classes = [c for c in history.columns if str(c).startswith(_PERPLEXITY)]
        if len(self.histories) == 1:
            for k, column in enumerate(classes):
                _line(ax, history, column, k, f"class {column.removeprefix(_PERPLEXITY)}")
            return
        means = pd.DataFrame({"epoch": history["epoch"]})
        for prefix in ("", "valid_"):
            columns = [f"{prefix}{c}" for c in classes]
            if set(columns) <= set(history):
                means[f"{prefix}mean"] = history[columns].prod(axis=1) ** (1 / len(columns))
        _line(ax, means, "mean", number, name)

    def _finish(self) -> None:
        from matplotlib.ticker import MaxNLocator

        active, perplexity = self.axes_
        active.set(xlabel="epoch", ylabel="active components", ylim=(0, 1.05))
        active.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        perplexity.set(xlabel="epoch", ylabel="perplexity", ylim=(0, None))
        for ax in self.axes_:
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            if any("validation" in str(line.get_gid()) for line in ax.lines):
                ax.plot([], [], color=GREY, linestyle="--", label="validation part")
            ax.legend(loc="lower right")


def _first_model(history: pd.DataFrame) -> pd.DataFrame:
    """Rows of the first model of an ensemble; the whole history of a single model."""
    return history[history["model"] == 0] if "model" in history else history


def _line(ax: Any, history: pd.DataFrame, column: str, number: int, label: str) -> None:
    style = {"color": colour(number), "marker": "." if len(history) < 40 else ""}
    ax.plot(history["epoch"], history[column], label=literal(label), **style)
    validation = f"valid_{column}"
    if validation in history:
        ax.plot(
            history["epoch"],
            history[validation],
            linestyle="--",
            linewidth=1.2,
            color=colour(number),
            gid="validation",
        )
