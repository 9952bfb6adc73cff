"""Tables in text and Excel files, and STAMP's two tables."""

import h5py
import numpy as np
import pandas as pd
import pytest

from sk_momkd import load_cohort, stamp_table
from sk_momkd.exceptions import CohortError, CohortWarning
from sk_momkd.io.tables import read_table

SLIDES = pd.DataFrame({"slide_id": ["007", "008"], "case_id": ["01", "02"], "er": ["+", "-"]})


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


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("t.csv", b"\xfd\xfe\x81", "not a readable"), ("t.parquet", b"", "suffix must be one of")],
)
def test_read_table_unusable_file_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CohortError, match=f"{name}.*{message}"):
        read_table(tmp_path / name)


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


def test_table_is_text_untouched(tmp_path):
    (tmp_path / "t.csv").write_text('\ufeffid,a,a\n007,NA,1.0\n\n"x,\n1",None,\n,,\nnan,null,NaN\n')
    frame = read_table(tmp_path / "t.csv")
    assert frame.columns.tolist() == ["id", "a", "a"]
    assert frame.to_numpy().tolist() == [
        ["007", "NA", "1.0"],
        ["x,\n1", "None", ""],
        ["nan", "null", "NaN"],
    ]


@pytest.mark.parametrize("name", ["t.csv.gz", "t.csv.bz2", "t.csv.xz", "t.csv.zip", "t.TSV"])
def test_table_in_other_cases_and_compressions(tmp_path, name):
    SLIDES.to_csv(tmp_path / name, index=False, sep="\t" if "TSV" in name else ",")
    assert read_table(tmp_path / name).to_numpy().tolist() == SLIDES.to_numpy().tolist()


@pytest.mark.parametrize("name", ["t.csv", "t.xlsx"])
def test_header_that_is_there_twice_is_refused_where_it_is_used(tmp_path, features, name):
    table = pd.concat([SLIDES, SLIDES["er"]], axis=1)
    path = write(table, tmp_path / name, index=False)
    with pytest.raises(CohortError, match="several columns of the name 'er'"):
        load_cohort(path, features, label="er")
    other = pd.concat([SLIDES, SLIDES["er"].rename("x"), SLIDES["er"].rename("x")], axis=1)
    path = write(other, tmp_path / name, index=False)
    assert load_cohort(path, features, label="er").y.tolist() == ["+", "-"]


def test_ids_that_are_words_for_missing_are_ids(tmp_path):
    for slide in ("NA", "None", "nan", "null"):
        with h5py.File(tmp_path / f"{slide}.h5", "w") as file:
            file["features"] = np.ones((2, 3))
    rows = "".join(f"{slide},{slide},{i % 2}\n" for i, slide in enumerate(("NA", "None", "nan")))
    (tmp_path / "slides.csv").write_text(f"slide_id,case_id,er\n{rows}")
    bags = load_cohort(tmp_path / "slides.csv", tmp_path, label="er").bags
    assert bags.ids.tolist() == bags.patient_ids.tolist() == ["NA", "None", "nan"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", "a;b\n1;2\n", r"separated by semicolons \(';'\), but \.csv is read with commas"),
        ("t.csv", "a\tb\n1\t2\n", r"separated by tabs.*pd\.read_csv\(path, dtype=str"),
        ("t.tsv", "a,b\n1,2\n", r"separated by commas \(','\), but \.tsv is read with tabs"),
        ("t.csv", "a|b\n1|2\n", "separated by bars"),
        ("t.csv", "# made by x\na,b\n1,2\n", r"begins with a comment, '# made by x'.*skiprows=1"),
        ("t.txt", "#1.2\n2\t1\nNAME\tDescription\n", r"header of a GCT file, '#1\.2'"),
        ("t.csv", "a,b\n1,2\n1,2,3\n", "row 2 has 3 cells, the header 2: '1', '2', '3'"),
        ("t.csv", "", "is empty"),
        ("t.csv.gz", "a,b\n", r"not a readable \.csv table"),
        ("t.xlsx", "a,b\n", r"not a readable \.xlsx table"),
    ],
)
def test_table_of_another_form_names_the_cause(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(CohortError, match=said):
        read_table(tmp_path / name)


def test_table_of_another_encoding_names_it(tmp_path):
    (tmp_path / "t.csv").write_bytes("M\xfcller,b\n1,2\n".encode("latin-1"))
    with pytest.raises(CohortError, match="not UTF-8 text"):
        read_table(tmp_path / "t.csv")


def test_old_excel_file_names_its_package(tmp_path):
    (tmp_path / "t.xls").write_bytes(b"\xd0\xcf\x11\xe0")
    with pytest.raises(CohortError, match=r"xlrd.*\.xlsx or \.csv|not a readable \.xls table"):
        read_table(tmp_path / "t.xls")


def test_address_is_not_fetched():
    with pytest.raises(CohortError, match="is an address, not a file"):
        read_table("http://localhost:1/t.csv")
    with pytest.raises(FileNotFoundError, match=r"absent\.csv does not exist"):
        read_table("absent.csv")


def test_further_sheets_of_excel_are_named_unless_they_are_empty(tmp_path, recwarn):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["slide_id"])
    book.active.append(["S1"])
    book.create_sheet("empty")
    book.save(tmp_path / "t.xlsx")
    assert read_table(tmp_path / "t.xlsx")["slide_id"].tolist() == ["S1"]
    assert not recwarn
    book.create_sheet("Site B").append(["slide_id"])
    book.save(tmp_path / "t.xlsx")
    with pytest.warns(CohortWarning, match="1 more sheets.*'Site B'"):
        read_table(tmp_path / "t.xlsx")


