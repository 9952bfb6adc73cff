"""`compare_omics`: whether omics helps, and whether the patients' own omics is what helps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

from ..data.omics import OmicsTable, as_omics
from ..estimators.inner_pos_labels import agreed_pos_label
from ..preprocessing.bag_pooling import BagPooling
from .comparison import Method, difference_table, evaluate_methods, joint_note, stack_tables
from .result_tables import TableResult
from .results import Evaluation, two_aurocs
from .routing import estimator_name, require_omics
from .small_samples import is_small, student_quantile
from .statistics import Bootstrap
from .study import Study, as_study, make_plan, permutation_generator
from .teacher_weights import counted_weights, weights_of

SELF = "self-distillation"
GAIN, UNSPECIFIC, HARM, NO_GAIN = "gain", "unspecific", "harm", "no gain shown"
_POWER = 0.8  # probability with which a stated gain would be found


@dataclass(frozen=True, repr=False)
class OmicsComparison(TableResult):
    """Training with omics, without and with that of others, made by :func:`compare_omics`.

    Attributes
    ----------
    name : str
        Class of the estimator.
    summary : DataFrame, index omics
        Rows ``with``, ``without``, ``permuted``, and ``self-distillation`` if it was asked for.
        Columns ``auroc`` (pooled) with interval ``low``, ``high``, ``fold_auroc`` (mean within
        folds) with ``fold_low``, ``fold_high``, and ``fold_std``. Where the fits chose the weight
        of the omics teacher, ``teacher_weight`` says in how many folds which one.
    differences : DataFrame, index difference
        Rows ``with - without``, ``with - permuted``, ``permuted - without``, and ``with -
        self-distillation`` if it was asked for; columns as in :class:`Comparison`.
    folds, predictions : DataFrame
        Those of the evaluations, with a first column ``method``.
    outcome : {"gain", "unspecific", "harm", "no gain shown"}
        What the intervals of ``fold_auroc`` show.
    verdict : str
        The outcome in sentences, with the differences that it follows from and its limits.
    evaluations : dict of str to Evaluation
        By the rows of `summary`.

    See Also
    --------
    compare_omics : Makes it.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from sk_momkd import Bag, BagSequence, MoMKDClassifier, compare_omics
    >>> random = np.random.default_rng(0)
    >>> bags = BagSequence(
    ...     Bag(random.normal(size=(4, 5)), patient_id=f"P{i:02d}") for i in range(24)
    ... )
    >>> rna = pd.DataFrame(random.normal(size=(24, 8)), index=bags.patient_ids)
    >>> tiny = MoMKDClassifier(hidden_dim=8, projection_dim=4, n_components=2, max_epochs=1)
    >>> result = compare_omics(tiny, bags, np.arange(24) % 2, rna, cv=2, n_bootstrap=100)
    >>> result.summary.index.to_list()
    ['with', 'without', 'permuted']
    """

    name: str
    summary: pd.DataFrame
    differences: pd.DataFrame
    folds: pd.DataFrame
    predictions: pd.DataFrame
    outcome: str
    verdict: str
    evaluations: dict[str, Evaluation] = field(repr=False)

    _displayed = ("summary", "differences")

    @property
    def note(self) -> str:
        """Folds that failed, and how to read intervals of few patients; empty where all is well."""
        return joint_note(self.evaluations)

    @property
    def headline(self) -> str:
        """Estimator and patients, and the verdict."""
        patients = self.evaluations["with"].headline.partition(": ")[2]
        return f"Does omics help {self.name}? {patients}\n{self.verdict}"

    def __repr__(self) -> str:
        return f"<OmicsComparison of {self.name}: {self.outcome}>"


def compare_omics(
    estimator: Any,
    bags: Any,
    y: Any,
    omics: Any,
    *,
    within_class: bool = False,
    self_distillation: bool = False,
    cv: Any = 5,
    groups: Any = None,
    params: Mapping[str, Any] | None = None,
    n_repeats: int = 1,
    random_state: int = 0,
    pos_label: Any = None,
    n_bootstrap: int = 2000,
    confidence_level: float = 0.95,
    error_score: Any = np.nan,
    store: Any = None,
    n_jobs: int | None = None,
    verbose: bool | None = None,
) -> OmicsComparison:
    """Train with omics, without, and with omics of other patients, on the same folds.

    Parameters
    ----------
    estimator : classifier whose `fit` takes omics
    bags : BagSequence or input of `as_bags`
        The patient is the unit of all metrics, as in :func:`evaluate`.
    y : array-like of shape (n_bags,)
    omics : AnnData, DataFrame with ids as index, or OmicsTable
        Joined by id; used by `fit` alone.
    within_class : bool, default=False
        Permute omics among patients of the same label. The permuted omics then still agrees with
        the label, and only what is particular to the patient is lost: the stricter test.
    self_distillation : bool, default=False
        Train a fourth time, with the pooled patches of each patient's slides (mean and standard
        deviation) in the place of its omics. A gain that this gives, too, comes from the change of
        training, and not from what omics knows beyond the slide.
    cv : int, splitter, or list of (train, test), default=5
        An int is the number of folds of `PatientStratifiedKFold`. Given splits hold positions in
        `bags`.
    groups : array-like of shape (n_bags,), optional
        E.g. sites. Folds and inner validation parts keep them whole.
    params : dict of str to array-like of shape (n_bags,), optional
        Further arguments of `fit`, as in :func:`evaluate`.
    n_repeats : int, default=1
        Each repeat has another permutation, other seeds of the estimator, and other folds unless
        `cv` is a list.
    random_state : int, default=0
        Source of all seeds.
    pos_label : label, optional
        The positive one of two classes; by default that of the estimator, else the one that sorts
        last. Each `pos_label` inside the estimator that is None is set to it.
    n_bootstrap : int, default=2000
        Number of bootstrap samples.
    confidence_level : float, default=0.95
        Confidence level of the intervals.
    error_score : numpy.nan or "raise", default=numpy.nan
        What a fold does whose fit or prediction fails, as in :func:`evaluate`.
    store : path or StudyStore, optional
        Folder in which each fit is kept as it ends, so that the same call goes on after the process
        died, and several processes or machines can share the fits: see :class:`StudyStore`.
    n_jobs : int, optional
        Number of folds that joblib fits at the same time. Results do not depend on it where a
        training step has up to 2^18 values (patches times features), which takes one thread. A
        larger one takes those of the process, of which workers have fewer: a probability may then
        differ in the seventh digit, unless ``OMP_NUM_THREADS`` is set.
    verbose : bool, optional
        Show a progress bar over all fits, with the time left, on standard error. By default it is
        shown where that is a terminal.

    Returns
    -------
    OmicsComparison
        ``print(result.verdict)`` gives the outcome in sentences.

    Raises
    ------
    LeakageError, OmicsError, TypeError, ValueError
        As :func:`evaluate`.

    Notes
    -----
    With `self_distillation`, the table has a fourth row, and the verdict of a gain says whether its
    cause is what omics knows beyond the slide.

    Where `lambda_teacher` or `weight` is "auto", each training chooses its own weight, the controls
    by what they are given in the place of omics: the differences are between what a user with
    omics and what a user with worthless omics would get. They then do not show what training with
    a large weight does by itself, because a permuted teacher mostly chooses 0. A weight that is
    given is that of all trainings and isolates what the patients' own omics adds (a permuted
    teacher then does harm, so that ``with - self-distillation`` is the stricter difference); the
    verdict says where that is worth a second call.

    The outcome is a gain if, for the mean AUROC within folds, the intervals of both ``with -
    without`` and ``with - permuted`` are above zero. If permuted omics gives the same gain, the
    gain comes from training (more losses, other gradients), not from biology. No patient keeps its
    omics: each permutation is one cycle through the patients (of a class).

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from sk_momkd import Bag, BagSequence, MoMKDClassifier, compare_omics
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
    pos_label = agreed_pos_label([estimator], pos_label)
    study = as_study(bags, y, omics=omics, groups=groups, pos_label=pos_label, params=params)
    plan = make_plan(study, cv, n_repeats, random_state)
    permuted = [
        permute_omics(study, permutation_generator(random_state, repeat), within_class=within_class)
        for repeat in range(n_repeats)
    ]
    methods = {
        "with": Method(estimator, [study.omics] * n_repeats),
        "without": Method(estimator, [None] * n_repeats),
        "permuted": Method(estimator, permuted),
    }
    pairs = [("with", "without"), ("with", "permuted"), ("permuted", "without")]
    if self_distillation:
        methods[SELF] = Method(estimator, [pooled_slides(study)] * n_repeats)
        pairs.append(("with", SELF))
    name = estimator_name(estimator)
    options = {"verbose": verbose, "store": store, "n_jobs": n_jobs, "error_score": error_score}
    evaluations = evaluate_methods(
        study, methods, plan, bootstrap, call="compare_omics", of=name, **options
    )
    named = {" - ".join(pair): pair for pair in pairs}
    differences = difference_table(study, evaluations, named, bootstrap)
    outcome = outcome_of(differences)
    return OmicsComparison(
        name,
        _summary(evaluations),
        differences.rename_axis("difference"),
        stack_tables(evaluations, "folds"),
        stack_tables(evaluations, "predictions"),
        outcome,
        _verdict(outcome, differences, evaluations, confidence_level),
        evaluations,
    )


