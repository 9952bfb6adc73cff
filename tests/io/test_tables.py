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
    [("t.csv", b"\xff\xfe\x00\x81", "not a readable"), ("t.parquet", b"", "suffix must be one of")],
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
