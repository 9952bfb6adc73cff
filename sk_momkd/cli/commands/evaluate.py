"""`evaluate`: cross-validation by patient, with a report."""

from __future__ import annotations

import typer

from ..examples import Command
from ..keys import Run
from ..load import load_run
from ..options import run_command
from ..pages import write_report
from ..run_folder import close_folder, open_folder
from ..session import Session
from ..study import check_model, criterion_of, cross_validate, require_all_fits


@run_command("cohort", "model", "evaluation", "report", "output")
def _evaluate(run: Run, say: Session) -> None:
    check_model(run)
    folder = open_folder(run, say)
    cohort = load_run(run, say)
    result = cross_validate(run, cohort, folder, say)
    result.to_csv(folder / "evaluation")
    text, data = str(result), {"headline": result.headline, "note": result.note, **result.tables()}
    if run.model.threshold is not None and isinstance(
        criterion := criterion_of(run.model.threshold), str | tuple
    ):
        threshold = result.threshold(criterion)
        text, data["threshold"] = f"{text}\n\n{threshold}", vars(threshold)
    write_report(run, result, cohort, folder, say)
    close_folder(run, folder)
    say.result(text, data)
    require_all_fits(result)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    text = "Cross-validate a method by patient: tables, intervals and a report page."
    app.command("evaluate", help=text, cls=Command)(_evaluate)
