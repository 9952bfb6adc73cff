"""A cohort from a slide table, a folder of features and an omics file: ``bags, y, omics``."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..data.bag import Bag
from ..data.coded_labels import CodedLabel
from ..data.ids import normalise_ids
from ..data.patient import patient_bags, patient_labels, warn_of_samples
from ..data.sequence import BagSequence
from ..exceptions import CohortError, CohortWarning
from ..messages import first_few, repeated, warn
from .cohort_omics import CohortOmics, join_cohort_omics
from .join_report import JoinReport
from .labels import map_labels, parse_text
from .local_files import missing, require_path
from .readers import SlideFile
from .slide_files import BAG_SUFFIXES, bag_files, files_by_slide, match_files, nothing_found
from .tables import as_text, is_column, is_missing, named_columns, read_table, warn_of_long_numbers
from .tcga import PRIMARY_TUMOUR, check_barcode_options, read_slide_barcodes

if TYPE_CHECKING:
    from anndata import AnnData

_ROUNDED = re.compile(r"\d(\.\d+)?E\+\d+", re.IGNORECASE)


class Cohort(NamedTuple):
    """Result of :func:`load_cohort`, a tuple ``bags, y, omics, report``.

    Attributes
    ----------
    bags : BagSequence
        Slides, or patients with ``unit="patient"``; features are read when they are needed.
    y : ndarray of shape (n_bags,), or None
        Labels; None for a cohort that was loaded with ``label=None``.
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
    y: NDArray | None
    omics: AnnData | None
    report: JoinReport

    def _repr_html_(self) -> str:
        """The report, the first bags, and the size of the omics, for notebooks."""
        size = () if self.omics is None else self.omics.shape
        omics = f"omics of {size[0]} rows and {size[1]} genes" if size else "no omics"
        return f"{self.report._repr_html_()}{self.bags._repr_html_()}<p>{omics}</p>"


def _id_text(ids: pd.Series, name: str, column: Any, *, complete: bool = True) -> pd.Series:
    """Ids as text, as the table writes them; None where one is missing and may be."""
    absent = is_missing(ids)
    empty = np.flatnonzero(absent)
    if len(empty) and complete:
        raise CohortError(
            f"{len(empty)} rows have no {name}, the first is row {empty[0]} (below the header, "
            f"counted from 0). Fill the column {column!r} in, or remove these rows."
        )
    if pd.api.types.is_numeric_dtype(ids):
        warn_of_long_numbers(ids.dropna(), f"Column {name}")
    text = as_text(ids)
    rounded = text[~absent & text.map(lambda v: bool(_ROUNDED.fullmatch(str(v).strip())))]
    if len(rounded):
        raise CohortError(
            f"{len(rounded)} values of {name} are rounded numbers, as a spreadsheet writes long "
            f"ones: {first_few(rounded)}. Write the ids as text where the table was made."
        )
    return text.where(~absent, None)