def pooled_slides(study: Study) -> OmicsTable:
    """Mean and standard deviation of the patches of each patient with omics, as its omics.

    Parameters
    ----------
    study : Study
        A study with omics.

    Returns
    -------
    OmicsTable
        The ids of the patients that have omics and bags.
    """
    if study.omics is None:
        raise ValueError("compare_omics needs omics to train with, got None.")
    row_of_bag = study.omics.match(study.bags)
    paired = np.flatnonzero(row_of_bag >= 0)
    pooling = BagPooling("mean+std")
    pooled = pd.DataFrame(pooling.fit_transform(study.bags[paired]))
    pooled.columns = pooling.get_feature_names_out()
    ids = np.asarray(study.omics.ids)[row_of_bag[paired]]
    return as_omics(pooled.groupby(ids, sort=False).mean())


def permute_omics(
    study: Study, random: np.random.Generator, *, within_class: bool = False
) -> OmicsTable:
    """Give each patient's row of the study's omics to another patient.

    Parameters
    ----------
    study : Study
        A study with omics.
    random : numpy Generator
    within_class : bool, default=False
        The other patient has the same label. A patient alone in its class keeps its row.

    Returns
    -------
    OmicsTable
        The same ids and the same rows, in other pairs.
    """
    if study.omics is None:
        raise ValueError("compare_omics needs omics to train with and to permute, got None.")
    table = study.omics
    row_of_bag = table.match(study.bags)
    label = np.full(len(table.ids), -1)
    known = row_of_bag >= 0
    label[row_of_bag[known]] = study.labels[study.patient_of[known]] if within_class else 0
    source = np.arange(len(table.ids))
    for stratum in np.unique(label[label >= 0]):
        members = np.flatnonzero(label == stratum)
        source[members] = cyclic_permutation(members, random)
    moved = table.take(source)
    return OmicsTable(moved._values, table.ids, table.genes)


