"""TCGA barcodes: patient, tissue-source site, sample type, and the aliquot of each patient."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..data.ids import TCGA_BARCODE
from ..exceptions import CohortError, CohortWarning, OmicsError
from ..messages import first_few, warn

if TYPE_CHECKING:
    from anndata import AnnData

PRIMARY_TUMOUR = "01"
_FURTHER = "another aliquot of the patient is used"


def tissue_source_site(patient_ids: Iterable[Any]) -> NDArray:
    """Tissue-source site of each TCGA patient: characters 6-7 of the barcode.

    As groups of `PatientStratifiedKFold` they give site-preserving folds. Scanner, staining and
    case mix differ between sites, so without such folds a model that recognises the site gets
    scores that are too high.

    Parameters
    ----------
    patient_ids : iterable of str
        Barcodes of patients, slides or aliquots.

    Returns
    -------
    ndarray of str, shape (n_bags,)

    Raises
    ------
    ValueError
        Naming the first id that is no TCGA barcode.

    References
    ----------
    Howard et al., "The impact of site-specific digital histology signatures on deep learning
    model accuracy and bias", Nature Communications 12 (2021).

    Examples
    --------
    >>> from sk_momkd import tissue_source_site
    >>> tissue_source_site(["TCGA-A2-A04P", "TCGA-BH-A0B3-01Z-00-DX1"]).tolist()
    ['A2', 'BH']
    """
    sites = []
    for position, barcode in enumerate(patient_ids):
        match = TCGA_BARCODE.match(str(barcode))
        if match is None:
            raise ValueError(
                f"Id {str(barcode)!r} at position {position} is no TCGA barcode such as "
                "'TCGA-A2-A04P'. Pass the sites of other cohorts as groups directly."
            )
        sites.append(match["site"].upper())
    return np.array(sites, dtype=str)


def _unwanted(types: pd.Series, sample_type: str | None) -> NDArray:
    """Status of each sample: "used", or its other type; a sample without type is used."""
    keep = types.isna() | (sample_type is None) | (types == sample_type)
    return np.where(keep, "used", "sample type " + types.fillna("") + f", not {sample_type}")


def _warn_of_unread_types(
    what: str,
    names: Iterable[str],
    matches: Iterable[re.Match[str] | None],
    sample_type: str | None,
) -> None:
    """Warn of barcodes that go on after the patient, but with no sample type."""
    unread = [
        name
        for name, match in zip(names, matches, strict=True)
        if match is not None and match["type"] is None and name[match.end() :].startswith("-")
    ]
    if unread and sample_type is not None:
        warn(
            f"{len(unread)} {what} have no sample type of two digits after the patient "
            f"({first_few(unread)}). They are used as if they were of type {sample_type!r}; leave "
            "them out if they are not.",
            CohortWarning,
        )


def choose_aliquots(barcodes: Iterable[str], sample_type: str | None) -> pd.DataFrame:
    """Choose one sample or aliquot per patient, as :func:`omics_by_patient` describes.

    Returns
    -------
    DataFrame
        One row per barcode, in their order: ``barcode``, ``patient`` (12 characters) and
        ``status``, "used" or why not.

    Raises
    ------
    OmicsError
        Naming the first ids that are no TCGA barcodes; or if no sample is of the type.
    """
    names = [str(barcode) for barcode in barcodes]
    matches = [TCGA_BARCODE.match(name) for name in names]
    wrong = [name for name, match in zip(names, matches, strict=True) if match is None]
    if wrong:
        raise OmicsError(f"{len(wrong)} obs_names are no TCGA barcodes: {first_few(wrong)}.")
    _warn_of_unread_types("obs_names", names, matches, sample_type)
    parts = [(match["type"], match["vial"] or "") for match in matches if match is not None]
    frame = pd.DataFrame(parts, columns=["type", "vial"], dtype=object)
    frame.insert(0, "barcode", names)
    frame["patient"] = frame["barcode"].str[:12].str.upper()
    frame["status"] = _unwanted(frame["type"], sample_type)
    wanted = frame[frame["status"] == "used"].fillna({"type": "99"})
    if not len(wanted):
        there = sorted(set(frame["type"].dropna()))
        raise OmicsError(f"No sample is of type {sample_type!r}; there are {there}.")
    wanted["vial"] = wanted["vial"].str.upper()
    ranked = wanted.sort_values(["type", "vial", "barcode"], ascending=[False, False, True])
    further = ranked.index[ranked["patient"].duplicated(keep="last")]
    frame.loc[further, "status"] = _FURTHER
    return frame[["barcode", "patient", "status"]]


def omics_by_patient(adata: AnnData, *, sample_type: str | None = PRIMARY_TUMOUR) -> AnnData:
    """Omics of TCGA samples or aliquots as one row per patient.

    Only samples of `sample_type` are kept. If a patient has several aliquots, the first vial is
    taken, because 01A is frozen where 01B is often fixed in formalin; of its aliquots the one whose
    barcode sorts last: the latest portion and plate, as is common for TCGA. If all types are
    kept, the one with the lowest number is taken: tumour rather than normal tissue. `load_cohort`
    does this itself with ``barcodes="tcga"``.

    Parameters
    ----------
    adata : AnnData
        obs_names are TCGA barcodes of patients, samples or aliquots.
    sample_type : str or None, default="01"
        "01" primary tumour, "11" normal tissue; None keeps all. A barcode without a sample part
        is kept.

    Returns
    -------
    AnnData
        obs_names are patients (12 characters); ``obs["barcode"]`` the sample that was taken;
        ``uns["omics_by_patient"]`` the numbers of rows that were dropped and why.

    Raises
    ------
    OmicsError
        Naming the first ids that are no TCGA barcodes; or if no sample is of the type.

    Examples
    --------
    >>> import numpy as np
    >>> from anndata import AnnData
    >>> from sk_momkd import omics_by_patient
    >>> adata = AnnData(np.ones((3, 2)))
    >>> adata.obs_names = ["TCGA-A2-A04P-01A-31R", "TCGA-A2-A04P-01A-11R", "TCGA-A2-A04P-11A-11R"]
    >>> omics_by_patient(adata).obs["barcode"]
    TCGA-A2-A04P    TCGA-A2-A04P-01A-31R
    Name: barcode, dtype: object
    """
    rows = choose_aliquots(adata.obs_names.astype(str), sample_type)
    taken = rows[rows["status"] == "used"]
    view = adata[taken.index.to_numpy()]
    patients = view.to_memory() if adata.isbacked else view.copy()
    patients.obs["barcode"] = taken["barcode"].to_numpy(dtype=object)
    patients.obs_names = taken["patient"].to_numpy(dtype=object)
    further = int((rows["status"] == _FURTHER).sum())
    patients.uns["omics_by_patient"] = {
        "other_sample_type": len(rows) - len(taken) - further,
        "further_aliquots": further,
    }
    return patients


def patient_of(name: Any) -> str:
    """Patient in a TCGA barcode, upper case; another name is returned as it is."""
    return str(name)[:12].upper() if TCGA_BARCODE.match(str(name)) else str(name)


def read_slide_barcodes(slides: pd.DataFrame, sample_type: str | None) -> pd.DataFrame:
    """Patient, site and sample type of slides by their barcodes.

    Parameters
    ----------
    slides : DataFrame
        ``slide_id``; a column ``patient_id`` must not contradict it, other ids than barcodes in
        it (GDC's UUID) are replaced; a column ``site`` stays.
    sample_type : str or None
        The type to keep; None keeps all.

    Returns
    -------
    DataFrame
        `slides` with ``patient_id``, ``site``, ``sample_type``, and ``type_status``: "used", or
        why a slide is not.

    Raises
    ------
    CohortError
        If a slide id is no barcode, or is of another patient than in the table.
    """
    matches = [TCGA_BARCODE.match(slide) for slide in slides["slide_id"]]
    wrong = slides["slide_id"][[match is None for match in matches]]
    if len(wrong):
        raise CohortError(
            f"{len(wrong)} slide ids are no TCGA barcodes: {first_few(wrong)}. For such a table "
            "leave barcodes=None and name the patients' column with patient_id=."
        )
    _warn_of_unread_types("slide ids", slides["slide_id"], matches, sample_type)
    patients = slides["slide_id"].str[:12].str.upper()
    if "patient_id" in slides:
        known = slides["patient_id"].map(
            lambda name: TCGA_BARCODE.match(str(name)) and patient_of(name)
        )
        differing = slides[known.notna() & (known != patients)]
        if len(differing):
            raise CohortError(
                f"{len(differing)} slides are of another patient by their barcode than by the "
                f"table, the first is slide {differing['slide_id'].iloc[0]!r} of patient "
                f"{differing['patient_id'].iloc[0]!r}."
            )
    types = pd.Series([match and match["type"] for match in matches], slides.index, dtype=object)
    read = slides.assign(patient_id=patients, sample_type=types)
    read["type_status"] = _unwanted(types, sample_type)
    return read if "site" in read else read.assign(site=tissue_source_site(patients))


def check_barcode_options(barcodes: str | None, sample_type: str | None) -> None:
    """Raise a `CohortError` if the options are unknown or contradict each other."""
    if barcodes not in (None, "tcga"):
        raise CohortError(f"barcodes must be 'tcga' or None, got {barcodes!r}.")
    if sample_type is not None and not re.fullmatch(r"\d\d", str(sample_type)):
        raise CohortError(
            f"sample_type must be two digits such as '01' (primary tumour) or '06' (metastasis), "
            f"or None for all, got {sample_type!r}."
        )
    if barcodes is None and sample_type != PRIMARY_TUMOUR:
        raise CohortError(
            f"sample_type={sample_type!r} needs barcodes='tcga', which hold the sample type."
        )
