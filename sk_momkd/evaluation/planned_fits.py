"""What is to be fitted: an estimator on all splits of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..data.omics import OmicsTable
from .fold_fit import Fold, result_or_failure
from .fold_results import FailedFold, FoldResult
from .study import Plan, Study

Result = FoldResult | FailedFold


class PlannedFits(NamedTuple):
    """An estimator on all splits of a plan.

    Attributes
    ----------
    name : str
        What tells it from the others, such as a method, a seed or a permutation.
    study : Study
    estimator : classifier
    plan : Plan
    omics : list of OmicsTable or None, or None
        One for each repeat; by default that of the study.
    note : str
        Added to errors, if not empty.
    """

    name: str
    study: Study
    estimator: Any
    plan: Plan
    omics: Sequence[OmicsTable | None] | None = None
    note: str = ""

    @property
    def tables(self) -> Sequence[OmicsTable | None]:
        """Omics of each repeat."""
        return [self.study.omics] * len(self.plan.splits) if self.omics is None else self.omics

    @property
    def folds(self) -> list[Fold]:
        """All folds, repeat by repeat."""
        return [
            Fold(repeat, fold, split, self.plan.seeds[repeat][fold], self.tables[repeat])
            for repeat, splits in enumerate(self.plan.splits)
            for fold, split in enumerate(splits)
        ]

    def fit(self, fold: Fold, **options: Any) -> Result:
        """Fit and predict one of the folds; the `options` are those of `result_or_failure`."""
        return result_or_failure(self.study, self.estimator, fold, note=self.note, **options)
