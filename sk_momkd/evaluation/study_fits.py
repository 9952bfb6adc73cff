"""All fits of an evaluation, a comparison or a control: in parallel, counted by one bar."""

from __future__ import annotations

import multiprocessing
import sys
import warnings
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
from joblib.parallel import get_active_backend
from sklearn.exceptions import FitFailedWarning
from sklearn.utils.parallel import Parallel, delayed

from ..data.omics import OmicsTable
from ..messages import first_few
from ..progress import progress_bar
from .fold_fit import Fold, check_estimator, result_or_failure
from .fold_results import FailedFold, FoldResult
from .routing import warn_if_patients_are_split
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


def run_fits(
    planned: Sequence[PlannedFits],
    *,
    title: str = "",
    verbose: bool | None = False,
    n_jobs: int | None = None,
    keep_models: bool = False,
    measure_memory: bool = False,
    error_score: Any = "raise",
) -> list[list[Result]]:
    """Fit and predict all folds: for each of `planned` a `FoldResult`, or `FailedFold`, per fold.

    Workers take the folds of all of `planned` one after the other, so that none waits for the last
    fold of another estimator. `title` and `verbose` are of the progress bar.
    """
    _check_error_score(error_score)
    _check_estimators(planned)
    _refuse_to_fork_threads(n_jobs)
    tasks = [(number, fold) for number, one in enumerate(planned) for fold in one.folds]
    results: list[list[Result]] = [[] for _ in planned]
    options = {"keep_model": keep_models, "measure_memory": measure_memory}
    options["catch"] = error_score != "raise"
    with (
        progress_bar(len(tasks), "fit", title, shown=verbose) as bar,
        closing(_in_order(planned, tasks, n_jobs, options)) as fitted,
    ):
        for (number, _), result in zip(tasks, fitted, strict=True):
            results[number].append(result)
            if len(planned) > 1:
                bar.set_postfix_str(planned[number].name, refresh=False)
            bar.update()
            if len(results[number]) == planned[number].plan.n_fits:
                _report(planned[number].study, results[number])
    return results


def fit_folds(
    study: Study,
    estimator: Any,
    plan: Plan,
    *,
    omics: Sequence[OmicsTable | None] | None = None,
    **options: Any,
) -> list[Result]:
    """Results of one estimator; the `options` are those of `run_fits`."""
    return run_fits([PlannedFits("", study, estimator, plan, omics)], **options)[0]


def completed(results: Sequence[Result]) -> list[FoldResult]:
    """The folds that did not fail."""
    return [result for result in results if isinstance(result, FoldResult)]


def _in_order(
    planned: Sequence[PlannedFits],
    tasks: Sequence[tuple[int, Fold]],
    n_jobs: int | None,
    options: dict[str, Any],
) -> Generator[Result]:
    calls = (delayed(PlannedFits.fit)(planned[number], fold, **options) for number, fold in tasks)
    yield from Parallel(n_jobs=n_jobs, return_as=_as_they_come())(calls)


def _check_estimators(planned: Sequence[PlannedFits]) -> None:
    seen: set[int] = set()
    for one in planned:
        check_estimator(one.estimator, with_omics=any(table is not None for table in one.tables))
        if id(one.estimator) not in seen:
            warn_if_patients_are_split(one.estimator, len(one.study.bags), len(one.study.names))
        seen.add(id(one.estimator))


def _report(study: Study, results: Sequence[Result]) -> None:
    """Warn of folds that failed or lack a class; raise if a repeat has no others."""
    done = completed(results)
    _report_failures([result for result in results if isinstance(result, FailedFold)], done)
    _warn_if_classes_are_absent(study, done)


def _check_error_score(error_score: Any) -> None:
    is_nan = isinstance(error_score, float | np.floating) and np.isnan(error_score)
    if not is_nan and not (isinstance(error_score, str) and error_score == "raise"):
        raise ValueError(
            f'error_score must be numpy.nan or "raise", got {error_score!r}: of a fold that failed '
            "there are no predictions to score."
        )


def _report_failures(failed: Sequence[FailedFold], done: Sequence[FoldResult]) -> None:
    """Warn of folds that failed; raise the error of the first if a repeat has no other folds."""
    complete = {result.repeat for result in done}
    for failure in failed:
        if failure.repeat not in complete:
            failure.error.add_note("All folds of the repeat failed; this is the first of them.")
            raise failure.error
    for failure in failed:
        notes = " ".join(getattr(failure.error, "__notes__", []))
        warnings.warn(f"{failure} {notes}", FitFailedWarning, stacklevel=5)


def _as_they_come() -> str:
    """How joblib returns results: one by one in their order, where its backend can."""
    one_by_one = getattr(get_active_backend()[0], "supports_return_generator", False)
    return "generator" if one_by_one else "list"


def _refuse_to_fork_threads(n_jobs: int | None) -> None:
    """Raise where joblib would fork a process in which torch uses several threads.

    The threads do not exist in the forked process, which then waits for them forever.
    """
    torch = sys.modules.get("torch")
    backend, active = get_active_backend()
    forks = type(backend).__name__ == "MultiprocessingBackend"
    forks = forks and multiprocessing.get_start_method() == "fork"
    n_workers = backend.effective_n_jobs(active if n_jobs is None else n_jobs)
    if torch is None or not forks or n_workers == 1 or torch.get_num_threads() == 1:
        return
    raise RuntimeError(
        f"joblib's backend is multiprocessing, which forks this process, and torch has "
        f"{torch.get_num_threads()} threads in it: the workers would hang. Use joblib's default "
        'backend "loky", or call torch.set_num_threads(1) first.'
    )


def _warn_if_classes_are_absent(study: Study, results: Sequence[FoldResult]) -> None:
    for result in results:
        present = set(study.labels[result.tested].tolist())
        absent = [c for k, c in enumerate(study.classes) if k not in present]
        if absent:
            warnings.warn(
                f"The test part of fold {result.fold} (repeat {result.repeat}) has no patient of "
                f"class {first_few(absent)}: its AUROC is undefined and left out of the mean over "
                "folds. The pooled AUROC uses all patients.",
                UserWarning,
                stacklevel=5,
            )
