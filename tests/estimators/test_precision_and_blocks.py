"""Precision, backends and prediction in blocks: different ways to the same result."""

import os
import threading
from functools import partial
from unittest.mock import patch

import h5py
import numpy as np
import pytest
import torch
from conftest import make_bags, mean_auc, quick_classifier
from torch.nn import functional as F

from sk_momkd import Bag, read_bags
from sk_momkd.data.arrays import check_features
from sk_momkd.data.sequence import as_bags
from sk_momkd.exceptions import BagError, FeatureShiftWarning
from sk_momkd.io.torch_files import TorchBag
from sk_momkd.losses.momkd import momkd_terms
from sk_momkd.models.momkd import MoMKD
from sk_momkd.nn.backend import numba_version
from sk_momkd.nn.dropout import set_dropout_generator
from sk_momkd.nn.initialization import initialise
from sk_momkd.nn.precision import native_bfloat16
from sk_momkd.training.batches import (
    BagDataset,
    BagLoader,
    GraphSpec,
    forward,
    read_graph,
    single_bag_batch,
)
from sk_momkd.training.config import weighted_total

needs_numba = pytest.mark.skipif(numba_version() is None, reason="numba is absent or disabled")


@pytest.fixture
def large_bags(tmp_path):
    """Three files of 40 to 60 patches."""
    random = np.random.default_rng(0)
    for i, n in enumerate((40, 50, 60)):
        with h5py.File(tmp_path / f"S{i}.h5", "w") as file:
            file["features"] = random.normal(size=(n, 6)).astype(np.float32)
            file["coords"] = np.stack(np.divmod(np.arange(n), 8), axis=1) * 256
    return read_bags(tmp_path)


@pytest.mark.parametrize("block_size", [1, 7, 16, 59])
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_predict_any_block_size_gives_the_same(large_bags, monkeypatch, block_size, backend):
    bags, y = make_bags()
    clf = quick_classifier(network__backend=backend).fit(bags, y)
    whole, affinities = clf.predict_proba(large_bags), clf.transform(large_bags)
    monkeypatch.setattr("sk_momkd.estimators.prediction._BLOCK_SIZE", block_size)
    np.testing.assert_allclose(clf.predict_proba(large_bags), whole, atol=1e-6)
    np.testing.assert_allclose(clf.transform(large_bags), affinities, atol=1e-6)


def test_bags_that_are_read_together_are_predicted_as_each_alone(large_bags, monkeypatch):
    bags, y = make_bags()
    clf = quick_classifier().fit(bags, y)
    monkeypatch.setattr("sk_momkd.estimators.prediction._BLOCK_SIZE", 45)
    monkeypatch.setattr("sk_momkd.estimators.prediction.SMALL", 6 * 55)
    small, large = list(bags), list(large_bags)
    mixed = as_bags([*small[:4], *large[:2], small[4], large[2], *small[5:7]])
    together = clf.predict_proba(mixed)
    for i in range(len(mixed)):
        np.testing.assert_array_equal(clf.predict_proba(mixed[[i]])[0], together[i])
    overflowing = Bag(np.full((3, 6), 3e38), bag_id="too large")
    shifted = pytest.warns(FeatureShiftWarning, match="bag 'too large'")
    with (
        shifted,
        pytest.raises(BagError, match=r"bag 'too large': the prediction is not finite.*3e\+38"),
    ):
        clf.predict_proba([*small[:2], overflowing, small[2]])


def test_predict_large_file_is_not_read_whole(large_bags, monkeypatch):
    bags, y = make_bags()
    clf = quick_classifier().fit(bags, y)
    monkeypatch.setattr("sk_momkd.estimators.prediction._BLOCK_SIZE", 16)
    monkeypatch.setattr("sk_momkd.data.bag.Bag.load", None)  # calling it would raise
    if numba_version() is not None:
        assert clf.predict_proba(large_bags).shape == (3, 2)


