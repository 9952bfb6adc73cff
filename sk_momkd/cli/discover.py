"""What is in files that somebody points at: which is the table, what its columns are, and so on."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ..data.ids import normalise_id
from ..exceptions import CohortError, OmicsError
from ..io.expression_files import is_expression_table
from ..io.slide_files import BAG_SUFFIXES, bag_files, files_by_slide, match_files
from ..io.tables import is_missing, is_table, read_table, stamp_table
from .problems import UsageProblem

_PATIENT = (
    "case_id",
    "patient_id",
    "patient",
    "case",
    "submitter_id",
    "subject_id",
    "case_barcode",
)
_SITE = ("site", "center", "centre", "hospital", "tss", "institution", "scanner_site", "cohort")
_LABEL = ("label", "target", "class", "status", "subtype", "diagnosis")
_POSITIVE = ("1", "true", "yes", "y", "positive", "pos", "+", "mut", "mutant", "mutated", "high")
_IS_WRITTEN = {"bag_id", "patient_id"}  # columns of tables of the package
_MOST_CLASSES = 6
_BARCODE = r"TCGA-\w{2}-\w{4}-\d{2}"


@dataclass
class Found:
    """What a run file needs, with why it was taken."""

    table: Path
    features: Path
    omics: Path | None
    slide_id: str
    patient_id: str
    site: str | None
    barcodes: str | None
    n_files: int
    n_slides: int
    n_patients: int
    formats: str
    columns: list[str]
    labels: dict[str, dict[str, int]] = field(default_factory=dict)  # column: {value: slides}
    omics_note: str = ""
    id_column: str | None = None
    slide_table: Path | None = None


def discover(paths: list[Path]) -> Found:
    """Find table, features and omics among files and folders, and what the columns hold.

    Raises
    ------
    UsageProblem
        If there is no folder of features, or no table that names its slides.
    """
    for path in paths:
        if not path.exists():
            raise UsageProblem(f"{path} does not exist.")
    features, files = _feature_folder(paths)
    candidates = list(_files(paths, features))
    table, slide_table = _stamp_tables(candidates) or (None, None)
    if table is None:
        table = _table_of(candidates, files)
    frame, slide_id = _with_slides(table, slide_table, files)
    places = _Places(table, slide_table, features, files)
    return _described(frame, slide_id, places, candidates)


class _Places(NamedTuple):
    table: Path
    slide_table: Path | None
    features: Path
    files: dict[str, Path]


def _feature_folder(paths: list[Path]) -> tuple[Path, dict[str, Path]]:
    """The folder with bags, and the file of each slide; the first of the paths that has one."""
    places: list[Path] = []
    for path in (p for p in paths if p.is_dir()):
        below = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
        places += [path] if _has_bags(path) else [*below, path]
    for place in places:
        try:
            files = files_by_slide(bag_files(place))
        except CohortError as error:
            raise UsageProblem(str(error)) from error
        if files:
            return place, files
    raise UsageProblem(
        f"No folder with feature files ({', '.join(BAG_SUFFIXES)}) is among what was given. Name "
        "it, as in: sk-momkd init slides.csv features/ expression.h5ad"
    )


def _has_bags(folder: Path) -> bool:
    """Whether files of slides are in the folder itself, and not expression or tables alone."""
    suffixes = {path.suffix.lower() for path in folder.iterdir() if path.is_file()}
    return bool(suffixes & {".h5", ".hdf5", ".pt", ".pth"})


def _files(paths: list[Path], features: Path) -> Iterable[Path]:
    """Files that may be tables or expression: those given, and those in folders that are given."""
    for path in paths:
        if path.is_file() or path.suffix.lower() == ".zarr":
            yield path
        elif path != features:
            yield from sorted(p for p in path.iterdir() if not p.name.startswith("."))


def _stamp_tables(files: list[Path]) -> tuple[Path, Path] | None:
    """STAMP's table of patients and its table of slides."""
    columns = {path: set(_columns(path)) for path in files if is_table(path)}
    slides = [path for path, names in columns.items() if {"PATIENT", "FILENAME"} <= names]
    patients = [path for path, names in columns.items() if "PATIENT" in names]
    patients = [path for path in patients if "FILENAME" not in columns[path]]
    return (patients[0], slides[0]) if slides and patients else None


