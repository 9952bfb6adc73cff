"""Section on the weight of the omics teacher: what its choice saw, and what it chose."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ...evaluation.teacher_weights import (
    choice_of,
    gains_by_weight,
    weights_by_method,
    weights_note,
)
from .blocks import Block, Paragraph, Section, table
from .context import ReportContext

_NOTHING_CHOSEN = (
    "No weight of an omics teacher was chosen in training. Classifiers choose it with omics and "
    'lambda_teacher="auto", PrivilegedClassifier with weight="auto".'
)
_FOLDS_SHOWN = 10  # with more, the table of reasons is collapsed
_MEANING = (
    "The omics teacher is fitted to the omics of training patients, and its weight says how "
    "far the slide classifier learns from it instead of from the labels: 0 not at all, 1 from it "
    "alone. The weight is chosen inside of the training part, without the test patients."
)


def omics_section(context: ReportContext) -> Section:
    """How often each weight was chosen, the gains in inner folds, and the reasons."""
    name, title = "omics", "Weight of omics"
    folds = getattr(context.result, "folds", pd.DataFrame())
    if "teacher_weight" in folds:
        blocks = _of_folds(context, folds)
    elif context.trained_with_omics is not None and choice_of(context.model):
        blocks = _of_model(context)
    else:
        return Section(name, title, [Paragraph(_NOTHING_CHOSEN, "note")])  # nothing is lacking
    return Section(name, title, [Paragraph(_MEANING, "note"), *blocks])


def _of_folds(context: ReportContext, folds: pd.DataFrame) -> list[Block]:
    blocks: list[Block] = [Paragraph(weights_note(folds))]
    evaluations = getattr(context.comparison, "evaluations", None) or {}
    methods = weights_by_method({name: one.folds for name, one in evaluations.items()})
    if len(methods) > 1:
        blocks.append(table(methods, "Number of folds by the weight that each training chose"))
    report = context.result.teacher_report
    if report is not None:
        caption = f"Gains in inner folds, mean over the folds of {context.result.name!r}"
        blocks.append(_gains(report, caption))
    columns = {"teacher_weight": "weight", "teacher_verdict": "why"}
    reasons = folds[["repeat", "fold", *columns]].rename(columns=columns)
    reasons["weight"] = reasons["weight"].map("{:g}".format)
    closed = len(reasons) > _FOLDS_SHOWN
    blocks.append(table(reasons, "Reason in each fold", index=False, closed=closed))
    return blocks


def _of_model(context: ReportContext) -> list[Block]:
    choice = choice_of(context.model)
    blocks: list[Block] = [Paragraph(choice["teacher_verdict"])]
    if choice["teacher_report"] is not None:
        caption = f"Gains in inner folds of {context.first_fold}"
        blocks.append(_gains(choice["teacher_report"], caption))
    return blocks


def _gains(report: pd.DataFrame, caption: str) -> Block:
    names = {
        "auroc": "AUROC",
        "gain": "gain over weight 0",
        "std_error": "its standard error",
        "shrunk_gain": "gain, shrunk",
        "permuted": "gain by a permuted teacher",
        "self_distilled": "gain by a teacher that sees slides",
    }
    shown: Any = gains_by_weight(report).rename(columns=names).reset_index()
    shown["weight"] = shown["weight"].map("{:g}".format)
    return table(shown, caption, index=False)
