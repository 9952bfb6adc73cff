"""The report page of a command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..messages import warn
from .keys import Report, Run
from .load import Loaded
from .problems import UsageProblem
from .session import Session


def check_pictures(options: Report) -> None:
    """Refuse what the pictures of slides could not be drawn with, before any training.

    Raises
    ------
    UsageProblem
    """
    if options.mpp is not None and not 0 < options.mpp < float("inf"):
        raise UsageProblem(f"--mpp must be above 0, got {options.mpp!r}.")
    if options.n_slides < 1:
        raise UsageProblem(f"--n-slides must be above 0, got {options.n_slides!r}.")
    if options.images is not None and not options.images.is_dir():
        what = "is a file" if options.images.exists() else "does not exist"
        raise UsageProblem(f"--images must be a folder, but {options.images} {what}.")


def warn_without_images(bags: Any, options: Report) -> None:
    """Warn where a folder of images is given and none is that of a slide."""
    from ..reporting.displays.prototypes import image_of

    if options.images is None or not len(bags):
        return
    if not any(image_of(str(bag.bag_id), options.images) is not None for bag in bags):
        warn(
            f"No file in {options.images} is the image of a slide: files must be called as the "
            f"slides, such as {bags[0].bag_id}.svs. Maps are drawn without images."
        )


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

    warn_without_images(cohort.bags, run.report)
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
