"""Cross-validations of a run, which go on where they stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..exceptions import CohortError
from ..messages import first_few, repeated
from .config import values_of
from .keys import Run
from .load import Loaded, load_run
from .methods import check_methods, make_model
from .priors import check_prior
from .problems import SomeFailed, UsageProblem
from .run_folder import begin_run, open_folder
from .session import Session

FITS = "fits"  # folder of the fits of studies, in that of the results
Criterion = str | tuple[str, float]


def start(
    run: Run, output: Session, *, threshold: str | None = None, prior: str = "training"
) -> tuple[Path, Loaded]:
    """The folder of the results, opened, and the cohort, with omics if the model learns from it.

    Parameters
    ----------
    run : Run
    output : Session
    threshold, prior : str
        Those of the run, where the command uses them.

    Raises
    ------
    UsageProblem
        If the model cannot be made, the folder has results of another cohort, or the classes do
        not allow the threshold or the prior.
    """
    from ..evaluation.routing import accepts

    if threshold is not None:
        criterion_of(threshold)
    folder, cohort = _opened(run, output, threshold, prior)
    if cohort.omics is None or accepts(make_model(run.model), "omics"):
        return folder, cohort
    output.note(f"{run.model.method} is trained on histology alone; the omics is not used.")
    return folder, cohort._replace(omics=None)


def start_comparison(run: Run, output: Session) -> tuple[Path, Loaded]:
    """As :func:`start`, for the methods of a comparison, with all omics."""
    methods, options = run.comparison.methods, run.comparison
    only_methods = [] if options.reference is None else ["reference"]
    only_omics = [n for n in ("within_class", "self_distillation") if getattr(options, n)]
    if idle := only_omics if methods else only_methods:
        raise UsageProblem(
            f"--{idle[0].replace('_', '-')} has no effect {'with' if methods else 'without'} "
            "--methods."
        )
    if methods:
        check_methods(run.model, methods)
    if twice := repeated(method.lower() for method in methods):
        raise UsageProblem(f"--methods names {twice[0]} twice. Name each method once.")
    for method in methods:
        make_model(run.model, method)
    return _opened(run, output, None, "training")


def _opened(run: Run, output: Session, threshold: str | None, prior: str) -> tuple[Path, Loaded]:
    make_model(run.model)
    values = values_of(run)
    open_folder(run.output.out, values, output)
    output.goes_on = True
    cohort = load_run(run, output)
    _check_classes(run, cohort, threshold, prior)
    begin_run(run.output.out, values)
    return run.output.out, cohort


def _check_classes(run: Run, cohort: Loaded, threshold: str | None, prior: str) -> None:
    from ..evaluation.routing import final_estimator

    classes = sorted(set(cohort.y.tolist()), key=str)
    if len(classes) < 2:
        raise CohortError(
            f"All {len(cohort.bags)} slides in use have the label {classes[0]!r} in "
            f"{run.cohort.label!r}; a classifier needs two classes."
        )
    if threshold is not None and len(classes) != 2:
        raise UsageProblem(
            f"threshold={threshold} is for two classes, but {run.cohort.label} has "
            f"{len(classes)}: {first_few(classes, 6)}. Set `threshold: null` in the run file, or "
            "make them two with --positive."
        )
    if prior != "training":
        check_prior(prior, final_estimator(make_model(run.model)), classes)


def study_options(
    run: Run, cohort: Loaded, folder: Path, study: str, output: Session
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
        "verbose": output.shows_bars,
    }


def cross_validate(run: Run, cohort: Loaded, folder: Path, output: Session) -> Any:
    """Evaluate the model of a run, with its models; fits that are done are not repeated.

    A threshold that is a number is that of each model, as in `fit`.
    """
    from ..evaluation.cross_validation import evaluate

    model = with_decision(make_model(run.model), fixed_threshold(run))
    options = study_options(run, cohort, folder, "evaluate", output)
    return evaluate(model, cohort.bags, cohort.y, omics=cohort.omics, keep_models=True, **options)


def fixed_threshold(run: Run) -> Any:
    """The threshold of a run that is a number, None where it is chosen or there is none."""
    from ..estimators.decision_threshold import DecisionThreshold

    asked = None if run.model.threshold is None else criterion_of(run.model.threshold)
    return DecisionThreshold(asked, prior="training") if isinstance(asked, float) else None


def with_decision(model: Any, threshold: Any) -> Any:
    """The estimator with a threshold of its own, or inside scikit-learn's."""
    from ..evaluation.routing import final_estimator

    if threshold is None:
        return model
    classifier = final_estimator(model)
    if "decision_threshold" in classifier.get_params():
        classifier.set_params(decision_threshold=threshold)
        return model
    from sklearn.model_selection import FixedThresholdClassifier

    positive = getattr(threshold, "pos_label", None)
    return FixedThresholdClassifier(
        model, threshold=float(threshold), pos_label=positive, response_method="predict_proba"
    )


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
    if not 0 <= number <= 1 or (equals and number == 0):
        raise UsageProblem(f"threshold is {_CRITERIA}, got {threshold!r}: no share up to 1.")
    return (name, number) if equals else number


_CRITERIA = "youden, f1, sensitivity=0.9, specificity=0.9, or a probability such as 0.3"


def require_all_fits(result: Any) -> None:
    """End with the exit code for failed fits, after results are written.

    Raises
    ------
    SomeFailed
    """
    evaluations = getattr(result, "evaluations", None) or {"": result}
    failures = [e.failures for e in evaluations.values() if e.failures]
    if failures:
        raise SomeFailed(" ".join(failures))
