"""`report`: the page about a run again, with other pictures or another title."""

from __future__ import annotations

import typer

from ..config import values_of
from ..examples import Command
from ..keys import Run, uses
from ..options import run_command
from ..pages import check_pictures, make_report
from ..run_folder import close_folder
from ..session import Session
from ..study import cross_validate, fixed_threshold, start

# A threshold of the run file that is a number is that of the models on the page.
_NOT_USED = ("prior", "include_omics", "threshold", "page")
_USES = uses("cohort", "model", "evaluation", "report", "output", without=_NOT_USED)


@run_command(_USES)
def _report(run: Run, output: Session) -> None:
    check_pictures(run.report)
    decides = fixed_threshold(run) is not None
    folder, cohort = start(run, output, threshold=run.model.threshold if decides else None)
    result = cross_validate(run, cohort, folder, output)
    path = make_report(run, result, cohort, folder / "report.html")
    close_folder(folder, values_of(run))
    output.result(str(path), {"report": path})


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    text = "Write the report page of a run again; fits that are done are not repeated."
    app.command("report", help=text, cls=Command)(_report)