@needs_numba
def test_fit_either_backend_gives_the_same_model(cohort):
    bags, y, omics = cohort
    proba = {
        backend: quick_classifier(network__backend=backend)
        .fit(bags, y, omics=omics)
        .predict_proba(bags)
        for backend in ("numba", "torch")
    }
    np.testing.assert_allclose(proba["numba"], proba["torch"], atol=1e-3)


def test_fit_bfloat16_learns_and_predicts_like_float32(cohort):
    bags, y, omics = cohort
    make = partial(quick_classifier, precision="bfloat16", max_epochs=10)
    assert mean_auc(make, bags, y, omics=omics) >= 0.8
    clf = make(max_epochs=1).fit(bags, y, omics=omics)
    assert clf.precision_ == "bfloat16"
    assert all(p.dtype == torch.float32 for p in clf.module_.parameters())


def test_fit_precision_auto_is_resolved(cohort, monkeypatch):
    bags, y, _ = cohort
    for native, expected in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr("sk_momkd.training.config.native_bfloat16", lambda _, n=native: n)
        assert quick_classifier(precision="auto").fit(bags, y).precision_ == expected


def test_fit_data_beyond_memory_gives_the_same_model_and_tells_what_was_read(cohort):
    bags, y, omics = cohort
    kept = quick_classifier(max_epochs=3).fit(bags, y, omics=omics)
    read = quick_classifier(max_epochs=3, training__cache_bytes=0).fit(bags, y, omics=omics)
    assert np.array_equal(kept.predict_proba(bags), read.predict_proba(bags))
    assert not {"bytes_read", "seconds_waiting"} & set(kept.history_)
    assert (read.history_["seconds_waiting"] >= 0).all()
    assert (read.history_["bytes_read"] > 0).all()


def test_epoch_reads_what_is_not_in_memory(large_bags):
    data = BagDataset(large_bags, np.zeros(3), GraphSpec("none"), 6, cache_bytes=0)
    sizes = [bag.n_instances for bag in large_bags]
    order = [[2], [0], [1], [0, 2], [2]]
    found = [batch.index.tolist() for batch, _ in BagLoader(data, order)]
    assert found == order
    assert data.reading.n_bytes == 4 * 6 * sum(sizes[i] for batch in order for i in batch)
    assert data.reading.seconds > 0
    assert data.n_readers == min(4, os.cpu_count())
    transformed = large_bags.map(lambda features: features + 1)
    data = BagDataset(transformed, np.zeros(3), GraphSpec("none"), 6, cache_bytes=0)
    assert data.n_readers == 1


def test_pinned_file_is_checked_once_and_a_change_is_noticed(large_bags, monkeypatch):
    bags, checked = large_bags.replace(bag.pinned() for bag in large_bags), []
    monkeypatch.setattr(
        "sk_momkd.data.bag.check_features",
        lambda features, name: checked.append(name) or check_features(features, name),
    )
    data = BagDataset(bags, np.zeros(3), GraphSpec("none"), 6, cache_bytes=0)
    assert len(checked) == 3
    for i, bag in enumerate(bags):
        np.testing.assert_array_equal(data[i].x.numpy(), bag.features)
    assert len(checked) == 6  # those of bag.features alone
    unpinned = BagDataset(large_bags, np.zeros(3), GraphSpec("none"), 6, cache_bytes=0)
    unpinned[0]
    assert len(checked) == 10
    with h5py.File(large_bags[1].source.path, "a") as file:
        file["features"][7, 2] = np.nan
    with pytest.raises(BagError, match="changed"):
        data[1]


@pytest.mark.parametrize(
    ("cache_bytes", "kept"), [(0, []), (199, [1]), (200, [1, 2]), (1e9, [0, 1, 2])]
)
def test_dataset_keeps_the_features_that_fit(cache_bytes, kept):
    bags = as_bags([np.ones((n, 5)) for n in (40, 5, 5)])
    data = BagDataset(bags, np.zeros(3), GraphSpec("none"), 5, cache_bytes=cache_bytes)
    assert list(data._features) == kept


