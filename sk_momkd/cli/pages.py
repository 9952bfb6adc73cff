"""The report page of a command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .keys import Run
from .load import Loaded
from .session import Session


def write_report(run: Run, result: Any, cohort: Loaded, path: Path, output: Session) -> Path | None:
    """Write a report page unless it is not wanted or a package lacks, which is said.

    Returns
    -------
    Path or None
        Path of the page, None where there is none.
    """
    if not run.report.page:
        output.note(f"Results are in {path.parent}.")
        return None
    try:
        make_report(run, result, cohort, path)
    except ImportError as error:
        output.note(f"No report was written. {error}")
        return None
    output.note(f"Results are in {path.parent}, the report is {path}.")
    return path


def make_report(run: Run, result: Any, cohort: Loaded, path: Path) -> Path:
    """Write a report page.

    Raises
    ------
    ImportError
        If a package lacks that it needs.
    """
    from ..reporting.html.page import report

    options = run.report
    return report(
        result,
        path,
        bags=cohort.bags,
        y=cohort.y,
        omics=cohort.omics,
        join=cohort.report,
        images=options.images,
        mpp=options.mpp,
        title=options.title,
        n_slides=options.n_slides,
    )
