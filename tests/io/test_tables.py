"""Tables in text and Excel, expression either way up, TCGA aliquots."""

import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from sk_momkd import Bag, BagSequence, load_cohort, stamp_table
from sk_momkd.exceptions import CohortError, CohortWarning, OmicsError
from sk_momkd.io.cohort_omics import patients_by_genes
from sk_momkd.io.tables import read_table

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


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.csv.gz", "t.xlsx"])
def test_load_table_of_any_kind_keeps_leading_zeros(tmp_path, features, name):
    table = write(SLIDES, tmp_path / name, index=False)
    bags, y, _, _ = load_cohort(table, features, label="er", positive="+")
    assert list(bags.ids) == ["007", "008"]
    assert list(bags.patient_ids) == ["01", "02"]
    assert y.tolist() == [1, 0]


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


def test_expression_of_strangers_says_what_stands_where(tmp_path):
    path = write(RNA, tmp_path / "rna.csv")
    bags = BagSequence([Bag(np.ones((1, 1)), bag_id="S", patient_id="P")])
    with pytest.raises(OmicsError, match=r"0 ids.*rows and 0.*columns.*'01'.*'ESR1'.*'P'"):
        patients_by_genes(path, bags)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("t.csv", b"\xff\xfe\x00\x81", "not a readable"), ("t.parquet", b"", "suffix must be one of")],
)
def test_read_table_unusable_file_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CohortError, match=f"{name}.*{message}"):
        read_table(tmp_path / name)


def test_report_by_site_counts_labels(features):
    table = SLIDES.assign(centre=["01", "02"])
    report = load_cohort(table, features, label="er", site="centre").report
    assert report.by_site().loc["01"].to_dict() == {"+": 1, "-": 0}
    with pytest.raises(CohortError, match="site="):
        load_cohort(table, features, label="er").report.by_site()


def test_load_layer_instead_of_x(features):
    adata = AnnData(RNA)
    adata.layers["counts"] = np.arange(6.0).reshape(2, 3)
    omics = load_cohort(SLIDES, features, adata, label="er", layer="counts").omics
    assert omics.X.tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(OmicsError, match=r"no layer 'raw'; it has \['counts'\]"):
        load_cohort(SLIDES, features, adata, label="er", layer="raw")


def test_stamp_tables_join_by_patient_and_name_what_is_left_out(tmp_path, features):
    patients = pd.DataFrame({"PATIENT": ["01", "02", "03"], "er": ["+", "-", "+"]})
    slides = pd.DataFrame({"PATIENT": ["01", "02", "09"], "FILENAME": ["007.h5", "008", "9.h5"]})
    paths = [write(patients, tmp_path / "clini.xlsx", index=False)]
    paths.append(write(slides, tmp_path / "slide.csv", index=False))
    with pytest.warns(CohortWarning) as caught:
        table = stamp_table(*paths)
    said = " ".join(str(warning.message) for warning in caught)
    assert "1 slides without patient are left out: '9.h5'" in said
    assert "1 patients without slide are left out: '03'" in said
    bags, y, _, _ = load_cohort(table, features, label="er", positive="+")
    assert list(bags.ids) == ["007", "008"]
    assert y.tolist() == [1, 0]


def test_stamp_tables_that_do_not_fit_are_explained():
    patients = pd.DataFrame({"PATIENT": ["01", "01"], "er": [1, 0]})
    slides = pd.DataFrame({"PATIENT": ["01"], "FILENAME": ["a"]})
    with pytest.raises(CohortError, match="more than once: '01'"):
        stamp_table(patients, slides)
    with pytest.raises(CohortError, match="slides table has no column 'FILENAME'"):
        stamp_table(patients[:1], slides[["PATIENT"]])
    with (
        pytest.raises(CohortError, match="no PATIENT in common"),
        pytest.warns(CohortWarning),
    ):
        stamp_table(patients[:1].assign(PATIENT="X"), slides)
