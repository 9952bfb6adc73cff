"""The cohort of a run, its model files, and slides without a table."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..exceptions import CohortError
from ..messages import first_few
from .keys import Cohort as CohortKeys, Run, names_of
from .problems import UsageProblem
from .session import Session

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NOT_OF_LOAD = ("table", "features", "omics", "slide_table", "cache")
_OF_LABELS = ("label", "positive", "negative")
_OF_OMICS = ("omics", "layer", "id_column")
_OF_FILES = ("allow_external", "allow_constant", "allow_mixed")


class Loaded(NamedTuple):
    """A cohort that is ready for a study."""

    bags: Any
    y: Any
    omics: Any
    report: Any
    sites: NDArray | None


def load_run(
    run: Run, output: Session | None, *, labelled: bool = True, with_omics: bool = True
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
    unused = [] if labelled else [*_OF_LABELS]
    unused += [] if with_omics else [*_OF_OMICS]
    names = [name for name in names_of("cohort") if name not in (*_NOT_OF_LOAD, *unused)]
    options = {"label": None} | {name: getattr(keys, name) for name in names}
    table = _table(keys)
    omics = keys.omics if with_omics else None
    cohort = load_cohort(table, keys.features, omics, **options)  # type: ignore[arg-type]
    bags = cohort.bags if keys.cache is None else cache_bags(cohort.bags, keys.cache)
    if output is not None:
        output.note(str(cohort.report))
        cohort.report.require_readable()
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


def model_files(paths: list[Path]) -> list[Path]:
    """Files of models; a folder that is no model gives those in it."""
    files: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("*.zip")) if path.is_dir() else []
        files += [path] if not inside or (path / "sk_momkd.json").exists() else inside
    return files


def load_models(files: list[Path], device: str) -> list[Any]:
    """Models of files, on their own device where it is "auto"."""
    from ..persistence.model_files import load_model

    return [load_model(file, device=None if device == "auto" else device) for file in files]


def model_record(files: list[Path]) -> dict[str, Any]:
    """Files of models and their hashes, for a run file; a folder has that of its list of parts."""
    named = [str(file.absolute()) for file in files]
    sums = [_sha256(file / "sk_momkd.json" if file.is_dir() else file) for file in files]
    one = len(files) == 1
    return {"file": named[0] if one else named, "sha256": sums[0] if one else sums}


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_slides(paths: list[Path], keys: CohortKeys) -> Any:
    """Slides of files, or of one folder, without a table."""
    from ..io.readers import read_bags

    named, options = named_files(paths, keys)
    return read_bags(named, **options)


def named_files(paths: list[Path], keys: CohortKeys) -> tuple[Any, dict[str, Any]]:
    """A file or folder, or several, that are named without a table, and how they are read.

    Raises
    ------
    UsageProblem
        If there are keys of a cohort that need a table.
    """
    _refuse_keys_of_tables(keys)
    options = {name: getattr(keys, name) for name in _OF_FILES}
    return paths[0] if len(paths) == 1 else paths, options


def _refuse_keys_of_tables(keys: CohortKeys) -> None:
    """Refuse keys of a cohort beside slides that are named without a table.

    Raises
    ------
    UsageProblem
    """
    default = CohortKeys()
    for name in names_of("cohort"):
        value = getattr(keys, name)
        if name not in _OF_FILES and value != getattr(default, name):
            raise UsageProblem(
                f"Slides are given as files, for which {name} ({value}) has no effect. Give "
                "--table and --features, or slides without a table and its columns."
            )
