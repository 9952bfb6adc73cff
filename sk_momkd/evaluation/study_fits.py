"""All fits of an evaluation, a comparison or a control: in parallel, counted by one bar."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from joblib.parallel import get_active_backend
from sklearn.exceptions import FitFailedWarning

from ..data.omics import OmicsTable
from ..messages import first_few, warn
from ..parallel import one_by_one
from ..progress import progress_bar
from .fold_fit import Fold, check_estimator, is_of_machine
from .fold_results import FailedFold, FoldResult
from .planned_fits import PlannedFit, PlannedFits, Result
from .routing import warn_if_patients_are_split
from .stored_fits import StoredFits
from .study import Plan, Study
from .study_store import open_store

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0  # seconds between looks at what others do
_NOT_TRIED = (
    "The fit failed in an earlier call and was not tried again. To do so, pass "
    "store=StudyStore(folder, retry_failed=True)."
)
_NOT_KEPT = (
    "An error of files, memory or a GPU is not kept in the store: the same call tries the fit "
    "again."
)


class _Task(NamedTuple):
    """A fold of one of the planned fits."""

    number: int
    place: int
    fold: Fold


class _Arrived(NamedTuple):
    """A result, and whether it was in the store before."""

    task: _Task
    result: Result
    was_stored: bool = False


def run_fits(
    planned: Sequence[PlannedFits],
    *,
    call: str = "",
    of: str = "",
    verbose: bool | None = False,
    store: Any = None,
    n_jobs: int | None = None,
    keep_models: bool = False,
    measure_memory: bool = False,
    error_score: Any = "raise",
) -> list[list[Result]]:
    """Fit and predict all folds: for each of `planned` a `FoldResult`, or `FailedFold`, per fold.

    Workers take the folds of all of `planned` one after the other, so that none waits for the last
    fold of another estimator. `call`, the name of the function, and what it is `of` are the title
    of the progress bar. Fits that are in the `store` are read, the others are written to it.
    """
    _check_error_score(error_score)
    _check_estimators(planned)
    _refuse_to_fork_threads(n_jobs)
    tasks = [_Task(i, *fold) for i, one in enumerate(planned) for fold in enumerate(one.folds)]
    options = {"keep_model": keep_models, "measure_memory": measure_memory}
    if store is None:
        fitted = _in_order(planned, tasks, n_jobs, options | {"catch": error_score != "raise"})
    else:
        equal = {"keep_models": keep_models, "measure_memory": measure_memory}
        stored = open_store(store, call, planned, **equal)
        fitted = _through_store(planned, stored, tasks, n_jobs, options)
    results: list[dict[int, Result]] = [{} for _ in planned]
    title, source = f"{call} {of}".strip(), str(getattr(store, "folder", store))
    with progress_bar(len(tasks), "fit", title, shown=verbose) as bar, closing(fitted):
        for task, result, was_stored in fitted:
            if len(planned) > 1:
                bar.set_postfix_str(planned[task.number].name, refresh=False)
            bar.update(source=source if was_stored else None)
            if isinstance(result, FailedFold):
                if was_stored:
                    result.error.add_note(_NOT_TRIED)
                if error_score == "raise":
                    raise result.error
            results[task.number][task.place] = result
            if len(results[task.number]) == planned[task.number].plan.n_fits:
                _report(planned[task.number].study, list(results[task.number].values()))
    return [[found[place] for place in sorted(found)] for found in results]


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
    tasks: Sequence[_Task],
    n_jobs: int | None,
    options: dict[str, Any],
) -> Generator[_Arrived]:
    calls = (partial(planned[i].one(fold).run, **options) for i, _, fold in tasks)
    for task, result in zip(tasks, one_by_one(calls, n_jobs), strict=True):
        yield _Arrived(task, result)


def _through_store(
    planned: Sequence[PlannedFits],
    stored: Sequence[StoredFits],
    tasks: Sequence[_Task],
    n_jobs: int | None,
    options: dict[str, Any],
) -> Generator[_Arrived]:
    """Read what is stored, fit what no other process has taken, and wait for what one has."""
    waiting, pause, is_first = list(tasks), _SHORTEST_PAUSE, True
    while waiting:
        absent = []
        for task in waiting:
            found = stored[task.number].read(planned[task.number].study, task.fold)
            if found is None:
                absent.append(task)
            else:
                yield _Arrived(task, found, is_first)
        free = [task for task in absent if not stored[task.number].is_claimed(task.fold)]
        calls = (
            partial(_fit_into_store, planned[i].one(fold), stored[i], options)
            for i, _, fold in free
        )
        done = set()
        for task, result in zip(free, one_by_one(calls, n_jobs), strict=True):
            if result is not None:
                done.add(task[:2])
                yield _Arrived(task, result)
        waiting = [task for task in absent if task[:2] not in done]
        pause = _SHORTEST_PAUSE if done else min(2 * pause, _LONGEST_PAUSE)
        is_first = False
        if waiting and not done:
            time.sleep(pause)


def _fit_into_store(
    planned: PlannedFit, stored: StoredFits, options: dict[str, Any]
) -> Result | None:
    """Take a fold, fit it and store the result; None where another process has it."""
    study, fold = planned.study, planned.fold
    with stored.claimed(fold) as free:
        if not free:
            return None
        found = stored.read(study, fold)  # it may have ended since it was looked for
        if found is not None:
            return found
        result = planned.run(catch=True, **options)
        if isinstance(result, FailedFold) and is_of_machine(result.error):
            result.error.add_note(_NOT_KEPT)
            return result
        stored.write(study, fold, result)
        back = stored.read_back(study, fold)
        return result if isinstance(result, FailedFold) else back


def _check_estimators(planned: Sequence[PlannedFits]) -> None:
    seen: set[int] = set()
    for one in planned:
        with_omics = any(table is not None for table in one.tables)
        with one.named_in_errors():
            check_estimator(one.estimator, with_omics=with_omics, params=one.study.params)
        if id(one.estimator) not in seen:
            warn_if_patients_are_split(one.estimator, len(one.study.bags), len(one.study.names))
        seen.add(id(one.estimator))


def _report(study: Study, results: Sequence[Result]) -> None:
    """Warn of folds that failed or lack a class; raise if a repeat has no others."""
    results = sorted(results, key=lambda result: (result.repeat, result.fold))
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
        warn(f"{failure} {notes}", FitFailedWarning)


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
    lacking = []
    for result in results:
        present = set(study.labels[result.tested].tolist())
        if absent := [c for k, c in enumerate(study.classes) if k not in present]:
            lacking.append((result, absent))
    if not lacking:
        return
    first, absent = lacking[0]
    others = f", and {len(lacking) - 1} other test parts lack a class" if len(lacking) > 1 else ""
    warn(
        f"The test part of fold {first.fold} (repeat {first.repeat}) has no patient of class "
        f"{first_few(absent)}{others}: the AUROC there is undefined and left out of the mean over "
        "folds. The pooled AUROC uses all patients.",
        UserWarning,
    )