def _columns(path: Path) -> list[str]:
    try:
        return list(read_table(path).columns)
    except (CohortError, OSError):
        return []


def _table_of(candidates: list[Path], files: dict[str, Path]) -> Path:
    """The table that names most slides of the folder."""
    found = {}
    for path in (p for p in candidates if is_table(p)):
        try:
            frame = read_table(path)
        except (CohortError, OSError):
            continue
        named = max((_named(frame.iloc[:, i], files) for i in range(frame.shape[1])), default=0)
        # Of equal ones, none that predict or explain has written, and a row per slide.
        found[path] = named, not set(frame.columns) >= _IS_WRITTEN, -len(frame)
    best = max(found, key=lambda path: found[path], default=None)
    if best is None or not found[best][0]:
        tables = ", ".join(map(str, found)) or "no table"
        shown = ", ".join(list(files)[:3])
        raise UsageProblem(
            f"No table names the slides of the features ({shown}, ...); found {tables}. It needs "
            "a row per slide and a column with these ids."
        )
    return best


def _named(column: pd.Series, files: dict[str, Path]) -> int:
    """How many cells of a column are slides that have a file."""
    cells = column[~is_missing(column)].astype(str)
    if cells.duplicated().any():
        cells = cells.drop_duplicates()
    try:
        return int(match_files(cells, files)["file"].notna().sum())
    except CohortError:
        return 0


def _with_slides(
    table: Path, slide_table: Path | None, files: dict[str, Path]
) -> tuple[pd.DataFrame, str]:
    """The table, and its column of slides."""
    if slide_table is not None:
        return stamp_table(table, slide_table), "slide_id"
    frame = read_table(table)
    named = [_named(frame.iloc[:, i], files) for i in range(frame.shape[1])]
    return frame, str(frame.columns[named.index(max(named))])


class _Columns(NamedTuple):
    """Columns of the table by what they hold."""

    slide_id: str
    patient_id: str | None
    site: str | None
    rest: list[str]


def _roles(frame: pd.DataFrame, slide_id: str) -> _Columns:
    others = [str(name) for name in frame.columns if name != slide_id]
    filled = [name for name in others if not is_missing(frame[name]).all()]
    patient = _called(filled, _PATIENT) or _prefix_of(frame, slide_id, others)
    site = _called(others, _SITE)
    if site is not None and frame[site].nunique() < 2:
        site = None
    rest = [name for name in others if name not in (patient, site)]
    return _Columns(slide_id, patient, site, rest)


def _described(
    frame: pd.DataFrame, slide_id: str, places: _Places, candidates: list[Path]
) -> Found:
    columns, slides = _roles(frame, slide_id), frame[slide_id]
    barcoded = columns.patient_id is None and slides.str.match(_BARCODE).all()
    patients = slides.str[:12] if barcoded else frame[columns.patient_id or slide_id]
    patients = patients.map(normalise_id)
    ids = {*patients, *slides.map(normalise_id)}
    omics, note, id_column = _omics(candidates, {places.table, places.slide_table}, ids)
    return Found(
        table=places.table,
        features=places.features,
        omics=omics,
        slide_id=slide_id,
        patient_id=columns.patient_id or ("case_id" if barcoded else slide_id),
        site=columns.site,
        barcodes="tcga" if barcoded else None,
        n_files=len(places.files),
        n_slides=_named(slides, places.files),
        n_patients=patients.nunique(),
        formats=_formats(places.files),
        columns=[str(name) for name in frame.columns],
        labels=_labels(frame, columns.rest),
        omics_note=note,
        id_column=id_column,
        slide_table=places.slide_table,
    )