def cyclic_permutation(members: NDArray, random: np.random.Generator) -> NDArray:
    """Permute `members` in a single random cycle, so that none stays in place (but one alone)."""
    order = random.permutation(len(members))
    cycled = np.empty_like(members)
    cycled[order] = members[np.roll(order, 1)]
    return cycled


def outcome_of(differences: pd.DataFrame) -> str:
    """Outcome that the intervals of the AUROC within folds show."""
    gained, own = differences.loc["with - without"], differences.loc["with - permuted"]
    if gained["fold_high"] < 0:
        return HARM
    if not gained["fold_low"] > 0:
        return NO_GAIN
    return GAIN if own["fold_low"] > 0 else UNSPECIFIC


def _verdict(
    outcome: str,
    differences: pd.DataFrame,
    evaluations: dict[str, Evaluation],
    confidence_level: float,
) -> str:
    gained = _format_difference(differences, "without", confidence_level)
    own = _format_difference(differences, "permuted", confidence_level)
    text = {
        GAIN: f"Omics helped: AUROC {gained} against training without it, and {own} against "
        "omics of other patients.",
        UNSPECIFIC: f"AUROC rose by {gained} against training without omics. Against omics of "
        f"other patients it differs by {own}, which is not above chance: the gain is not shown to "
        "come from the patients' own omics.",
        HARM: f"Omics harmed: AUROC {gained} against training without it.",
        NO_GAIN: f"No gain shown: AUROC {gained} against training without omics.",
    }[outcome]
    notes: list[str] = []
    row = differences.loc["with - without"]
    arms = [evaluations[name].predictions for name in ("with", "without")]
    if _is_never_used(evaluations["with"]) and arms[0].equals(arms[1]):
        text = "No gain is possible: training with and without omics was the same."
    elif outcome == NO_GAIN:
        notes.append(_power_note(differences, evaluations["without"], confidence_level))
    notes.append(_weights(evaluations["with"]))
    if outcome == GAIN and f"with - {SELF}" in differences.index:
        notes.append(_cause(differences, confidence_level))
    if outcome == GAIN:
        notes.append(_weights_of_controls(evaluations))
    if outcome == GAIN and row.get("fold_low_sites", 1) <= 0:
        notes.append("When whole sites are drawn, the interval includes 0.")
    if len(evaluations["with"].repeats) == 1:
        notes.append(
            "One seed: the interval does not contain the randomness of training; use n_repeats."
        )
    return " ".join(part for part in [text, *notes] if part)


