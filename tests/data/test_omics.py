"""Omics is joined to bags by id, in any form and any order, and never by position."""

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse
from sklearn.utils.validation import _check_method_params

from sk_momkd import Bag, BagSequence, align_omics
from sk_momkd.data.omics import OmicsTable, as_omics, join_omics
from sk_momkd.exceptions import OmicsError, PairingWarning

GENES = ["ERBB2", "ESR1", "MKI67"]


def bags_of(*patients, ids=None):
    """Bags S0, S1, ... of these patients."""
    ids = [f"S{i}" for i in range(len(patients))] if ids is None else ids
    x = np.ones((2, 3))
    pairs = zip(ids, patients, strict=True)
    return BagSequence(Bag(x, bag_id=i, patient_id=p) for i, p in pairs)


def expression(*ids):
    """Frame in which a row says whose it is: P7 has 70, 71, 72."""
    values = [[10.0 * int(name[1:]) + j for j in range(len(GENES))] for name in ids]
    return pd.DataFrame(values, index=list(ids), columns=GENES)


def adata_of(frame, matrix=np.asarray):
    adata = AnnData(matrix(frame.to_numpy(np.float32)))
    adata.obs_names, adata.var_names = frame.index, frame.columns
    return adata


def backed(frame, folder, matrix=np.asarray):
    adata_of(frame, matrix).write_h5ad(folder / "omics.h5ad")
    return anndata.read_h5ad(folder / "omics.h5ad", backed="r")


FORMS = {
    "frame": lambda f, d: f,
    "frame_of_integers": lambda f, d: f.astype(int),
    "frame_of_nullable_floats": lambda f, d: f.astype("Float64"),
    "anndata": lambda f, d: adata_of(f),
    "csr": lambda f, d: adata_of(f, sparse.csr_matrix),
    "csc": lambda f, d: adata_of(f, sparse.csc_matrix),
    "view": lambda f, d: adata_of(f)[::-1],
    "backed": backed,
    "backed_csr": lambda f, d: backed(f, d, sparse.csr_matrix),
    "table": lambda f, d: as_omics(f),
}
BAGS = bags_of("P0", "P1", "P2", "P2", "P3")
PERMUTED = expression("P2", "P0", "P3", "P1")


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_join_permuted_rows_gives_each_bag_its_patient(form, tmp_path):
    table, rows = join_omics(form(PERMUTED, tmp_path), BAGS)
    frame = table.rows(rows)
    assert frame.index.tolist() == ["P0", "P1", "P2", "P2", "P3"]
    assert frame.columns.tolist() == GENES
    assert frame["ERBB2"].tolist() == [0, 10, 20, 20, 30]
    assert (frame.dtypes == np.float32).all()


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_align_permuted_rows_gives_patients_in_bag_order(form, tmp_path):
    table = align_omics(form(PERMUTED, tmp_path), BAGS)
    assert table.ids.tolist() == ["P0", "P1", "P2", "P3"]
    assert table.rows(np.arange(4))["MKI67"].tolist() == [2, 12, 22, 32]


def test_align_sparse_stays_sparse():
    table = align_omics(adata_of(PERMUTED, sparse.csr_matrix), BAGS)
    assert sparse.issparse(table._values)


@pytest.mark.parametrize("matrix", [np.asarray, np.ndarray.tolist, sparse.csr_matrix])
def test_join_array_is_taken_in_bag_order(matrix):
    values = np.arange(15.0).reshape(5, 3)
    table, rows = join_omics(matrix(values), BAGS)
    assert rows.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(table.rows(rows), values)
    assert table.genes.tolist() == ["gene_0", "gene_1", "gene_2"]


@pytest.mark.parametrize(
    "omics", [np.ones((4, 3)), np.ones(5), np.ones((5, 0)), np.float32(1), "omics.h5ad"]
)
def test_join_array_of_other_shape_raises_naming_the_remedy(omics):
    said = r"one row for each of the 5 bags.*AnnData or a DataFrame with ids"
    with pytest.raises(OmicsError, match=said):
        join_omics(omics, BAGS)


def test_join_array_with_nan_raises_naming_bag_and_gene():
    values = np.ones((5, 3))
    values[3, 1] = np.nan
    table, rows = join_omics(values, BAGS)
    with pytest.raises(OmicsError, match=r"bag 'S3'.*gene 'gene_1'"):
        table.rows(rows)


