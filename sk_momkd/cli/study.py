"""Cross-validations of a run, which go on where they stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .keys import Run
from .load import Loaded
from .methods import make_model
from .problems import SomeFitsFailed, UsageProblem
from .session import Session

FITS = "fits"  # folder of the fits of studies, in that of the results
Criterion = str | tuple[str, float]


def check_model(run: Run) -> None:
    """Refuse an unknown method, preset, parameter or threshold before files are read."""
    make_model(run.model)
    for method in run.comparison.methods:
        make_model(run.model, method)
    if run.model.threshold is not None:
        criterion_of(run.model.threshold)


def study_options(
    run: Run, cohort: Loaded, folder: Path, study: str, say: Session
) -> dict[str, Any]:
    """Keyword arguments that `evaluate`, `compare` and `compare_omics` share.

    The fits of each `study` are kept below `folder`, so that the same command goes on.
    """
    options = run.evaluation
    cv: Any = options.cv
    if options.splits is not None:
        from ..model_selection.split_files import read_splits

        cv = [(train, test) for train, _, test in read_splits(options.splits, cohort.bags)]
    return {
        "cv": cv,
        "groups": cohort.sites,
        "n_repeats": options.n_repeats,
        "random_state": run.model.random_state,
        "n_bootstrap": options.n_bootstrap,
        "confidence_level": options.confidence_level,
        "n_jobs": options.n_jobs,
        "store": folder / FITS / study,
        "verbose": say.shows_bars,
    }


def cross_validate(run: Run, cohort: Loaded, folder: Path, say: Session) -> Any:
    """Evaluate the model of a run, with its models; fits that are done are not repeated."""
    from ..evaluation.cross_validation import evaluate
    from ..evaluation.routing import accepts

    model = make_model(run.model)
    omics = cohort.omics if accepts(model, "omics") else None
    if omics is None and cohort.omics is not None:
        say.note(f"{run.model.method} is trained on histology alone; the omics is not used.")
    options = study_options(run, cohort, folder, "evaluate", say)
    return evaluate(model, cohort.bags, cohort.y, omics=omics, keep_models=True, **options)


def criterion_of(threshold: str) -> Criterion | float:
    """What `threshold` of a run asks for: a criterion, or a number.

    Examples
    --------
    >>> criterion_of("sensitivity=0.9"), criterion_of("0.3"), criterion_of("youden")
    (('sensitivity', 0.9), 0.3, 'youden')
    """
    name, equals, share = threshold.partition("=")
    if not equals and name in ("youden", "f1"):
        return name
    if equals and name not in ("sensitivity", "specificity"):
        raise UsageProblem(f"threshold is {_CRITERIA}, got {threshold!r}.")
    try:
        number = float(share if equals else name)
    except ValueError as error:
        raise UsageProblem(f"threshold is {_CRITERIA}, got {threshold!r}.") from error
    return (name, number) if equals else number


_CRITERIA = "youden, f1, sensitivity=0.9, specificity=0.9, or a probability such as 0.3"


def require_all_fits(result: Any) -> None:
    """End with the exit code for failed fits, after results are written.

    Raises
    ------
    SomeFitsFailed
    """
    evaluations = getattr(result, "evaluations", None) or {"": result}
    failures = [e.failures for e in evaluations.values() if e.failures]
    if failures:
        raise SomeFitsFailed(" ".join(failures))