def _is_never_used(evaluation: Evaluation) -> bool:
    """Whether the weight of the omics teacher was to be chosen, and was 0 in each fold."""
    weights = weights_of(evaluation.folds)
    return len(weights) > 0 and not weights.any()


def _weights(evaluation: Evaluation) -> str:
    """Which weights of the omics teacher were chosen; empty where none was to be."""
    if _is_never_used(evaluation):
        return (
            "The weight 0 was chosen for the omics teacher in each fold; the column "
            "teacher_verdict of the folds says why."
        )
    counted = counted_weights(evaluation.folds)
    return f"The weight chosen for the omics teacher was {counted}." if counted else ""


def _weights_of_controls(evaluations: dict[str, Evaluation]) -> str:
    """Controls that have chosen smaller weights, and what they leave open; empty without any."""
    mean = {name: weights_of(e.folds).mean() for name, e in evaluations.items()}
    smaller = [name for name in ("permuted", SELF) if mean.get(name, np.nan) < mean["with"]]
    if not smaller:
        return ""
    found = "; ".join(f"{name}: {counted_weights(evaluations[name].folds)}" for name in smaller)
    return (
        f"Controls chose smaller weights ({found}), so that they do not show what a weight as "
        'large does by itself. To test that, give all the same weight instead of "auto".'
    )


def _cause(differences: pd.DataFrame, confidence_level: float) -> str:
    """Whether slides in the place of omics help as much."""
    gap = _format_difference(differences, SELF, confidence_level)
    if differences.loc[f"with - {SELF}"]["fold_low"] > 0:
        return (
            f"The cause is what omics knows beyond the slide: AUROC {gap} against slides in the "
            "place of omics (self-distillation)."
        )
    return (
        f"The cause is open: AUROC {gap} against slides in the place of omics "
        "(self-distillation), so the gain may come from the change of training."
    )


def _format_difference(differences: pd.DataFrame, other: str, confidence_level: float) -> str:
    row = differences.loc[f"with - {other}"]
    return (
        f"{row['fold_auroc']:+.3f} [{row['fold_low']:+.3f}, {row['fold_high']:+.3f}] "
        f"({confidence_level:.0%})"
    )


def _power_note(differences: pd.DataFrame, evaluation: Evaluation, confidence_level: float) -> str:
    """Gain that would be found, by the standard error that the interval itself rests on."""
    row = differences.loc["with - without"]
    known: dict[int, int] = {}  # of all repeats, since a fold that failed has no patients
    for part in evaluation.repeats:
        known |= dict(zip(part.patients.tolist(), part.y.tolist(), strict=True))
    counts = np.bincount(list(known.values()), minlength=len(evaluation.classes))
    small = len(counts) == 2 and is_small(counts)
    counts = counts.tolist()
    half_of = student_quantile(counts, confidence_level) if small else _normal(confidence_level)
    error = (row["fold_high"] - row["fold_low"]) / 2 / half_of
    found = (student_quantile(counts, 0.95) if small else _normal(0.95)) + norm.ppf(_POWER)
    if not error > 0:
        return "These patients are too few to say which gain would be found."
    return (
        f"With these patients a gain must be about {found * error:.3f} to be found with "
        f"probability {_POWER:.0%}, if it varies between patients as this difference does."
    )


def _normal(confidence_level: float) -> float:
    return float(norm.isf((1 - confidence_level) / 2))


def _summary(evaluations: dict[str, Evaluation]) -> pd.DataFrame:
    rows = {name: two_aurocs(evaluation) for name, evaluation in evaluations.items()}
    for name, evaluation in evaluations.items():
        if counted := counted_weights(evaluation.folds):
            rows[name]["teacher_weight"] = counted
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("omics")
