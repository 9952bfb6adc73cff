"""`predict`: probabilities of slides or patients from a saved model."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...io.atomic import atomic_write, require_writable
from ...messages import first_few, install_hint
from ..config import values_of
from ..examples import Command
from ..keys import Run, uses
from ..load import (
    load_models,
    load_run,
    model_files,
    model_record,
    named_files,
    read_slides,
)
from ..options import run_command
from ..priors import prior_of
from ..problems import SomeFailed, UsageProblem
from ..run_folder import describe
from ..session import Session

if TYPE_CHECKING:
    import pandas as pd

    from ...data.sequence import BagSequence

_FILES_PER_PART = 8  # that a stop may lose
_MODEL = Annotated[Path, typer.Argument(help="Model that fit has saved.")]
_SLIDES = Annotated[
    list[Path] | None, typer.Argument(help="Feature files, or a folder; or use --table.")
]
_OUT = Annotated[
    Path | None, typer.Option(help="File to write, .csv or .parquet; default: standard output.")
]
_PARTS = Annotated[
    Path | None,
    typer.Option(
        help="Folder that keeps the predictions of files as they are made; the same command goes "
        "on from it. A file that cannot be predicted is then a row with an error."
    ),
]
_ROWS = Annotated[str, typer.Option(help="A row per slide or per patient.")]
_THRESHOLD = Annotated[float | None, typer.Option(help="Probability from which on it is positive.")]
_PRIOR = Annotated[
    str | None, typer.Option(help="Share of the positive class among these patients.")
]
_DEVICE = Annotated[str, typer.Option(help="cpu, cuda, or auto for that of the model.")]
_NOT_USED = ("omics", "label", "positive", "negative", "layer", "id_column")
_USES = uses("cohort", without=_NOT_USED)
_OF_FILES = uses("cohort.allow_external", "cohort.allow_constant", "cohort.allow_mixed")


@run_command(_USES, config="option")
def _predict(
    model: _MODEL,
    run: Run,
    output: Session,
    slides: _SLIDES = None,
    out: _OUT = None,
    parts: _PARTS = None,
    rows: _ROWS = "slide",
    threshold: _THRESHOLD = None,
    prior: _PRIOR = None,
    device: _DEVICE = "auto",
) -> None:
    _require_rows(rows, slides)
    _require_suffix(out)
    _require_files(parts, slides)
    fitted = load_models(model_files([model]), device)[0]
    _require_place(out, [model, *(slides or []), *_files_of(run)])
    _decide(fitted, threshold, prior)
    if slides and parts:
        table = _predicted_in_parts(fitted, slides, parts, run, output)
    else:
        table = _predicted(fitted, slides, rows, run, output)
    if out is None:
        output.result(table.to_csv(index=False).rstrip("\n"), table)
    else:
        _write(table, out)
        asked = {"rows": rows, "threshold": threshold, "prior": prior, "device": device}
        describe(_values(model, run, slides, asked), output, out)
        output.note(f"{len(table)} rows of predictions are in {out}.")
        if output.as_json:
            output.result("", {"predictions": out, "n": len(table)})
    _require_all_predicted(table)


def _predicted(
    model: Any, slides: list[Path] | None, rows: str, run: Run, output: Session
) -> pd.DataFrame:
    from ...inspection.predictions import prediction_table

    if slides:
        bags = read_slides(slides, run.cohort)
    else:
        bags = load_run(run, output, labelled=False, with_omics=False).bags
    return prediction_table(model, bags, unit="bag" if rows == "slide" else "patient")


def _predicted_in_parts(
    model: Any, slides: list[Path], parts: Path, run: Run, output: Session
) -> pd.DataFrame:
    """Predictions of files, which are kept in the folder `parts` as they are made."""
    from ...inspection.cohort_predictions import predict_cohort
    from ...inspection.predictions import warn_of_training_patients

    files, reading = named_files(slides, run.cohort)
    output.goes_on = True
    with warnings.catch_warnings():
        # `_require_all_predicted` tells of these, as an exit code, too.
        warnings.filterwarnings("ignore", r"\d+ of \d+ files have no prediction", UserWarning)
        table = predict_cohort(
            model,
            files,
            parts,
            format="csv",
            files_per_part=_FILES_PER_PART,
            retry_errors=True,
            reading=reading,
            verbose=output.shows_bars,
        )
    warn_of_training_patients(model, _named_only(table))
    return table


def _named_only(table: pd.DataFrame) -> BagSequence:
    """Bags with the ids of a table, and without features."""
    import numpy as np

    from ...data.bag import Bag
    from ...data.sequence import BagSequence

    ids = table["bag_id"][table["error"].isna()].unique()
    return BagSequence(Bag(np.empty((0, 0)), bag_id=bag_id) for bag_id in ids)


def _require_all_predicted(table: pd.DataFrame) -> None:
    """End with the exit code for failures, after the predictions are written.

    Raises
    ------
    SomeFailed
    """
    failed = table[table["error"].notna()] if "error" in table else table[:0]
    if len(failed):
        first = failed.iloc[0]
        raise SomeFailed(
            f"{len(failed)} of {len(table)} files have no prediction, the first is "
            f"{first['file']}: {first['error']} Mend them, and the same command predicts them."
        )


def _require_rows(rows: str, slides: list[Path] | None) -> None:
    if rows not in ("slide", "patient"):
        raise UsageProblem(f"--rows must be slide or patient, got {rows!r}.")
    if rows == "patient" and slides:
        raise UsageProblem(
            "--rows patient needs to know the patient of each slide: give --table and --features."
        )


def _require_files(parts: Path | None, slides: list[Path] | None) -> None:
    if parts is not None and not slides:
        raise UsageProblem(
            "--parts is for files or a folder that are named without a table: sk-momkd predict "
            "MODEL FOLDER --parts ..."
        )


def _values(
    model: Path, run: Run, slides: list[Path] | None, asked: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """What the predictions were made of, as a run file."""
    if slides:
        asked = {"slides": [str(path.absolute()) for path in slides], **asked}
    values = values_of(run, _OF_FILES if slides else _USES)
    return {**values, "model": model_record(model_files([model])), "prediction": asked}


def _require_suffix(out: Path | None) -> None:
    if out is not None and out.suffix.lower() not in (".csv", ".parquet"):
        raise UsageProblem(f"--out must end in .csv or .parquet, got {str(out)!r}.")


def _files_of(run: Run) -> list[Path]:
    given = vars(run.cohort).values()
    return [value for value in given if isinstance(value, Path)]


def _require_place(out: Path | None, read: list[Path]) -> None:
    """Raise if predictions could not be written, or would replace what they are made of."""
    if out is None:
        return
    require_writable(out.parent)
    if out.is_dir():
        raise UsageProblem(f"--out must be a file to write, but {out} is a folder.")
    if out.exists() and any(path.exists() and path.samefile(out) for path in read):
        raise UsageProblem(f"--out {out} would replace a file that is read. Name another one.")


def _decide(model: Any, threshold: float | None, prior: str | None) -> None:
    """Set threshold and prior of a fitted model."""
    from ...estimators.decision_threshold import DecisionThreshold
    from ...evaluation.routing import final_estimator

    classifier = final_estimator(model)
    if prior is not None:
        classifier.set_params(prior=prior_of(prior, classifier))
    if threshold is None:
        return
    if len(model.classes_) != 2:
        raise UsageProblem(
            f"--threshold is for two classes, but the model has {len(model.classes_)}: "
            f"{first_few(model.classes_, 6)}."
        )
    if "decision_threshold" in classifier.get_params():
        # At the prior of the probabilities that are written, whatever it was at fit.
        given = DecisionThreshold(threshold, prior=getattr(classifier, "prior", None))
        classifier.set_params(decision_threshold=given)
    elif "threshold" in model.get_params(deep=False):
        model.set_params(threshold=threshold)
    else:
        raise UsageProblem(
            "This model has no threshold to set. Fit it with one: sk-momkd fit --threshold ..."
        )


def _write(table: Any, out: Path) -> None:
    with atomic_write(out) as part:
        if out.suffix.lower() == ".csv":
            table.to_csv(part, index=False)
            return
        try:
            table.to_parquet(part, index=False)
        except ImportError as error:
            hint = install_hint("pyarrow")
            raise ImportError(f"Writing parquet needs pyarrow: {hint}, or use .csv.") from error


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    text = "Predict slides: files, a folder, or a table with patients. No omics is needed."
    app.command("predict", help=text, cls=Command)(_predict)
