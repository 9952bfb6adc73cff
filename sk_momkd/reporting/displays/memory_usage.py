"""Usage of the memory during training (Fig. 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import pandas as pd

from .style import GREY, axes, colour, literal, styled

PAPER_SHARE = 0.75  # "more than 75 %" of the components in the paper's Figure 3
_PERPLEXITY = "memory_perplexity_"
_SHARES = {
    "memory_ever_used": "ever used in the epoch",
    "memory_active_ratio": "usage above 1/(10 n)",
}


@dataclass
class MemoryUsageDisplay:
    """Fraction of the memory that is in use, by two definitions, and its perplexity per epoch.

    "Ever used": the fraction of components that at least one patch matched best in the epoch, in
    the paper's words those utilised during training. "Usage above 1/(10 n)": the fraction of
    components that more than 1/(10 n) of a slide's patches match best, on average over slides,
    with n components per class. Perplexity is the effective number of components of a class,
    between 1 and n. Solid lines are for training batches (with dropout), dashed lines for the
    validation part. The dotted line is the 75 % that the paper reports to be exceeded.

    Parameters
    ----------
    histories : dict of str to DataFrame
        ``history_`` of each run, by name. For one run, perplexity is drawn per class; for several
        runs, the geometric mean over classes is drawn per run.

    Attributes
    ----------
    figure_ : matplotlib Figure
    axes_ : list of three matplotlib Axes
        Ever used, usage above 1/(10 n), perplexity.

    Examples
    --------
    >>> import pandas as pd
    >>> from sk_momkd.reporting.displays.memory_usage import MemoryUsageDisplay
    >>> history = pd.DataFrame(
    ...     {
    ...         "epoch": [1, 2],
    ...         "memory_ever_used": [1.0, 1.0],
    ...         "memory_active_ratio": [0.9, 1.0],
    ...         "memory_perplexity_0": [3.1, 3.4],
    ...         "memory_perplexity_1": [2.8, 3.0],
    ...     }
    ... )
    >>> display = MemoryUsageDisplay({"run": history}).plot()
    >>> [ax.get_title() for ax in display.axes_]
    ['ever used in the epoch', 'usage above 1/(10 n)', 'perplexity']
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
        ax : list or array of three matplotlib Axes, optional

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
        """Draw into three axes, or into a new figure.

        Parameters
        ----------
        ax : list or array of three matplotlib Axes, optional

        Returns
        -------
        self
        """
        with styled():
            self.axes_ = axes(ax, (11.4, 3.4), 3)
            self.figure_ = self.axes_[0].figure
            for number, (name, history) in enumerate(self.histories.items()):
                label = name if len(self.histories) > 1 else "all classes"
                for panel, column in zip(self.axes_, _SHARES, strict=False):
                    _line(panel, history, column, number, label)
                self._perplexity(history, number, name)
            self._finish()
        return self

    def _perplexity(self, history: pd.DataFrame, number: int, name: str) -> None:
        ax = self.axes_[2]
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

        for ax, title in zip(self.axes_, _SHARES.values(), strict=False):
            ax.set(title=title, xlabel="epoch", ylabel="components", ylim=(0, 1.05))
            ax.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
            ax.axhline(PAPER_SHARE, color=GREY, linestyle=":", linewidth=1.2, gid="paper", zorder=0)
        self.axes_[2].set(title="perplexity", xlabel="epoch", ylim=(0, None))
        for ax in self.axes_:
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            if any("validation" in str(line.get_gid()) for line in ax.lines):
                ax.plot([], [], color=GREY, linestyle="--", label="validation part")
            if any(line.get_gid() == "paper" for line in ax.lines):
                ax.plot([], [], color=GREY, linestyle=":", label="paper: more than 75 %")
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
