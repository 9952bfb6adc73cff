"""Calibration of predicted probabilities."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.calibration import CalibrationDisplay

from ...evaluation.metrics import N_BINS, calibration_bin, calibration_pairs
from ..repeat_predictions import positive_title, predictions_by_repeat, with_interval
from .style import GREY, axes, colour, literal, styled


@dataclass
class ReliabilityDisplay:
    """Calibration curve in ten bins of equal width, with 95 % Wilson intervals.

    The bins are those of the metric ``calibration_error``. Grey bars show the number of patients
    in each bin. With more than two classes, the curve is that of the most probable class.

    Parameters
    ----------
    predicted : ndarray of shape (n_bins,)
        Mean predicted probability in each bin that holds patients.
    observed : ndarray of shape (n_bins,)
        Observed frequency in each of these bins.
    count : ndarray of shape (n_bins,)
        Number of patients in each of these bins, the mean over repeats.
    note : str, default=""
        Title of the axes.

    Attributes
    ----------
    figure_, ax_ : matplotlib Figure and Axes

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd.reporting.displays.calibration import ReliabilityDisplay
    >>> bins = ReliabilityDisplay(np.array([0.2, 0.7]), np.array([0.25, 0.6]), np.array([20, 30]))
    >>> bins.plot().ax_.get_xlabel()
    'predicted probability'
    """

    predicted: NDArray
    observed: NDArray
    count: NDArray
    note: str = ""
    figure_: Any = field(init=False, default=None, repr=False)
    ax_: Any = field(init=False, default=None, repr=False)

    @classmethod
    def from_result(cls, result: Any, *, ax: Any = None) -> Self:
        """Draw the calibration of a result's probabilities.

        Parameters
        ----------
        result : Evaluation or ExternalEvaluation
        ax : matplotlib Axes, optional

        Returns
        -------
        ReliabilityDisplay

        Raises
        ------
        TypeError
            If `result` has no predictions of patients.
        """
        repeats = predictions_by_repeat(result)
        pairs = [calibration_pairs(p.y, p.proba) for p in repeats]
        probability, happened = np.concatenate(pairs, axis=1)
        bins = calibration_bin(probability)
        total = np.bincount(bins, minlength=N_BINS)
        used = total > 0
        sums = [np.bincount(bins, v, minlength=N_BINS)[used] for v in (probability, happened)]
        error = "calibration error {:.3f} [{:.3f}, {:.3f}]".format(
            *with_interval(result, "calibration_error")
        )
        note = "\n".join(part for part in (positive_title(result), error) if part)
        means = [s / total[used] for s in sums]
        return cls(means[0], means[1], total[used] / len(repeats), note).plot(ax)

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
            self.ax_ = axes(ax, (4.0, 4.1))[0]
            self.figure_ = self.ax_.figure
            centres = (calibration_bin(self.predicted) + 0.5) / N_BINS
            heights = 0.15 * self.count / self.count.max()
            self.ax_.bar(centres, heights, 0.9 / N_BINS, color="#D9D9D9", zorder=0)
            for x, height, n in zip(centres, heights, self.count, strict=True):
                self.ax_.text(x, height + 0.01, f"{n:.0f}", ha="center", fontsize=7, color=GREY)
            low, high = _wilson(self.observed, self.count)
            self.ax_.vlines(self.predicted, low, high, color=colour(0), linewidth=1.2)
            CalibrationDisplay(self.observed, self.predicted, self.predicted).plot(
                ax=self.ax_, color=colour(0), name="observed"
            )
            self.ax_.set(
                xlabel="predicted probability", ylabel="observed frequency", aspect="equal"
            )
            self.ax_.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
            self.ax_.set_title(literal(self.note), fontsize=9)
            self.ax_.get_legend().remove()
        return self


def _wilson(share: NDArray, n: NDArray, z: float = 1.96) -> tuple[NDArray, NDArray]:
    """Wilson interval; scipy's ``binomtest`` takes whole counts, but these are means."""
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return middle - half, middle + half
