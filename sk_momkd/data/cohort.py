"""From a slide table, a folder of features and an omics file to ``bags, y, omics``."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from ..exceptions import CohortError, CohortWarning, OmicsError
from .bag import Bag
from .join_report import JoinReport
from .omics import OmicsTable, as_omics
from .patient_bags import patient_bags, patient_labels
from .readers import SlideFile, bag_files, slide_stem
from .sequence import BagSequence, first_few
from .tables import is_table, patients_by_genes, read_table


class Cohort(NamedTuple):
    """``bags, y, omics, report = load_cohort(...)``."""

    bags: BagSequence
    y: NDArray
    omics: AnnData | None
    report: JoinReport


def load_cohort(
    table: str | PathLike | pd.DataFrame,
    features: str | PathLike,
    omics: str | PathLike | AnnData | pd.DataFrame | None = None,
    *,
    label: str,
    slide_id: str = "slide_id",
    patient_id: str = "case_id",
    positive: Any = None,
    unit: str = "slide",
    site: str | None = None,
    layer: str | None = None,
) -> Cohort:
    """Read a cohort from a slide table, TRIDENT-style feature files and an ``.h5ad``.

    Everything is joined by id. Slides without a label or without a file are left out with a
    `CohortWarning`; the report names them. Feature files are only opened when they are needed.

    Parameters
    ----------
    table : path of a CSV, TSV or Excel file, or DataFrame
        One row per slide.
    features : path
        Folder with ``<slide_id>.h5``. A slide suffix such as ``.svs`` in the table is ignored.
    omics : path of an .h5ad, CSV or TSV file, AnnData, or DataFrame, optional
        obs_names (index) are patient ids or slide ids. An ``.h5ad`` is opened backed; a CSV or
        TSV may hold patients or genes in its rows, found by the ids.
    label, slide_id, patient_id : str
        Columns of `table`.
    positive : scalar or mapping, optional
        A scalar names the positive value of a column with two values: `y` is then 1 and 0. A
        mapping gives the label of each value, None for values to leave out. Without it the
        values themselves are the labels.

    unit : {"slide", "patient"}, default="slide"
        What a bag is. A patient's bag holds all slides, each with its own graph; the slides of
        a patient must then have one label.

    site : str, optional
        Column of `table` with the centre a slide is from, for ``report.by_site()``.
    layer : str, optional
        Layer of the AnnData to use instead of ``X``, e.g. "counts".

    Returns
    -------
    Cohort
        ``bags, y, omics, report``; `omics` holds the rows of the bags in use, in their order.

    Raises
    ------
    CohortError
        If a column is missing, ids repeat or are empty, no slide has a file, or a value of the
        label column is not covered by `positive`.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from sk_momkd import load_cohort, simulate_cohort
    >>> paths = simulate_cohort(mkdtemp(), n_patients=4, n_patches=20, random_state=0)
    >>> bags, y, omics, report = load_cohort(*paths, label="subtype", positive="aggressive")
    >>> print(report)  # doctest: +ELLIPSIS
    4 of 4 slides in use, 4 patients, labels {...}
    4 slides with omics, 0 histology only, 0 omics rows without a slide in use
    """
    if unit not in ("slide", "patient"):
        raise CohortError(f"unit must be 'slide' or 'patient', got {unit!r}.")
    frame = _read_table(table, slide_id, patient_id, label, site)
    files = _find_files(Path(features))
    frame["label"] = _map_labels(frame["label"], positive, label)
    frame["file"] = [files.get(slide_stem(s)) for s in frame["slide_id"]]
    frame["status"] = np.select(
        [frame["file"].isna(), frame["label"].isna()],
        ["no feature file", f"no label in {label!r}"],
        "used",
    )
    _require_files(frame, files, Path(features))
    used = frame[frame["status"] == "used"]
    bags = BagSequence(
        Bag(SlideFile(f), bag_id=s, patient_id=p)
        for f, s, p in zip(used["file"], used["slide_id"], used["patient_id"], strict=True)
    )
    joined, unmatched, rows = _join(omics, bags, layer)
    frame["has_omics"] = False
    frame.loc[used.index, "has_omics"] = rows >= 0
    report = _report(frame, files, unmatched)
    _warn_if_left_out(report)
    y = used["label"].infer_objects().to_numpy()
    if unit == "patient":
        bags, y = patient_bags(bags), patient_labels(bags, y)
    return Cohort(bags, y, joined, report)


def _read_table(
    table: str | PathLike | pd.DataFrame,
    slide_id: str,
    patient_id: str,
    label: str,
    site: str | None,
) -> pd.DataFrame:
    # Ids stay text: as numbers they would lose their leading zeros.
    ids = (slide_id, patient_id) if site is None else (slide_id, patient_id, site)
    frame = table if isinstance(table, pd.DataFrame) else read_table(table, text=ids)
    missing = [c for c in (*ids, label) if c not in frame]
    if missing:
        raise CohortError(
            f"The table has no column {first_few(missing)}; it has {first_few(frame.columns, 12)}. "
            "Name yours with slide_id=, patient_id= and label=."
        )
    columns = {"slide_id": slide_id, "patient_id": patient_id, "label": label}
    columns |= {} if site is None else {"site": site}
    frame = pd.DataFrame({name: frame[c] for name, c in columns.items()}).reset_index(drop=True)
    for column in ("slide_id", "patient_id"):
        empty = np.flatnonzero(frame[column].isna())
        if len(empty):
            raise CohortError(f"{len(empty)} rows have no {column}, the first is row {empty[0]}.")
        frame[column] = frame[column].astype(str)
    twice = frame["slide_id"][frame["slide_id"].duplicated()].unique()
    if len(twice):
        raise CohortError(
            f"{len(twice)} slide ids occur more than once in the table: {first_few(twice)}."
        )
    return frame


def _map_labels(values: pd.Series, positive: Any, label: str) -> pd.Series:
    known = values.dropna()
    if pd.api.types.is_float_dtype(known) and (known % 1 == 0).all():
        known = known.astype(int)  # whole numbers, read as floats because some are missing
    if positive is None:
        return known.astype(object).reindex(values.index)
    found = list(pd.unique(known))
    if not isinstance(positive, Mapping):
        hits = [value for value in found if value == positive or str(value) == str(positive)]
        if len(hits) != 1 or len(found) != 2:
            raise CohortError(
                f"Column {label!r} holds {first_few(found, 8)}; with positive={positive!r} it must "
                "hold that value and one other. Map each value instead, None to leave it out: "
                "positive={'Positive': 1, 'Negative': 0, 'Equivocal': None}."
            )
        positive = {value: int(value == hits[0]) for value in found}
    uncovered = [value for value in found if value not in positive]
    if uncovered:
        raise CohortError(
            f"Column {label!r} holds values that `positive` does not map: {first_few(uncovered)}. "
            "Give each a label, or None to leave its slides out."
        )
    labels = [positive[value] for value in known]  # map() would turn 1, 0, None into floats
    return pd.Series(labels, index=known.index, dtype=object).reindex(values.index)


def _find_files(folder: Path) -> dict[str, str]:
    if not folder.is_dir():
        raise CohortError(f"{folder} is not a folder with feature files (<slide_id>.h5).")
    files: dict[str, str] = {}
    for path in bag_files(folder):
        if slide_stem(path.name) in files:
            raise CohortError(
                f"{folder} has two files for slide {slide_stem(path.name)!r}: "
                f"{Path(files[slide_stem(path.name)]).name!r} and {path.name!r}. Keep one."
            )
        files[slide_stem(path.name)] = str(path)
    return files


def _require_files(frame: pd.DataFrame, files: dict[str, str], folder: Path) -> None:
    shared = frame["slide_id"].map(slide_stem)
    twice = frame["slide_id"][shared.duplicated(keep=False) & frame["file"].notna()]
    if len(twice):
        raise CohortError(f"Several slide ids mean the same file: {first_few(twice)}.")
    if not (frame["status"] == "used").any():
        raise CohortError(
            f"No slide of the table is usable: {frame['status'].value_counts().to_dict()}. The "
            f"table has slides {first_few(frame['slide_id'])}, {folder} has files "
            f"{first_few(files) or 'none'}."
        )


def _join(
    omics: str | PathLike | AnnData | pd.DataFrame | None, bags: BagSequence, layer: str | None
) -> tuple[AnnData | None, list[str], NDArray]:
    if omics is None:
        return None, [], np.full(len(bags), -1)
    adata = _as_anndata(omics, bags)
    if layer is not None and layer not in adata.layers:
        _close(adata, omics)
        raise OmicsError(f"omics has no layer {layer!r}; it has {sorted(adata.layers)}.")
    table: OmicsTable = as_omics(adata)
    rows = table.match(bags)
    kept = pd.unique(rows[rows >= 0])
    unmatched = [str(i) for i in np.delete(table.ids, kept)]
    if not len(kept):
        _close(adata, omics)
        raise CohortError(
            f"No omics row belongs to any slide: omics has {first_few(table.ids)}, the table has "
            f"patients {first_few(pd.unique(bags.patient_ids))} and slides {first_few(bags.ids)}."
        )
    order = np.argsort(kept)  # a backed file wants sorted rows; the second step restores the order
    block = adata[kept[order]]
    block = block.to_memory() if adata.isbacked else block.copy()
    _close(adata, omics)
    if layer is not None:
        block.X = block.layers[layer]
    return block[np.argsort(order)].copy(), unmatched, rows


def _as_anndata(omics: str | PathLike | AnnData | pd.DataFrame, bags: BagSequence) -> AnnData:
    """`omics` itself if it is an AnnData, else one made of it or backed by its file."""
    if isinstance(omics, AnnData):
        return omics
    if not isinstance(omics, pd.DataFrame) and not is_table(omics):
        return _open_h5ad(omics)
    frame = omics if isinstance(omics, pd.DataFrame) else patients_by_genes(omics, bags)
    as_omics(frame)  # refuses text and duplicates in our words
    return AnnData(frame.astype(np.float32))


def _close(adata: AnnData, given: Any) -> None:
    """Close the file behind `adata` if it was opened here."""
    if adata is not given and adata.isbacked:
        adata.file.close()


def _open_h5ad(path: str | PathLike) -> AnnData:
    try:
        return anndata.read_h5ad(path, backed="r")
    except FileNotFoundError:
        raise
    except (OSError, KeyError, ValueError) as error:
        raise OmicsError(f"{path} is not a readable .h5ad file: {error}") from error


def _report(frame: pd.DataFrame, files: dict[str, str], unmatched: list[str]) -> JoinReport:
    extra = sorted(set(files) - set(frame["slide_id"].map(slide_stem)))
    rest = pd.DataFrame({"slide_id": extra, "status": "not in the table", "has_omics": False})
    slides = pd.concat([frame.drop(columns="file"), rest]) if extra else frame.drop(columns="file")
    return JoinReport(slides.reset_index(drop=True), unmatched)


def _warn_if_left_out(report: JoinReport) -> None:
    missing = report.left_out[report.left_out["status"] != "not in the table"]
    if len(missing):
        reasons = ", ".join(f"{n} {why}" for why, n in missing["status"].value_counts().items())
        warnings.warn(
            f"{len(missing)} slides of the table were left out: {reasons}; the first is "
            f"{missing['slide_id'].iloc[0]!r}. The join report names them all.",
            CohortWarning,
            stacklevel=3,
        )
