"""Thousands of damaged inputs: each gives an error of ours that names it, or a correct result."""

import io
from functools import cache

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sk_momkd import load_cohort, read_bags
from sk_momkd.exceptions import BagError, CohortError, CohortWarning, OmicsError

QUICK = settings(
    max_examples=700,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
OURS = (BagError, CohortError, OmicsError)


@cache
def sound_file(kind):
    """Bytes of a sound file, one-row chunks or a torch tensor."""
    buffer = io.BytesIO()
    features = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    if kind == "pt":
        torch.save(torch.tensor(features), buffer)
        return buffer.getvalue()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("features", data=features, chunks=(1, 5))
        file.create_dataset("coords", data=np.arange(18).reshape(9, 2))
        file["coords"].attrs.update(patch_size_level0=512, name="S1")
    return buffer.getvalue()


def load_or_own_error(path):
    """Load the only bag of a file; an error must be ours and name the file or the bag."""
    try:
        (bag,) = read_bags(path)
        bag.info  # noqa: B018
        features, coords, edges, _ = bag.load()
    except OURS as error:
        said = str(error)
    else:
        said = "S1"
        check_arrays(features, coords, edges)
    assert "S1" in said


def check_arrays(features, coords, edges):
    assert features.dtype == np.float32
    assert features.ndim == 2
    assert features.size > 0
    assert np.isfinite(features).all()
    assert coords is None or coords.shape == (len(features), 2)
    assert edges is None or edges.shape[0] == 2


@QUICK
@given(kind=st.sampled_from(["h5", "pt"]), data=st.data())
def test_truncated_or_overwritten_bytes(tmp_path, kind, data):
    content = bytearray(sound_file(kind))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    for _ in range(data.draw(st.integers(0, 4))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / f"S1.{kind}"
    path.write_bytes(bytes(content))
    load_or_own_error(path)


VALUES = st.sampled_from(
    [
        np.ones((4, 3)),
        np.ones((4, 3), np.float16),
        np.full((4, 3), np.nan),
        np.full((4, 3), -np.inf),
        np.full((4, 3), 1e300),
        np.ones((3, 4)).T,
        np.empty((0, 3)),
        np.empty((3, 0)),
        np.empty(0),
        np.ones(4),
        np.ones((1, 4, 3)),
        np.ones((2, 4, 3)),
        np.ones((1, 1, 4, 3)),
        np.float32(1),
        np.zeros((4, 2), np.int64),
        np.zeros((2, 4), np.int64),
        np.full((4, 2), np.nan),
        np.ones((4, 2), bool),
        np.ones((4, 2), complex),
        np.array([[b"a", b"b"]] * 4),
        np.zeros(4, dtype=[("x", "f4"), ("y", "i4")]),
        np.array([[0, 1], [1, 99]]),
        np.array([[0, 1], [1, -1]]),
    ]
)
KEYS = ("features", "coords", "feats", "patch_embeddings", "edge_index_k8", "slide", "X")


@QUICK
@given(
    datasets=st.dictionaries(st.sampled_from(KEYS), VALUES | st.none(), max_size=4),
    attributes=st.dictionaries(
        st.sampled_from(["patch_size_level0", "encoder", "name"]),
        st.sampled_from([512, -1, "x", b"\xff", np.nan, np.ones(2)]),
    ),
)
def test_foreign_or_misshapen_hdf5(tmp_path, datasets, attributes):
    path = tmp_path / "S1.h5"
    with h5py.File(path, "w") as file:
        for key, values in datasets.items():
            if values is None:
                file.create_group(key)
            else:
                file[key] = values
            file[key].attrs.update(attributes)
    load_or_own_error(path)


IDS = st.sampled_from(
    ["S1", "S1.svs", "s1", "../S1", "/etc/S1", "", " S1", "S2", "007", "S1/..", None]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    for name in ("S1", "S2", "007"):
        (folder / f"{name}.h5").write_bytes(sound_file("h5"))
    (folder.parent / "outside.h5").write_bytes(sound_file("h5"))
    return folder


@QUICK
@given(
    rows=st.lists(st.tuples(IDS, IDS, st.sampled_from(["+", "-", "?", 1, None])), max_size=5),
    positive=st.sampled_from([None, "+", 1, {"+": 1, "-": 0}, {"+": 1, "-": 0, "?": None, 1: 1}]),
    patients=st.lists(st.sampled_from(["S1", "007", "P9", "S1"]), max_size=3),
)
@pytest.mark.filterwarnings("ignore::sk_momkd.exceptions.CohortWarning")
def test_tables_with_odd_ids_and_labels(folder, rows, positive, patients):
    table = pd.DataFrame(rows, columns=["slide_id", "case_id", "label"], dtype=object)
    omics = pd.DataFrame(1.0, index=patients, columns=["A", "B"]) if patients else None
    try:
        bags, y, joined, report = load_cohort(
            table, folder, omics, label="label", positive=positive
        )
    except OURS:
        return
    assert len(bags) == len(y) == (report.slides["status"] == "used").sum()
    by_slide = table.set_index("slide_id")
    for bag, label in zip(bags, y, strict=True):
        assert bag.load().features.shape == (9, 5)
        assert by_slide.loc[bag.bag_id, "case_id"] == bag.patient_id
        raw = by_slide.loc[bag.bag_id, "label"]
        expected = positive.get(raw) if isinstance(positive, dict) else raw
        assert label == (int(raw == positive) if positive in ("+", 1) else expected)
    assert set(table["slide_id"]) <= set(report.slides["slide_id"])
    assert joined is None or set(joined.obs_names) <= {"S1", "007", "S2", *bags.patient_ids}


def test_ids_that_leave_the_folder_find_nothing(folder):
    table = pd.DataFrame({"slide_id": ["../outside", "S1"], "case_id": ["A", "B"], "y": [0, 1]})
    with pytest.warns(CohortWarning, match=r"1 no feature file.*'\.\./outside'"):
        bags = load_cohort(table, folder, label="y").bags
    assert list(bags.ids) == ["S1"]