def test_loader_broken_file_raises_naming_the_bag_and_leaves_no_thread(large_bags):
    data = BagDataset(large_bags, np.zeros(3), GraphSpec(), 6, cache_bytes=0)
    with h5py.File(large_bags[1].source.path, "a") as file:
        file["features"][7, 2] = np.nan
    batches = iter(BagLoader(data, [[0], [1], [2]]))
    next(batches)
    with pytest.raises(BagError, match=r"bag 'S1': 1 NaN"):
        next(batches)
    for _ in BagLoader(data, [[0], [2], [0]]):
        break
    assert not [t for t in threading.enumerate() if t.name.startswith("sk_momkd-read")]


def test_predict_file_of_other_width_is_not_called_damaged(large_bags):
    clf = quick_classifier().fit(*make_bags(n_features=5))
    with pytest.raises(BagError, match=r"^X has 6 features in bag 'S0'"):
        clf.predict_proba(large_bags)


def test_predict_small_file_is_read_once(large_bags, tmp_path, monkeypatch):
    torch.save(torch.ones(9, 6), tmp_path / "T.pt")
    clf, reads, read = quick_classifier().fit(*make_bags()), [], TorchBag.read
    monkeypatch.setattr(TorchBag, "read", lambda self: reads.append(self.path) or read(self))
    clf.predict_proba(read_bags(tmp_path / "T.pt"))
    assert len(reads) == 1


def test_native_bfloat16_of_a_gpu_that_emulates_it_is_false(monkeypatch):
    for capability, native in (((7, 5), False), ((8, 0), True)):
        monkeypatch.setattr("torch.cuda.get_device_capability", lambda _, c=capability: c)
        assert native_bfloat16("cuda") is native


def encoder_gradient(x, edges, dtype):
    """Of the whole objective at the sizes of the published script, and which head units fire."""
    module = MoMKD(x.shape[1], 12, 2, dim=512, projection_dim=64, omics_dropout=0, head_dropout=0)
    initialise(module, torch.Generator().manual_seed(0))
    module.train()
    set_dropout_generator(module, torch.Generator().manual_seed(1))
    fires: list[torch.Tensor] = []
    module.head[1].register_forward_hook(lambda *seen: fires.append(seen[-1] > 0))
    omics = torch.randn(1, 12, generator=torch.Generator().manual_seed(2))
    batch = single_bag_batch(x.to(dtype), edges, y=1, paired=True, omics=omics)
    with patch("sk_momkd.models.momkd.are_few", return_value=False):  # the head by itself
        forward(module, batch, training=True)
    set_dropout_generator(module, torch.Generator().manual_seed(1))
    terms = momkd_terms(forward(module, batch, training=True), batch.y)
    weights = {"ce": 0.5, "mse": 0.01, "memory": 0.1, "align_omics": 0.05, "align_wsi": 0.2}
    weighted_total(terms, weights).backward()
    gradient = torch.cat([p.grad.flatten() for p in module.encoder.parameters()]).double()
    return gradient, fires[0]


@pytest.mark.parametrize("cohort_name", ["her2st", "ucsb_breast"])
def test_gradient_in_bfloat16_points_where_float32_points(data_folder, cohort_name):
    bags = read_bags(data_folder / cohort_name / "features")
    n_compared = 0
    for i in range(9):
        x, edges = read_graph(bags[i], bags.name(i), GraphSpec(), bags[i].n_features)
        x = x.bfloat16().float()
        (wide, on), (short, also_on) = (
            encoder_gradient(x, edges, dtype) for dtype in (torch.float32, torch.bfloat16)
        )
        if torch.equal(on, also_on):  # a unit at the kink of its ReLU has no gradient to compare
            n_compared += 1
            assert F.cosine_similarity(wide, short, dim=0) >= 0.9999
    assert n_compared >= 5
