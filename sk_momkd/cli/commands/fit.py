"""`fit`: the final model on all patients, with its threshold and its card."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from shutil import rmtree
from typing import Any

import typer

from ..config import values_of
from ..examples import Command
from ..keys import Run, uses
from ..load import Loaded
from ..methods import make_model
from ..options import run_command
from ..priors import prior_of
from ..problems import UsageProblem
from ..run_folder import close_folder
from ..session import Session
from ..study import (
    criterion_of,
    cross_validate,
    fixed_threshold,
    start,
    with_decision,
)

MODEL = "model.zip"
_CHECKPOINTS = "checkpoints"  # of the training, until the model is saved


_USES = uses("cohort", "model", "evaluation", "card", "output")


@run_command(_USES)
def _fit(run: Run, output: Session) -> None:
    from ...evaluation.routing import final_estimator, fit_arguments
    from ...persistence.model_files import save_model

    options = run.model
    folder, cohort = start(run, output, threshold=options.threshold, prior=options.prior)
    omics = _omics(run, cohort)
    threshold, evaluation = _threshold(run, cohort, folder, output)
    model = with_decision(make_model(run.model), threshold)
    output.note(f"Training {run.model.method} on {len(cohort.bags)} bags.")
    classifier = final_estimator(model)
    if "training" in classifier.get_params(deep=False):
        classifier.set_params(training__checkpoint_dir=str(folder / _CHECKPOINTS / "{fit}"))
    arguments = fit_arguments(model, omics, cohort.sites, cohort.bags.groups())
    model.fit(cohort.bags, cohort.y, **arguments)
    model = _with_prior(model, run.model.prior)
    path = save_model(
        model,
        folder / MODEL,
        include_omics=run.model.include_omics,
        evaluation=evaluation,
        card=_card(run, cohort),
        overwrite=True,
    )
    rmtree(folder / _CHECKPOINTS, ignore_errors=True)
    lines = [f"model: {path}"]
    lines += [] if threshold is None else [str(threshold).replace("Threshold", "threshold", 1)]
    data = {"model": path, "threshold": None if threshold is None else float(threshold)}
    close_folder(folder, values_of(run))
    output.result("\n".join(lines), data)


def _card(run: Run, cohort: Loaded) -> dict[str, str]:
    """Text of the card: that of the run, and what the files of the cohort say."""
    used = cohort.report.slides[cohort.report.slides["status"] == "used"]
    n_patients, n_omics = used["patient_id"].nunique(), int(used["has_omics"].sum())
    classes = sorted(set(cohort.y.tolist()), key=str)
    known = {
        "name": f"{run.cohort.label}, {run.model.method}",
        "cohort": f"{len(used)} slides of {n_patients} patients, {n_omics} slides with omics",
        "labels": f"{run.cohort.label}: {', '.join(map(cohort.report.label_text, classes))}",
    }
    said = {name: text for name, text in asdict(run.card).items() if text is not None}
    return known | said


def _threshold(run: Run, cohort: Loaded, folder: Path, output: Session) -> tuple[Any, Any]:
    """The threshold that the run asks for, and the evaluation on which it was chosen."""
    if run.model.threshold is None:
        return None, None
    criterion = criterion_of(run.model.threshold)
    if isinstance(criterion, float):
        return fixed_threshold(run), None
    output.note("The threshold is chosen on out-of-fold predictions:")
    evaluation = cross_validate(run, cohort, folder, output)
    return evaluation.threshold(criterion), evaluation


def _omics(run: Run, cohort: Loaded) -> Any:
    """The omics for `fit` in the order of the bags, None where the method does not use it."""
    from ...data.omics import align_omics

    if cohort.omics is not None:
        return align_omics(cohort.omics, cohort.bags)
    if run.model.include_omics:
        cause = "no --omics is given" if run.cohort.omics is None else "it learns without omics"
        raise UsageProblem(
            f"--include-omics keeps an omics branch, but this {run.model.method} has none: {cause}."
        )
    return None


def _with_prior(model: Any, prior: str) -> Any:
    from ...evaluation.routing import final_estimator

    classifier = final_estimator(model)
    if prior != "training":
        classifier.set_params(prior=prior_of(prior, classifier))
    return model


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    text = "Train the final model on all patients and save it, with threshold and model card."
    app.command("fit", help=text, cls=Command)(_fit)
