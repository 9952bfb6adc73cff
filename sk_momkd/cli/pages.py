"""The report page of a command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .keys import Run
from .load import Loaded
from .session import Session


def write_report(run: Run, result: Any, cohort: Loaded, folder: Path, say: Session) -> None:
    """Write report.html unless it is not wanted, or say which package it lacks."""
    if not run.report.page:
        say.note(f"Results are in {folder}.")
        return
    from ..reporting.html.page import report

    options = run.report
    try:
        path = report(
            result,
            folder / "report.html",
            bags=cohort.bags,
            y=cohort.y,
            omics=cohort.omics,
            join=cohort.report,
            images=options.images,
            mpp=options.mpp,
            title=options.title,
            n_slides=options.n_slides,
        )
    except ImportError as error:
        say.note(f"No report was written. {error}")
        return
    say.note(f"Results are in {folder}, the report is {path}.")
