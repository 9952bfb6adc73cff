"""TCGA barcodes: patient, tissue-source site, sample type."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from ..exceptions import OmicsError
from .sequence import first_few

_BARCODE = re.compile(
    r"TCGA-(?P<site>[A-Z0-9]{2})-[A-Z0-9]{4}(?![A-Z0-9])(-(?P<type>\d{2})[A-Z]?(?![A-Z0-9]))?",
    re.IGNORECASE,
)


def tissue_source_site(patient_ids: Iterable[Any]) -> NDArray:
    """Tissue-source site of each TCGA patient: characters 6-7 of the barcode.

    As groups of `PatientStratifiedKFold` they give site-preserving folds. Scanner, staining and
    case mix differ between sites, and a model that recognises the site scores too well otherwise.

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
        match = _BARCODE.match(str(barcode))
        if match is None:
            raise ValueError(
                f"Id {str(barcode)!r} at position {position} is no TCGA barcode such as "
                "'TCGA-A2-A04P'. Pass the sites of other cohorts as groups directly."
            )
        sites.append(match["site"].upper())
    return np.array(sites, dtype=str)


def omics_by_patient(adata: AnnData, *, sample_type: str | None = "01") -> AnnData:
    """Omics of TCGA samples or aliquots as one row per patient.

    Only samples of `sample_type` are kept. Of several aliquots of a patient the one whose barcode
    sorts last is taken: the latest vial, portion and plate, as is common for TCGA.

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
    barcodes = adata.obs_names.astype(str)
    matches = [_BARCODE.match(barcode) for barcode in barcodes]
    wrong = [b for b, match in zip(barcodes, matches, strict=True) if match is None]
    if wrong:
        raise OmicsError(f"{len(wrong)} obs_names are no TCGA barcodes: {first_few(wrong)}.")
    types = [match["type"] for match in matches if match is not None]
    of_type = np.array([sample_type in (None, kind) or kind is None for kind in types], dtype=bool)
    if not of_type.any():
        raise OmicsError(f"No sample is of type {sample_type!r}; there are {sorted(set(types))}.")
    taken: dict[str, int] = {}
    for i in sorted(np.flatnonzero(of_type), key=lambda i: barcodes[i]):
        taken[barcodes[i][:12].upper()] = int(i)
    rows = np.array(sorted(taken.values()))
    patients = adata[rows].to_memory() if adata.isbacked else adata[rows].copy()
    patients.obs["barcode"] = barcodes[rows].to_numpy(dtype=object)
    patients.obs_names = barcodes[rows].str[:12].str.upper()
    patients.uns["omics_by_patient"] = {
        "other_sample_type": int((~of_type).sum()),
        "further_aliquots": int(of_type.sum() - len(rows)),
    }
    return patients
