"""Thousands of damaged inputs: each gives an error of ours that names it, or a correct result."""

import io
import pickle
import warnings
from functools import cache

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from sk_momkd import cache_bags, load_cohort, read_bags
from sk_momkd.data.ids import normalise_id
from sk_momkd.exceptions import BagError, CohortError, CohortWarning, OmicsError
from sk_momkd.io import stored_copy

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


@pytest.mark.parametrize("code", [pickle.BINBYTES8, pickle.BINUNICODE8, pickle.BYTEARRAY8])
@pytest.mark.parametrize("n", [2**40, 2**62, 2**63])
def test_pickle_that_declares_more_than_memory_is_refused(tmp_path, code, n):
    path = tmp_path / "S1.pt"
    path.write_bytes(b"\x80\x04" + code + n.to_bytes(8, "little") + b"abc.")
    with pytest.raises(BagError, match="S1"):
        read_bags(path).load(0)
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


@QUICK
@given(
    data=st.data(),
    attributes=st.dictionaries(
        st.sampled_from(["patch_size", "patch_level", "downsample"]),
        st.sampled_from([256, 0, 2, -1, 1e308, np.inf, "x", b"\xff", np.ones(2), np.empty(0)]),
    ),
)
def test_patch_file_beside_clam_features(tmp_path, data, attributes):
    for name in ("h5_files", "patches"):
        (tmp_path / name).mkdir(exist_ok=True)
        with h5py.File(tmp_path / name / "S1.h5", "w") as file:
            file["features"], file["coords"] = np.ones((9, 5)), np.ones((9, 2))
            file["coords"].attrs.update(attributes if name == "patches" else {})
    patches = tmp_path / "patches" / "S1.h5"
    if data.draw(st.booleans()):
        patches.write_bytes(damaged(patches.read_bytes(), data))
    try:
        size = read_bags(tmp_path / "h5_files")[0].info.patch_size_level0
    except OURS as error:
        said, size = str(error), None
    else:
        said = "S1"
    assert "S1" in said
    assert size is None or 0 < size < np.inf


@QUICK
@given(data=st.data())
@pytest.mark.filterwarnings("ignore::UserWarning")  # numpy on headers of Python 2, zip names
def test_index_beside_slideflow_features(tmp_path, data):
    (tmp_path / "S1.pt").write_bytes(sound_file("pt"))
    buffer = io.BytesIO()
    np.savez(buffer, np.ones((9, 2)))
    (tmp_path / "S1.index.npz").write_bytes(damaged(buffer.getvalue(), data))
    load_or_own_error(tmp_path / "S1.pt")


def damaged(content, data):
    """Truncated, or some bytes overwritten."""
    if data.draw(st.booleans()):
        return content[: data.draw(st.integers(0, len(content) - 1))]
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    return bytes(changed)


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    """Two slides, their notes and copies, and the bytes of each file of the cache."""
    folder = tmp_path_factory.mktemp("cached")
    for i, name in enumerate(("S1", "S2")):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["features"], file["coords"] = np.full((9, 5), i + 0.5), np.full((9, 2), i)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_copy, "AT_REST", -(10**12))
        bags = cache_bags(read_bags(folder), folder / "cache", dtype="bfloat16")
        for bag in bags:
            bag.load()
    stored_copy._VERIFIED.clear()
    return bags, {path: path.read_bytes() for path in (folder / "cache").iterdir()}


@QUICK
@given(data=st.data())
@pytest.mark.filterwarnings("ignore::UserWarning")  # numpy on headers of Python 2, zip names
def test_cache_with_damaged_notes_and_copies_gives_the_files_content(cached, data):
    bags, contents = cached
    for path, content in contents.items():
        kind = data.draw(st.sampled_from(["sound", "damaged", "another's", "absent"]))
        others = [p for p in contents if p.suffix == path.suffix and p != path]
        if kind == "another's" and others:
            path.write_bytes(contents[others[0]])
        elif kind == "absent":
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(damaged(content, data) if kind == "damaged" else content)
    for i, bag in enumerate(bags):
        features, coords, *_ = bag.load()
        assert features.shape == (9, 5)
        assert (features == i + 0.5).all()
        assert (coords == i).all()


BARCODES = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["TCGA-A2-A04P", "tcga-a2-a04p", "TCGA-BH-A0B3", "TCGA-A2", "P1", ""]),
        st.sampled_from(["", "-01", "-01Z-00-DX1", "-11A", "-1", "-011", "-xx"]),
        st.sampled_from(["", ".svs", ".9B3EF0C4-1E0B-4A2E-9F5D-6D6C3A2E7A11", ".9B3E"]),
    ),
)


@QUICK
@given(
    slides=st.lists(BARCODES, max_size=5),
    files=st.sets(BARCODES, max_size=5),
    rows=st.lists(BARCODES, max_size=4),
    sample_type=st.sampled_from(["01", "11", None, "1"]),
)
@pytest.mark.filterwarnings("ignore::sk_momkd.exceptions.CohortWarning")
def test_tables_with_odd_barcodes(tmp_path_factory, slides, files, rows, sample_type):
    folder = tmp_path_factory.mktemp("barcodes")
    for file in files:
        (folder / f"{file}.h5").touch()
    table = pd.DataFrame({"slide_id": slides, "label": 1}, dtype=object)
    omics = pd.DataFrame(np.arange(len(rows))[:, None], rows, ["A"]) if rows else None
    options = {"label": "label", "barcodes": "tcga", "sample_type": sample_type}
    try:
        with warnings.catch_warnings(record=True, action="always") as caught:
            bags, _, joined, report = load_cohort(table, folder, omics, **options)
    except OURS:
        return
    unread = [str(w.message) for w in caught if "slide ids have no sample type" in str(w.message)]
    assert len(bags) + len(report.left_out) == len(report.slides)
    stems = [bag.source.path.rsplit("/", 1)[1].removesuffix(".h5") for bag in bags]
    assert len(set(stems)) == len(stems)
    for bag, stem in zip(bags, stems, strict=True):
        assert bag.patient_id == bag.bag_id[:12].upper() == stem[:12].upper()
        after = bag.bag_id[12:].partition(".")[0]
        if sample_type is not None and after in ("-1", "-011", "-xx"):
            assert unread
        else:
            assert sample_type is None or after[:3] in ("", f"-{sample_type}")
    if joined is not None:
        n_left = len(report.unmatched_omics) + len(report.omics_left_out)
        assert len(joined) + n_left == len(rows)
        for patient, row in zip(joined.obs_names, joined.X[:, 0], strict=True):
            assert rows[int(row)][:12].upper() == patient


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
    by_slide = table.set_index(table["slide_id"].map(normalise_id))
    for bag, label in zip(bags, y, strict=True):
        assert bag.load().features.shape == (9, 5)
        assert normalise_id(by_slide.loc[bag.bag_id, "case_id"]) == bag.patient_id
        raw = by_slide.loc[bag.bag_id, "label"]
        expected = positive.get(raw) if isinstance(positive, dict) else raw
        assert label == (int(raw == positive) if positive in ("+", 1) else expected)
    assert set(by_slide.index) <= set(report.slides["slide_id"])
    assert joined is None or set(joined.obs_names) <= {"S1", "007", "S2", *bags.patient_ids}


def test_ids_that_leave_the_folder_find_nothing(folder):
    table = pd.DataFrame({"slide_id": ["../outside", "S1"], "case_id": ["A", "B"], "y": [0, 1]})
    with pytest.warns(CohortWarning, match=r"1 no feature file.*'outside'"):
        bags = load_cohort(table, folder, label="y").bags
    assert list(bags.ids) == ["S1"]
