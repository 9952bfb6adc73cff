"""Loading a cohort: everything by id, and a report of what was left out."""

import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from sk_momkd import load_cohort, simulate_cohort
from sk_momkd.exceptions import CohortError, CohortWarning, OmicsError
from sk_momkd.io.readers import SlideFile

SLIDES = ("001", "002", "010", "011")
TWO_SLIDES = pd.DataFrame({"slide_id": ["007", "008"], "case_id": ["01", "02"], "er": ["+", "-"]})


def write_files(folder, names):
    folder.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        with h5py.File(folder / name, "w") as file:
            file["features"] = np.full((2, 3), i + 1)
            file["coords"] = np.zeros((2, 2), int)
    return folder


@pytest.fixture
def features(tmp_path):
    return write_files(tmp_path / "features", [f"{s}.h5" for s in SLIDES])


@pytest.fixture
def table():
    """Four slides of three patients."""
    return pd.DataFrame(
        {"slide_id": SLIDES, "case_id": ["07", "08", "08", "09"], "her2": ["+", "-", "-", "+"]}
    )


def expression(*ids, matrix=np.asarray):
    adata = AnnData(matrix(np.arange(2.0 * len(ids), dtype=np.float32).reshape(-1, 2)))
    adata.obs_names, adata.var_names = list(ids), ["ERBB2", "ESR1"]
    return adata


def test_load_csv_leading_zeros_of_ids_survive(table, features, tmp_path):
    table.to_csv(tmp_path / "slides.csv", index=False)
    bags, y, omics, report = load_cohort(tmp_path / "slides.csv", features, label="her2")
    assert bags.ids.tolist() == list(SLIDES)
    assert bags.patient_ids.tolist() == ["07", "08", "08", "09"]
    assert y.tolist() == ["+", "-", "-", "+"]
    assert omics is None
    assert report.left_out.empty
    assert [bag.features[0, 0] for bag in bags] == [1, 2, 3, 4]


def test_load_other_column_names_are_taken(table, features):
    table = table.rename(columns={"slide_id": "image", "case_id": "patient"})
    cohort = load_cohort(table, features, label="her2", slide_id="image", patient_id="patient")
    assert cohort.bags.patient_ids.tolist() == ["07", "08", "08", "09"]


def test_load_numeric_ids_of_a_frame_become_text(table, tmp_path):
    folder = write_files(tmp_path / "numbers", ["1.h5", "2.h5", "10.h5", "11.h5"])
    table = table.assign(slide_id=[1, 2, 10, 11], case_id=[7, 8, 8, 9])
    bags = load_cohort(table, folder, label="her2").bags
    assert bags.ids.tolist() == ["1", "2", "10", "11"]
    assert bags.patient_ids.tolist() == ["7", "8", "8", "9"]


@pytest.mark.parametrize("suffix", [".svs", ".SVS", ".h5", ".svs.h5", ".ndpi"])
def test_load_slide_suffix_in_the_table_is_ignored(table, features, suffix):
    table["slide_id"] += suffix
    bags = load_cohort(table, features, label="her2").bags
    assert bags.ids.tolist() == list(SLIDES)
    assert bags[3].features[0, 0] == 4


def test_load_other_suffixes_of_files_and_dots_in_ids_are_kept_apart(table, tmp_path):
    slides = ["T-01.4F2A", "T-01.4F2B", "T-02", "T-03"]
    names = ["T-01.4F2A.h5", "T-01.4F2B.svs.h5", "T-02.hdf5", "T-03.h5", "notes.txt"]
    folder = write_files(tmp_path / "uuid", names)
    cohort = load_cohort(table.assign(slide_id=slides), folder, label="her2")
    assert [bag.features[0, 0] for bag in cohort.bags] == [1, 2, 3, 4]
    assert len(cohort.report.slides) == 4


def test_load_reads_no_features(table, features, monkeypatch):
    monkeypatch.setattr(SlideFile, "read", lambda self: pytest.fail("a file was read"))
    assert len(load_cohort(table, features, label="her2").bags) == 4


def test_load_does_not_change_the_table(table, features):
    before = table.copy()
    load_cohort(table, features, label="her2", positive="+")
    pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize(
    ("values", "positive", "expected"),
    [
        ("+--+", "+", [1, 0, 0, 1]),
        ([True, False, False, True], True, [1, 0, 0, 1]),
        ([3, 1, 1, 3], 3, [1, 0, 0, 1]),
        ([3, 1, 1, 3], "3", [1, 0, 0, 1]),
        ("+--+", {"+": 1, "-": 0}, [1, 0, 0, 1]),
        ("+--+", {"+": "high", "-": "low"}, ["high", "low", "low", "high"]),
        ([1, 2, 3, 1], {1: 0, 2: 0, 3: 1}, [0, 0, 1, 0]),
        ("+--+", None, ["+", "-", "-", "+"]),
        ([2, 1, 1, 2], None, [2, 1, 1, 2]),
    ],
)
def test_load_labels_are_mapped(table, features, values, positive, expected):
    y = load_cohort(table.assign(her2=list(values)), features, label="her2", positive=positive).y
    assert y.tolist() == expected
    assert all(isinstance(value, type(expected[0])) for value in y.tolist())


