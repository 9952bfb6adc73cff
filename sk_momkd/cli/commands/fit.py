"""`fit`: the final model on all patients, with its threshold and its card."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from shutil import rmtree
from typing import Any

import typer

from ..examples import Command
from ..keys import Run
from ..load import Loaded, load_run
from ..methods import make_model
from ..options import run_command
from ..priors import prior_of
from ..run_folder import close_folder, open_folder
from ..session import Session
from ..study import check_model, criterion_of, cross_validate

MODEL = "model.zip"
_CHECKPOINTS = "checkpoints"  # of the training, until the model is saved


@run_command("cohort", "model", "evaluation", "card", "output")
def _fit(run: Run, say: Session) -> None:
    from ...evaluation.routing import final_estimator
    from ...persistence.model_files import save_model

    check_model(run)
    folder = open_folder(run, say)
    cohort = load_run(run, say)
    threshold, evaluation = _threshold(run, cohort, folder, say)
    model = _with_decision(make_model(run.model), threshold)
    say.note(f"Training {run.model.method} on {len(cohort.bags)} bags.")
    classifier = final_estimator(model)
    if "training" in classifier.get_params(deep=False):
        classifier.set_params(training__checkpoint_dir=str(folder / _CHECKPOINTS / "{fit}"))
    model.fit(cohort.bags, cohort.y, **_arguments(model, cohort))
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
    close_folder(run, folder)
    say.result("\n".join(lines), data)


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


def _threshold(run: Run, cohort: Loaded, folder: Path, say: Session) -> tuple[Any, Any]:
    """The threshold that the run asks for, and the evaluation on which it was chosen."""
    from ...estimators.decision_threshold import DecisionThreshold

    if run.model.threshold is None:
        return None, None
    criterion = criterion_of(run.model.threshold)
    if isinstance(criterion, float):
        return DecisionThreshold(criterion, prior="training"), None
    say.note("The threshold is chosen on out-of-fold predictions:")
    evaluation = cross_validate(run, cohort, folder, say)
    return evaluation.threshold(criterion), evaluation


def _with_decision(model: Any, threshold: Any) -> Any:
    """The estimator with a threshold of its own, or inside scikit-learn's."""
    from ...evaluation.routing import final_estimator

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


def _arguments(model: Any, cohort: Loaded) -> dict[str, Any]:
    from ...data.omics import align_omics
    from ...evaluation.routing import accepts, fit_arguments

    omics = None
    if cohort.omics is not None and accepts(model, "omics"):
        omics = align_omics(cohort.omics, cohort.bags)
    return fit_arguments(model, omics, cohort.sites, cohort.bags.groups())


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