def _called(names: list[str], known: tuple[str, ...]) -> str | None:
    by_name = {name.casefold(): name for name in names}
    return next((by_name[name] for name in known if name in by_name), None)


def _prefix_of(frame: pd.DataFrame, slide_id: str, others: list[str]) -> str | None:
    """A column whose text begins the slide id in every row, as that of a patient does."""
    for name in others:
        pairs = zip(frame[slide_id].astype(str), frame[name].astype(str), strict=True)
        if all(own and slide.startswith(own) for slide, own in pairs):
            return name
    return None


def _formats(files: dict[str, Path]) -> str:
    """What the first file is, as `read_bags` recognises it."""
    from ..io.readers import read_bags

    return str(read_bags([next(iter(files.values()))])[0].info)


def _labels(frame: pd.DataFrame, names: list[str]) -> dict[str, dict[str, int]]:
    """Columns with two to six values that more than one slide has, likely ones first."""
    found = {}
    for name in names:
        values = frame[name][~is_missing(frame[name])].value_counts()
        if 2 <= len(values) <= _MOST_CLASSES and values.min() > 1:
            found[str(name)] = {str(value): int(n) for value, n in values.items()}
    return dict(
        sorted(found.items(), key=lambda item: (item[0].casefold() not in _LABEL, len(item[1])))
    )


def positive_of(values: Collection[str]) -> str | None:
    """The positive one of two values by its name, else the one that sorts last."""
    if len(values) != 2:
        return None
    named = [v for v in values if v.strip().casefold() in _POSITIVE or v.strip().endswith("+")]
    return named[0] if len(named) == 1 else max(values)


def _omics(
    candidates: list[Path], taken: set[Path | None], ids: set[str]
) -> tuple[Path | None, str, str | None]:
    """The file of expression, what is in it, and its column of ids if the index holds none."""
    stored = [p for p in candidates if p.suffix.lower() in (".h5ad", ".zarr") and p not in taken]
    for path in stored:
        return path, *_of_anndata(path, ids)
    for path in (p for p in candidates if p not in taken and is_expression_table(p)):
        n = _joined(path, ids)
        if n:
            return path, f"{n} patients or slides of the cohort are in it", None
    return None, "", None


def _of_anndata(path: Path, ids: set[str]) -> tuple[str, str | None]:
    import anndata

    from ..io.hdf5_checks import check_h5ad
    from ..io.read_errors import errors_that_name, h5ad_errors

    if path.suffix.lower() == ".zarr":
        return "an AnnData", None
    check_h5ad(path)
    with errors_that_name(path, ".h5ad file", h5ad_errors()):
        adata = anndata.read_h5ad(path, backed="r")
    try:
        n = len(ids.intersection(map(normalise_id, adata.obs_names)))
        text = f"{adata.n_obs} rows of {adata.n_vars} genes, {n} of them of the cohort"
        layers = f"; layers: {', '.join(adata.layers)}" if len(adata.layers) else ""
        columns = {c: len(ids.intersection(adata.obs[c].astype(str))) for c in adata.obs}
        best = max(columns, key=lambda c: columns[c], default=None)
        use = best is not None and columns[best] > n
        return text + layers, best if use else None
    finally:
        adata.file.close()


def _joined(path: Path, ids: set[str]) -> int:
    """How many ids of the cohort are the rows or the columns of a table of numbers."""
    from ..io.expression_files import expression_frame

    try:
        frame = expression_frame(path)
    except (OmicsError, CohortError, OSError, ValueError):
        return 0
    rows, columns = (
        len(ids.intersection(map(normalise_id, map(str, side))))
        for side in (frame.index, frame.columns)
    )
    return max(rows, columns) if frame.shape[1] > _MOST_CLASSES else 0
