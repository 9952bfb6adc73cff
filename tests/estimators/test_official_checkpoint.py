"""Checkpoints of the authors' program, written here under their names, become classifiers."""

import pickle

import numpy as np
import pytest
import torch
from official import DIM, N_COMPONENTS, N_FEATURES, network, their_state

from sk_momkd import Bag, BagSequence, CheckpointError, MoMKDClassifier


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "s_0_mkd_checkpoint.pt"
    torch.save(their_state(network()), path)
    return path


def slides(n=4, n_features=N_FEATURES):
    random = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(range(5), range(6)), axis=-1).reshape(-1, 2)
    return BagSequence(
        Bag(random.normal(size=(30, n_features)), grid * 256, bag_id=f"S{i}") for i in range(n)
    )


@pytest.mark.parametrize("classes", [("low", "high"), ("neg", "pos"), (0, 1), (1, 0)])
def test_checkpoint_predicts_as_the_network_it_was_saved_from(checkpoint, classes):
    clf = MoMKDClassifier.from_official_checkpoint(checkpoint, classes=classes)
    assert clf.classes_.tolist() == sorted(classes)
    columns = [sorted(classes).index(c) for c in classes]  # of the negative, the positive label
    module, bags = network(), slides()
    for bag, proba in zip(bags, clf.predict_proba(bags)[:, columns], strict=True):
        arrays = bag.load()
        edges = nearest_neighbour_edges(arrays.coords)
        x = torch.tensor(arrays.features)
        out = module(x, torch.tensor(edges), torch.zeros(len(x), dtype=torch.int64), 1)
        expected = out.logits.softmax(dim=1)[0].detach()
        np.testing.assert_allclose(proba, expected, atol=1e-5)
    assert clf.pos_label_ == clf.pos_label == classes[1]
    assert clf.get_feature_names_out()[-1] == f"memory_{classes[1]}_{N_COMPONENTS - 1}"
    assert clf.transform(bags).shape == (4, 2 * N_COMPONENTS)
    assert clf.get_params()["network__head_hidden_dim"] == 5


def nearest_neighbour_edges(coords, k=8):
    """Row 0 is the patch, row 1 its neighbours, as the authors' program builds them."""
    from sklearn.neighbors import kneighbors_graph

    return np.stack(kneighbors_graph(coords, k, include_self=False).nonzero()).astype(np.int64)


def test_checkpoint_with_an_identity_residual(tmp_path):
    path = tmp_path / "same_width.pt"
    torch.save(their_state(network(in_features=DIM, identity=True)), path)
    clf = MoMKDClassifier.from_official_checkpoint(path)
    assert clf.predict_proba(slides(n_features=DIM)).shape == (4, 2)
    assert clf.module_.encoder.residual is None


def test_checkpoint_survives_pickle_and_says_what_it_cannot_know(checkpoint):
    clf = pickle.loads(pickle.dumps(MoMKDClassifier.from_official_checkpoint(checkpoint)))
    bags = slides()
    assert clf.predict(bags).shape == (4,)
    with pytest.raises(AttributeError, match=r"genes_ is not known.*weights alone"):
        _ = clf.genes_
    assert not hasattr(clf, "history_")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = clf.nothing
    y = np.arange(4) % 2
    clf.set_params(max_epochs=1, early_stopping=False, device="cpu").fit(bags, y)
    assert len(clf.history_) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": torch.ones(1)}, "no checkpoint of the MoMKD release: it lacks"),
        ([torch.ones(1)], "holds a list, expected the state_dict"),
        ({"epoch": 3}, "holds a dict, expected the state_dict"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, content, message):
    path = tmp_path / "other.pt"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=message):
        MoMKDClassifier.from_official_checkpoint(path)


class Payload:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code of a file ran')",))


@pytest.mark.parametrize("content", ["code", "text", "cut", "absent"])
def test_files_that_are_no_weights_are_refused(tmp_path, checkpoint, content):
    path = tmp_path / f"{content}.pt"
    if content == "code":
        torch.save({"attn_log_tau": Payload()}, path)
    elif content == "text":
        path.write_text("weights")
    elif content == "cut":
        path.write_bytes(checkpoint.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match=content):
        MoMKDClassifier.from_official_checkpoint(path)


@pytest.mark.parametrize("change", ["more", "less", "shape"])
def test_weights_that_do_not_fit_are_named(tmp_path, change):
    state = their_state(network())
    if change == "more":
        state["wsi_encoder.gat3.att"] = torch.ones(1)
    elif change == "less":
        del state["wsi_encoder.ln2.bias"]
    else:
        state["wsi_pool_projector.weight"] = torch.ones(2, 2)
    path = tmp_path / "changed.pt"
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"gat3|norm2\.bias|slide_projector"):
        MoMKDClassifier.from_official_checkpoint(path)


def test_classes_are_two_different_labels(checkpoint):
    with pytest.raises(ValueError, match="two different labels"):
        MoMKDClassifier.from_official_checkpoint(checkpoint, classes=(1, 1))
