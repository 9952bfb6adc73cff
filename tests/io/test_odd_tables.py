"""Tables as they come from people: each is read right or refused, nothing in between."""

import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from sk_momkd import load_cohort, read_bags, stamp_table
from sk_momkd.exceptions import BagFileError, CohortError, CohortWarning, OmicsError


@pytest.fixture
def features(tmp_path):
    folder = tmp_path / "features"
    folder.mkdir()
    for slide in ("1", "2", "3"):
        with h5py.File(folder / f"{slide}.h5", "w") as file:
            file["features"] = np.ones((2, 3))
    return folder


def slides(**columns):
    return pd.DataFrame({"slide_id": ["1", "2"], "case_id": ["a", "b"], "er": ["+", "-"]} | columns)


def test_load_whole_floats_as_ids_become_integers(features):
    table = slides(slide_id=[1.0, 2.0], case_id=[7.0, 8.0])
    bags = load_cohort(table, features, label="er").bags
    assert bags.ids.tolist() == ["1", "2"]
    assert bags.patient_ids.tolist() == ["7", "8"]


@pytest.mark.parametrize(
    ("patients", "message"),
    [
        (["P1 ", "P1"], r"1 values of patient_id have spaces around them: 'P1 '"),
        (["", " "], "2 rows have no patient_id"),
        (["a", np.nan], "1 rows have no patient_id, the first is row 1"),
    ],
)
def test_load_patient_ids_that_would_join_wrongly_raise(features, patients, message):
    with pytest.raises(CohortError, match=message):
        load_cohort(slides(case_id=patients), features, label="er")


def test_load_column_that_stands_twice_raises(features):
    table = pd.concat([slides(), slides()[["er"]]], axis=1)
    with pytest.raises(CohortError, match="several columns of the name 'er'"):
        load_cohort(table, features, label="er")


@pytest.mark.parametrize("other", ["Equivocal", "unknown", "[Not Evaluated]", "?"])
def test_load_unknown_beside_the_positive_value_is_no_negative(features, other):
    table = slides(er=["Positive", other])
    with pytest.raises(CohortError, match="which is no negative"):
        load_cohort(table, features, label="er", positive="Positive")


@pytest.mark.parametrize("positive", [None, "Positive"])
@pytest.mark.parametrize("other", ["positive", "Positive "])
def test_load_label_in_two_spellings_raises(features, positive, other):
    table = slides(er=["Positive", other])
    with pytest.raises(CohortError, match="which would be two classes"):
        load_cohort(table, features, label="er", positive=positive)
    mapped = load_cohort(table, features, label="er", positive={"Positive": 1, other: 1})
    assert mapped.y.tolist() == [1, 1]


def test_by_site_counts_slides_of_unknown_sites(features):
    report = load_cohort(slides(site=["X", None]), features, label="er", site="site").report
    assert report.by_site().to_numpy().sum() == 2
    assert "unknown" in str(report)


def test_load_expression_of_r_without_name_of_ids_raises(features, tmp_path):
    (tmp_path / "rna.tsv").write_text("a\tb\nERBB2\t1.5\t2.5\nESR1\t3.25\t4.5\n")
    with pytest.raises(OmicsError, match=r"one cell more than its header.*col\.names=NA"):
        load_cohort(slides(), features, tmp_path / "rna.tsv", label="er")


def test_load_expression_with_row_numbers_raises(features, tmp_path):
    pd.DataFrame({"case_id": [1, 2], "ERBB2": [1.0, 2.0]}).to_csv(tmp_path / "rna.csv")
    with pytest.raises(OmicsError, match="counts the rows from 0"):
        load_cohort(slides(case_id=["1", "2"]), features, tmp_path / "rna.csv", label="er")


@pytest.mark.parametrize("in_file", [True, False])
def test_load_layer_of_anndata_without_x(features, tmp_path, in_file):
    adata = AnnData(shape=(2, 2), layers={"counts": np.arange(4.0).reshape(2, 2)})
    adata.obs_names = ["b", "a"]
    adata.write_h5ad(tmp_path / "rna.h5ad")
    omics = tmp_path / "rna.h5ad" if in_file else adata
    joined = load_cohort(slides(), features, omics, label="er", layer="counts").omics
    np.testing.assert_array_equal(joined.X, [[2, 3], [0, 1]])
    with pytest.raises(OmicsError, match="has no X"):
        load_cohort(slides(), features, omics, label="er")


def test_stamp_rows_with_empty_cells_are_named():
    patients = pd.DataFrame({"PATIENT": ["P1", None], "er": [0, 1]})
    files = pd.DataFrame({"PATIENT": ["P1", "P2", None], "FILENAME": ["a.h5", None, "c.h5"]})
    with pytest.warns(CohortWarning) as warned:
        table = stamp_table(patients, files)
    assert table["slide_id"].tolist() == ["a"]
    messages = " ".join(str(w.message) for w in warned)
    assert "1 rows of the patients table have no PATIENT" in messages
    assert "2 rows of the slides table have no PATIENT or FILENAME ('P2', 'c.h5')" in messages


def test_stamp_patients_with_columns_of_our_names():
    columns = {"PATIENT": ["P1"], "slide_id": ["x"], "case_id": ["y"], "FILENAME": ["z"], "er": [0]}
    table = stamp_table(
        pd.DataFrame(columns), pd.DataFrame({"PATIENT": ["P1"], "FILENAME": ["a.h5"]})
    )
    assert table.iloc[0].to_dict() == {"slide_id": "a", "case_id": "P1", "er": 0}


def test_load_omics_of_an_unknown_anndata_encoding_raises(features, tmp_path):
    AnnData(np.ones((1, 1))).write_h5ad(tmp_path / "rna.h5ad")
    with h5py.File(tmp_path / "rna.h5ad", "r+") as file:
        file["obs"].attrs["encoding-version"] = "9"
    with pytest.raises(OmicsError, match=r"rna\.h5ad is not a readable \.h5ad file"):
        load_cohort(slides(), features, tmp_path / "rna.h5ad", label="er")
    with pytest.raises(BagFileError, match=r"rna\.h5ad is not a readable \.h5ad file"):
        read_bags(tmp_path / "rna.h5ad")[0].load()


def test_load_omics_whose_values_are_damaged_raises(features, tmp_path):
    adata = AnnData(np.ones((2, 500)))
    adata.obs_names = ["a", "b"]
    adata.write_h5ad(tmp_path / "rna.h5ad", compression="gzip")
    with h5py.File(tmp_path / "rna.h5ad") as file:
        place = file["X"].id.get_chunk_info(0).byte_offset
    content = bytearray((tmp_path / "rna.h5ad").read_bytes())
    content[place : place + 8] = b"x" * 8
    (tmp_path / "rna.h5ad").write_bytes(content)
    with pytest.raises(OmicsError, match=r"cannot be read from .*rna\.h5ad"):
        load_cohort(slides(), features, tmp_path / "rna.h5ad", label="er")