@pytest.mark.parametrize(
    ("values", "positive", "expected"),
    [
        (["+", None, "-", "+"], {"+": "high", "-": "low"}, ["high", "low", "high"]),
        (["+", None, "-", "+"], "+", [1, 0, 1]),
        ([2.0, np.nan, 1.0, 2.0], None, [2, 1, 2]),
        ([2.0, np.nan, 1.0, 2.0], "2", [1, 0, 1]),
        (["+", None, "-", "+"], None, ["+", "-", "+"]),
    ],
)
def test_load_slides_without_label_are_left_out_and_reported(
    table, features, values, positive, expected
):
    said = r"1 slides of the table were left out: 1 no label in 'her2'; the first is '002'"
    with pytest.warns(CohortWarning, match=said):
        cohort = load_cohort(table.assign(her2=values), features, label="her2", positive=positive)
    assert cohort.y.tolist() == expected
    assert all(isinstance(value, type(expected[0])) for value in cohort.y.tolist())
    assert cohort.bags.ids.tolist() == ["001", "010", "011"]
    assert cohort.report.left_out["slide_id"].tolist() == ["002"]
    assert cohort.report.left_out["status"].tolist() == ["no label in 'her2'"]


@pytest.mark.parametrize(
    ("values", "positive", "said"),
    [
        (
            "+-?+",
            "+",
            r"'her2' holds '\+' \(2\), '-' \(1\), '\?' \(1\); with positive='\+'.*negative=",
        ),
        ("+--+", "yes", r"holds '\+' \(2\), '-' \(2\); none of them is positive='yes'"),
        ("++++", "+", r"holds '\+' \(4\); with positive='\+'.*one other"),
        ("+-?+", {"+": 1, "-": 0}, r"'her2' holds values.*does not map: '\?' \(1\).*None to"),
    ],
)
def test_load_values_that_positive_does_not_cover_raise(table, features, values, positive, said):
    with pytest.raises(CohortError, match=said):
        load_cohort(table.assign(her2=list(values)), features, label="her2", positive=positive)


def test_load_missing_files_are_left_out_and_reported(table, features):
    (features / "002.h5").unlink()
    (features / "011.h5").unlink()
    with pytest.warns(CohortWarning, match=r"2 slides.*2 no feature file; the first is '002'"):
        bags, y, _, report = load_cohort(table, features, label="her2")
    assert bags.ids.tolist() == ["001", "010"]
    assert y.tolist() == ["+", "-"]
    assert report.left_out["slide_id"].tolist() == ["002", "011"]
    assert set(report.left_out["status"]) == {"no feature file"}


def test_load_files_beside_the_table_stand_in_the_report_without_warning(table, features, recwarn):
    report = load_cohort(table.iloc[:3], features, label="her2").report
    assert not [w for w in recwarn if issubclass(w.category, CohortWarning)]
    assert report.left_out["slide_id"].tolist() == ["011"]
    assert report.left_out["status"].tolist() == ["not in the table"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"slide_id": ["001", "001", "010", "011"]}, "1 slide ids occur more than once.*'001'"),
        ({"slide_id": ["001", "001.svs", "010", "011"]}, "several ways: '001' and '001.svs'"),
        ({"slide_id": ["001", None, "010", "011"]}, "1 rows have no slide_id, the first is row 1"),
        ({"case_id": ["7", "8", "8", np.nan]}, "1 rows have no patient_id, the first is row 3"),
        ({"slide_id": list("abcd")}, r"No slide.*4.*slides 'a', 'b', 'c' and 1 more.*'001', '002'"),
        ({"her2": [None] * 4}, "No slide of the table is usable.*no label in 'her2'"),
    ],
)
def test_load_unusable_table_raises(table, features, change, said):
    with pytest.raises(CohortError, match=said):
        load_cohort(table.assign(**change), features, label="her2")


@pytest.mark.parametrize("column", ["slide_id", "case_id", "her2"])
def test_load_missing_column_raises_naming_it(table, features, column):
    said = rf"no column '{column}'; it has .*slide_id=, patient_id= and label="
    with pytest.raises(CohortError, match=said):
        load_cohort(table.drop(columns=column), features, label="her2")


def test_load_two_files_of_one_slide_raise_naming_them(table, features):
    write_files(features, ["001.svs.h5"])
    with pytest.raises(CohortError, match=r"Two files are of slide '001': .*001\.svs\.h5.*Keep"):
        load_cohort(table, features, label="her2")


