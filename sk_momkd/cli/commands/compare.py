"""`compare`: several methods, or one method with, without and with permuted omics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from ..examples import Command
from ..keys import Run
from ..load import Loaded, load_run
from ..methods import make_model
from ..options import run_command
from ..pages import write_report
from ..problems import UsageProblem
from ..run_folder import close_folder, open_folder
from ..session import Session
from ..study import check_model, require_all_fits, study_options


@run_command("cohort", "model", "evaluation", "comparison", "report", "output")
def _compare(run: Run, say: Session) -> None:
    check_model(run)
    folder = open_folder(run, say)
    cohort = load_run(run, say)
    compared = _methods if run.comparison.methods else _omics
    result = compared(run, cohort, folder, say)
    result.to_csv(folder / "comparison")
    write_report(run, result, cohort, folder, say)
    close_folder(run, folder)
    data = {"headline": result.headline, "note": result.note, **result.tables()}
    if hasattr(result, "verdict"):
        data |= {"outcome": result.outcome, "verdict": result.verdict}
    say.result(str(result), data)
    require_all_fits(result)


def _methods(run: Run, cohort: Loaded, folder: Path, say: Session) -> Any:
    from ...evaluation.comparison import compare
    from ...evaluation.routing import accepts

    models = {name: make_model(run.model, name) for name in run.comparison.methods}
    takes_omics = any(accepts(model, "omics") for model in models.values())
    options = study_options(run, cohort, folder, "compare", say)
    return compare(
        models,
        cohort.bags,
        cohort.y,
        omics=cohort.omics if takes_omics else None,
        reference=run.comparison.reference,
        **options,
    )


def _omics(run: Run, cohort: Loaded, folder: Path, say: Session) -> Any:
    from ...evaluation.omics_comparison import compare_omics

    if cohort.omics is None:
        raise UsageProblem(
            "There is nothing to compare: give --methods, or --omics to train with and without it."
        )
    return compare_omics(
        make_model(run.model),
        cohort.bags,
        cohort.y,
        cohort.omics,
        within_class=run.comparison.within_class,
        **study_options(run, cohort, folder, "compare_omics", say),
    )


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    text = "Compare methods on the same folds; without --methods, what omics adds to one."
    app.command("compare", help=text, cls=Command)(_compare)
