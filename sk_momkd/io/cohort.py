"""A cohort from a slide table, a folder of features and an omics file: ``bags, y, omics``."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..data.bag import Bag
from ..data.patient import patient_bags, patient_labels
from ..data.sequence import BagSequence
from ..exceptions import CohortError, CohortWarning
from ..messages import first_few, repeated
from .cohort_omics import CohortOmics, join_cohort_omics
from .join_report import JoinReport
from .readers import SlideFile
from .slide_files import BAG_SUFFIXES, files_by_slide, match_files, visible_files
from .tables import integers_where_possible, read_table
from .tcga import PRIMARY_TUMOUR, check_barcode_options, read_slide_barcodes

if TYPE_CHECKING:
    from anndata import AnnData

_UNKNOWN = (  # values that are never a negative
    *("?", "na", "n/a", "nan", "missing", "unknown", "equivocal", "indeterminate"),
    *("not available", "not evaluated", "not performed", "not done"),
)


class Cohort(NamedTuple):
    """Result of :func:`load_cohort`, a tuple ``bags, y, omics, report``.

    Attributes
    ----------
    bags : BagSequence
        Slides, or patients with ``unit="patient"``; features are read when they are needed.
    y : ndarray of shape (n_bags,)
        Labels.
    omics : AnnData or None
        The rows of the bags in use, in their order.
    report : JoinReport
        How everything was joined, and what was left out.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from sk_momkd import load_cohort, simulate_cohort
    >>> paths = simulate_cohort(mkdtemp(), n_patients=4, n_patches=20, random_state=0)
    >>> cohort = load_cohort(*paths, label="subtype", positive="aggressive")
    >>> len(cohort.bags), cohort.omics.shape
    (4, (4, 1000))
    """

    bags: BagSequence
    y: NDArray
    omics: AnnData | None
    report: JoinReport


def _id_text(ids: pd.Series, name: str) -> pd.Series:
    text = integers_where_possible(ids).astype(str)
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


def _slide_table(
    table: str | PathLike | pd.DataFrame, columns: Mapping[str, str], *, optional: Collection[str]
) -> pd.DataFrame:
    """The `columns` under the names that are their keys, ids as text with leading zeros."""
    frame = table
    if not isinstance(frame, pd.DataFrame):
        ids = [column for name, column in columns.items() if name != "label"]
        frame = read_table(frame, dtype=dict.fromkeys(ids, str))
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
    if twice := repeated(frame["slide_id"]):
        raise CohortError(
            f"{len(twice)} slide ids occur more than once in the table: {first_few(twice)}."
        )
    return frame


def _feature_files(folder: Path) -> dict[str, Path]:
    """File of each slide in `folder`."""
    if not folder.is_dir():
        raise CohortError(f"{folder} is not a folder with feature files (<slide_id>.h5).")
    return files_by_slide(visible_files(folder, BAG_SUFFIXES))


def _require_distinct(found: list[Any], column: str) -> None:
    """Raise if two values differ only in letter case or in the spaces around them."""
    first: dict[str, Any] = {}
    for value in found:
        other = first.setdefault(str(value).strip().casefold(), value)
        if other is not value:
            raise CohortError(
                f"Column {column!r} holds both {other!r} and {value!r}, which would be two "
                f"classes. Map each value, e.g. positive={{{other!r}: 1, {value!r}: 1, ...}}."
            )


def _binary(found: list[Any], positive: Any, column: str) -> dict[Any, int]:
    """1 for the positive one of two values, 0 for the other, which must not mean "unknown"."""
    hits = [value for value in found if value == positive or str(value) == str(positive)]
    if len(hits) != 1 or len(found) != 2:
        raise CohortError(
            f"Column {column!r} holds {first_few(found, 8)}; with positive={positive!r} it must "
            "hold that value and one other. Map each value instead, None to leave it out: "
            "positive={'Positive': 1, 'Negative': 0, 'Equivocal': None}."
        )
    other = next(value for value in found if value != hits[0])
    if str(other).strip(" []()").casefold() in _UNKNOWN:
        raise CohortError(
            f"Column {column!r} holds {hits[0]!r} and {other!r}, which is no negative. Map each "
            f"value, None to leave it out: positive={{{hits[0]!r}: 1, {other!r}: None, ...}}."
        )
    return {hits[0]: 1, other: 0}


def _map_labels(values: pd.Series, positive: Any, column: str) -> pd.Series:
    """Label of each slide, None where it is to be left out.

    Parameters
    ----------
    values : Series
    positive : scalar, mapping or None
        As in :func:`load_cohort`.
    column : str
        Name of the column, for messages.

    Raises
    ------
    CohortError
        If `positive` does not fit the values, or two values differ only in case or spaces.
    """
    known = integers_where_possible(values.dropna())
    found = list(pd.unique(known))
    if not isinstance(positive, Mapping):
        _require_distinct(found, column)
    if positive is None:
        return known.astype(object).reindex(values.index)
    if not isinstance(positive, Mapping):
        positive = _binary(found, positive, column)
    uncovered = [value for value in found if value not in positive]
    if uncovered:
        raise CohortError(
            f"Column {column!r} holds values that `positive` does not map: {first_few(uncovered)}. "
            "Give each a label, or None to leave its slides out."
        )
    labels = [positive[value] for value in known]  # map() would turn 1, 0, None into floats
    return pd.Series(labels, index=known.index, dtype=object).reindex(values.index)


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
    allow_external: bool = False,
    allow_constant: bool = False,
) -> Cohort:
    """Read a cohort from a slide table, feature files and omics.

    Everything is joined by id. Slides without a label or without a file are left out with a
    `CohortWarning`, and the report names them. Feature files are opened only when features are
    needed; ``report.check_geometry()`` opens them to compare patch size and stride.

    Parameters
    ----------
    table : path of a CSV, TSV or Excel file, or DataFrame
        One row per slide.
    features : path
        Folder with ``<slide_id>.h5``, or another format of :func:`read_bags`. A slide suffix such
        as ``.svs`` in the table is ignored. Without a file of that name, the one whose name differs
        by a UUID is taken, as in ``TCGA-A2-A04P-01Z-00-DX1.<UUID>.h5``, if there is only one.
    omics : path of an .h5ad, CSV or TSV file, AnnData, or DataFrame, optional
        obs_names (index) are patient ids or slide ids. An ``.h5ad`` is opened backed; a CSV or
        TSV may hold patients or genes in its rows, found by the ids.
    label, slide_id, patient_id : str
        Columns of `table`.
    positive : scalar or mapping, optional
        A scalar names the positive value of a column with two values: `y` is then 1 and 0; the
        other value may not mean "unknown". A mapping gives the label of each value, None for
        values to leave out. By default the values themselves are the labels.
    unit : {"slide", "patient"}, default="slide"
        Whether a bag is a slide or a patient. A patient's bag holds all its slides, each with its
        own graph; the slides of a patient must then have the same label.
    site : str, optional
        Column of `table` with the centre that a slide is from, for ``report.by_site()``.
    layer : str, optional
        Layer of the AnnData to use instead of ``X``, e.g. "counts".
    barcodes : {"tcga"}, optional
        Read patient, site and sample type from the slide ids, TCGA barcodes; `patient_id` need
        not be a column then. Omics of samples or aliquots becomes one row per patient, as with
        :func:`omics_by_patient`.
    sample_type : str or None, default="01"
        With `barcodes`, the type of the slides and samples to keep: "01" primary tumour, "06"
        metastasis, "11" normal tissue; None keeps all.
    allow_external, allow_constant : bool, default=False
        Whether content outside the named files is read, and whether features may all be zero, as
        in :func:`read_bags`.

    Returns
    -------
    Cohort
        ``bags, y, omics, report``; `omics` holds the rows of the bags in use, in their order.

    Raises
    ------
    CohortError
        If a column is missing or occurs twice; if ids repeat, are empty or have spaces around
        them; if no slide has a file, or one has several possible files; if `positive` does not
        cover a value of the label column; or if with `barcodes` a slide id is not a barcode.
    OmicsError
        If the omics cannot be read, or has duplicate ids or genes.

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
    frame = _slide_table(table, columns, optional=["patient_id"] if barcodes else [])
    if barcodes is not None:
        frame = read_slide_barcodes(frame, sample_type)
    files = _feature_files(Path(features))
    frame = frame.join(match_files(frame["slide_id"], files))
    frame["label"] = _map_labels(frame["label"], positive, label)
    frame["status"] = _status(frame, label)
    _require_usable(frame, files, Path(features))
    used = frame[frame["status"] == "used"]
    bags = BagSequence(
        Bag(SlideFile(f, "auto", allow_external, allow_constant), bag_id=s, patient_id=p)
        for f, s, p in zip(used["file"], used["slide_id"], used["patient_id"], strict=True)
    )
    joined = join_cohort_omics(
        omics,
        bags,
        layer=layer,
        tcga=barcodes is not None,
        sample_type=sample_type,
        allow_external=allow_external,
    )
    frame["has_omics"] = False
    frame.loc[used.index, "has_omics"] = joined.has_omics
    report = _report(frame, files, joined, bags)
    _warn_if_left_out(report)
    y = used["label"].infer_objects().to_numpy()
    if unit == "patient":
        bags, y = patient_bags(bags), patient_labels(bags, y)
    return Cohort(bags, y, joined.adata, report)
