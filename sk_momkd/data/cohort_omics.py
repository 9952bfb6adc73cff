"""The omics of a cohort: opened from any form, joined to its bags, read no further than needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from typing import Any, NamedTuple

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from ..exceptions import CohortError, OmicsError
from .formats import DAMAGE
from .omics import OmicsTable, as_omics, check_names
from .sequence import BagSequence, first_few
from .tables import is_table, patients_by_genes
from .tcga import choose_aliquots, patient_of


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
