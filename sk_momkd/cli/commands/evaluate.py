"""`evaluate`: cross-validation by patient, with a report."""

from __future__ import annotations

import typer

from ..config import values_of
from ..examples import Command
from ..keys import Run, uses
from ..options import run_command
from ..pages import check_pictures, write_report
from ..run_folder import close_folder
from ..session import Session
from ..study import criterion_of, cross_validate, require_all_fits, start

_NOT_USED = ("prior", "include_omics")  # which are for the final model
_USES = uses("cohort", "model", "evaluation", "report", "output", without=_NOT_USED)

_OF_FIT = (
    "The table counts each patient as the most probable class. `sk-momkd fit` gives the final "
    "model this threshold instead:"
)


@run_command(_USES)
def _evaluate(run: Run, output: Session) -> None:
    if run.report.page:
        check_pictures(run.report)
    folder, cohort = start(run, output, threshold=run.model.threshold)
    result = cross_validate(run, cohort, folder, output)
    result.to_csv(folder / "evaluation")
    write_report(run, result, cohort, folder / "report.html", output)
    close_folder(folder, values_of(run))
    text, data = str(result), {"headline": result.headline, "note": result.note, **result.tables()}
    if run.model.threshold is not None and isinstance(
        criterion := criterion_of(run.model.threshold), str | tuple
    ):
        threshold = result.threshold(criterion)
        text, data["threshold"] = f"{text}\n\n{_OF_FIT}\n{threshold}", vars(threshold)
    output.result(text, data)
    require_all_fits(result)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    text = "Cross-validate a method by patient: tables, intervals and a report page."
    app.command("evaluate", help=text, cls=Command)(_evaluate)