def test_match_takes_the_patient_and_falls_back_to_the_bag():
    bags = bags_of("P1", "P9", None, "P8", ids=["S1", "P3", "P4", "S3"])
    table = as_omics(expression("P4", "P3", "P2", "P1"))
    assert table.match(bags).tolist() == [3, 1, 0, -1]


def test_match_two_rows_for_a_bag_raise():
    bags = bags_of("P2", "P1", ids=["P1", "P2"])  # slides and patients have the same ids
    with pytest.raises(OmicsError, match=r"2 bags have one omics row .* 'P1' of patient 'P2'"):
        align_omics(expression("P1", "P2"), bags)


def test_as_omics_index_that_counts_rows_raises():
    with pytest.raises(
        OmicsError, match=r"counts the rows \('0', '1', '2', 3 rows\), so it holds no ids"
    ):
        as_omics(pd.DataFrame({"case_id": [1, 2, 3], "ERBB2": [1.0, 2.0, 3.0]}))


@pytest.mark.parametrize("values", [["x", "y"], [1j, 2j], pd.to_datetime(["2020", "2021"])])
def test_as_omics_other_than_numbers_raises(values):
    with pytest.raises(OmicsError, match=r"must be numbers.*'A'"):
        as_omics(pd.DataFrame({"A": values}, index=["P0", "P1"]))
    if not isinstance(values, pd.DatetimeIndex):
        with pytest.raises(OmicsError, match="must be numbers, got dtype"):
            as_omics(AnnData(np.array(values)[:, None]))


def test_match_integer_ids_are_compared_as_text():
    frame = expression("P0", "P1")
    frame.index = pd.Index([10, 11], name="patient")
    assert as_omics(frame).match(bags_of("11", 10)).tolist() == [1, 0]


@pytest.mark.parametrize("form", [lambda f: f, adata_of], ids=["frame", "anndata"])
def test_as_omics_duplicate_patients_raise_naming_them(form):
    omics = form(expression("P0", "P1", "P1"))
    with pytest.raises(OmicsError, match=r"1 patients occur more than once in omics: 'P1'\. Keep"):
        as_omics(omics)


def test_as_omics_duplicate_genes_raise_naming_them():
    frame = expression("P0", "P1").set_axis(["A", "B", "A"], axis=1)
    with pytest.raises(OmicsError, match=r"1 genes occur.*'A'\. .*var_names_make_unique"):
        as_omics(frame)


def test_as_omics_text_column_raises_naming_it():
    frame = expression("P0", "P1").assign(case_id=["P0", "P1"])
    with pytest.raises(OmicsError, match=r"are not: 'case_id'\..*Move the ids into the index"):
        as_omics(frame)


@pytest.mark.parametrize(
    ("omics", "said"),
    [
        (PERMUTED.iloc[:0], "0 patients x 3 genes"),
        (PERMUTED.iloc[:, :0], "4 patients x 0 genes"),
        (AnnData(obs=pd.DataFrame(index=["P0"])), "no X; put the expression there"),
        ({"P0": [1.0]}, "an AnnData.*DataFrame.*got dict"),
    ],
)
def test_as_omics_unusable_raises(omics, said):
    with pytest.raises(OmicsError, match=said):
        as_omics(omics)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
@pytest.mark.parametrize("form", [FORMS["frame"], FORMS["anndata"], FORMS["backed_csr"]])
def test_rows_not_finite_raises_naming_patient_and_gene(form, value, tmp_path):
    frame = PERMUTED.copy()
    frame.loc["P3", "ESR1"] = value
    with np.errstate(over="ignore"):
        table, rows = join_omics(form(frame, tmp_path), BAGS)
    with pytest.raises(OmicsError, match=r"1 NaN or infinite.*'P3', gene 'ESR1'. Impute"):
        table.rows(rows)


def test_rows_nullable_missing_value_raises_naming_patient_and_gene():
    frame = PERMUTED.astype("Int64")
    frame.loc["P0", "MKI67"] = pd.NA
    with pytest.raises(OmicsError, match="'P0', gene 'MKI67'"):
        as_omics(frame).rows(np.arange(4))


def test_rows_of_others_with_nan_are_not_looked_at():
    frame = PERMUTED.copy()
    frame.loc["P3"] = np.nan
    table, rows = join_omics(frame, BAGS[:4])
    assert np.isfinite(table.rows(rows).to_numpy()).all()