def test_rows_of_nothing_but_spaces_are_left_out(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1, 2\n , \n\t,\n")
    assert read_table(tmp_path / "t.csv").to_dict("records") == [{"a": "1", "b": " 2"}]


def test_long_numbers_of_excel_are_named(tmp_path, recwarn):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (["slide_id", "n"], [12345678901234567, 1.5], ["12345678901234567", 7.0]):
        book.active.append(row)
    book.save(tmp_path / "t.xlsx")
    with pytest.warns(CohortWarning, match=r"'slide_id' holds 1 numbers of more than 15 digits"):
        frame = read_table(tmp_path / "t.xlsx")
    assert frame["n"].tolist() == ["1.5", "7"]
    assert frame["slide_id"].tolist()[1] == "12345678901234567"


def test_long_numbers_of_a_frame_are_named(features):
    for slide in (12345678901234567, 12345678901234568):
        with h5py.File(features / f"{slide}.h5", "w") as file:
            file["features"] = np.ones((2, 3))
    table = SLIDES.assign(slide_id=[12345678901234567, 12345678901234568])
    with pytest.warns(CohortWarning, match="Column slide_id holds 2 numbers of more than 15"):
        bags = load_cohort(table, features, label="er").bags
    assert bags.ids.tolist() == ["12345678901234567", "12345678901234568"]


@pytest.mark.parametrize("ids", [[12345678901234567.0, 1.0], ["1.23457E+16", "1.2E+16"]])
def test_rounded_ids_raise(features, ids):
    with pytest.raises(CohortError, match="values of slide_id are rounded numbers"):
        load_cohort(SLIDES.assign(slide_id=[str(i) for i in ids]), features, label="er")


def test_stamp_ids_are_normalised_and_twice_used_headers_refused():
    patients = pd.DataFrame({"PATIENT": [1.0, 2.0], "er": [0, 1]})
    files = pd.DataFrame({"PATIENT": ["1", " 2"], "FILENAME": ["a.svs.h5", "sub/b.H5"]})
    table = stamp_table(patients, files)
    assert table["case_id"].tolist() == ["1", "2"]
    assert table["slide_id"].tolist() == ["a", "b"]
    doubled = pd.concat([patients, patients["er"]], axis=1)
    with pytest.raises(CohortError, match="several columns of the name 'er'"):
        stamp_table(doubled, files)
    said = r"in common: the patients table has '1', '2', the slides table '8', '9'"
    with pytest.raises(CohortError, match=said), pytest.warns(CohortWarning):
        stamp_table(patients, files.assign(PATIENT=["8", "9"]))


def test_stamp_tables_of_files_keep_words(tmp_path):
    (tmp_path / "p.csv").write_text("PATIENT,grade\nNA,None\nP2,High\n")
    (tmp_path / "s.csv").write_text("PATIENT,FILENAME\nNA,a.h5\nP2,b.h5\n")
    table = stamp_table(tmp_path / "p.csv", tmp_path / "s.csv")
    assert dict(zip(table["case_id"], table["grade"], strict=True)) == {"NA": "None", "P2": "High"}
