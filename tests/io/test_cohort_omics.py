"""Omics of a cohort: text files with patients on either side, layers, damaged files."""

import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from sk_momkd import Bag, BagSequence, load_cohort, read_bags
from sk_momkd.exceptions import BagFileError, OmicsError
from sk_momkd.io.cohort_omics import patients_by_genes

SLIDES = pd.DataFrame({"slide_id": ["007", "008"], "case_id": ["01", "02"], "er": ["+", "-"]})
RNA = pd.DataFrame([[1.5, 2.5, 3.5], [4.5, 5.5, 6.5]], ["01", "02"], ["ESR1", "PGR", "ERBB2"])


@pytest.fixture
def features(tmp_path):
    folder = tmp_path / "features"
    folder.mkdir()
    for slide in SLIDES["slide_id"]:
        with h5py.File(folder / f"{slide}.h5", "w") as file:
            file["features"] = np.ones((2, 3))
    return folder


def write(frame, path, **kwargs):
    separator = "\t" if ".tsv" in path.name else ","
    if path.suffix == ".xlsx":
        pytest.importorskip("openpyxl")
        frame.to_excel(path, **kwargs)
    else:
        frame.to_csv(path, sep=separator, **kwargs)
    return path


@pytest.mark.parametrize("name", ["rna.csv", "rna.tsv", "rna.tsv.gz"])
@pytest.mark.parametrize("turned", [False, True])
def test_load_expression_either_way_up_joins_by_id(tmp_path, features, name, turned):
    path = write(RNA.iloc[::-1].T if turned else RNA.iloc[::-1], tmp_path / name)
    omics = load_cohort(SLIDES, features, path, label="er").omics
    assert list(omics.obs_names) == ["01", "02"]
    np.testing.assert_array_equal(omics[:, RNA.columns].X, RNA)


def test_expression_with_equal_genes_is_refused_not_renamed(tmp_path, features):
    path = write(RNA.set_axis(["A", "B", "A"], axis=1), tmp_path / "rna.csv")
    with pytest.raises(OmicsError, match=r"genes occur more than once.*'A'"):
        load_cohort(SLIDES, features, path, label="er")


def test_expression_without_ids_of_the_cohort_shows_both_sides(tmp_path):
    path = write(RNA, tmp_path / "rna.csv")
    bags = BagSequence([Bag(np.ones((1, 1)), bag_id="S", patient_id="P")])
    with pytest.raises(OmicsError, match=r"0 ids.*rows and 0.*columns.*'01'.*'ESR1'.*'P'"):
        patients_by_genes(path, bags)


def test_load_layer_instead_of_x(features):
    adata = AnnData(RNA)
    adata.layers["counts"] = np.arange(6.0).reshape(2, 3)
    omics = load_cohort(SLIDES, features, adata, label="er", layer="counts").omics
    assert omics.X.tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(OmicsError, match=r"no layer 'raw'; it has 'counts'"):
        load_cohort(SLIDES, features, adata, label="er", layer="raw")


@pytest.fixture
def numbered_features(tmp_path):
    folder = tmp_path / "features"
    folder.mkdir()
    for slide in ("1", "2", "3"):
        with h5py.File(folder / f"{slide}.h5", "w") as file:
            file["features"] = np.ones((2, 3))
    return folder


def slides(**columns):
    return pd.DataFrame({"slide_id": ["1", "2"], "case_id": ["a", "b"], "er": ["+", "-"]} | columns)


def test_load_expression_of_r_without_name_of_ids_raises(numbered_features, tmp_path):
    (tmp_path / "rna.tsv").write_text("a\tb\nERBB2\t1.5\t2.5\nESR1\t3.25\t4.5\n")
    with pytest.raises(OmicsError, match=r"one cell more than its header.*col\.names=NA"):
        load_cohort(slides(), numbered_features, tmp_path / "rna.tsv", label="er")


def test_load_expression_with_row_numbers_raises(numbered_features, tmp_path):
    pd.DataFrame({"case_id": [1, 2], "ERBB2": [1.0, 2.0]}).to_csv(tmp_path / "rna.csv")
    with pytest.raises(OmicsError, match=r"has no name and counts the rows \('0', '1'\)"):
        load_cohort(slides(case_id=["1", "2"]), numbered_features, tmp_path / "rna.csv", label="er")


@pytest.mark.parametrize("in_file", [True, False])
def test_load_layer_of_anndata_without_x(numbered_features, tmp_path, in_file):
    adata = AnnData(shape=(2, 2), layers={"counts": np.arange(4.0).reshape(2, 2)})
    adata.obs_names = ["b", "a"]
    adata.write_h5ad(tmp_path / "rna.h5ad")
    omics = tmp_path / "rna.h5ad" if in_file else adata
    joined = load_cohort(slides(), numbered_features, omics, label="er", layer="counts").omics
    np.testing.assert_array_equal(joined.X, [[2, 3], [0, 1]])
    with pytest.raises(OmicsError, match="has no X"):
        load_cohort(slides(), numbered_features, omics, label="er")


def test_load_omics_of_an_unknown_anndata_encoding_raises(numbered_features, tmp_path):
    AnnData(np.ones((1, 1))).write_h5ad(tmp_path / "rna.h5ad")
    with h5py.File(tmp_path / "rna.h5ad", "r+") as file:
        file["obs"].attrs["encoding-version"] = "9"
    with pytest.raises(OmicsError, match=r"rna\.h5ad is not a readable \.h5ad file"):
        load_cohort(slides(), numbered_features, tmp_path / "rna.h5ad", label="er")
    with pytest.raises(BagFileError, match=r"rna\.h5ad is not a readable \.h5ad file"):
        read_bags(tmp_path / "rna.h5ad")[0].load()


def test_load_omics_whose_values_are_damaged_raises(numbered_features, tmp_path):
    adata = AnnData(np.ones((2, 500)))
    adata.obs_names = ["a", "b"]
    adata.write_h5ad(tmp_path / "rna.h5ad", compression="gzip")
    with h5py.File(tmp_path / "rna.h5ad") as file:
        place = file["X"].id.get_chunk_info(0).byte_offset
    content = bytearray((tmp_path / "rna.h5ad").read_bytes())
    content[place : place + 8] = b"x" * 8
    (tmp_path / "rna.h5ad").write_bytes(content)
    with pytest.raises(OmicsError, match=r"cannot be read from .*rna\.h5ad"):
        load_cohort(slides(), numbered_features, tmp_path / "rna.h5ad", label="er")
