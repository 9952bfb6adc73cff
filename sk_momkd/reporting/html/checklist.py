"""What a reader of a prediction model wants to know, as far as the run itself can tell.

The items follow TRIPOD+AI (Collins et al., BMJ 2024;385:e078378) in our own words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..predicted import with_interval
from .blocks import Block, Paragraph, Section, table
from .subject import Subject

FROM_RUN, BY_AUTHORS, OPEN = "from the run", "by the authors", "open"


class Item(NamedTuple):
    """A question of the checklist; `answer` gives None where the run does not know."""

    number: str
    topic: str
    question: str
    answer: Callable[[Subject], str | None] = lambda subject: None


def checklist_section(subject: Subject) -> Section:
    """All items, filled from the run and from the authors' notes."""
    rows = [_row(subject, item) for item in ITEMS]
    frame = pd.DataFrame(rows, columns=["item", "topic", "answer", "source"])
    n_open = int((frame["source"] == OPEN).sum())
    unknown = sorted(set(subject.notes) - {item.topic for item in ITEMS})
    blocks: list[Block] = [
        Paragraph(
            "The items follow TRIPOD+AI (Collins and others, BMJ 2024) in our own words. The run "
            f"fills what it knows; {n_open} of {len(frame)} items are open. The authors answer "
            "them, or add to any answer, with notes={topic: text}."
        ),
        table(frame, "Checklist", index=False),
    ]
    if unknown:
        more = pd.DataFrame([(k, subject.notes[k]) for k in unknown], columns=["topic", "text"])
        blocks.append(table(more, "Further notes of the authors", index=False))
    return Section("checklist", "Checklist for the paper", blocks)


def _row(subject: Subject, item: Item) -> tuple[str, str, str, str]:
    told, noted = item.answer(subject), subject.notes.get(item.topic)
    answer = " ".join(part for part in (told, noted) if part)
    if not answer:
        return item.number, item.topic, item.question, OPEN
    source = " and ".join([FROM_RUN] * bool(told) + [BY_AUTHORS] * bool(noted))
    return item.number, item.topic, answer, source


def _study(s: Subject) -> str | None:
    if s.result is None:
        return None
    kind = "Development with internal validation."
    return "Evaluation of fitted models on another cohort." if _external(s) else kind


def _external(s: Subject) -> bool:
    return s.result is not None and hasattr(s.result, "by_model")


def _participants(s: Subject) -> str | None:
    if s.join is None:
        return None
    left = len(s.join.left_out)
    sites = "" if "site" not in s.join.slides else f", {s.join.slides['site'].nunique()} sites"
    return f"{len(s.join.slides)} slides known, {left} left out, with reasons in Cohort{sites}."


def _preparation(s: Subject) -> str | None:
    steps = getattr(s.model, "steps", None)
    if s.model is None:
        return None
    if steps is None or len(steps) == 1:
        return "No step before the classifier."
    names = ", ".join(type(step).__name__ for _, step in steps[:-1])
    return f"Fitted on training patients alone, inside each fold: {names}."


def _outcome(s: Subject) -> str | None:
    if s.result is None:
        return None
    classes = s.result.classes
    if len(classes) != 2:
        return f"{len(classes)} classes: {', '.join(map(str, classes))}."
    return f"{classes[1]} (positive) against {classes[0]}."


def _predictors(s: Subject) -> str | None:
    width = getattr(s.classifier, "n_features_in_", None)
    if width is None:
        return None
    genes = getattr(s.classifier, "genes_", None)
    taught = "" if genes is None else f" {len(genes)} genes teach while training;"
    return f"{width} features per patch;{taught} prediction needs the slide alone."


def _sample_size(s: Subject) -> str | None:
    if s.result is None:
        return None
    table = s.confidence_of_patients()
    counts = ", ".join(f"{n} x {c}" for c, n in table["y"].value_counts().items())
    return f"{len(table)} patients ({counts}). What they can show: detectable_difference(...)."


def _missing(s: Subject) -> str | None:
    if s.join is None:
        return None
    used = s.join.slides[s.join.slides["status"] == "used"]
    without = int((~used["has_omics"].astype(bool)).sum())
    return f"Slides without label or file are left out; {without} in use have no omics."


