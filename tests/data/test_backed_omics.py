"""A backed AnnData, or a view of one, is used again and again and stays as it was."""

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from sk_momkd import Bag, BagSequence, align_omics, load_cohort
from sk_momkd.data.omics import as_omics, join_omics
from sk_momkd.exceptions import OmicsError

X = np.arange(12, dtype=np.float32).reshape(4, 3)
IDS = ["P3", "P0", "P2", "P1"]
BAGS = BagSequence(Bag(np.ones((2, 3)), bag_id=f"S{i}", patient_id=f"P{i}") for i in range(3))
OWN = [X[IDS.index(f"P{i}")].tolist() for i in range(3)]


@pytest.fixture(params=["dense", "csr", "csc"])
def backed(request, tmp_path):
    """An AnnData in a file; row i is of patient IDS[i]."""
    kind = {"dense": np.asarray, "csr": sparse.csr_matrix, "csc": sparse.csc_matrix}
    made = AnnData(kind[request.param](X), pd.DataFrame(index=IDS), pd.DataFrame(index=[*"ABC"]))
    made.layers["counts"] = X
    made.write_h5ad(tmp_path / "rna.h5ad")
    adata = anndata.read_h5ad(tmp_path / "rna.h5ad", backed="r")
    yield adata
    adata.file.close()


def joined(omics):
    table, rows = join_omics(omics, BAGS)
    return table.rows(rows).to_numpy().tolist()


@pytest.mark.parametrize("is_open", [True, False])
def test_five_calls_give_the_same_and_leave_the_file_as_it_was(backed, is_open):
    if not is_open:
        backed.file.close()
    handle = backed.file._file
    for _ in range(5):
        assert joined(backed) == OWN
        aligned = align_omics(backed, BAGS)
        assert aligned.rows(np.arange(3)).to_numpy().tolist() == OWN
    assert backed.file.is_open == is_open
    assert not is_open or backed.file._file is handle
    assert list(backed.obs_names) == IDS


def test_views_are_read_by_their_rows_and_genes(backed):
    view = backed[["P1", "P0", "P2"]]
    assert joined(view) == OWN
    of_genes = backed[["P0", "P1", "P2"], ["C", "A"]]
    assert joined(of_genes) == [[row[2], row[0]] for row in OWN]
    assert backed.file.is_open


@pytest.mark.slow
def test_cohort_after_cohort_from_one_object(backed, tmp_path):
    table = pd.DataFrame({"slide_id": ["S0", "S1"], "case_id": ["P0", "P1"], "y": [0, 1]})
    for slide in table["slide_id"]:
        with h5py.File(tmp_path / f"{slide}.h5", "w") as file:
            file["features"] = np.ones((2, 3))
    for omics in (backed, backed, backed[["P1", "P0"]]):
        for layer in (None, "counts"):
            found = load_cohort(table, tmp_path, omics, label="y", layer=layer).omics
            values = found.X.toarray() if sparse.issparse(found.X) else found.X
            assert np.asarray(values).tolist() == OWN[:2]
    assert backed.file.is_open


def test_integer_names_are_text():
    adata = AnnData(X)
    adata.obs_names = pd.Index([7, 3, 5, 1])
    assert as_omics(adata).ids.tolist() == ["7", "3", "5", "1"]


@pytest.mark.parametrize(
    ("where", "said"), [("layers", r"layers 'counts'.*layer=name"), ("raw", r"raw.*to_adata")]
)
def test_without_x_names_where_expression_is(where, said):
    adata = AnnData(X if where == "raw" else None, shape=None if where == "raw" else X.shape)
    if where == "layers":
        adata.layers["counts"] = X
    else:
        adata.raw = adata.copy()
        adata.X = None
    with pytest.raises(OmicsError, match=said):
        as_omics(adata)
