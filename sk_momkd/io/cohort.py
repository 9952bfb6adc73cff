"""From a slide table, a folder of features and an omics file to ``bags, y, omics``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from ..data.bag import Bag
from ..data.omics import OmicsTable, as_omics, check_names
from ..data.patient import patient_bags, patient_labels
from ..data.sequence import BagSequence
from ..exceptions import CohortError, CohortWarning, OmicsError
from ..messages import first_few
from .damage import DAMAGE
from .join_report import JoinReport
from .readers import SlideFile, find_files, match_files
from .tables import is_table, patients_by_genes, read_table, whole_numbers
from .tcga import (
    PRIMARY_TUMOUR,
    check_barcode_options,
    choose_aliquots,
    patient_of,
    read_slide_barcodes,
)


class CohortOmics(NamedTuple):
    """Omics of the bags in use, and what became of the other rows.

    Attributes
    ----------
    adata : AnnData or None
        Rows of the bags in use, in their order.
    has_omics : ndarray of bool, shape (n_bags,)
    unmatched : list of str
        Rows that belong to no bag.
    left_out : DataFrame
        ``id`` and ``status`` of the rows that were left out before the join.
    """

    adata: AnnData | None
    has_omics: NDArray
    unmatched: list[str]
    left_out: pd.DataFrame


def join_cohort_omics(
    omics: str | PathLike | AnnData | pd.DataFrame | None,
    bags: BagSequence,
    *,
    layer: str | None = None,
    tcga: bool = False,
    sample_type: str | None = None,
) -> CohortOmics:
    """Join `omics` to `bags` by id; with `tcga` by the patient in the barcode of the row.

    Raises
    ------
    CohortError
        If no row belongs to any bag.
    OmicsError
        If the omics is unusable, lacks the layer, or with `tcga` has other ids or no sample of
        the type.
    """
    if omics is None:
        nothing = pd.DataFrame(columns=["id", "status"], dtype=object)
        return CohortOmics(None, np.zeros(len(bags), dtype=bool), [], nothing)
    with _opened(omics, bags, patient_of if tcga else str) as adata:
        if layer is not None and layer not in adata.layers:
            raise OmicsError(f"omics has no layer {layer!r}; it has {sorted(adata.layers)}.")
        if layer is None:
            as_omics(adata)  # refuses one without X in our words
        ids, genes = check_names(adata.obs_names, adata.var_names)
        rows = _rows(ids, sample_type) if tcga else _all_rows(ids)
        used = rows[rows["status"] == "used"]
        matched = OmicsTable(None, used["joins"].to_numpy(), genes).match(bags)
        kept = used.iloc[pd.unique(matched[matched >= 0])]
        if not len(kept):
            raise CohortError(
                f"No omics row belongs to any slide: omics has {first_few(used['id'])}, the table "
                f"has patients {first_few(pd.unique(bags.patient_ids))} and slides "
                f"{first_few(bags.ids)}."
            )
        block = _block(adata, kept.index.to_numpy(), layer)
    if tcga:
        block.obs["barcode"] = kept["id"].to_numpy(dtype=object)
        block.obs_names = kept["joins"].to_numpy(dtype=object)
    unmatched = [str(i) for i in used["id"].drop(kept.index)]
    left_out = rows.loc[rows["status"] != "used", ["id", "status"]].reset_index(drop=True)
    return CohortOmics(block, matched >= 0, unmatched, left_out)


def _rows(ids: NDArray, sample_type: str | None) -> pd.DataFrame:
    return choose_aliquots(ids, sample_type).rename(columns={"barcode": "id", "patient": "joins"})


def _all_rows(ids: NDArray) -> pd.DataFrame:
    return pd.DataFrame({"id": ids, "joins": ids, "status": "used"})


def _block(adata: AnnData, rows: NDArray, layer: str | None) -> AnnData:
    """The rows, in memory."""
    order = np.argsort(rows)  # a backed file wants sorted rows; the second step restores the order
    block = adata[rows[order]]
    try:
        block = block.to_memory() if adata.isbacked else block.copy()
    except DAMAGE as error:
        raise OmicsError(f"omics cannot be read from {adata.filename}: {error}") from error
    if layer is not None:
        block.X = block.layers[layer]
    return block[np.argsort(order)].copy()


@contextmanager
def _opened(
    omics: str | PathLike | AnnData | pd.DataFrame, bags: BagSequence, name_of: Callable[[str], str]
) -> Iterator[AnnData]:
    """`omics` itself if it is an AnnData, else one made of it or backed by its file."""
    adata = _as_anndata(omics, bags, name_of)
    try:
        yield adata
    finally:
        if adata is not omics and adata.isbacked:
            adata.file.close()


def _as_anndata(omics: Any, bags: BagSequence, name_of: Callable[[str], str]) -> AnnData:
    if isinstance(omics, AnnData):
        return omics
    if not isinstance(omics, pd.DataFrame) and not is_table(omics):
        return _open_h5ad(omics)
    frame = omics
    if not isinstance(omics, pd.DataFrame):
        frame = patients_by_genes(omics, bags, name_of=name_of)
    as_omics(frame)  # refuses text and duplicates in our words
    return AnnData(frame.astype(np.float32))


def _open_h5ad(path: str | PathLike) -> AnnData:
    try:
        adata = anndata.read_h5ad(path, backed="r")
        if "X" in adata.file:
            return adata
        adata.file.close()  # layers alone cannot be sliced on disk
        return anndata.read_h5ad(path)
    except FileNotFoundError:
        raise
    except DAMAGE as error:
        raise OmicsError(f"{path} is not a readable .h5ad file: {error}") from error


_UNKNOWN = (  # no value of these is ever a negative
    *("?", "na", "n/a", "nan", "missing", "unknown", "equivocal", "indeterminate"),
    *("not available", "not evaluated", "not performed", "not done"),
)


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
    barcodes: str | None = None,
    sample_type: str | None = PRIMARY_TUMOUR,
) -> Cohort:
    """Read a cohort from a slide table, feature files and omics.

    Everything is joined by id. Slides without a label or without a file are left out with a
    `CohortWarning`; the report names them. Feature files are only opened when they are needed;
    ``report.check_geometry()`` opens them to hold patch size against stride.

    Parameters
    ----------
    table : path of a CSV, TSV or Excel file, or DataFrame
        One row per slide.
    features : path
        Folder with ``<slide_id>.h5``, or another format of :func:`read_bags`. A slide suffix such
        as ``.svs`` in the table is ignored. A slide without such a file takes the one whose name
        differs by a UUID, as in ``TCGA-A2-A04P-01Z-00-DX1.<UUID>.h5``, if there is only one.
    omics : path of an .h5ad, CSV or TSV file, AnnData, or DataFrame, optional
        obs_names (index) are patient ids or slide ids. An ``.h5ad`` is opened backed; a CSV or
        TSV may hold patients or genes in its rows, found by the ids.
    label, slide_id, patient_id : str
        Columns of `table`.
    positive : scalar or mapping, optional
        A scalar names the positive value of a column with two values: `y` is then 1 and 0; the
        other may not be a word for "unknown". A mapping gives the label of each value, None for
        values to leave out. Without it the values themselves are the labels.

    unit : {"slide", "patient"}, default="slide"
        What a bag is. A patient's bag holds all slides, each with its own graph; the slides of
        a patient must then have one label.

    site : str, optional
        Column of `table` with the centre a slide is from, for ``report.by_site()``.
    layer : str, optional
        Layer of the AnnData to use instead of ``X``, e.g. "counts".
    barcodes : {"tcga"}, optional
        Read patient, site and sample type from the slide ids, TCGA barcodes; `patient_id` need
        not be a column then. Omics of samples or aliquots becomes one row per patient, as
        :func:`omics_by_patient` says.
    sample_type : str or None, default="01"
        With `barcodes`, the type of the slides and samples to keep: "01" primary tumour, "06"
        metastasis, "11" normal tissue; None keeps all.

    Returns
    -------
    Cohort
        ``bags, y, omics, report``; `omics` holds the rows of the bags in use, in their order.

    Raises
    ------
    CohortError
        If a column is missing or stands twice, ids repeat, are empty or have spaces around them,
        no slide has a file or one may have several, a value of the label column is not covered by
        `positive`, or with `barcodes` a slide id is none.

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
    check_barcode_options(barcodes, sample_type)
    names = {"slide_id": slide_id, "patient_id": patient_id, "label": label, "site": site}
    columns = {name: column for name, column in names.items() if column is not None}
    frame = _read_table(table, columns, optional=["patient_id"] if barcodes else [])
    if barcodes is not None:
        frame = read_slide_barcodes(frame, sample_type)
    files = find_files(Path(features))
    frame = frame.join(match_files(frame["slide_id"], files))
    frame["label"] = _map_labels(frame["label"], positive, label)
    frame["status"] = _status(frame, label)
    _require_usable(frame, files, Path(features))
    used = frame[frame["status"] == "used"]
    bags = BagSequence(
        Bag(SlideFile(f), bag_id=s, patient_id=p)
        for f, s, p in zip(used["file"], used["slide_id"], used["patient_id"], strict=True)
    )
    joined = join_cohort_omics(
        omics, bags, layer=layer, tcga=barcodes is not None, sample_type=sample_type
    )
    frame["has_omics"] = False
    frame.loc[used.index, "has_omics"] = joined.has_omics
    report = _report(frame, files, joined, bags)
    _warn_if_left_out(report)
    y = used["label"].infer_objects().to_numpy()
    if unit == "patient":
        bags, y = patient_bags(bags), patient_labels(bags, y)
    return Cohort(bags, y, joined.adata, report)


