"""`compare`: several methods, or one method with, without and with permuted omics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from ..config import values_of
from ..examples import Command
from ..keys import Run, uses
from ..load import Loaded
from ..methods import make_model
from ..options import run_command
from ..pages import check_pictures, write_report
from ..problems import UsageProblem
from ..run_folder import close_folder
from ..session import Session
from ..study import require_all_fits, start_comparison, study_options

_SECTIONS = ("cohort", "model", "evaluation", "comparison", "report", "output")
_USES = uses(*_SECTIONS, without=("prior", "include_omics", "threshold"))
RUN_FILE = "comparison.run.yaml"  # beside that of evaluate, whose model fit takes


@run_command(_USES)
def _compare(run: Run, output: Session) -> None:
    if run.report.page:
        check_pictures(run.report)
    folder, cohort = start_comparison(run, output)
    compared = _methods if run.comparison.methods else _omics
    result = compared(run, cohort, folder, output)
    result.to_csv(folder / "comparison")
    write_report(run, result, cohort, folder / "comparison.html", output)
    close_folder(folder, values_of(run), RUN_FILE)
    data = {"headline": result.headline, "note": result.note, **result.tables()}
    if hasattr(result, "verdict"):
        data |= {"outcome": result.outcome, "verdict": result.verdict}
    output.result(str(result), data)
    require_all_fits(result)


def _methods(run: Run, cohort: Loaded, folder: Path, output: Session) -> Any:
    from ...evaluation.comparison import compare
    from ...evaluation.routing import accepts

    models = {name: make_model(run.model, name) for name in run.comparison.methods}
    takes_omics = any(accepts(model, "omics") for model in models.values())
    options = study_options(run, cohort, folder, "compare", output)
    return compare(
        models,
        cohort.bags,
        cohort.y,
        omics=cohort.omics if takes_omics else None,
        reference=run.comparison.reference,
        **options,
    )


def _omics(run: Run, cohort: Loaded, folder: Path, output: Session) -> Any:
    from ...evaluation.omics_comparison import compare_omics
    from ...evaluation.routing import accepts

    model = make_model(run.model)
    if cohort.omics is None:
        raise UsageProblem(
            "There is nothing to compare: give --methods, or --omics to train with and without it."
        )
    if not accepts(model, "omics"):
        raise UsageProblem(
            f"{run.model.method} is trained on histology alone, so there is nothing to compare "
            "with and without omics. Give --methods, or a --method that learns from omics."
        )
    return compare_omics(
        model,
        cohort.bags,
        cohort.y,
        cohort.omics,
        within_class=run.comparison.within_class,
        self_distillation=run.comparison.self_distillation,
        **study_options(run, cohort, folder, "compare_omics", output),
    )


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    text = "Compare methods on the same folds; without --methods, what omics adds to one."
    app.command("compare", help=text, cls=Command)(_compare)
