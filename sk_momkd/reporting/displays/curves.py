"""ROC and precision-recall curves of a result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Self

from numpy.typing import NDArray
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from ..repeat_predictions import (
    RepeatPredictions,
    positive_title,
    predictions_by_repeat,
    with_interval,
)
from .style import GREY, axes, colour, literal, styled

_SIZE = (4.0, 4.0)


class Curve(NamedTuple):
    """Curve of one class in one repeat.

    Attributes
    ----------
    x, y : ndarray of shape (n_points,)
    area : float
        AUROC, or average precision.
    share : float
        Fraction of patients in the class.
    """

    x: NDArray
    y: NDArray
    area: float
    share: float


@dataclass
class _CurveDisplay:
    """Base class: curves of each class, one per repeat of the evaluation.

    Attributes
    ----------
    curves : dict of str to list of Curve
        Curves by label of the legend.
    note : str, default=""
        Title of the axes.
    figure_, ax_ : matplotlib Figure and Axes
    """

    curves: dict[str, list[Curve]]
    note: str = ""
    figure_: Any = field(init=False, default=None, repr=False)
    ax_: Any = field(init=False, default=None, repr=False)

    _steps: ClassVar[str] = "default"

    @classmethod
    def from_result(cls, result: Any, *, ax: Any = None) -> Self:
        """Draw the curves of a result.

        Parameters
        ----------
        result : Evaluation or ExternalEvaluation
            With two classes, the curve of the positive class is drawn; with more, the curve of each
            class against the rest.
        ax : matplotlib Axes, optional

        Returns
        -------
        self

        Raises
        ------
        TypeError
            If `result` has no predictions of patients.
        """
        repeats, classes = predictions_by_repeat(result), result.classes
        curves = {}
        for k in [1] if len(classes) == 2 else range(len(classes)):
            drawn = [curve for p in repeats if (curve := cls._curve(p, k)) is not None]
            if drawn:
                curves[cls._label(result, k, drawn)] = drawn
        return cls(curves, positive_title(result)).plot(ax)

    @classmethod
    def _curve(cls, part: RepeatPredictions, k: int) -> Curve | None:
        raise NotImplementedError

    @classmethod
    def _label(cls, result: Any, k: int, drawn: list[Curve]) -> str:
        raise NotImplementedError

    def _finish(self, ax: Any) -> None:
        raise NotImplementedError

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
            self.ax_ = axes(ax, _SIZE)[0]
            self.figure_ = self.ax_.figure
            for number, (label, repeats) in enumerate(self.curves.items()):
                for repeat, curve in enumerate(repeats):
                    self.ax_.plot(
                        curve.x,
                        curve.y,
                        label=literal(label) if repeat == 0 else "_nolegend_",
                        color=colour(number),
                        linewidth=1.8 if len(repeats) == 1 else 1.1,
                        drawstyle=self._steps,
                    )
            self._finish(self.ax_)
            self.ax_.set_title(literal(self.note), fontsize=9)
            self.ax_.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        return self


class ROCDisplay(_CurveDisplay):
    """ROC curves of the pooled out-of-fold predictions, a line for each repeat.

    Parameters
    ----------
    curves : dict of str to list of Curve
        Curves by label of the legend, as :meth:`from_result` computes them.
    note : str, default=""
        Title of the axes.

    Attributes
    ----------
    figure_, ax_ : matplotlib Figure and Axes

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sk_momkd import Bag, BagPooling, BagSequence, evaluate
    >>> from sk_momkd.reporting.displays.curves import ROCDisplay
    >>> random, y = np.random.default_rng(0), np.arange(40) % 2
    >>> bags = BagSequence(Bag(random.normal(label, 2, size=(5, 3))) for label in y)
    >>> result = evaluate(make_pipeline(BagPooling(), LogisticRegression()), bags, y)
    >>> ROCDisplay.from_result(result).ax_.get_xlabel()
    '1 - specificity'
    """

    @classmethod
    def _curve(cls, part: RepeatPredictions, k: int) -> Curve | None:
        positive = part.y == k
        if positive.all() or not positive.any():
            return None
        fpr, tpr, _ = roc_curve(positive, part.proba[:, k])
        return Curve(fpr, tpr, roc_auc_score(positive, part.proba[:, k]), positive.mean())

    @classmethod
    def _label(cls, result: Any, k: int, drawn: list[Curve]) -> str:
        if len(result.classes) == 2:
            return "AUROC {:.3f} [{:.3f}, {:.3f}]".format(*with_interval(result, "auroc"))
        mean = sum(d.area for d in drawn) / len(drawn)
        return f"{result.classes[k]} against the rest, AUROC {mean:.3f}"

    def _finish(self, ax: Any) -> None:
        ax.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":", label="chance")
        ax.set(xlabel="1 - specificity", ylabel="sensitivity")
        ax.legend(loc="lower right")


class PRDisplay(_CurveDisplay):
    """Precision-recall curves of the pooled out-of-fold predictions, a line for each repeat.

    The dotted line is the precision of random predictions: the fraction of patients in the class.

    Parameters
    ----------
    curves : dict of str to list of Curve
        Curves by label of the legend, as :meth:`from_result` computes them.
    note : str, default=""
        Title of the axes.

    Attributes
    ----------
    figure_, ax_ : matplotlib Figure and Axes

    Examples
    --------
    >>> from sk_momkd.reporting.displays.curves import Curve, PRDisplay
    >>> curve = Curve(x=[1, 1, 0], y=[0.5, 1.0, 1.0], area=1.0, share=0.5)
    >>> PRDisplay({"AUPRC 1.000": [curve]}).plot().ax_.get_ylabel()
    'precision'
    """

    _steps = "steps-post"  # as in scikit-learn, without interpolation

    @classmethod
    def _curve(cls, part: RepeatPredictions, k: int) -> Curve | None:
        positive = part.y == k
        if not positive.any():
            return None
        precision, recall, _ = precision_recall_curve(positive, part.proba[:, k])
        area = average_precision_score(positive, part.proba[:, k])
        return Curve(recall, precision, area, positive.mean())

    @classmethod
    def _label(cls, result: Any, k: int, drawn: list[Curve]) -> str:
        if len(result.classes) == 2:
            return "AUPRC {:.3f} [{:.3f}, {:.3f}]".format(*with_interval(result, "auprc"))
        mean = sum(d.area for d in drawn) / len(drawn)
        return f"{result.classes[k]} against the rest, AUPRC {mean:.3f}"

    def _finish(self, ax: Any) -> None:
        for number, drawn in enumerate(self.curves.values()):
            share = drawn[0].share
            style = {"color": GREY if len(self.curves) == 1 else colour(number), "linestyle": ":"}
            label = "chance" if number == 0 else "_nolegend_"
            ax.axhline(share, linewidth=1, label=label, **style)
        ax.set(xlabel="recall (sensitivity)", ylabel="precision")
        ax.legend(loc="best")
