"""TCGA barcodes: patient, tissue-source site, sample type."""

from __future__ import annotations

import re

import numpy as np
from anndata import AnnData

from ..exceptions import OmicsError
from .sequence import first_few

_BARCODE = re.compile(r"TCGA-(?P<site>[A-Z0-9]{2})-[A-Z0-9]{4}(-(?P<type>\d{2})[A-Z]?(-.*)?)?")


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
    matches = [_BARCODE.fullmatch(barcode) for barcode in barcodes]
    wrong = [b for b, match in zip(barcodes, matches, strict=True) if match is None]
    if wrong:
        raise OmicsError(f"{len(wrong)} obs_names are no TCGA barcodes: {first_few(wrong)}.")
    types = [match["type"] for match in matches if match is not None]
    of_type = np.array([sample_type in (None, kind) or kind is None for kind in types], dtype=bool)
    if not of_type.any():
        raise OmicsError(f"No sample is of type {sample_type!r}; there are {sorted(set(types))}.")
    taken: dict[str, int] = {}
    for i in sorted(np.flatnonzero(of_type), key=lambda i: barcodes[i]):
        taken[barcodes[i][:12]] = int(i)
    rows = np.array(sorted(taken.values()))
    patients = adata[rows].to_memory() if adata.isbacked else adata[rows].copy()
    patients.obs["barcode"] = barcodes[rows].to_numpy(dtype=object)
    patients.obs_names = barcodes[rows].str[:12]
    patients.uns["omics_by_patient"] = {
        "other_sample_type": int((~of_type).sum()),
        "further_aliquots": int(of_type.sum() - len(rows)),
    }
    return patients