def _slide_table(
    table: str | PathLike | pd.DataFrame, columns: Mapping[str, str], *, optional: Collection[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The `columns` under the names that are their keys, ids in one form; and changed ids."""
    if not isinstance(table, pd.DataFrame):
        require_path(table, "table", "the path of a table, or a DataFrame")
    given = table if isinstance(table, pd.DataFrame) else read_table(table)
    wanted = {name: c for name, c in columns.items() if is_column(c, given) or name not in optional}
    hint = " Name yours with slide_id=, patient_id= and label=."
    frame = named_columns(given, wanted.values(), "table", hint)
    frame = pd.DataFrame({n: frame[c] for n, c in wanted.items()}).reset_index(drop=True)
    if not len(frame):
        raise CohortError("The table has the names of its columns, but no rows below them.")
    if given is not table and "label" in frame:
        frame["label"] = parse_text(frame["label"])
    changed = []
    for name in [name for name in ("slide_id", "patient_id", "site") if name in frame]:
        complete = name != "site" and name not in optional
        text = _id_text(frame[name], name, wanted[name], complete=complete)
        known = text.dropna()
        if twice := repeated(known if name == "slide_id" else ()):
            raise CohortError(
                f"{len(twice)} slide ids occur more than once in the table: {first_few(twice)}."
            )
        ids = pd.Series(normalise_ids(known, f"values of {name}"), index=known.index, dtype=object)
        frame[name] = ids.reindex(frame.index).astype(object).where(text.notna(), None)
        other = (ids != known) & ~known.duplicated()
        changed.append(pd.DataFrame({"column": name, "given": known[other], "id": ids[other]}))
    return frame, pd.concat(changed, ignore_index=True)


def _slides(
    table: str | PathLike | pd.DataFrame,
    names: Mapping[str, str | None],
    barcodes: str | None,
    sample_type: str | None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row per slide, completed from its barcode where `barcodes` says so; and changed ids."""
    columns = {name: column for name, column in names.items() if column is not None}
    frame, changed = _slide_table(table, columns, optional=["patient_id"] if barcodes else [])
    if barcodes is None:
        warn_of_samples(frame["patient_id"])
    else:
        frame = read_slide_barcodes(frame, sample_type)
    _require_one_site(frame)
    return frame, changed


def _bags(slides: pd.DataFrame, allowed: tuple[bool, bool, bool]) -> BagSequence:
    rows = zip(slides["file"], slides["slide_id"], slides["patient_id"], strict=True)
    return BagSequence(
        Bag(SlideFile(file, "auto", *allowed), bag_id=slide, patient_id=patient)
        for file, slide, patient in rows
    )


def _with_labels(bags: BagSequence, used: pd.DataFrame, column: str) -> BagSequence:
    """Bags that know what their coded label was in the table."""
    pairs = zip(bags, used["label"], used["label_in_table"], strict=True)
    return bags.replace(
        bag.with_label(CodedLabel(label, str(text), column)) for bag, label, text in pairs
    )


def _require_one_site(frame: pd.DataFrame) -> None:
    """Raise if a patient has slides at several sites, which may number their patients alike."""
    if "site" not in frame:
        return
    sites = frame.dropna(subset=["site"]).groupby("patient_id")["site"].unique()
    several = sites[sites.map(len) > 1]
    if len(several):
        shown = [f"{patient} ({', '.join(own)})" for patient, own in several.items()]
        raise CohortError(
            f"{len(several)} patients have slides at several sites: {first_few(shown)}. If the "
            "sites number their patients alike, make the ids distinct first: table['case_id'] = "
            "table['site'] + '-' + table['case_id'] (in omics too). If they are the same patients, "
            "give each one site."
        )


def _feature_files(folder: Path) -> dict[str, Path]:
    """File of each slide in `folder`."""
    if not folder.exists():
        raise CohortError(f"{missing(folder)} It should be the folder of the features.")
    if not folder.is_dir():
        raise CohortError(f"{folder} is a file, not a folder with feature files (<slide_id>.h5).")
    files = files_by_slide(bag_files(folder))
    if not files:
        raise CohortError(
            f"{folder} has files none of {', '.join(BAG_SUFFIXES)}, nor has a folder below it."
            f"{nothing_found(folder)}"
        )
    return files


def _status(frame: pd.DataFrame) -> NDArray:
    """For each slide "used" or why it is left out."""
    used = pd.Series("used", frame.index)
    of_type, of_label = frame.get("type_status", used), frame.get("label_status", used)
    return np.select(
        [of_type != "used", frame["file"].isna(), of_label != "used"],
        [of_type, "no feature file", of_label],
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
    frame: pd.DataFrame,
    files: Collection[str],
    omics: CohortOmics,
    bags: BagSequence,
    changed: pd.DataFrame,
) -> JoinReport:
    extra = sorted(set(files) - set(frame["stem"]))
    rest = pd.DataFrame({"slide_id": extra, "status": "not in the table", "has_omics": False})
    frame = frame.drop(columns=["file", "stem", "type_status", "label_status"], errors="ignore")
    slides = pd.concat([frame, rest]) if extra else frame
    ids = pd.concat([changed, omics.changed_ids], ignore_index=True)
    return JoinReport(slides.reset_index(drop=True), omics.unmatched, omics.left_out, ids, bags)


def _warn_if_left_out(report: JoinReport) -> None:
    left_out = report.left_out[report.left_out["status"] != "not in the table"]
    if len(left_out):
        reasons = ", ".join(f"{n} {why}" for why, n in left_out["status"].value_counts().items())
        warn(
            f"{len(left_out)} slides of the table were left out: {reasons}; the first is "
            f"{left_out['slide_id'].iloc[0]!r}. The join report names them all.",
            CohortWarning,
        )


def load_cohort(
    table: str | PathLike | pd.DataFrame,
    features: str | PathLike,
    omics: str | PathLike | AnnData | pd.DataFrame | None = None,
    *,
    label: str | None,
    slide_id: str = "slide_id",
    patient_id: str = "case_id",
    positive: Any = None,
    negative: Any = None,
    unit: str = "slide",
    site: str | None = None,
    layer: str | None = None,
    id_column: str | None = None,
    barcodes: str | None = None,
    sample_type: str | None = PRIMARY_TUMOUR,
    allow_external: bool = False,
    allow_constant: bool = False,
    allow_mixed: bool = False,
) -> Cohort:
    """Read a cohort from a slide table, feature files and omics.

    Everything is joined by id. Ids are compared in one form: Unicode NFC, without outer spaces,
    folders, suffixes of slide files, and the .0 of whole numbers, and with dashes for the dots that
    R puts into TCGA barcodes. The report lists ids that were changed; different ids that become one
    raise. Slides without a label or without a file are left out with a `CohortWarning`, and the
    report names them. Feature files are opened only when features are
    needed; ``report.check_geometry()`` opens them to compare patch size and stride.

    Parameters
    ----------
    table : path of a CSV, TSV or Excel file, or DataFrame
        One row per slide. A file is read as text: "NA" and "None" are words, empty cells are
        missing.
    features : path
        Folder with ``<slide_id>.h5``, or another format of :func:`read_bags`; or a folder above
        the only one with such files, as TRIDENT makes it. Without a file of that name, the one
        whose name differs by a UUID is taken, as in ``TCGA-A2-A04P-01Z-00-DX1.<UUID>.h5``, if there
        is only one.
    omics : path, AnnData, or DataFrame, optional
        A file in ``.h5ad`` or ``.zarr`` (of an AnnData), ``.csv``, ``.tsv``, ``.xlsx``,
        ``.parquet`` or ``.gct``. obs_names (index) are patient ids or slide ids; row numbers are
        refused. An ``.h5ad`` is opened backed; a table may hold patients or genes in its rows,
        found by the ids.
    label : str or None
        Column of `table` with labels; None loads a cohort without labels, for predictions. The
        words "NA", "N/A", "NaN" and "null" count as missing unless `positive` or `negative` names
        them.
    slide_id, patient_id : str
        Columns of `table`.
    positive : scalar, list or mapping, optional
        A scalar or list names the positive values: `y` is then 1 and 0. All others must be one
        value, which may not mean "unknown", or `negative` names the negative ones. A mapping gives
        the label of each value, None for values to leave out. By default the values themselves are
        the labels.
    negative : scalar or list, optional
        The negative values, with a `positive` that is no mapping. Slides with any other value are
        left out.
    unit : {"slide", "patient"}, default="slide"
        Whether a bag is a slide or a patient. A patient's bag holds all its slides, each with its
        own graph; the slides of a patient must then have the same label.
    site : str, optional
        Column of `table` with the centre that a slide is from, for ``report.by_site()``. A patient
        at several sites raises, because sites may number their patients alike.
    layer : str, optional
        Layer of the AnnData to use instead of ``X``, e.g. "counts".
    id_column : str, optional
        Column of `omics` (of ``obs`` of an AnnData) with the ids, if its index holds none.
    barcodes : {"tcga"}, optional
        Read patient, site and sample type from the slide ids, TCGA barcodes; `patient_id` need
        not be a column then. Omics of samples or aliquots becomes one row per patient, as with
        :func:`omics_by_patient`.
    sample_type : str or None, default="01"
        With `barcodes`, the type of the slides and samples to keep: "01" primary tumour, "06"
        metastasis, "11" normal tissue; None keeps all.
    allow_external, allow_constant, allow_mixed : bool, default=False
        Whether content outside the named files is read, whether features may all be zero, and
        whether slides may be used together whose files state different encoders or magnifications,
        as in :func:`read_bags`.

    Returns
    -------
    Cohort
        ``bags, y, omics, report``; `omics` holds the rows of the bags in use, in their order.

    Raises
    ------
    CohortError
        If a column is missing or occurs twice; if ids repeat, are empty or are written in two
        ways; if a patient is at several sites; if no slide has a file, or one has several possible
        files; if `positive` and `negative` do not cover a value of the label column; or if with
        `barcodes` a slide id is not a barcode.
    OmicsError
        If the omics cannot be read, has duplicate ids or genes, or counts its rows instead of
        holding ids.

    Warns
    -----
    CohortWarning
        If slides are left out, rows of omics are no genes, patient ids are TCGA sample barcodes, or
        ids are numbers of more digits than Excel keeps.

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
    frame, changed = _slides(table, names, barcodes, sample_type)
    require_path(features, "features", "the path of a folder")
    files = _feature_files(Path(features))
    frame = frame.join(match_files(frame["slide_id"], files))
    if label is not None:
        frame["label_in_table"] = frame["label"]
        frame["label"], frame["label_status"] = map_labels(
            frame["label"], positive, negative, label
        )
    frame["status"] = _status(frame)
    _require_usable(frame, files, Path(features))
    used = frame[frame["status"] == "used"]
    bags = _bags(used, (allow_external, allow_constant, allow_mixed))
    if positive is not None:
        bags = _with_labels(bags, used, str(label))
    joined = join_cohort_omics(
        omics,
        bags,
        layer=layer,
        id_column=id_column,
        tcga=barcodes is not None,
        sample_type=sample_type,
        allow_external=allow_external,
    )
    frame["has_omics"] = False
    frame.loc[used.index, "has_omics"] = joined.has_omics
    report = _report(frame, files, joined, bags, changed)
    _warn_if_left_out(report)
    report.warn_of_files()
    if unit == "slide" and (said := report.different_labels()):
        warn(said, CohortWarning)
    y = None if label is None else used["label"].infer_objects().to_numpy()
    if unit == "patient":
        y = None if y is None else patient_labels(bags, y)
        bags = patient_bags(bags)
    return Cohort(bags, y, joined.adata, report)
