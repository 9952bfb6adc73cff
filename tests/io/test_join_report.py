"""The printed report: geometry appears once it was asked for, and names what disagrees."""

import h5py
import numpy as np
import pandas as pd
import pytest

from sk_momkd import load_cohort
from sk_momkd.exceptions import CohortWarning
from sk_momkd.io.readers import SlideFile

GRID = np.stack(np.divmod(np.arange(12), 4), axis=1)


@pytest.fixture
def report(tmp_path):
    """Slides of 512 and of 256, one with half its stride, one of unknown size, one truncated."""
    strides = {"a": (512, 512), "b": (512, 512), "c": (256, 256), "d": (256, 512), "e": (512, None)}
    for name, (stride, size) in strides.items():
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["features"], file["coords"] = np.ones((12, 2)), GRID * stride
            if size is not None:
                file["coords"].attrs["patch_size_level0"] = size
    (tmp_path / "f.h5").write_bytes(b"cut off")
    table = pd.DataFrame({"slide_id": list("abcdef"), "case_id": list("aabbcc"), "y": 1})
    with pytest.warns(CohortWarning, match="1 files cannot be read"):
        return load_cohort(table, tmp_path, label="y", unit="patient").report


def test_report_without_geometry_opens_nothing(report, monkeypatch):
    monkeypatch.setattr(h5py, "File", None)
    assert "geometry" not in str(report).replace("test_report_without_geometry", "")
    assert "1 files cannot be read (\"bag 'f'\")" in str(report)


def test_report_with_geometry_shows_strides_and_names_slides_that_disagree(report):
    assert len(report.check_geometry()) == 6
    lines = str(report).splitlines()
    assert lines[3:7] == [
        "geometry:",
        "2 slides: stride 512, patches of 512 level-0 px",
        "1 slides: stride 256, patches of 256 level-0 px",
        "1 slides: stride 256, patches of 512 level-0 px",
    ]
    assert "1 slides: stride 512, patches of unknown size level-0 px" in lines
    assert lines[-1].startswith(
        "2 slides that disagree or cannot be read: bag 'd': stride 256 is 0.5 of patch size 512 "
        "(overlap); bag 'f': "
    )
    assert "f.h5 is not a readable HDF5 file" in lines[-1]


def test_report_geometry_is_read_once(report, monkeypatch):
    first = report.check_geometry()
    monkeypatch.setattr(SlideFile, "coords", lambda self: pytest.fail("read again"))
    assert report.check_geometry() is first


def test_patients_whose_slides_have_different_labels_are_named(tmp_path, recwarn):
    for name in "abcd":
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["features"] = np.ones((2, 2))
    table = pd.DataFrame({"slide_id": list("abcd"), "case_id": list("PPQQ"), "y": [0, 1, 1, 1]})
    report = load_cohort(table, tmp_path, label="y").report
    (said,) = {str(w.message) for w in recwarn if w.category is CohortWarning}
    assert said.startswith("1 patients have slides with different labels ('P').")
    assert said in str(report)
    assert not load_cohort(table[1:], tmp_path, label="y").report.different_labels()
