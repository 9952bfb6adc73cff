"""Sections on the result of an evaluation: metrics, calibration, predictions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from ...evaluation.subgroups import subgroup_metrics
from ...evaluation.thresholds import VALIDATION_PART
from ..displays.calibration import ReliabilityDisplay
from ..displays.curves import PRDisplay, ROCDisplay
from ..displays.decisions import ConfusionDisplay, DecisionCurveDisplay
from ..repeat_predictions import (
    decision_rule,
    ensemble_note,
    interval_text,
    positive_note,
    with_interval,
)
from .blocks import Block, Paragraph, Picture, Pictures, Section, chart, table
from .context import ReportContext

METRICS = {
    "auroc": "AUROC, pooled over folds",
    "fold_auroc": "AUROC, mean over folds",
    "auprc": "AUPRC (average precision)",
    "balanced_accuracy": "balanced accuracy",
    "f1_macro": "F1, macro average",
    "accuracy": "accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "brier": "Brier score (lower is better)",
    "calibration_error": "calibration error (lower is better)",
}
_TUNED = "_tuned"
_SITES_SHOWN = 12  # with more, the table is collapsed
_OF_THE_POSITIVE = ("auprc", "sensitivity", "specificity")
NO_RESULT = (
    "A fitted estimator has no test result, and the bags may be those it was trained on. Pass the "
    "result of evaluate(...) or evaluate_external(...) to fill this section."
)


def results_section(context: ReportContext) -> Section:
    """Metrics with intervals, curves, and the comparison if there is one."""
    name, title = "results", "Results"
    if context.result is None:
        return Section(name, title, missing=NO_RESULT)
    result = context.result
    blocks: list[Block] = []
    if context.comparison is not None:
        blocks += _comparison(context.comparison, result)
    note = positive_note(result)
    blocks.append(
        Paragraph(
            f"Intervals are percentiles ({result.bootstrap}) of a bootstrap over patients. "
            "They show how the metrics of the fitted models vary with the sample of test patients, "
            "but not how they vary with the randomness of training.",
            "note",
        )
    )
    if cautions := getattr(result, "cautions", result.note):
        blocks.append(Paragraph(cautions, "warning"))
    caption = f"Metrics{ensemble_note(result) or ' of'} {result.name}{note}"
    blocks.append(table(summary_table(result), caption, index=False))
    blocks.append(_curves(result))
    for attribute, caption in (
        ("folds", "By fold"),
        ("by_model", "By model"),
        ("sites", "By group (site)"),
    ):
        frame = getattr(result, attribute, None)
        if frame is not None:
            index, closed = attribute != "folds", attribute != "sites" or len(frame) > _SITES_SHOWN
            shown = _known(frame).drop(columns="teacher_verdict", errors="ignore")
            blocks.append(table(shown, f"{caption}{note}", index=index, closed=closed))
    if context.subgroups is not None:
        frame = subgroup_metrics(result, context.subgroups)
        blocks.append(table(_known(frame), f"By subgroup{note}", index=False))
    return Section(name, title, blocks)


def _curves(result: Any) -> Pictures:
    note = positive_note(result)
    of_folds = " of the out-of-fold predictions, one line per repeat"
    drawn = ensemble_note(result) if hasattr(result, "by_model") else of_folds
    roc = chart(lambda: ROCDisplay.from_result(result), "ROC curve", f"ROC curve{drawn}{note}.")
    precision_recall = chart(
        lambda: PRDisplay.from_result(result),
        "Precision-recall curve",
        f"Precision-recall curve{note}; the dotted line is the prevalence of the class.",
    )
    return Pictures([roc, precision_recall])


def _comparison(comparison: Any, result: Any) -> list[Block]:
    blocks: list[Block] = []
    verdict = getattr(comparison, "verdict", "")
    if verdict:
        blocks.append(Paragraph(verdict, "warning"))
    note = positive_note(result)
    blocks.append(table(_known(comparison.summary), f"Methods, compared on the same folds{note}"))
    blocks.append(table(_known(comparison.differences), "Paired differences"))
    blocks.append(Paragraph(f"The rest of this page describes {result.name!r}."))
    return blocks


def summary_table(result: Any) -> pd.DataFrame:
    """Table ``metric, value, interval`` with means and deviations over folds or models."""
    rows, external = [], hasattr(result, "by_model")
    for metric, row in result.summary.iterrows():
        value, low, high = with_interval(result, str(metric))
        if value != value:  # no threshold was chosen
            continue
        base = str(metric).removesuffix(_TUNED)
        words = "AUROC" if external and base == "auroc" else METRICS.get(base, base)
        words += ", at the chosen thresholds" if base != metric else ""
        words += positive_note(result) if base in _OF_THE_POSITIVE else ""
        cells = {"metric": words, "value": value, "interval": interval_text(low, high)}
        if "low_sites" in row and not external:
            cells["interval, bootstrap over sites"] = interval_text(
                row["low_sites"], row["high_sites"]
            )
        if external and len(result.by_model) > 1:
            cells["mean over models ± SD"] = f"{row['value']:.3f} ± {row['std']:.3f}"
        if not external:
            cells["mean over folds ± SD"] = f"{row['fold_mean']:.3f} ± {row['fold_std']:.3f}"
        if "repeat_std" in row:
            cells["SD over repeats"] = row["repeat_std"]
        rows.append(cells)
    return pd.DataFrame(rows)


def _known(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.dropna(how="all").dropna(how="all", axis="columns")


def calibration_section(context: ReportContext) -> Section:
    """Calibration of the probabilities, confusion matrix, decision curve and thresholds."""
    name, title = "calibration", "Calibration and threshold"
    result = context.result
    kept = _kept_threshold(context)
    if result is None:
        return Section(name, title, kept, missing=NO_RESULT)
    note = positive_note(result)
    drawn: list[tuple[Callable[[], Any], str, str]] = [
        (
            lambda: ReliabilityDisplay.from_result(result),
            "Calibration",
            "Observed frequency by predicted probability, with 95% Wilson intervals. Grey bars "
            f"show the number of patients per bin{note}.",
        ),
        (
            lambda: ConfusionDisplay.from_result(result),
            "Confusion matrix",
            "Number of patients by what the estimator's predict says, and fraction of the true "
            f"class{note}.",
        ),
    ]
    blocks: list[Block] = []
    if len(result.classes) == 2:
        chosen = len(_chosen_thresholds(result))
        marks = " Marks show the thresholds chosen in the folds." if chosen else ""
        drawn.append(
            (
                lambda: DecisionCurveDisplay.from_result(result),
                "Decision curve",
                f"Net benefit of treating by the model{note}.{marks}",
            )
        )
        blocks.append(Paragraph(_threshold_line(result)))
    else:
        blocks.append(
            Paragraph("Thresholds and decision curves are defined for two classes only.", "note")
        )
    pictures: list[Picture] = [chart(*figure) for figure in drawn]
    return Section(name, title, [*blocks, *kept, Pictures(pictures)])


def _kept_threshold(context: ReportContext) -> list[Block]:
    """The threshold that the classifier was given, with what it rests on."""
    given = getattr(context.classifier, "decision_threshold", None)
    if given is None:
        return []
    return [Paragraph(f"The classifier keeps a threshold. {'. '.join(str(given).splitlines())}.")]


def _chosen_thresholds(result: Any) -> pd.Series:
    source = getattr(result, "by_model", None)
    return (result.folds if source is None else source)["threshold"].dropna()


def _threshold_line(result: Any) -> str:
    """How `predict` decides, and what the thresholds of the metrics are that it does not use."""
    table = result.by_model if hasattr(result, "by_model") else result.folds
    line = f"The predicted class is that of the estimator: {decision_rule(result)}."
    chosen = table.loc[table["threshold_source"] == VALIDATION_PART, "threshold"]
    if not len(chosen):
        return line
    return (
        f"{line} Each model also chose the threshold with the best F1 on its own inner validation "
        f"part, without test patients, from {chosen.min():.2f} to {chosen.max():.2f}, with median "
        f"{chosen.median():.2f}. Metrics at these thresholds say so; predict does not use them."
    )


def predictions_section(context: ReportContext) -> Section:
    """Table of all predictions."""
    name, title = "predictions", "Predictions"
    if context.result is None:
        return Section(name, title, missing=NO_RESULT)
    frame = _known(context.result.predictions)
    caption = "Predictions, a row per patient and repeat" + positive_note(context.result)
    return Section(name, title, [table(frame, caption, index=False, closed=True)])
