"""The cohort of a run, its model files, and slides without a table."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..exceptions import CohortError
from ..messages import first_few
from .keys import Cohort as CohortKeys, Run
from .problems import UsageProblem
from .session import Session

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NOT_OF_LOAD = ("table", "features", "omics", "slide_table", "cache")


class Loaded(NamedTuple):
    """A cohort that is ready for a study."""

    bags: Any
    y: Any
    omics: Any
    report: Any
    sites: NDArray | None


def load_run(
    run: Run, say: Session | None, *, labelled: bool = True, with_omics: bool = True
) -> Loaded:
    """Read the cohort of a run, and say how it was joined if there is a session.

    Raises
    ------
    UsageProblem
        If the table, the features or the label are not named.
    """
    from ..io.cache import cache_bags
    from ..io.cohort import load_cohort

    keys = run.cohort
    _require(keys, labelled=labelled)
    options = {k: v for k, v in asdict(keys).items() if k not in _NOT_OF_LOAD}
    if not labelled:
        options |= {"label": None, "positive": None, "negative": None}
    table = _table(keys)
    omics = keys.omics if with_omics else None
    cohort = load_cohort(table, keys.features, omics, **options)  # type: ignore[arg-type]
    bags = cohort.bags if keys.cache is None else cache_bags(cohort.bags, keys.cache)
    if say is not None:
        say.note(str(cohort.report))
    sites = _sites(cohort) if run.evaluation.keep_sites else None
    return Loaded(bags, cohort.y, cohort.omics, cohort.report, sites)


def _require(keys: CohortKeys, *, labelled: bool) -> None:
    needed = ("table", "features", "label") if labelled else ("table", "features")
    lacking = [name for name in needed if getattr(keys, name) is None]
    if lacking:
        options = ", ".join(f"--{name}" for name in lacking)
        raise UsageProblem(
            f"The cohort has no {' and no '.join(lacking)}. Give {options}, or a run file: "
            "sk-momkd init <your files> writes one."
        )


def _table(keys: CohortKeys) -> Any:
    from ..io.tables import stamp_table

    if keys.slide_table is None or keys.table is None:
        return keys.table
    return stamp_table(keys.table, keys.slide_table)


def _sites(cohort: Any) -> NDArray:
    """Site of each bag."""
    import numpy as np

    slides = cohort.report.slides
    if "site" not in slides:
        raise UsageProblem("keep_sites needs the column of the sites: give --site.")
    used = slides[slides["status"] == "used"].drop_duplicates("patient_id")
    known = used.set_index("patient_id")["site"]
    sites = np.array([known.get(bag.patient_id) for bag in cohort.bags], dtype=object)
    lacking = [bag.name for bag, site in zip(cohort.bags, sites, strict=True) if site is None]
    if lacking:
        raise CohortError(
            f"{len(lacking)} slides have no site: {first_few(lacking)}. Fill the column, or leave "
            "out keep_sites."
        )
    return sites


def load_models(paths: list[Path], device: str) -> list[Any]:
    """Models of files; a folder that is no model gives those in it."""
    from ..persistence.model_files import load_model

    files: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("*.zip")) if path.is_dir() else []
        files += [path] if not inside or (path / "sk_momkd.json").exists() else inside
    return [load_model(file, device=None if device == "auto" else device) for file in files]


def read_slides(paths: list[Path], keys: CohortKeys) -> Any:
    """Slides of files, or of one folder, without a table."""
    from ..io.readers import read_bags

    options = {k: getattr(keys, k) for k in ("allow_external", "allow_constant", "allow_mixed")}
    one_folder = len(paths) == 1
    return read_bags(paths[0] if one_folder else paths, **options)
