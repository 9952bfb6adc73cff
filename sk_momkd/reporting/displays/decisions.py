"""Probabilities taken at their word: calibration, net benefit, and the confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.calibration import CalibrationDisplay
from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix

from ...evaluation.metrics import N_BINS, calibration_bin, calibration_pairs
from ..predicted import predicted, require_two_classes, with_interval
from .style import COLOURS, GREY, axes, colour, literal, shortened, styled

_THRESHOLDS = np.arange(0.01, 1.0, 0.01)


@dataclass
class ReliabilityDisplay:
    """Stated against observed frequency in ten bins of equal width, with 95 % Wilson intervals.

    The bins are those of ``calibration_error``. Grey bars count the patients of each bin. Of
    more than two classes: the probability of the predicted class, and how often it is right.

    Parameters
    ----------
    stated, observed, count : ndarray of shape (n_bins,)
        Of the bins that hold patients; counts are means over repeats.
    note : str, default=""

    Attributes
    ----------
    figure_, ax_ : matplotlib Figure and Axes

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd.reporting.displays.decisions import ReliabilityDisplay
    >>> bins = ReliabilityDisplay(np.array([0.2, 0.7]), np.array([0.25, 0.6]), np.array([20, 30]))
    >>> bins.plot().ax_.get_xlabel()
    'stated probability'
    """

    stated: NDArray
    observed: NDArray
    count: NDArray
    note: str = ""
    figure_: Any = field(default=None, repr=False)
    ax_: Any = field(default=None, repr=False)

    @classmethod
    def from_result(cls, result: Any, *, ax: Any = None) -> Self:
        """Draw the calibration of a result's probabilities.

        Parameters
        ----------
        result : Evaluation or ExternalEvaluation
        ax : matplotlib Axes, optional
        """
        repeats = predicted(result)
        stated, happened = np.concatenate(
            [calibration_pairs(p.y, p.proba) for p in repeats], axis=1
        )
        bins = calibration_bin(stated)
        total = np.bincount(bins, minlength=N_BINS)
        used = total > 0
        sums = [np.bincount(bins, v, minlength=N_BINS)[used] for v in (stated, happened)]
        error = "calibration error {:.3f} [{:.3f}, {:.3f}]".format(
            *with_interval(result, "calibration_error")
        )
        means = [s / total[used] for s in sums]
        return cls(means[0], means[1], total[used] / len(repeats), error).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw into `ax`, or into a new figure; returns itself."""
        with styled():
            self.ax_ = axes(ax, (4.0, 4.1))[0]
            self.figure_ = self.ax_.figure
            centres = (calibration_bin(self.stated) + 0.5) / N_BINS
            heights = 0.15 * self.count / self.count.max()
            self.ax_.bar(centres, heights, 0.9 / N_BINS, color="#D9D9D9", zorder=0)
            for x, height, n in zip(centres, heights, self.count, strict=True):
                self.ax_.text(x, height + 0.01, f"{n:.0f}", ha="center", fontsize=7, color=GREY)
            low, high = _wilson(self.observed, self.count)
            self.ax_.vlines(self.stated, low, high, color=colour(0), linewidth=1.2)
            CalibrationDisplay(self.observed, self.stated, self.stated).plot(
                ax=self.ax_, color=colour(0), name="observed"
            )
            self.ax_.set(xlabel="stated probability", ylabel="observed frequency", aspect="equal")
            self.ax_.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
            self.ax_.set_title(self.note, fontsize=9)
            self.ax_.get_legend().remove()
        return self


def _wilson(share: NDArray, n: NDArray, z: float = 1.96) -> tuple[NDArray, NDArray]:
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return middle - half, middle + half


@dataclass
class DecisionCurveDisplay:
    """Net benefit of acting on the model, beside acting on all patients and on none.

    Net benefit at threshold t is ``TP / n - FP / n * t / (1 - t)`` (Vickers and Elkin 2006): what
    acting gains, where t says how many needless actions one missed patient is worth.

    Parameters
    ----------
    thresholds, model, everyone : ndarray of shape (n_thresholds,)
        Net benefits are means over repeats.
    chosen : ndarray
        Thresholds that the fold models chose; marked on the axis.

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
    figure_: Any = field(default=None, repr=False)
    ax_: Any = field(default=None, repr=False)

    @classmethod
    def from_result(cls, result: Any, *, ax: Any = None) -> Self:
        """Draw the decision curve of a result.

        Parameters
        ----------
        result : Evaluation or ExternalEvaluation
            Of two classes.
        ax : matplotlib Axes, optional

        Raises
        ------
        TypeError
            If `result` has no predictions of patients.
        ValueError
            If there are more than two classes.
        """
        repeats = predicted(result)
        require_two_classes(result, "A decision curve")
        model = [net_benefit(p.y == 1, p.proba[:, 1], _THRESHOLDS) for p in repeats]
        share = np.mean(repeats[0].y == 1)
        everyone = share - (1 - share) * _THRESHOLDS / (1 - _THRESHOLDS)
        chosen = np.unique(np.concatenate([p.thresholds for p in repeats]))
        return cls(_THRESHOLDS, np.mean(model, axis=0), everyone, chosen).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw into `ax`, or into a new figure; returns itself."""
        with styled():
            self.ax_ = axes(ax, (4.3, 4.0))[0]
            self.figure_ = self.ax_.figure
            self.ax_.plot(self.thresholds, self.model, color=colour(0), label="by the model")
            self.ax_.plot(
                self.thresholds,
                self.everyone,
                color=colour(1),
                linestyle="--",
                linewidth=1.3,
                label="act on all",
            )
            self.ax_.axhline(0, color=GREY, linewidth=1, linestyle=":", label="act on none")
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
            self.ax_.legend(loc="upper right")
        return self


def net_benefit(positive: NDArray, proba: NDArray, thresholds: NDArray) -> NDArray:
    """Net benefit of acting where ``proba >= threshold``.

    Examples
    --------
    >>> import numpy as np
    >>> net_benefit(np.array([True, False]), np.array([0.9, 0.6]), np.array([0.5, 0.75])).tolist()
    [0.0, 0.5]
    """
    acts = proba >= thresholds[:, None]
    weight = thresholds / (1 - thresholds)
    return (acts & positive).mean(axis=1) - (acts & ~positive).mean(axis=1) * weight


@dataclass
class ConfusionDisplay:
    """Confusion matrix at the chosen thresholds, patients and share of each true class.

    Parameters
    ----------
    counts : ndarray of shape (n_classes, n_classes)
        True class by predicted class; means over repeats.
    classes : tuple
    note : str, default=""
        Where the decisions come from.

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
    figure_: Any = field(default=None, repr=False)
    ax_: Any = field(default=None, repr=False)

    @classmethod
    def from_result(cls, result: Any, *, ax: Any = None) -> Self:
        """Draw the decisions of a result.

        Parameters
        ----------
        result : Evaluation or ExternalEvaluation
            Where the models chose no threshold, the most probable class counts.
        ax : matplotlib Axes, optional
        """
        repeats = predicted(result)
        labels = range(len(result.classes))
        counts = [confusion_matrix(p.y, p.decided, labels=labels) for p in repeats]
        tuned = repeats[0].tuned is not None
        note = "at the chosen thresholds" if tuned else "the most probable class"
        return cls(np.mean(counts, axis=0), tuple(result.classes), note).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw into `ax`, or into a new figure; returns itself."""
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
            for spine in self.ax_.spines.values():
                spine.set_visible(False)
        return self
