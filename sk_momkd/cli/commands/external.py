"""`external`: saved models on the labelled patients of another hospital."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..examples import Command
from ..keys import Run
from ..load import load_models, load_run
from ..options import run_command
from ..pages import write_report
from ..run_folder import close_folder, open_folder
from ..session import Session

_MODELS = Annotated[list[Path], typer.Argument(help="Saved models, or a folder of them.")]


@run_command("cohort", "evaluation", "report", "output", config="option", without=("omics",))
def _external(models: _MODELS, run: Run, say: Session) -> None:
    from ...evaluation.external import evaluate_external

    folder = open_folder(run, say)
    cohort = load_run(run, say, with_omics=False)
    result = evaluate_external(
        load_models(models, "auto"),
        cohort.bags,
        cohort.y,
        groups=cohort.sites,
        n_bootstrap=run.evaluation.n_bootstrap,
        confidence_level=run.evaluation.confidence_level,
        random_state=run.model.random_state,
    )
    result.to_csv(folder / "external")
    write_report(run, result, cohort, folder, say)
    close_folder(run, folder)
    say.result(str(result), {"headline": result.headline, "note": result.note, **result.tables()})


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    text = "Evaluate saved models on labelled patients of another cohort. No omics is needed."
    app.command("external", help=text, cls=Command)(_external)