def test_load_missing_folder_raises_naming_it(table, tmp_path):
    with pytest.raises(CohortError, match="absent does not exist"):
        load_cohort(table, tmp_path / "absent", label="her2")


def test_load_empty_folder_raises(table, tmp_path):
    with pytest.raises(CohortError, match="has files none"):
        load_cohort(table, write_files(tmp_path / "empty", []), label="her2")


@pytest.mark.slow
@pytest.mark.parametrize("stored", [False, True], ids=["memory", "file"])
@pytest.mark.parametrize("matrix", [np.asarray, sparse.csr_matrix])
def test_load_omics_rows_stand_in_bag_order(table, features, tmp_path, stored, matrix):
    given = expression("09", "x", "07", "08", matrix=matrix)
    given.write_h5ad(tmp_path / "omics.h5ad")
    given = tmp_path / "omics.h5ad" if stored else given
    _, _, omics, report = load_cohort(table, features, given, label="her2")
    assert omics.obs_names.tolist() == ["07", "08", "09"]
    assert np.asarray(omics[:, "ERBB2"].to_df())[:, 0].tolist() == [4, 6, 0]
    assert not omics.isbacked
    assert not omics.is_view
    assert report.unmatched_omics == ["x"]


def test_load_omics_by_slide_id_marks_slides_with_omics(table, features):
    report = load_cohort(table, features, expression("010", "001"), label="her2").report
    assert report.slides["has_omics"].tolist() == [True, False, True, False]


def test_load_omics_of_slides_left_out_is_unmatched(table, features):
    (features / "011.h5").unlink()
    with pytest.warns(CohortWarning):
        cohort = load_cohort(table, features, expression("09", "07"), label="her2")
    assert cohort.omics.obs_names.tolist() == ["07"]
    assert cohort.report.unmatched_omics == ["09"]
    assert cohort.report.slides["has_omics"].tolist() == [True, False, False, False]


def test_load_omics_without_any_match_raises_showing_both_sides(table, features):
    said = r"omics has 'a', 'b'.*patients '07', '08', '09'.*slides '001', '002', '010' and 1 more"
    with pytest.raises(CohortError, match=said):
        load_cohort(table, features, expression("a", "b"), label="her2")


def test_load_omics_file_can_be_rewritten_afterwards(table, features, tmp_path):
    path = tmp_path / "omics.h5ad"
    expression("07", "08").write_h5ad(path)
    omics = load_cohort(table, features, path, label="her2").omics
    expression("09").write_h5ad(path)
    assert omics.X.tolist() == [[0, 1], [2, 3]]


def test_load_damaged_omics_file_raises_naming_it(table, features, tmp_path):
    (tmp_path / "omics.h5ad").write_text("gene,P1\n")
    with pytest.raises(OmicsError, match=r"omics\.h5ad is not a readable \.h5ad file"):
        load_cohort(table, features, tmp_path / "omics.h5ad", label="her2")