def test_join_cut_by_position_raises_naming_align_omics():
    bags, omics = bags_of("P0", "P1", "P2", "P3"), expression("P3", "P1", "P2", "P0")
    said = r"1 of 3 bags have no omics \(first bag 'S0'\).*first 'P3'.*align_omics\(omics, bags\)"
    with pytest.raises(OmicsError, match=said):
        join_omics(omics.iloc[:3], bags[:3])


def test_join_aligned_table_of_equal_length_is_not_suspected():
    bags = bags_of("P0", "P1", "P2", "P3")
    table = align_omics(expression("P3", "P1", "P2"), bags)
    assert join_omics(table, bags[:3])[1].tolist() == [-1, 0, 1]


@pytest.mark.parametrize("omics", [expression("P0", "P1"), expression("P0", "P1", "P7", "P8")])
def test_join_other_length_with_bags_lacking_omics_marks_them(omics):
    assert join_omics(omics, bags_of("P0", "P9", "P1"))[1].tolist() == [0, -1, 1]


def test_align_result_is_no_array_like():
    table = align_omics(PERMUTED, BAGS)
    assert not any(hasattr(table, name) for name in ("__len__", "shape", "__array__", "iloc"))


def test_align_result_is_passed_whole_by_scikit_learn():
    bags = bags_of("P0", "P1", "P2", "P3")
    table, cut = align_omics(PERMUTED, bags), np.array([0, 1])
    passed = _check_method_params(bags, {"omics": table, "frame": PERMUTED}, indices=cut)
    assert passed["omics"] is table
    assert passed["frame"].index.tolist() == ["P2", "P0"]


def test_align_result_again_with_a_part_keeps_that_part():
    table = align_omics(align_omics(PERMUTED, BAGS), BAGS[[4, 0]])
    assert table.ids.tolist() == ["P3", "P0"]


@pytest.mark.parametrize("join", [join_omics, align_omics])
def test_join_bags_without_ids_raises_naming_the_remedy(join):
    bags = BagSequence([Bag(np.ones((2, 3)))])
    with pytest.raises(OmicsError, match=r"no ids.*bag_id=.*patient_id=.*array in bag order"):
        join(PERMUTED, bags)


@pytest.mark.parametrize("join", [join_omics, align_omics])
def test_join_nothing_matches_raises_showing_both_sides(join):
    said = r"No omics row.*'P2', 'P0', 'P3' and 1 more.*'X0', 'S0', 'X1' and 1 more.*omics=None"
    with pytest.raises(OmicsError, match=said):
        join(PERMUTED, bags_of("X0", "X1"))


def test_join_below_half_warns_naming_a_bag():
    with pytest.warns(PairingWarning, match=r"Only 2 of 5 bags.*first without is bag 'S1'"):
        _, rows = join_omics(expression("P0", "P3"), bags_of("P0", "P1", "P2", "P4", "P3"))
    assert rows.tolist() == [0, -1, -1, -1, 1]


def test_join_half_does_not_warn(recwarn):
    join_omics(expression("P0"), bags_of("P0", "P1"))
    assert len(recwarn) == 0


def test_repr_of_table_says_its_size():
    table = as_omics(PERMUTED)
    assert isinstance(table, OmicsTable)
    assert repr(table) == "OmicsTable(4 patients x 3 genes)"


def test_join_cut_by_position_without_any_match_names_align_omics():
    bags = BagSequence(Bag(np.ones((3, 2)), patient_id=f"P{i}") for i in range(4))
    omics = pd.DataFrame(np.eye(4), index=["P3", "P2", "P1", "P0"]).rename(columns=str)
    with pytest.raises(OmicsError, match="align_omics"):
        join_omics(omics.iloc[:2], bags[:2])


def test_as_omics_backed_without_x_raises(tmp_path):
    AnnData(obs=pd.DataFrame(index=["P0"]), var=pd.DataFrame(index=["A"])).write_h5ad(
        tmp_path / "x"
    )
    with pytest.raises(OmicsError, match="no X"):
        as_omics(anndata.read_h5ad(tmp_path / "x", backed="r"))


def test_align_array_is_not_offered_an_array():
    with pytest.raises(OmicsError) as caught:
        align_omics(np.ones((1, 2)), [Bag(np.ones((3, 2)), bag_id="S1")])
    assert "an array in the order of the bags, got ndarray" not in str(caught.value)
