"""First section of the page: what was found, in words that need no statistics."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...evaluation.small_samples import FEW_PATIENTS
from ...evaluation.teacher_weights import choice_of, weights_note
from ..repeat_predictions import decision_rule, with_interval
from .blocks import Answers, Block, Paragraph, Section, table
from .context import ReportContext
from .result_sections import NO_RESULT

_CHANCE = 0.5
_CRITERIA = (("sensitivity", 0.9), ("specificity", 0.9))  # thresholds shown beside that of predict
_FEWEST = 10  # patients of a class without which nothing is reliable


def verdict_section(context: ReportContext) -> Section:
    """Answers to the questions of a reader, and consequences per 100 patients."""
    name, title = "verdict", "In short"
    if context.result is None:
        return Section(name, title, missing=NO_RESULT)
    answers = [
        ("How good is it?", _how_good(context.result)),
        ("For whom?", _for_whom(context)),
        ("How sure is that?", _how_sure(context.result)),
        ("Can its probabilities be believed?", _calibration(context.result)),
        ("Does omics help?", _omics(context)),
    ]
    blocks: list[Block] = [Answers(answers)]
    if len(context.result.classes) == 2:
        blocks.append(_consequences(context.result))
    return Section(name, title, blocks)


def _how_good(result: Any) -> str:
    metric = _auroc_of_pairs(result)
    value, low, high = with_interval(result, metric)
    if not np.isfinite(value):
        return "It cannot be said: the AUROC needs patients of each class."
    pair = f"one {_positive(result)} and one not"
    if len(result.classes) > 2:
        pair = "one of a class and one of another (mean over the classes)"
    same = " by the same model" if metric == "fold_auroc" else ""
    interval = "" if low != low else f" ({_level(result)} interval {_of_100(low, high)})"
    return (
        f"Of two patients that are predicted{same}, {pair}, the first has the higher probability "
        f"in {_of_100(value)} of 100 cases{interval}; 50 is chance. {_against_chance(low, high)}"
    ).strip()


def _auroc_of_pairs(result: Any) -> str:
    """The AUROC within folds; the pooled one where there is none, as in leave-one-out."""
    within = "fold_auroc" in result.summary.index
    return (
        "fold_auroc" if within and np.isfinite(with_interval(result, "fold_auroc")[0]) else "auroc"
    )


def _against_chance(low: float, high: float) -> str:
    if low != low:
        return ""
    if low > _CHANCE:
        return "It is better than chance."
    if high < _CHANCE:
        return "It is worse than chance: check whether labels or classes are exchanged."
    return "Chance is within the interval, so it is not shown that the model has learned anything."


def _for_whom(context: ReportContext) -> str:
    result = context.result
    if hasattr(result, "by_model"):
        line = (
            f"For the {len(result.predictions)} patients of a cohort other than that of training."
        )
        return f"{line} {result.separation}".strip()
    n = result.predictions["patient_id"].nunique()
    if result.sites is None:
        return (
            f"For patients like these {n}. Each was predicted by a model that may have seen other "
            "patients of the same place. Whether it holds at another hospital was not tested: use "
            "groups= (sites) of evaluate, or evaluate_external on a cohort from there."
        )
    if _groups_were_shared(result):
        return (
            f"For patients of these {len(result.sites)} groups (sites), {n} of whom were "
            "predicted. The splits put patients of a group in training and in test, so whether it "
            "holds at another one was not tested: use groups= without cv=, or evaluate_external."
        )
    return (
        f"For the {n} patients of {len(result.sites)} groups (sites). Each was predicted by a "
        "model that had seen no patient of this group. A cohort from elsewhere "
        "(evaluate_external) would be a stronger test."
    )


def _groups_were_shared(result: Any) -> bool:
    """Whether patients of a group were in training and in test, or nobody can tell."""
    table = result.predictions
    folds_of_group = table.groupby(["repeat", "group"])["fold"].nunique()
    tested = set(table["patient_id"].astype(str))
    others = {str(name) for name in result.trained_patients} - tested
    return bool((folds_of_group > 1).any() or others)


def _how_sure(result: Any) -> str:
    y = _classes_of_patients(result)
    fewest = int(np.bincount(y, minlength=len(result.classes)).min())
    lines = [
        f"It rests on {len(y)} patients, {fewest} in the smallest class. The interval says what "
        "another sample of such patients could give; the chance of training is not in it "
        "(seed_spread shows that)."
    ]
    if fewest < _FEWEST:
        lines.append("With so few, no number on this page is reliable.")
    return " ".join(lines)


def _calibration(result: Any) -> str:
    value, low, high = with_interval(result, "calibration_error")
    if not np.isfinite(value):
        return "It was not computed."
    interval = "" if low != low else f" (interval {_of_100(low, high)})"
    return (
        f"On average a stated probability is {_of_100(value)} percentage points{interval} from "
        "the share of patients for whom it came true. Probabilities refer to the class shares of "
        "these patients; where the class is rarer or more frequent, set prior= of the classifier."
    )


def _omics(context: ReportContext) -> str:
    verdict = getattr(context.comparison, "verdict", "")
    if verdict:
        return str(verdict)
    weights = weights_note(getattr(context.result, "folds", pd.DataFrame()))
    if context.model is None:
        return f"{weights} Not tested here; compare_omics(...) tests it.".strip()
    trained = context.trained_with_omics
    if trained is None:
        return "The model was trained on slides alone."
    chosen = weights or choice_of(context.model).get("teacher_verdict", "")
    return (
        f"Expression was used in training for {trained.n_paired_} slides ({context.first_fold}); "
        f"prediction needs the slide alone. {chosen} Whether it helped was not tested: "
        "compare_omics(...) does, against training without and with other patients' omics."
    ).replace("  ", " ")


class _Decision(NamedTuple):
    """A rule of decision, with its rates among patients of the class and others."""

    rule: str
    sensitivity: float
    specificity: float


def _consequences(result: Any) -> Block:
    y = _classes_of_patients(result)
    positives = round(100 * float((y == 1).mean()))
    decisions, notes = _decisions(result, y)
    if not decisions:
        reason = "no patient of one class was tested in one of the repeats"
        return Paragraph(f"Consequences of decisions cannot be counted: {reason}.", "note")
    caption = (
        f"Consequences for 100 patients like these, of whom {positives} are {_positive(result)}. "
        "Thresholds other than that of predict are chosen on the other folds than those of the "
        f"patients that are counted. {' '.join(notes)}"
    ).strip()
    rows = [_per_100(decision, positives) for decision in decisions]
    return table(pd.DataFrame(rows), caption, index=False)


def _decisions(result: Any, y: NDArray) -> tuple[list[_Decision], list[str]]:
    """Rules of decision whose rates are known, and why others are not shown."""
    rates = [with_interval(result, name)[0] for name in ("sensitivity", "specificity")]
    decisions = [_Decision(f"predict ({decision_rule(result)})", *rates)]
    notes = []
    enough = min((y == 1).sum(), (y == 0).sum()) >= FEW_PATIENTS
    for rate, share in _CRITERIA if enough and hasattr(result, "threshold") else ():
        try:
            chosen = result.threshold((rate, share))
        except ValueError:  # no threshold reaches it, or a repeat lacks a class
            notes.append(f"There is no threshold with a {rate} of {share:.0%} in each repeat.")
            continue
        sensitivity, specificity = chosen.sensitivity_cross_fitted, chosen.specificity_cross_fitted
        if sensitivity is None or specificity is None:
            notes.append(f"A threshold by {rate} needs several folds.")
            continue
        rule = f"{rate} of at least {share:.0%} (threshold {chosen.value:.2f})"
        decisions.append(_Decision(rule, sensitivity, specificity))
    return [d for d in decisions if np.isfinite([d.sensitivity, d.specificity]).all()], notes


def _per_100(decision: _Decision, positives: int) -> dict[str, Any]:
    found = round(decision.sensitivity * positives)
    false = round((1 - decision.specificity) * (100 - positives))
    return {
        "decision": decision.rule,
        "called positive": str(found + false),
        "of these rightly": str(found),
        "of these wrongly": str(false),
        "positive ones missed": str(positives - found),
    }


def _classes_of_patients(result: Any) -> NDArray:
    """Class number of each patient; a fold may have failed in some repeats alone."""
    patients = result.predictions.drop_duplicates("patient_id")
    return patients["y"].map({c: k for k, c in enumerate(result.classes)}).to_numpy(dtype=int)


def _positive(result: Any) -> str:
    label = result.classes[1]
    named = getattr(result, "label_names", {}).get(label)
    return named or f"{label!r}"


def _of_100(*shares: float) -> str:
    return " to ".join(f"{100 * share:.0f}" for share in shares)


def _level(result: Any) -> str:
    return f"{result.bootstrap.confidence_level:.0%}"