def _methods(s: Subject) -> str | None:
    if s.model is None:
        return None
    early = getattr(s.classifier, "early_stopping", None)
    inner = " An inner validation part of the training patients stops training." if early else ""
    return f"{type(s.classifier).__name__}, parameters and seeds below.{inner}"


def _measures(s: Subject) -> str | None:
    if s.result is None:
        return None
    return "Discrimination, decisions at thresholds, calibration and net benefit, see Results."


def _imbalance(s: Subject) -> str | None:
    sampler = getattr(s.classifier, "sampler", None)
    return None if sampler is None else f"Sampler of training slides: {sampler}."


def _output(s: Subject) -> str | None:
    if s.result is None:
        return None
    tuned = np.isfinite(_thresholds(s)).any()
    how = "the best F1 on the inner validation part" if tuned else "none: the most probable class"
    return f"A probability per class, mean over a patient's slides; threshold by {how}."


def _thresholds(s: Subject) -> Any:
    source = s.result.by_model if _external(s) else s.result.folds
    return source["threshold"].to_numpy(dtype=float)


def _separation(s: Subject) -> str | None:
    if s.result is None:
        return None
    if _external(s):
        return "Patients of training are refused in the external cohort where they are known."
    folds = s.result.folds
    return (
        f"{folds['fold'].nunique()} folds x {folds['repeat'].nunique()} repeats of whole patients; "
        "no patient stands on both sides, which is checked."
        + ("" if s.result.sites is None else " Groups (sites) are kept whole.")
    )


def _performance(s: Subject) -> str | None:
    if s.result is None:
        return None
    return "AUROC {:.3f} [{:.3f}, {:.3f}].".format(*with_interval(s.result, "auroc"))


def _heterogeneity(s: Subject) -> str | None:
    sites = getattr(s.result, "sites", None)
    return None if sites is None else f"Metrics of {len(sites)} groups in a table of Results."


def _code(s: Subject) -> str:
    return "sk_momkd, versions, seeds and hashes in the last section."


ITEMS = (
    Item("1", "Title", "Say that a prediction model is developed or evaluated, for whom."),
    Item("2", "Abstract", "A structured summary."),
    Item("3", "Background", "Clinical context, intended use and users, known inequalities."),
    Item("4", "Objectives", "What the study wants to find out.", _study),
    Item("5", "Source of data", "Where slides, labels and omics come from, and from when."),
    Item("6", "Participants", "Who was eligible, where, and with what treatment.", _participants),
    Item("7", "Data preparation", "How data were prepared, alike in all groups?", _preparation),
    Item("8", "Outcome", "What is predicted, how and by whom it was assessed.", _outcome),
    Item("9", "Predictors", "What the model sees, and how it was chosen.", _predictors),
    Item("10", "Sample size", "Why so many patients.", _sample_size),
    Item("11", "Missing data", "What was missing and what was done.", _missing),
    Item("12", "Analytical methods", "Model, training, tuning.", _methods),
    Item("12e", "Performance measures", "Which, and why.", _measures),
    Item("13", "Class imbalance", "How it was handled.", _imbalance),
    Item("14", "Fairness", "What was done to treat groups of patients alike."),
    Item("15", "Model output", "What the model states, and how thresholds were set.", _output),
    Item("16", "Training and evaluation", "How the two parts differ.", _separation),
    Item("17", "Ethics", "Approval and consent."),
    Item("18a", "Funding", "Who paid, and what they decided."),
    Item("18b", "Conflicts of interest", "Of all authors."),
    Item("18c", "Protocol and registration", "Where they can be read, or that there are none."),
    Item("18e", "Data sharing", "Where the data can be had."),
    Item("18f", "Code sharing", "Where the code can be had.", _code),
    Item("19", "Patients and public", "How they took part in the study."),
    Item("20", "Flow of participants", "Numbers and characteristics.", _participants),
    Item("22", "Model specification", "What others need to predict with it.", _predictors),
    Item("23a", "Performance", "With intervals, also in groups.", _performance),
    Item("23b", "Heterogeneity", "Between sites.", _heterogeneity),
    Item("25", "Interpretation", "What the results mean, fairness included."),
    Item("26", "Limitations", "What stands against them."),
    Item("27", "Use in practice", "What poor input does, who decides, what comes next."),
)
