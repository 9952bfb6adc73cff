"""Ten thousand slides cost paths, not features; workers read files and get no copies."""

import pickle
import tracemalloc

import h5py
import numpy as np
import pandas as pd
from conftest import quick_classifier
from sklearn.model_selection import cross_val_predict

from sk_momkd import SlideFile, align_omics, load_cohort, read_bags
from sk_momkd.data.bag import BagInfo


def write_slide(path, features):
    with h5py.File(path, "w") as file:
        file["features"] = features
        file["coords"] = np.zeros((len(features), 2), dtype=np.int64)


def test_ten_thousand_slides_open_slice_pickle_and_join_as_paths(tmp_path, monkeypatch):
    write_slide(tmp_path / "s00000.h5", np.ones((2, 3), np.float32))
    for i in range(1, 10_000):
        (tmp_path / f"s{i:05d}.h5").hardlink_to(tmp_path / "s00000.h5")
    ids = [f"s{i:05d}" for i in range(10_000)]
    patients = [f"p{i // 2}" for i in range(10_000)]
    table = pd.DataFrame({"slide_id": ids, "case_id": patients, "y": np.arange(10_000) // 2 % 2})
    rna = pd.DataFrame(1.0, index=[f"p{i}" for i in range(5000)], columns=["A", "B"])

    def never(*args, **kwargs):
        raise AssertionError("a bag file was opened")

    tracemalloc.start()
    with monkeypatch.context() as patch:
        patch.setattr(h5py, "File", never)
        bags = read_bags(tmp_path)
        half = bags[np.arange(0, 10_000, 2)]
        again = pickle.loads(pickle.dumps(bags))
    # The join opens the header of each file, which a test at this scale need not.
    monkeypatch.setattr(SlideFile, "info", lambda self: BagInfo("clam"))
    monkeypatch.setattr(SlideFile, "read", never)
    cohort = load_cohort(table, tmp_path, rna, label="y")
    assert "10000 of 10000 slides in use" in str(cohort.report)
    aligned = align_omics(rna, cohort.bags)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(half), len(again), len(cohort.bags), len(aligned.ids)) == (
        5000,
        10_000,
        10_000,
        5000,
    )
    assert peak < 200 * 2**20


def test_cross_validation_in_workers_sends_paths_and_equals_memory(tmp_path):
    random = np.random.default_rng(0)
    y = np.arange(12) % 2
    for i in range(12):
        write_slide(tmp_path / f"s{i:02d}.h5", random.normal(size=(400, 50)).astype(np.float32))
    bags = read_bags(tmp_path)
    assert len(pickle.dumps(bags)) < 12 * 400  # bytes; the features are 80,000 a bag
    clf = quick_classifier(max_epochs=1, early_stopping=False)
    in_workers = cross_val_predict(clf, bags, y, cv=2, n_jobs=2, method="decision_function")
    in_memory = [(bag.features, bag.coords) for bag in bags]
    here = cross_val_predict(clf, in_memory, y, cv=2, method="decision_function")
    np.testing.assert_allclose(in_workers, here, rtol=1e-4, atol=1e-5)
