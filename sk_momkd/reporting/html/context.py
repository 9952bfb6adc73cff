"""Context of a report: the result, its models, and the cohort."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ...data.bag import Bag
from ...data.sequence import BagSequence
from ...evaluation.routing import final_estimator
from ...evaluation.teacher_weights import learned_from_omics
from ...io.join_report import JoinReport


@dataclass(frozen=True, kw_only=True)
class ReportContext:
    """All data from which the sections of a report are filled; None for missing parts.

    Attributes
    ----------
    result : Evaluation, ExternalEvaluation or None
    comparison : Comparison, OmicsComparison or None
        The comparison that `result` belongs to.
    models : dict of (repeat, fold) to fitted estimator
        A single estimator has the key (0, 0).
    bags : BagSequence or None
    labels : dict of bag name to label
    omics, join, subgroups, images, mpp, n_slides, n_patches, random_state
        Parameters of :func:`report`.
    notes : dict of str to str
        Answers of the authors by topic of the checklist.
    """

    result: Any
    comparison: Any
    models: dict[tuple[int, int], Any]
    bags: BagSequence | None
    labels: dict[str, Any]
    omics: Any = None
    join: JoinReport | None = None
    subgroups: pd.DataFrame | None = None
    images: Any = None
    mpp: float | None = None
    n_slides: int = 3
    n_patches: int = 3
    random_state: int = 0
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def model(self) -> Any:
        """The first of the models; None if there is none."""
        return next(iter(self.models.values()), None)

    @property
    def classifier(self) -> Any:
        """The classifier at the end of the first model."""
        return None if self.model is None else final_estimator(self.model)

    @property
    def trained_with_omics(self) -> Any:
        """The part of the first model that was trained with omics; None if none was."""
        return None if self.model is None else learned_from_omics(self.model)

    @property
    def first_fold(self) -> str:
        """Name of the first model in the text of the page."""
        return "the model of fold 0" if len(self.models) > 1 else "the model"

    def by_name(self) -> dict[str, Bag]:
        """Bags by id, or by position if they have none."""
        bags = () if self.bags is None else self.bags
        return {bag_name(bags, i): bag for i, bag in enumerate(bags)}

    def of_patient(self) -> dict[str, list[str]]:
        """Names of the bags of each patient, with patient ids as in an evaluation."""
        found: dict[str, list[str]] = {}
        for i, (name, bag) in enumerate(self.by_name().items()):
            owner = bag.patient_id or self.bags.name(i)  # type: ignore[union-attr]
            found.setdefault(owner, []).append(name)
        return found

    def test_bags(self) -> BagSequence | None:
        """Bags of the test fold of the first model; all bags if there are no folds."""
        if self.bags is None or self.result is None or "fold" not in self.result.predictions:
            return self.bags
        table = self.result.predictions
        first = table[(table["repeat"] == 0) & (table["fold"] == 0)]
        patients = self.of_patient()
        names = {n for p in first["patient_id"] for n in patients.get(str(p), [])}
        keep = [i for i in range(len(self.bags)) if bag_name(self.bags, i) in names]
        return self.bags[keep] if keep else self.bags

    def patient_confidence(self) -> pd.DataFrame:
        """``patient_id, y, predicted, p_true, margin, fold`` of the first repeat.

        ``p_true`` is the probability of the true class, ``margin`` the difference between the two
        largest probabilities.
        """
        table, classes = self.result.predictions, list(self.result.classes)
        if "repeat" in table:
            table = table[table["repeat"] == 0]
        return _confidence(table, classes)


def _confidence(table: pd.DataFrame, classes: list[Any]) -> pd.DataFrame:
    proba = table[[f"p_{c}" for c in classes]].to_numpy(dtype=float)
    true = np.array([classes.index(c) for c in table["y"]])
    best = np.sort(proba, axis=1)
    rows = {
        "patient_id": table["patient_id"].astype(str).to_numpy(),
        "y": table["y"].to_numpy(),
        "predicted": table["predicted"].to_numpy(dtype=object),
        "p_true": proba[np.arange(len(true)), true],
        "margin": best[:, -1] - best[:, -2],
        "fold": table["fold"].to_numpy() if "fold" in table else 0,
    }
    return pd.DataFrame(rows)


def bag_name(bags: Any, i: int) -> str:
    """Id of a bag, or its position if it has none."""
    return bags.name(i) if bags[i].bag_id is None else bags[i].bag_id
