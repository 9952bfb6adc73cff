"""Sections on the cohort and on what was measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from ..displays.curves import PRDisplay, ROCDisplay
from ..displays.decisions import ConfusionDisplay, DecisionCurveDisplay, ReliabilityDisplay
from ..predicted import interval_text, with_interval
from .blocks import Block, Flow, Paragraph, Picture, Pictures, Section, chart, listed, table
from .subject import Subject

METRICS = {
    "auroc": "AUROC, all patients in one list",
    "fold_auroc": "AUROC within folds, averaged",
    "auprc": "AUPRC (average precision)",
    "balanced_accuracy": "balanced accuracy",
    "f1_macro": "F1, mean over classes",
    "accuracy": "accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "brier": "Brier score (lower is better)",
    "calibration_error": "calibration error (lower is better)",
}
_TUNED = "_tuned"
NO_RESULT = (
    "A fitted estimator carries no test of itself, and its bags may be those it was trained on. "
    "Pass the result of evaluate(...) or evaluate_external(...) to fill this section."
)


def cohort_section(subject: Subject) -> Section:
    """How many slides and patients came in, and why some did not."""
    name, title = "cohort", "Cohort"
    if subject.join is None:
        patients = _patients_line(subject)
        return Section(
            name,
            title,
            [Paragraph(patients)] if patients else [],
            "Who was left out, and why, is not known here. Pass the report of load_cohort(...) as "
            "join=.",
        )
    join = subject.join
    blocks: list[Block] = [Flow(_flow(subject, join.slides))]
    if len(join.left_out):
        columns = [c for c in ("slide_id", "patient_id", "status") if c in join.left_out]
        blocks.append(
            table(
                join.left_out[columns],
                "Slides that were left out",
                index=False,
                closed=len(join.left_out) > 20,
            )
        )
    if "site" in join.slides:
        blocks.append(table(join.by_site(), "Slides in use by site and label", closed=True))
    return Section(name, title, blocks)


def _flow(subject: Subject, slides: pd.DataFrame) -> list[tuple[str, list[str]]]:
    used = slides[slides["status"] == "used"]
    left = slides[slides["status"] != "used"]
    reasons = [
        f"{len(rows)} left out, {why}: {listed(rows['slide_id'].tolist())}"
        for why, rows in left.groupby("status")
    ]
    labels = ", ".join(f"{n} x {k}" for k, n in used["label"].value_counts().items())
    with_omics = int(used["has_omics"].sum())
    join = subject.join
    unmatched = [] if join is None else join.unmatched_omics
    out = [f"{len(unmatched)} omics rows without a slide in use: {listed(unmatched)}"]
    for status, rows in () if join is None else join.omics_left_out.groupby("status"):
        out.append(f"{len(rows)} omics rows left out, {status}: {listed(rows['id'].tolist())}")
    steps = [
        (f"{len(slides)} slides in the table or the folder", reasons),
        (f"{len(used)} slides in use, {used['patient_id'].nunique()} patients ({labels})", []),
        (
            f"{with_omics} slides with omics, {len(used) - with_omics} with histology alone",
            out if unmatched or len(out) > 1 else [],
        ),
    ]
    if subject.result is not None:
        n = len(subject.confidence_of_patients())
        steps.append((f"{n} patients predicted and counted", []))
    return steps


def _patients_line(subject: Subject) -> str:
    if subject.result is not None:
        return subject.result.headline
    if subject.bags is None:
        return ""
    return f"{len(subject.bags)} slides of {len(subject.of_patient())} patients."


def results_section(subject: Subject) -> Section:
    """The metrics with their intervals, curves, and the comparison if there is one."""
    name, title = "results", "Results"
    if subject.result is None:
        return Section(name, title, missing=NO_RESULT)
    result = subject.result
    blocks: list[Block] = []
    if subject.comparison is not None:
        blocks += _comparison(subject.comparison, result)
    blocks.append(
        Paragraph(
            f"Intervals are percentiles ({result.bootstrap}) over draws of patients: what other "
            "patients of the same places would have given the same fitted models. Chance in "
            "training is not in them.",
            "note",
        )
    )
    blocks.append(table(summary_table(result), f"Metrics of {result.name}", index=False))
    blocks.append(
        Pictures(
            [
                chart(
                    lambda: ROCDisplay.from_result(result),
                    "ROC curve",
                    "ROC curve of the out-of-fold predictions; a line per repeat.",
                ),
                chart(
                    lambda: PRDisplay.from_result(result),
                    "Precision-recall curve",
                    "Precision and recall; guessing gives the share of the class.",
                ),
            ]
        )
    )
    for attribute, caption in (
        ("folds", "By fold"),
        ("by_model", "By model"),
        ("sites", "By group (site)"),
    ):
        frame = getattr(result, attribute, None)
        if frame is not None:
            blocks.append(table(_known(frame), caption, index=attribute != "folds", closed=True))
    return Section(name, title, blocks)


def _comparison(comparison: Any, result: Any) -> list[Block]:
    blocks: list[Block] = []
    verdict = getattr(comparison, "verdict", "")
    if verdict:
        blocks.append(Paragraph(verdict, "warning"))
    blocks.append(table(_known(comparison.summary), "All that were compared on the same folds"))
    blocks.append(table(_known(comparison.differences), "Paired differences"))
    blocks.append(Paragraph(f"The rest of this page is about {result.name!r}."))
    return blocks


def summary_table(result: Any) -> pd.DataFrame:
    """``metric, value, interval``, and what else the result knows, in words."""
    rows = []
    for metric, row in result.summary.iterrows():
        value, low, high = with_interval(result, str(metric))
        if value != value:  # no threshold was tuned
            continue
        base = str(metric).removesuffix(_TUNED)
        words = METRICS.get(base, base)
        words += ", at the chosen thresholds" if base != metric else ""
        cells = {"metric": words, "value": value, "interval": interval_text(low, high)}
        if "low_sites" in row and "ensemble" not in row:
            cells["interval, whole sites drawn"] = interval_text(
                row["low_sites"], row["high_sites"]
            )
        if "ensemble" in row:
            cells["mean over models ± SD"] = f"{row['value']:.3f} ± {row['std']:.3f}"
        else:
            cells["mean over folds ± SD"] = f"{row['fold_mean']:.3f} ± {row['fold_std']:.3f}"
        if "repeat_std" in row:
            cells["SD over repeats"] = row["repeat_std"]
        rows.append(cells)
    return pd.DataFrame(rows)


def _known(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.dropna(how="all").dropna(how="all", axis="columns")


def calibration_section(subject: Subject) -> Section:
    """Whether probabilities are true as numbers, and what the thresholds do."""
    name, title = "calibration", "Calibration and threshold"
    result = subject.result
    if result is None:
        return Section(name, title, missing=NO_RESULT)
    drawn: list[tuple[Callable[[], Any], str, str]] = [
        (
            lambda: ReliabilityDisplay.from_result(result),
            "Calibration",
            "Stated against observed frequency, with Wilson intervals; grey: patients per bin.",
        ),
        (
            lambda: ConfusionDisplay.from_result(result),
            "Confusion matrix",
            "Patients, and share of the true class.",
        ),
    ]
    blocks: list[Block] = []
    if len(result.classes) == 2:
        drawn.append(
            (
                lambda: DecisionCurveDisplay.from_result(result),
                "Decision curve",
                "Net benefit of acting on the model; thresholds of the folds are marked.",
            )
        )
        blocks.append(Paragraph(_threshold_line(result)))
    else:
        blocks.append(Paragraph("Thresholds and decision curves need two classes.", "note"))
    pictures: list[Picture] = [chart(*figure) for figure in drawn]
    return Section(name, title, [*blocks, Pictures(pictures)])


def _threshold_line(result: Any) -> str:
    source = getattr(result, "by_model", None)
    chosen = (result.folds if source is None else source)["threshold"].dropna()
    if not len(chosen):
        return (
            "The models chose no threshold, since they have no inner validation part: the most "
            "probable class counts."
        )
    return (
        f"Each model chose its threshold by the best F1 on its own inner validation part, never on "
        f"test patients: {chosen.min():.2f} to {chosen.max():.2f}, median {chosen.median():.2f}."
    )


def predictions_section(subject: Subject) -> Section:
    """Every patient's prediction."""
    name, title = "predictions", "Predictions"
    if subject.result is None:
        return Section(name, title, missing=NO_RESULT)
    frame = _known(subject.result.predictions)
    return Section(
        name, title, [table(frame, "A row per patient and repeat", index=False, closed=True)]
    )
