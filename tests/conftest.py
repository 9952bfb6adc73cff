"""Shared cohorts and the folder of real data."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

import sk_momkd.data.bag
from sk_momkd import Bag, BagSequence, MoMKDClassifier, all_estimators
from sk_momkd.data.arrays import check_features

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))

# Multiplies all features of loaded bags by 1 + noise, as another processor's rounding would, to
# find assertions that hold by luck: SK_MOMKD_TEST_NOISE=1e-6 python -m pytest
NOISE = float(os.environ.get("SK_MOMKD_TEST_NOISE", 0))


def with_noise(features, name):
    """Checked features times 1 + noise; the same number always gets the same noise."""
    features = check_features(features, name)
    hashed = features.view(np.uint32) * np.uint32(2654435761)
    noise = NOISE * (hashed / 2**31 - 1)
    return (features * (1 + noise)).astype(np.float32)


if NOISE:
    sk_momkd.data.bag.check_features = with_noise


TESTS = Path(__file__).parent
# What these train takes seconds: not in `make test-fast`.
SLOW = (
    *("estimators", "evaluation", "inspection", "persistence", "reporting", "training"),
    *("test_benchmarks.py", "test_readme.py", "test_small_search.py"),
    *("test_import_cost.py", "test_public_names.py"),
    *("io/test_cache.py", "io/test_scale.py", "model_selection/test_split_files.py"),
)
# In `make test-long` alone.
LONG = (
    *("test_real_cohorts.py", "evaluation/test_docs.py", "reporting/test_docs.py"),
    *("inspection/test_docs.py", "test_readme.py", "test_benchmarks.py"),
    *("reporting/test_browser.py", "io/test_scale.py"),
    "io/test_damaged.py",  # fuzzing
)
# Files read back are compared exactly, as is what examples print.
EXACT = (
    "io",
    "data/test_arrays.py",
    "data/test_bag.py",
    "data/test_patient.py",
    "data/test_sequence.py",
    "preprocessing",  # results by hand
)


# Methods without compiled loops: with NUMBA_DISABLE_JIT they are the same code.
WITHOUT_LOOPS = {
    name
    for name, method in all_estimators("classifier")
    if "network__backend" not in method().get_params()
}


def below(path, places):
    """Whether `path` is one of the files, or lies in one of the folders, of tests."""
    return any(path.is_relative_to(TESTS / place) for place in places)


def is_without_loops(item):
    """Whether the parameters of a test name a method without compiled loops, and not MoMKD."""
    values = item.callspec.params.values() if hasattr(item, "callspec") else ()
    names = {value if isinstance(value, str) else type(value).__name__ for value in values}
    return bool(names & WITHOUT_LOOPS) and "MoMKDClassifier" not in names


def leave_out_repeated(config, items):
    """Without compiled loops, leave out the tests of methods that have none."""
    repeated = [item for item in items if is_without_loops(item)]
    config.hook.pytest_deselected(items=repeated)
    items[:] = [item for item in items if item not in set(repeated)]


def pytest_collection_modifyitems(config, items):
    if os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        leave_out_repeated(config, items)
    skip = pytest.mark.skip(reason="compares loaded features exactly, and noise was added")
    for item in items:
        if below(item.path, LONG):
            item.add_marker("long")
        if below(item.path, SLOW) and not item.get_closest_marker("fast"):
            item.add_marker("slow")
        printed = isinstance(item, pytest.DoctestItem)
        exact = printed or item.get_closest_marker("exact_features") or below(item.path, EXACT)
        if NOISE and exact:
            item.add_marker(skip)
    long = {item.path for item in items if item.get_closest_marker("long")}
    items.sort(key=lambda item: item.path not in long)  # short tests end together on all processes


def real_data() -> Path:
    """Folder of the real cohorts, whether it exists or not."""
    default = Path(__file__).parents[2] / "shared" / "data"
    return Path(os.environ.get("SK_MOMKD_DATA", default))


@pytest.fixture(scope="session")
def data_folder():
    folder = real_data()
    if not folder.is_dir():
        if os.environ.get("SK_MOMKD_REQUIRE_DATA"):
            pytest.fail(f"real data is required here and {folder} is absent")
        pytest.skip(f"real data is absent: no folder {folder}; set SK_MOMKD_DATA")
    return folder


def make_bags(n=24, n_features=6, seed=0, patients=None):
    """Ragged bags with ids; in half of them some patches are shifted."""
    random = np.random.default_rng(seed)
    y = np.arange(n) % 2
    bags = []
    for i in range(n):
        size = int(random.integers(3, 9))
        features = random.normal(size=(size, n_features))
        features[: size // 2] += 2.5 * y[i]
        patient = f"P{i:02d}" if patients is None else patients[i]
        coords = random.integers(0, 20, size=(size, 2)) * 256
        bags.append(Bag(features, coords, bag_id=f"S{i:02d}", patient_id=patient))
    return BagSequence(bags), y


def make_omics(y, n_genes=12, seed=0):
    """Expression by patient id; the first genes follow the label."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(len(y), n_genes))
    values[:, :3] += 2.0 * np.asarray(y)[:, None]
    ids = [f"P{i:02d}" for i in range(len(y))]
    return pd.DataFrame(values, index=ids, columns=[f"G{j}" for j in range(n_genes)])


@pytest.fixture
def cohort():
    """24 ragged bags of two classes, and omics of every patient."""
    bags, y = make_bags()
    return bags, y, make_omics(y)


@pytest.fixture
def quick():
    """A classifier small enough for many fits."""
    return quick_classifier()


def quick_classifier(**overrides):
    settings = {
        "hidden_dim": 16,
        "projection_dim": 8,
        "n_components": 4,
        "network__n_heads": 1,
        "network__head_hidden_dim": 16,
        "network__omics_hidden_dim": 16,
        "dropout": 0.1,
        "network__head_dropout": 0.1,
        "batch_size": 16,
        "learning_rate": 0.01,
        "max_epochs": 8,
        "memory__kmeans_samples": 200,
        "random_state": 0,
    }
    return MoMKDClassifier().set_params(**(settings | overrides))


def mean_auc(make, X, y, **known):
    """Mean AUC on the training bags over three seeds; chance is .5 +- .05 for 40 bags."""
    aucs = []
    for seed in range(3):
        proba = make(random_state=seed).fit(X, y, **known).predict_proba(X)
        proba = proba if proba.shape[1] > 2 else proba[:, 1]
        aucs.append(roc_auc_score(y, proba, multi_class="ovr"))
    return np.mean(aucs)
