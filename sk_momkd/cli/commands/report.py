"""`report`: the page about a run again, with other pictures or another title."""

from __future__ import annotations

import typer

from ..examples import Command
from ..keys import Run
from ..load import load_run
from ..options import run_command
from ..pages import write_report
from ..run_folder import close_folder, open_folder
from ..session import Session
from ..study import check_model, cross_validate


@run_command("cohort", "model", "evaluation", "report", "output")
def _report(run: Run, say: Session) -> None:
    check_model(run)
    folder = open_folder(run, say)
    cohort = load_run(run, say)
    result = cross_validate(run, cohort, folder, say)
    write_report(run, result, cohort, folder, say)
    close_folder(run, folder)
    say.result(str(folder / "report.html"), {"report": folder / "report.html"})


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    text = "Write the report page of a run again; fits that are done are not repeated."
    app.command("report", help=text, cls=Command)(_report)
