"""What is to be fitted: an estimator on all splits of a plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

from ..data.omics import OmicsTable
from .fold_fit import Fold, result_or_failure
from .fold_results import FailedFold, FoldResult
from .study import Plan, Study

Result = FoldResult | FailedFold


class PlannedFit(NamedTuple):
    """An estimator on one fold, as it is sent to a worker: with no omics but that of the fold."""

    study: Study
    estimator: Any
    fold: Fold
    note: str = ""

    def run(self, **options: Any) -> Result:
        """Fit and predict; the `options` are those of `result_or_failure`."""
        return result_or_failure(self.study, self.estimator, self.fold, note=self.note, **options)


class PlannedFits(NamedTuple):
    """An estimator on all splits of a plan.

    Attributes
    ----------
    name : str
        By which it differs from the others, such as a method, a seed or a permutation.
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

    @contextmanager
    def named_in_errors(self) -> Iterator[None]:
        """Add the note to errors of the estimator that are raised inside."""
        try:
            yield
        except (TypeError, ValueError) as error:
            if self.note:
                error.add_note(self.note)
            raise

    def one(self, fold: Fold) -> PlannedFit:
        """What a worker needs for one of the folds."""
        return PlannedFit(replace(self.study, omics=None), self.estimator, fold, self.note)
