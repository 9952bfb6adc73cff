"""Decisions at thresholds: net benefit and the confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix

from ..repeat_predictions import (
    decision_rule,
    positive_title,
    predictions_by_repeat,
    require_two_classes,
)
from .style import COLOURS, GREY, axes, colour, literal, shortened, styled

_THRESHOLDS = np.arange(0.01, 1.0, 0.01)


@dataclass
class DecisionCurveDisplay:
    """Net benefit of treating by the model, compared with treating all patients or none.

    Net benefit at threshold t is ``TP / n - FP / n * t / (1 - t)`` (Vickers and Elkin 2006). The
    odds ``t / (1 - t)`` weight an unnecessary treatment against a missed one.

    Parameters
    ----------
    thresholds : ndarray of shape (n_thresholds,)
    model : ndarray of shape (n_thresholds,)
        Net benefit of treating the patients whose probability is at least the threshold, the mean
        over repeats.
    everyone : ndarray of shape (n_thresholds,)
        Net benefit of treating all patients.
    chosen : ndarray, default=array([])
        Thresholds that the models of the folds chose; they are marked on the axis.
    note : str, default=""
        Title of the axes.

    Attributes
    ----------
    figure_, ax_ : matplotlib Figure and Axes

    References
    ----------
    Vickers, Elkin. Decision curve analysis: a novel method for evaluating prediction models.
    Medical Decision Making 26 (2006).

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd.reporting.displays.decisions import DecisionCurveDisplay
    >>> t = np.array([0.2, 0.5])
    >>> DecisionCurveDisplay(t, np.array([0.3, 0.2]), np.array([0.2, 0.0])).plot().ax_.get_xlabel()
    'threshold probability'
    """

    thresholds: NDArray
    model: NDArray
    everyone: NDArray
    chosen: NDArray = field(default_factory=lambda: np.array([]))
    note: str = ""
    figure_: Any = field(init=False, default=None, repr=False)
    ax_: Any = field(init=False, default=None, repr=False)

    @classmethod
    def from_result(cls, result: Any, *, ax: Any = None) -> Self:
        """Draw the decision curve of a result.

        Parameters
        ----------
        result : Evaluation or ExternalEvaluation
            Result with two classes.
        ax : matplotlib Axes, optional

        Returns
        -------
        DecisionCurveDisplay

        Raises
        ------
        TypeError
            If `result` has no predictions of patients.
        ValueError
            If there are more than two classes.
        """
        repeats = predictions_by_repeat(result)
        require_two_classes(result, "A decision curve")
        model = [net_benefit(p.y == 1, p.proba[:, 1], _THRESHOLDS) for p in repeats]
        share = np.mean([np.mean(p.y == 1) for p in repeats])  # a failed fold has no patients
        everyone = share - (1 - share) * _THRESHOLDS / (1 - _THRESHOLDS)
        chosen = np.unique(np.concatenate([p.thresholds for p in repeats]))
        benefit, note = np.mean(model, axis=0), positive_title(result)
        return cls(_THRESHOLDS, benefit, everyone, chosen, note).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw into `ax`, or into a new figure.

        Parameters
        ----------
        ax : matplotlib Axes, optional

        Returns
        -------
        self
        """
        with styled():
            self.ax_ = axes(ax, (4.3, 4.0))[0]
            self.figure_ = self.ax_.figure
            self.ax_.plot(self.thresholds, self.model, color=colour(0), label="treat by the model")
            self.ax_.plot(
                self.thresholds,
                self.everyone,
                color=colour(1),
                linestyle="--",
                linewidth=1.3,
                label="treat all",
            )
            self.ax_.axhline(0, color=GREY, linewidth=1, linestyle=":", label="treat none")
            top = max(self.model.max(), self.everyone.max(), 0.01)
            if len(self.chosen):
                self.ax_.plot(
                    self.chosen,
                    np.full(len(self.chosen), -0.25 * top),
                    "|",
                    color=COLOURS[-1],
                    markersize=9,
                    clip_on=False,
                    label="chosen thresholds",
                )
            self.ax_.set(xlabel="threshold probability", ylabel="net benefit")
            self.ax_.set(xlim=(0, 1), ylim=(-0.25 * top, 1.1 * top))
            self.ax_.set_title(literal(self.note), fontsize=9)
            self.ax_.legend(loc="upper right")
        return self


