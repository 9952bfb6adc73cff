"""Section with a reporting checklist, filled from the run and by the authors.

The items follow TRIPOD+AI (Collins et al., BMJ 2024;385:e078378) in our own words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd

from ..repeat_predictions import decision_rule, with_interval
from .blocks import Block, Paragraph, Section, table
from .context import ReportContext

FROM_RUN, BY_AUTHORS, OPEN = "from the run", "by the authors", "open"


class Item(NamedTuple):
    """An item of the checklist; `answer` returns None if the run holds no answer."""

    number: str
    topic: str
    question: str
    answer: Callable[[ReportContext], str | None] = lambda context: None


def checklist_section(context: ReportContext) -> Section:
    """All items with answers from the run and from the notes of the authors."""
    rows = [_row(context, item) for item in ITEMS]
    frame = pd.DataFrame(rows, columns=["item", "topic", "answer", "source"])
    n_open = int((frame["source"] == OPEN).sum())
    unknown = sorted(set(context.notes) - {item.topic for item in ITEMS})
    blocks: list[Block] = [
        Paragraph(
            "The items follow TRIPOD+AI (Collins et al., BMJ 2024) in our own words. Answers come "
            f"from the run where possible; {n_open} of {len(frame)} items are open. Authors answer "
            "an item, or add to its answer, with notes={topic: text}."
        ),
        table(frame, "Checklist", index=False),
    ]
    if unknown:
        more = pd.DataFrame([(k, context.notes[k]) for k in unknown], columns=["topic", "text"])
        blocks.append(table(more, "Other notes of the authors", index=False))
    return Section("checklist", "Checklist for the paper", blocks)


def _row(context: ReportContext, item: Item) -> tuple[str, str, str, str]:
    told, noted = item.answer(context), context.notes.get(item.topic)
    answer = " ".join(part for part in (told, noted) if part)
    if not answer:
        return item.number, item.topic, item.question, OPEN
    source = " and ".join([FROM_RUN] * bool(told) + [BY_AUTHORS] * bool(noted))
    return item.number, item.topic, answer, source


def _study(s: ReportContext) -> str | None:
    if s.result is None:
        return None
    kind = "Development with internal validation."
    return "Evaluation of fitted models on another cohort." if _external(s) else kind


def _external(s: ReportContext) -> bool:
    return s.result is not None and hasattr(s.result, "by_model")


def _participants(s: ReportContext) -> str | None:
    if s.join is None:
        return None
    left = len(s.join.left_out)
    sites = "" if "site" not in s.join.slides else f", {s.join.slides['site'].nunique()} sites"
    return f"{len(s.join.slides)} slides, {left} excluded for reasons in section Cohort{sites}."


def _preparation(s: ReportContext) -> str | None:
    steps = getattr(s.model, "steps", None)
    if s.model is None:
        return None
    if steps is None or len(steps) == 1:
        return "No preprocessing before the classifier."
    names = ", ".join(type(step).__name__ for _, step in steps[:-1])
    return f"{names}, fitted on training patients only, inside each fold."


def _outcome(s: ReportContext) -> str | None:
    if s.result is None:
        return None
    classes = s.result.classes
    if len(classes) != 2:
        return f"{len(classes)} classes: {', '.join(map(str, classes))}."
    names = getattr(s.result, "label_names", {})
    negative, positive = (f"{c} = {names[c]}" if c in names else str(c) for c in classes)
    return f"{positive} (positive) against {negative}."


def _predictors(s: ReportContext) -> str | None:
    width = getattr(s.classifier, "n_features_in_", None)
    if width is None:
        return None
    genes = getattr(s.classifier, "genes_", None)
    omics = "" if genes is None else f" {len(genes)} genes are used in training only;"
    return f"{width} features per patch;{omics} prediction needs the slide only."


def _sample_size(s: ReportContext) -> str | None:
    if s.result is None:
        return None
    table = s.patient_confidence()
    counts = ", ".join(f"{n} x {c}" for c, n in table["y"].value_counts().items())
    return f"{len(table)} patients ({counts}). See detectable_difference(...) for the power."


def _missing(s: ReportContext) -> str | None:
    if s.join is None:
        return None
    used = s.join.slides[s.join.slides["status"] == "used"]
    without = int((~used["has_omics"].astype(bool)).sum())
    return f"Slides without label or file are excluded; {without} included slides have no omics."


def _methods(s: ReportContext) -> str | None:
    if s.model is None:
        return None
    early = getattr(s.classifier, "early_stopping", None)
    inner = (
        " Training stops early by an inner validation part of the training patients."
        if early
        else ""
    )
    return f"{type(s.classifier).__name__}; see section Reproducibility for its parameters.{inner}"


def _measures(s: ReportContext) -> str | None:
    if s.result is None:
        return None
    return "Discrimination, decisions at thresholds, calibration and net benefit; see Results."


def _imbalance(s: ReportContext) -> str | None:
    sampler = getattr(s.classifier, "sampler", None)
    return None if sampler is None else f"Sampler of training slides: {sampler}."


def _output(s: ReportContext) -> str | None:
    if s.result is None:
        return None
    return (
        "A probability per class, the mean over a patient's slides; predicted class: "
        f"{decision_rule(s.result)}."
    )


def _separation(s: ReportContext) -> str | None:
    if s.result is None:
        return None
    if _external(s):
        return s.result.separation
    folds = s.result.folds
    return (
        f"{folds['fold'].nunique()} folds x {folds['repeat'].nunique()} repeats. It is checked "
        "that no patient is both in training and in test."
        + ("" if s.result.sites is None else " Groups (sites) are not split either.")
    )


def _performance(s: ReportContext) -> str | None:
    if s.result is None:
        return None
    return "AUROC {:.3f} [{:.3f}, {:.3f}].".format(*with_interval(s.result, "auroc"))


def _heterogeneity(s: ReportContext) -> str | None:
    sites = getattr(s.result, "sites", None)
    return None if sites is None else f"Metrics of {len(sites)} groups; see the table in Results."


def _code(s: ReportContext) -> str:
    return "sk_momkd; see section Reproducibility for versions, seeds and hashes."


ITEMS = (
    Item(
        "1",
        "Title",
        "State that a prediction model is developed or evaluated, and for which patients.",
    ),
    Item("2", "Abstract", "A structured summary."),
    Item("3", "Background", "Clinical context, intended use and users, known health inequalities."),
    Item("4", "Objectives", "Objectives of the study.", _study),
    Item("5", "Source of data", "Sources and dates of slides, labels and omics."),
    Item("6", "Participants", "Eligibility, settings and treatments.", _participants),
    Item(
        "7",
        "Data preparation",
        "Preparation of the data, and whether it was the same in all groups.",
        _preparation,
    ),
    Item("8", "Outcome", "Predicted outcome, and how and by whom it was assessed.", _outcome),
    Item("9", "Predictors", "Input of the model, and how it was chosen.", _predictors),
    Item("10", "Sample size", "Justification of the sample size.", _sample_size),
    Item("11", "Missing data", "Missing data and their handling.", _missing),
    Item("12", "Analytical methods", "Model, training and tuning.", _methods),
    Item("12e", "Performance measures", "Measures, and why they were chosen.", _measures),
    Item("13", "Class imbalance", "Handling of class imbalance.", _imbalance),
    Item("14", "Fairness", "Methods to improve fairness between groups of patients."),
    Item("15", "Model output", "Output of the model, and how thresholds were chosen.", _output),
    Item(
        "16",
        "Training and evaluation",
        "Differences between training and evaluation data.",
        _separation,
    ),
    Item("17", "Ethics", "Ethical approval and consent."),
    Item("18a", "Funding", "Sources of funding and the role of the funders."),
    Item("18b", "Conflicts of interest", "Conflicts of interest of all authors."),
    Item(
        "18c",
        "Protocol and registration",
        "Where protocol and registration are available, if they exist.",
    ),
    Item("18e", "Data sharing", "Availability of the data."),
    Item("18f", "Code sharing", "Availability of the code.", _code),
    Item("19", "Patients and public", "Involvement of patients and the public."),
    Item(
        "20", "Flow of participants", "Numbers and characteristics of participants.", _participants
    ),
    Item("22", "Model specification", "Details that others need to use the model.", _predictors),
    Item("23a", "Performance", "Performance with intervals, also in groups.", _performance),
    Item("23b", "Heterogeneity", "Differences in performance between sites.", _heterogeneity),
    Item("25", "Interpretation", "Interpretation of the results, including fairness."),
    Item("26", "Limitations", "Limitations of the study."),
    Item("27", "Use in practice", "Handling of poor input, required user interaction, next steps."),
)