def _read_table(
    table: str | PathLike | pd.DataFrame, columns: Mapping[str, str], *, optional: Collection[str]
) -> pd.DataFrame:
    """The columns under our names, ids as text: as numbers they would lose leading zeros."""
    ids = [column for name, column in columns.items() if name != "label"]
    frame = table if isinstance(table, pd.DataFrame) else read_table(table, text=ids)
    missing = [c for name, c in columns.items() if c not in frame and name not in optional]
    if missing:
        raise CohortError(
            f"The table has no column {first_few(missing)}; it has {first_few(frame.columns, 12)}. "
            "Name yours with slide_id=, patient_id= and label=."
        )
    doubled = [c for c in columns.values() if c in frame and frame[c].ndim > 1]
    if doubled:
        raise CohortError(f"The table has several columns of the name {first_few(doubled)}.")
    present = {name: frame[column] for name, column in columns.items() if column in frame}
    frame = pd.DataFrame(present).reset_index(drop=True)
    for name in [name for name in ("slide_id", "patient_id") if name not in optional]:
        frame[name] = _id_text(frame[name], name)
    twice = frame["slide_id"][frame["slide_id"].duplicated()].unique()
    if len(twice):
        raise CohortError(
            f"{len(twice)} slide ids occur more than once in the table: {first_few(twice)}."
        )
    return frame


