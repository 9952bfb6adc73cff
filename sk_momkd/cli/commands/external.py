"""`external`: saved models on the labelled patients of another hospital."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..config import values_of
from ..examples import Command
from ..keys import Run, uses
from ..load import load_models, load_run, model_files, model_record
from ..options import run_command
from ..pages import check_pictures, write_report
from ..problems import UsageProblem
from ..run_folder import begin_run, close_folder, open_folder
from ..session import Session

_MODELS = Annotated[list[Path], typer.Argument(help="Saved models, or a folder of them.")]
_OUT = Annotated[Path, typer.Option(help="Folder of the results.")]
_ALLOW = Annotated[
    bool,
    typer.Option(
        "--allow-training-patients",
        help="Evaluate patients whose ids were in training, too; for other patients of these ids.",
    ),
]
_NOT_USED = ("omics", "layer", "id_column", "cv", "splits", "n_repeats", "n_jobs")
_USES = uses("cohort", "model.random_state", "evaluation", "report", without=_NOT_USED)


@run_command(_USES, config="option")
def _external(
    models: _MODELS,
    run: Run,
    output: Session,
    out: _OUT = Path("external_results"),
    allow_training_patients: _ALLOW = False,
) -> None:
    from ...evaluation.external import evaluate_external

    if run.report.page:
        check_pictures(run.report)
    files, values = _different(model_files(models)), values_of(run, _USES)
    fitted = load_models(files, "auto")
    values["model"] |= model_record(files)
    open_folder(out, values, output)
    cohort = load_run(run, output, with_omics=False)
    begin_run(out, values)
    result = evaluate_external(
        fitted,
        cohort.bags,
        cohort.y,
        groups=cohort.sites,
        n_bootstrap=run.evaluation.n_bootstrap,
        confidence_level=run.evaluation.confidence_level,
        random_state=run.model.random_state,
        allow_training_patients=allow_training_patients,
    )
    result.to_csv(out / "external")
    write_report(run, result, cohort, out / "report.html", output)
    close_folder(out, values)
    output.result(
        str(result), {"headline": result.headline, "note": result.note, **result.tables()}
    )


def _different(files: list[Path]) -> list[Path]:
    """The files; raises if one is named twice, which would count double in the ensemble."""
    for i, file in enumerate(files):
        if file.exists() and any(o.exists() and o.samefile(file) for o in files[:i]):
            raise UsageProblem(f"The model {file} is named twice. Name each once.")
    return files


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    text = "Evaluate saved models on labelled patients of another cohort. No omics is needed."
    app.command("external", help=text, cls=Command)(_external)