def net_benefit(positive: NDArray, proba: NDArray, thresholds: NDArray) -> NDArray:
    """Net benefit of treating the patients with ``proba >= threshold``.

    Examples
    --------
    >>> import numpy as np
    >>> net_benefit(np.array([True, False]), np.array([0.9, 0.6]), np.array([0.5, 0.75])).tolist()
    [0.0, 0.5]
    """
    treated = proba >= thresholds[:, None]
    odds = thresholds / (1 - thresholds)
    return (treated & positive).mean(axis=1) - (treated & ~positive).mean(axis=1) * odds


@dataclass
class ConfusionDisplay:
    """Confusion matrix of what `predict` says, as counts and fractions of each true class.

    Parameters
    ----------
    counts : ndarray of shape (n_classes, n_classes)
        Number of patients by true and predicted class, the mean over repeats.
    classes : tuple
        Names of the classes.
    note : str, default=""
        How the predicted class was chosen.
    title : str, default=""
        Title of the axes.

    Attributes
    ----------
    figure_, ax_ : matplotlib Figure and Axes

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd.reporting.displays.decisions import ConfusionDisplay
    >>> display = ConfusionDisplay(np.array([[8, 2], [1, 9]]), ("wt", "mut")).plot()
    >>> [text.get_text().split() for text in display.ax_.texts][:2]
    [['8', '80%'], ['2', '20%']]
    """

    counts: NDArray
    classes: tuple[Any, ...]
    note: str = ""
    title: str = ""
    figure_: Any = field(init=False, default=None, repr=False)
    ax_: Any = field(init=False, default=None, repr=False)

    @classmethod
    def from_result(cls, result: Any, *, ax: Any = None) -> Self:
        """Draw the decisions of a result.

        Parameters
        ----------
        result : Evaluation or ExternalEvaluation
        ax : matplotlib Axes, optional

        Returns
        -------
        ConfusionDisplay

        Raises
        ------
        TypeError
            If `result` has no predictions of patients.
        """
        repeats = predictions_by_repeat(result)
        labels = range(len(result.classes))
        counts = [confusion_matrix(p.y, p.predicted, labels=labels) for p in repeats]
        note = decision_rule(result).partition(" of predict")[0]
        classes = tuple(result.classes)
        return cls(np.mean(counts, axis=0), classes, note, positive_title(result)).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw into `ax`, or into a new figure.

        Parameters
        ----------
        ax : matplotlib Axes, optional

        Returns
        -------
        self
        """
        with styled():
            self.ax_ = axes(ax, (4.0, 3.8))[0]
            self.figure_ = self.ax_.figure
            total = self.counts.sum(axis=1, keepdims=True)
            share = np.divide(
                self.counts, total, out=np.zeros_like(self.counts, dtype=float), where=total > 0
            )
            labels = [shortened(str(c), 18) for c in self.classes]
            ConfusionMatrixDisplay(share, display_labels=[*map(literal, labels)]).plot(
                ax=self.ax_,
                cmap="Blues",
                colorbar=False,
                include_values=False,
                im_kw={"vmin": 0, "vmax": 1},
                xticks_rotation=30 if max(map(len, labels)) > 9 else "horizontal",
            )
            for (row, column), n in np.ndenumerate(self.counts):
                self.ax_.text(
                    column,
                    row,
                    f"{n:.4g}\n{share[row, column]:.0%}",
                    ha="center",
                    va="center",
                    color="white" if share[row, column] > 0.5 else "black",
                )
            self.ax_.set(xlabel=f"predicted, {self.note}" if self.note else "predicted")
            self.ax_.set(ylabel="true")
            self.ax_.set_title(literal(self.title), fontsize=9)
            for spine in self.ax_.spines.values():
                spine.set_visible(False)
        return self