def _id_text(ids: pd.Series, name: str) -> pd.Series:
    text = whole_numbers(ids).astype(str)
    empty = np.flatnonzero(ids.isna() | (text.str.strip() == ""))
    if len(empty):
        raise CohortError(f"{len(empty)} rows have no {name}, the first is row {empty[0]}.")
    spaced = pd.unique(text[text != text.str.strip()])
    if len(spaced):
        raise CohortError(
            f"{len(spaced)} values of {name} have spaces around them: {first_few(spaced)}. They "
            "would count as other ids than without; remove the spaces in the table."
        )
    return text


def _map_labels(values: pd.Series, positive: Any, label: str) -> pd.Series:
    known = whole_numbers(values.dropna())
    found = list(pd.unique(known))
    if not isinstance(positive, Mapping):
        _refuse_spellings(found, label)
    if positive is None:
        return known.astype(object).reindex(values.index)
    if not isinstance(positive, Mapping):
        hits = [value for value in found if value == positive or str(value) == str(positive)]
        if len(hits) != 1 or len(found) != 2:
            raise CohortError(
                f"Column {label!r} holds {first_few(found, 8)}; with positive={positive!r} it must "
                "hold that value and one other. Map each value instead, None to leave it out: "
                "positive={'Positive': 1, 'Negative': 0, 'Equivocal': None}."
            )
        other = next(value for value in found if value != hits[0])
        _refuse_no_negative(other, hits[0], label)
        positive = {value: int(value == hits[0]) for value in found}
    uncovered = [value for value in found if value not in positive]
    if uncovered:
        raise CohortError(
            f"Column {label!r} holds values that `positive` does not map: {first_few(uncovered)}. "
            "Give each a label, or None to leave its slides out."
        )
    labels = [positive[value] for value in known]  # map() would turn 1, 0, None into floats
    return pd.Series(labels, index=known.index, dtype=object).reindex(values.index)


def _refuse_spellings(found: list[Any], label: str) -> None:
    """Raise if two values are one word in other letter case or with other spaces around it."""
    spellings: dict[str, Any] = {}
    for value in found:
        other = spellings.setdefault(str(value).strip().casefold(), value)
        if other is not value:
            raise CohortError(
                f"Column {label!r} holds both {other!r} and {value!r}, which would be two classes. "
                f"Map each value, e.g. positive={{{other!r}: 1, {value!r}: 1, ...}}."
            )


def _refuse_no_negative(other: Any, positive: Any, label: str) -> None:
    """Raise if the value beside the positive one says "unknown"."""
    if str(other).strip(" []()").casefold() in _UNKNOWN:
        raise CohortError(
            f"Column {label!r} holds {positive!r} and {other!r}, which is no negative. Map each "
            f"value, None to leave it out: positive={{{positive!r}: 1, {other!r}: None, ...}}."
        )


def _status(frame: pd.DataFrame, label: str) -> NDArray:
    """For each slide "used" or why it is left out."""
    of_type = frame.get("type_status", pd.Series("used", frame.index))
    return np.select(
        [of_type != "used", frame["file"].isna(), frame["label"].isna()],
        [of_type, "no feature file", f"no label in {label!r}"],
        "used",
    )


def _require_usable(frame: pd.DataFrame, files: Collection[str], folder: Path) -> None:
    if not (frame["status"] == "used").any():
        raise CohortError(
            f"No slide of the table is usable: {frame['status'].value_counts().to_dict()}. The "
            f"table has slides {first_few(frame['slide_id'])}, {folder} has files "
            f"{first_few(files) or 'none'}."
        )


def _report(
    frame: pd.DataFrame, files: Collection[str], omics: CohortOmics, bags: BagSequence
) -> JoinReport:
    extra = sorted(set(files) - set(frame["stem"]))
    rest = pd.DataFrame({"slide_id": extra, "status": "not in the table", "has_omics": False})
    frame = frame.drop(columns=["file", "stem", "type_status"], errors="ignore")
    slides = pd.concat([frame, rest]) if extra else frame
    return JoinReport(slides.reset_index(drop=True), omics.unmatched, omics.left_out, bags)


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
