"""`compare_omics`: whether omics helps, and whether it is the patients' own that does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..data.omics import OmicsTable
from .comparison import Arm, difference_table, evaluate_arms, stacked
from .cross_validation import estimator_name
from .results import Bootstrap, Evaluation, Tables
from .routing import require_omics
from .statistics import detectable_difference
from .study import Study, as_study, make_plan, shuffles

_MOST_CORRELATED = 0.9  # arms that hardly differ would promise a power that a gain does not have
GAIN, UNSPECIFIC, HARM, NOTHING = "gain", "unspecific", "harm", "no gain shown"


@dataclass(frozen=True, repr=False)
class OmicsComparison(Tables):
    """With, without and with permuted omics; see :func:`compare_omics`.

    Attributes
    ----------
    summary : DataFrame, index omics
        AUROC pooled and within folds, with intervals.
    differences : DataFrame, index difference
        ``with - without``, ``with - permuted``, ``permuted - without``; columns as in `Comparison`.
    folds, predictions : DataFrame
    outcome : {"gain", "unspecific", "harm", "no gain shown"}
    verdict : str
        The same in words.
    evaluations : dict of Evaluation
        ``"with"``, ``"without"``, ``"permuted"``.
    """

    name: str
    summary: pd.DataFrame
    differences: pd.DataFrame
    folds: pd.DataFrame
    predictions: pd.DataFrame
    outcome: str
    verdict: str
    evaluations: dict[str, Evaluation] = field(repr=False)

    _shown = ("summary", "differences")

    @property
    def headline(self) -> str:
        """The verdict, after what it is about."""
        what = self.evaluations["with"].headline.partition(": ")[2]
        return f"Does omics help {self.name}? {what}\n{self.verdict}"

    def __repr__(self) -> str:
        return f"<OmicsComparison of {self.name}: {self.outcome}>"


def compare_omics(
    estimator: Any,
    bags: Any,
    y: Any,
    omics: Any,
    *,
    within_class: bool = False,
    cv: Any = 5,
    groups: Any = None,
    n_repeats: int = 1,
    random_state: int = 0,
    pos_label: Any = None,
    n_bootstrap: int = 2000,
    confidence_level: float = 0.95,
    n_jobs: int | None = None,
) -> OmicsComparison:
    """Train with omics, without, and with omics of other patients, on the same folds.

    Parameters
    ----------
    estimator : classifier whose `fit` takes omics
    bags, y
        As in :func:`evaluate`.
    omics : AnnData, DataFrame or OmicsTable
    within_class : bool, default=False
        Permute omics among patients of the same label. What the label says about omics then stays,
        and only what is the patient's own is lost: the stricter question.
    cv, groups, n_repeats, random_state, pos_label, n_bootstrap, confidence_level, n_jobs
        As in :func:`evaluate`. Each repeat permutes anew.

    Returns
    -------
    OmicsComparison

    Raises
    ------
    LeakageError, OmicsError, TypeError, ValueError
        As :func:`evaluate`.

    Notes
    -----
    A gain is claimed if, for the mean AUROC within folds, the intervals of both ``with -
    without`` and ``with - permuted`` lie above zero. A gain over no omics that permuted omics
    gives as well comes from training (more losses, other gradients), not from biology. No patient
    keeps its omics: each permutation is one cycle through the patients (of a class).

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from sk_momkd import Bag, BagSequence, MoMKDClassifier
    >>> from sk_momkd.evaluation.omics_comparison import compare_omics
    >>> random = np.random.default_rng(0)
    >>> y = np.arange(24) % 2
    >>> bags = BagSequence(
    ...     Bag(random.normal(size=(4, 5)), patient_id=f"P{i:02d}") for i in range(24)
    ... )
    >>> rna = pd.DataFrame(random.normal(size=(24, 8)), index=bags.patient_ids)
    >>> tiny = MoMKDClassifier(hidden_dim=8, projection_dim=4, n_components=2, max_epochs=1)
    >>> compare_omics(tiny, bags, y, rna, cv=2, n_bootstrap=100).outcome in {"gain", "harm"}
    False
    """
    require_omics(estimator)
    bootstrap = Bootstrap(n_bootstrap, confidence_level, random_state)
    study = as_study(bags, y, omics=omics, groups=groups, pos_label=pos_label)
    plan = make_plan(study, cv, n_repeats, random_state)
    permuted = [
        permute_omics(study, shuffles(random_state, repeat), within_class=within_class)
        for repeat in range(n_repeats)
    ]
    arms = {
        "with": Arm(estimator, [study.omics] * n_repeats),
        "without": Arm(estimator, [None] * n_repeats),
        "permuted": Arm(estimator, permuted),
    }
    evaluations = evaluate_arms(study, arms, plan, bootstrap, n_jobs=n_jobs)
    pairs = [("with", "without"), ("with", "permuted"), ("permuted", "without")]
    named = {" - ".join(pair): pair for pair in pairs}
    differences = difference_table(study, evaluations, named, bootstrap)
    outcome = judge(differences)
    return OmicsComparison(
        estimator_name(estimator),
        _summary(evaluations),
        differences.rename_axis("difference"),
        stacked(evaluations, "folds"),
        stacked(evaluations, "predictions"),
        outcome,
        _verdict(outcome, differences, study, evaluations, confidence_level),
        evaluations,
    )


def permute_omics(
    study: Study, random: np.random.Generator, *, within_class: bool = False
) -> OmicsTable:
    """The study's omics with each patient's row given to another patient.

    Parameters
    ----------
    study : Study
        With omics.
    random : numpy Generator
    within_class : bool, default=False
        The other patient has the same label. A patient alone in its class keeps its row.

    Returns
    -------
    OmicsTable
        The same ids and the same rows, joined otherwise.
    """
    if study.omics is None:
        raise ValueError("The study has no omics to permute.")
    table = study.omics
    row_of_bag = table.match(study.bags)
    label = np.full(len(table.ids), -1)
    known = row_of_bag >= 0
    label[row_of_bag[known]] = study.labels[study.patient_of[known]] if within_class else 0
    source = np.arange(len(table.ids))
    for stratum in np.unique(label[label >= 0]):
        members = np.flatnonzero(label == stratum)
        source[members] = one_cycle(members, random)
    moved = table.take(source)
    return OmicsTable(moved._values, table.ids, table.genes)


def one_cycle(members: NDArray, random: np.random.Generator) -> NDArray:
    """`members` permuted in a single random cycle, so that none stays (but one alone)."""
    order = random.permutation(len(members))
    cycled = np.empty_like(members)
    cycled[order] = members[np.roll(order, 1)]
    return cycled


def judge(differences: pd.DataFrame) -> str:
    """Outcome by the intervals of the AUROC within folds."""
    gained, own = differences.loc["with - without"], differences.loc["with - permuted"]
    if gained["fold_high"] < 0:
        return HARM
    if not gained["fold_low"] > 0:
        return NOTHING
    return GAIN if own["fold_low"] > 0 else UNSPECIFIC


def _verdict(
    outcome: str,
    differences: pd.DataFrame,
    study: Study,
    evaluations: dict[str, Evaluation],
    confidence_level: float,
) -> str:
    gained = _in_words(differences, "without", confidence_level)
    own = _in_words(differences, "permuted", confidence_level)
    text = {
        GAIN: f"Omics helped: AUROC {gained} against training without it, and {own} against "
        "omics of other patients.",
        UNSPECIFIC: f"AUROC rose by {gained} against training without omics, but only by {own} "
        "against omics of other patients: the gain is not shown to come from the patients' own "
        "omics.",
        HARM: f"Omics did harm: AUROC {gained} against training without it.",
        NOTHING: f"No gain shown: AUROC {gained} against training without omics.",
    }[outcome]
    notes: list[str] = []
    if outcome == NOTHING and len(study.classes) == 2:
        notes.append(_power_note(study, evaluations, differences))
    row = differences.loc["with - without"]
    if outcome == GAIN and row.get("fold_low_sites", 1) <= 0:
        notes.append("Drawing whole sites, the interval includes 0.")
    if len(evaluations["with"].repeats) == 1:
        notes.append("One seed: chance in training is not in the interval; use n_repeats.")
    return " ".join(part for part in [text, *notes] if part)


def _in_words(differences: pd.DataFrame, other: str, confidence_level: float) -> str:
    row = differences.loc[f"with - {other}"]
    return (
        f"{row['fold_auroc']:+.3f} [{row['fold_low']:+.3f}, {row['fold_high']:+.3f}] "
        f"({confidence_level:.0%})"
    )


def _power_note(study: Study, evaluations: dict[str, Evaluation], differences: pd.DataFrame) -> str:
    auroc = float(evaluations["without"].summary["value"]["auroc"])
    correlation = float(differences["correlation"]["with - without"])
    if not np.isfinite(correlation) or not 0.5 <= auroc < 1:
        return ""
    tested = study.labels[evaluations["without"].repeats[0].patients]
    assumed = min(correlation, _MOST_CORRELATED)
    note = detectable_difference(tested, auroc=auroc, correlation=assumed)
    if np.isnan(note.difference):
        return "These patients can hardly show any difference."
    return (
        f"To be seen in four of five cases, a gain would have to be {note.difference:.3f} here "
        f"(correlation {assumed:.2f} of the AUROCs assumed)."
    )


def _summary(evaluations: dict[str, Evaluation]) -> pd.DataFrame:
    rows = {}
    for name, evaluation in evaluations.items():
        pooled, within = (evaluation.summary.loc[m] for m in ("auroc", "fold_auroc"))
        rows[name] = {
            "auroc": pooled["value"],
            "low": pooled["low"],
            "high": pooled["high"],
            "fold_auroc": within["value"],
            "fold_low": within["low"],
            "fold_high": within["high"],
            "fold_std": within["fold_std"],
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("omics")