def test_load_missing_omics_file_raises_naming_it(table, features, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.h5ad"):
        load_cohort(table, features, tmp_path / "absent.h5ad", label="her2")


def test_report_counts_everything(table, features):
    write_files(features, ["x1.h5", "x2.h5", "x3.h5", "x4.h5"])
    (features / "011.h5").unlink()
    table = table.assign(her2=["+", "-", None, "+"])
    with pytest.warns(CohortWarning, match="2 slides"):
        report = load_cohort(table, features, expression("07", "z"), label="her2").report
    assert str(report).splitlines() == [
        "2 of 8 slides in use, 2 patients, labels {+: 1, -: 1}",
        "1 slides with omics, 1 histology only, 1 omics rows without a slide in use ('z')",
        "1 left out, no feature file: '011'",
        "1 left out, no label in 'her2': '010'",
        "4 left out, not in the table: 'x1', 'x2', 'x3' and 1 more",
    ]


def test_load_simulated_cohort_is_used_whole(tmp_path):
    paths = simulate_cohort(tmp_path, n_patients=6, n_patches=8, n_genes=20, random_state=0)
    bags, y, omics, report = load_cohort(*paths, label="subtype", positive="aggressive")
    assert report.left_out.empty
    assert sorted(y) == [0, 0, 0, 1, 1, 1]
    assert omics.obs_names.tolist() == bags.patient_ids.tolist()


def test_load_mapping_with_none_keeps_the_type_of_the_labels(tmp_path):
    for name in "abc":
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["features"] = np.ones((3, 2))
    table = pd.DataFrame({"slide_id": list("abc"), "case_id": list("abc"), "her2": ["+", "-", "?"]})
    mapping = {"+": 1, "-": 0, "?": None}
    with pytest.warns(UserWarning, match="1 slides"):
        y = load_cohort(table, tmp_path, label="her2", positive=mapping).y
    assert y.tolist() == [1, 0]
    assert y.dtype.kind == "i"


@pytest.fixture
def two_features(tmp_path):
    folder = tmp_path / "features"
    folder.mkdir()
    for slide in TWO_SLIDES["slide_id"]:
        with h5py.File(folder / f"{slide}.h5", "w") as file:
            file["features"] = np.ones((2, 3))
    return folder


def test_report_by_site_counts_labels(two_features):
    table = TWO_SLIDES.assign(centre=["01", "02"])
    report = load_cohort(table, two_features, label="er", site="centre").report
    assert report.by_site().loc["01"].to_dict() == {"+": 1, "-": 0}
    with pytest.raises(CohortError, match="site="):
        load_cohort(table, two_features, label="er").report.by_site()


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


def test_load_whole_floats_as_ids_become_integers(numbered_features):
    table = slides(slide_id=[1.0, 2.0], case_id=[7.0, 8.0])
    bags = load_cohort(table, numbered_features, label="er").bags
    assert bags.ids.tolist() == ["1", "2"]
    assert bags.patient_ids.tolist() == ["7", "8"]


@pytest.mark.parametrize(
    ("patients", "message"),
    [
        (["P1 ", "P1"], r"1 values of patient_id are written in several ways: 'P1 ' and 'P1'"),
        (["", " "], "2 rows have no patient_id"),
        (["a", np.nan], "1 rows have no patient_id, the first is row 1"),
    ],
)
def test_load_patient_ids_that_would_join_wrongly_raise(numbered_features, patients, message):
    with pytest.raises(CohortError, match=message):
        load_cohort(slides(case_id=patients), numbered_features, label="er")


def test_load_column_that_occurs_twice_raises(numbered_features):
    table = pd.concat([slides(), slides()[["er"]]], axis=1)
    with pytest.raises(CohortError, match="several columns of the name 'er'"):
        load_cohort(table, numbered_features, label="er")


@pytest.mark.parametrize("other", ["Equivocal", "unknown", "[Not Evaluated]", "?"])
def test_load_unknown_beside_the_positive_value_is_no_negative(numbered_features, other):
    table = slides(er=["Positive", other])
    with pytest.raises(CohortError, match="but is no negative"):
        load_cohort(table, numbered_features, label="er", positive="Positive")


@pytest.mark.parametrize("positive", [None, "Positive"])
@pytest.mark.parametrize("other", ["positive", "Positive "])
def test_load_label_in_two_spellings_raises(numbered_features, positive, other):
    table = slides(er=["Positive", other])
    with pytest.raises(CohortError, match="which would be two classes"):
        load_cohort(table, numbered_features, label="er", positive=positive)
    mapped = load_cohort(table, numbered_features, label="er", positive={"Positive": 1, other: 1})
    assert mapped.y.tolist() == [1, 1]


def test_by_site_counts_slides_of_unknown_sites(numbered_features):
    report = load_cohort(
        slides(site=["X", None]), numbered_features, label="er", site="site"
    ).report
    assert report.by_site().to_numpy().sum() == 2
    assert "unknown" in str(report)


class Polars:
    """A table of another library."""

    def to_pandas(self):
        raise NotImplementedError


@pytest.mark.parametrize("name", ["table", "features", "omics"])
@pytest.mark.parametrize("given", [{"a": [1]}, ["a.csv"], np.ones((2, 2)), Polars()])
def test_load_of_what_is_no_path_names_the_argument(table, features, name, given):
    arguments = {"table": table, "features": features, name: given}
    said = rf"{name} is a {type(given).__name__}, expected .*path"
    with pytest.raises(TypeError, match=said) as caught:
        load_cohort(**arguments, label="her2")
    assert ("to_pandas()" in str(caught.value)) == isinstance(given, Polars)


def test_load_from_a_home_folder_that_is_not_resolved_says_so(features):
    with pytest.raises(FileNotFoundError, match=r"os\.path\.expanduser"):
        load_cohort("~/no_such_table.csv", features, label="her2")


def test_load_by_a_list_of_columns_names_the_columns(table, features):
    with pytest.raises(CohortError, match=r"has no column.*'slide_id', 'case_id', 'her2'"):
        load_cohort(table, features, label=["her2"])


@pytest.mark.parametrize("name", [None, np.nan, " "])
def test_load_of_genes_without_a_name_raises(table, features, name):
    genes = pd.DataFrame(np.eye(3, 2), index=["07", "08", "09"], columns=["ERBB2", name])
    with pytest.raises(OmicsError, match="1 genes of omics have no name, the first is column 1"):
        load_cohort(table, features, genes.rename_axis("case_id"), label="her2")
