"""The estimator: forms of X, omics, determinism, presets, three classes, bad input."""

from functools import cache, partial

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from conftest import make_bags, make_omics, mean_auc, quick_classifier
from scipy import sparse
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import SelectFpr
from sklearn.model_selection import PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from torch_geometric.data import Data

from sk_momkd import Bag, BagSequence, MoMKDClassifier
from sk_momkd.exceptions import (
    BagError,
    BagFileError,
    LeakageError,
    OmicsError,
    PairingWarning,
    TrainingError,
)
from sk_momkd.io.readers import SlideFile


def weights(clf):
    return torch.cat([p.detach().flatten() for p in clf.module_.parameters()])


def fit(bags, y, omics=None, groups=None, **overrides):
    return quick_classifier(**({"max_epochs": 2} | overrides)).fit(
        bags, y, omics=omics, groups=groups
    )


def as_adata(frame):
    adata = AnnData(frame.to_numpy())
    adata.obs_names, adata.var_names = frame.index, frame.columns
    return adata


# --- omics ---------------------------------------------------------------------------------


def test_fit_permuted_longer_and_whole_omics_are_bit_identical(cohort, tmp_path):
    bags, y, omics = cohort
    expected = weights(fit(bags, y, as_adata(omics)))
    strangers = pd.DataFrame(9.0, index=["X1", "X2", "X3"], columns=omics.columns)
    longer = pd.concat([strangers, omics.sample(frac=1, random_state=2)])
    as_adata(longer).write_h5ad(tmp_path / "longer.h5ad")
    backed = anndata.read_h5ad(tmp_path / "longer.h5ad", backed="r")
    forms = [
        as_adata(omics.sample(frac=1, random_state=1)),
        as_adata(longer),
        backed,
        longer,
        omics.to_numpy(),
        sparse.csr_matrix(omics.to_numpy()),
    ]
    for form in forms:
        assert torch.equal(weights(fit(bags, y, form)), expected), type(form)


def test_fit_omics_of_validation_patients_changes_nothing(cohort):
    bags, y, omics = cohort
    valid = np.zeros(24, dtype=bool)
    valid[:6] = True
    split = PredefinedSplit(np.where(valid, 0, -1))
    plain = fit(bags, y, omics, training__validation_split=split)
    mutated = omics.copy()
    mutated.iloc[:6] = 1e3
    assert torch.equal(
        weights(fit(bags, y, mutated, training__validation_split=split)), weights(plain)
    )
    assert plain.n_paired_ == 18


def test_fit_semi_paired_trains_histology_on_every_bag(cohort):
    bags, y, omics = cohort
    clf = fit(bags, y, omics.iloc[:16], early_stopping=False)
    assert clf.n_paired_ == 16
    assert clf.history_["train_mse"].notna().all()


def test_fit_unpaired_bags_add_nothing_to_the_omics_terms(cohort):
    bags, y, omics = cohort
    alone = fit(bags[:16], y[:16], omics, early_stopping=False, sampler="shuffle", batch_size=24)
    # Zero-filled rows would pull the means of the omics terms; masked ones cannot.
    both = fit(bags, y, omics.iloc[:16], early_stopping=False, sampler="shuffle", batch_size=24)
    np.testing.assert_array_equal(alone.genes_, both.genes_)
    assert both.history_["train_mse"][0] == pytest.approx(alone.history_["train_mse"][0], rel=0.15)


def test_fit_few_paired_warns(cohort):
    bags, y, omics = cohort
    with pytest.warns(PairingWarning, match="8 of 24"):
        fit(bags, y, omics.iloc[:8], early_stopping=False)


def test_fit_histology_starts_alike_with_and_without_omics(cohort):
    bags, y, omics = cohort
    still = {"learning_rate": 1e-30, "weight_decay": 0.0, "early_stopping": False}
    with_omics, without = fit(bags, y, omics, **still), fit(bags, y, **still)
    for name, parameter in without.module_.named_parameters():
        assert torch.equal(parameter, with_omics.module_.get_parameter(name)), name


def test_fit_reconstruction_without_omics_alignment_cannot_reach_histology(cohort):
    bags, y, omics = cohort
    shared = {"alpha_omics": 0.0, "training__clip": "branch", "network__omics_dropout": 0.25}
    with_mse = fit(bags, y, omics, lambda_mse=0.5, **shared)
    without = fit(bags, y, omics, lambda_mse=0.0, **shared)
    for name, parameter in without.module_.named_parameters():
        same = torch.equal(parameter, with_mse.module_.get_parameter(name))
        assert same != name.startswith(("omics_branch.encoder", "omics_branch.decoder")), name


def test_genes_name_what_was_used(cohort):
    bags, y, omics = cohort
    clf = fit(bags, y, omics, n_genes=3, early_stopping=False)
    assert set(clf.genes_) == {"G0", "G1", "G2"}  # the planted ones
    everything = fit(bags, y, omics, omics_transformer=StandardScaler())
    assert list(everything.genes_) == list(omics.columns)


def test_fit_again_without_omics_forgets_the_genes(cohort):
    bags, y, omics = cohort
    clf = fit(bags, y, omics).fit(bags, y)
    assert not hasattr(clf, "genes_")
    assert clf.module_.omics_branch is None


# --- bags ----------------------------------------------------------------------------------


@pytest.mark.exact_features
def test_fit_every_form_of_bags_gives_the_same_model(cohort, tmp_path):
    bags, y, _ = cohort
    for bag in bags:
        with h5py.File(tmp_path / f"{bag.bag_id}.h5", "w") as file:
            file["features"], file["coords"] = bag.features, bag.coords
    forms = [
        bags,
        list(bags),
        [(bag.features, bag.coords) for bag in bags],
        [Data(x=torch.tensor(b.features), pos=torch.tensor(b.coords)) for b in bags],
        BagSequence(Bag(SlideFile(str(tmp_path / f"{b.bag_id}.h5"))) for b in bags),
    ]
    expected = fit(bags, y).predict_proba(bags)
    for form in forms:
        np.testing.assert_array_equal(fit(form, y).predict_proba(form), expected)


def test_fit_equal_bags_as_array_equals_list():
    random = np.random.default_rng(0)
    X, y = random.normal(size=(12, 4, 5)), np.arange(12) % 2
    np.testing.assert_array_equal(fit(X, y).predict_proba(X), fit(list(X), y).predict_proba(X))


def test_predict_a_bag_is_bit_identical_whatever_stands_beside_it(cohort):
    bags, y, _ = cohort
    clf = fit(bags, y)
    together = clf.predict_proba(bags)
    for i in (0, 7, 23):
        np.testing.assert_array_equal(clf.predict_proba(bags[[i]])[0], together[i])
    np.testing.assert_array_equal(clf.predict_proba(bags[::-1]), together[::-1])


@pytest.mark.parametrize("graph", ["auto", "spatial", "features", "none"])
@pytest.mark.parametrize("edge_flow", ["neighbors", "release", "symmetric"])
def test_fit_any_graph_predicts(cohort, graph, edge_flow):
    bags, y, _ = cohort
    clf = fit(
        bags, y, graph=graph, network__edge_flow=edge_flow, early_stopping=False, max_epochs=1
    )
    assert np.isfinite(clf.predict_proba(bags)).all()


def test_fit_stored_graph_is_used(cohort):
    bags, y, _ = cohort
    ring = [
        Bag(b.features, edge_index=np.stack([np.arange(n), (np.arange(n) + 1) % n]))
        for b in bags
        for n in [b.n_instances]
    ]
    stored = fit(ring, y, graph="stored")
    none = fit(ring, y, graph="none")
    assert not np.array_equal(stored.predict_proba(ring), none.predict_proba(ring))
    np.testing.assert_array_equal(
        stored.predict_proba(ring), fit(ring, y, graph="auto").predict_proba(ring)
    )


@pytest.mark.parametrize(
    "bag",
    [
        Bag(np.ones((1, 6)), [[0, 0]]),
        Bag(np.ones((2, 6)), [[5, 5], [5, 5]]),
        Bag(np.ones((4, 6)), [[0, 0], [1, 0], [0, 1], [1, 1]]),
        Bag(np.ones((30, 6)), np.zeros((30, 2))),
    ],
    ids=["one instance", "identical coordinates", "N <= k", "all at the origin"],
)
def test_odd_but_valid_bag_trains_and_predicts(cohort, bag):
    bags, y, _ = cohort
    clf = fit([*bags, bag, bag], [*y, 0, 1], early_stopping=False)
    assert np.isfinite(clf.predict_proba([bag])).all()


# --- the estimator -------------------------------------------------------------------------


def test_fit_same_seed_is_bit_identical_and_leaves_global_state(cohort):
    bags, y, omics = cohort
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = fit(bags, y, omics), fit(bags, y, omics)
    assert torch.equal(weights(first), weights(second))
    pd.testing.assert_frame_equal(
        first.history_.drop(columns="dur"), second.history_.drop(columns="dur")
    )
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002
    assert not torch.equal(weights(fit(bags, y, omics, random_state=1)), weights(first))


def test_fit_restores_the_best_epoch(cohort):
    bags, y, _ = cohort
    split = PredefinedSplit(np.where(np.arange(24) < 6, 0, -1))
    clf = fit(bags, y, training__validation_split=split, training__monitor="loss", max_epochs=6)
    proba = torch.tensor(clf.predict_proba(bags[:6]))
    loss = torch.nn.functional.nll_loss(proba.log(), torch.tensor(y[:6]))
    assert loss.item() == pytest.approx(clf.history_["valid_loss"].min(), abs=1e-5)


def test_labels_of_any_kind_come_back(cohort):
    bags, y, _ = cohort
    names = np.array(["HER2-", "HER2+"])[y]
    clf = fit(bags, names)
    assert list(clf.classes_) == ["HER2+", "HER2-"]
    assert set(clf.predict(bags)) <= set(names)
    assert mean_auc(partial(quick_classifier, max_epochs=8), bags, names) >= 0.8
    decision = clf.decision_function(bags)
    np.testing.assert_array_equal(decision > 0, clf.predict(bags) == "HER2-")


@pytest.mark.long
def test_three_classes_learn_and_transform():
    random = np.random.default_rng(0)
    y = np.repeat(["a", "b", "c"], 12)
    shift = {"a": [3, 0, 0], "b": [0, 3, 0], "c": [0, 0, 3]}
    X = [random.normal(size=(5, 3)) + shift[label] for label in y]
    omics = np.eye(3)[[" abc".index(c) - 1 for c in y]] + random.normal(size=(36, 3))
    assert mean_auc(partial(quick_classifier, max_epochs=10), X, y, omics=omics) >= 0.8
    clf = quick_classifier(max_epochs=1).fit(X, y, omics=omics)
    assert clf.predict_proba(X).shape == (36, 3)
    assert clf.decision_function(X).shape == (36, 3)
    assert clf.transform(X).shape == (36, 12)
    assert list(clf.get_feature_names_out()[[0, 11]]) == ["memory_a_0", "memory_c_3"]


def test_transform_is_cosine_with_the_memory(cohort):
    bags, y, _ = cohort
    clf = fit(bags, y)
    affinities = clf.transform(bags)
    assert affinities.shape == (24, 8)
    assert np.abs(affinities).max() <= 1 + 1e-6


def test_transform_as_pandas_is_indexed_by_slide(cohort):
    bags, y, _ = cohort
    table = fit(bags, y).set_output(transform="pandas").transform(bags)
    assert list(table.index) == list(bags.ids)
    assert table.columns[0] == "memory_0_0"


def test_predict_without_omics_branch_is_unchanged(cohort):
    bags, y, omics = cohort
    clf = fit(bags, y, omics)
    before = clf.predict_proba(bags)
    del clf.module_.omics_branch
    np.testing.assert_array_equal(clf.predict_proba(bags), before)


# What the paper prints, and the authors' script sets; a row of docs/equations.md each.
PRINTED = {
    "hidden_dim": 256,
    "projection_dim": 128,
    "tau": 0.2,
    "network__learn_tau": False,
    "network__head": "linear",
    "n_neighbors": 8,
    "lambda_mse": 0.01,
    "lambda_mem": 0.1,
    "alpha_omics": 0.05,
    "alpha_wsi": 0.2,
    "lambda_teacher": 0.0,
    "loss__lambda_ce": 0.5,
    "loss__margin": 0.3,
    "loss__beta": 20.0,
    "loss__tau_agg": 5.0,
    "loss__assignment": "euclidean",
    "loss__commit_reduction": "sum",
    "loss__commit_memories": "all",
    "loss__ortho_reduction": "sum",
    "loss__label_smoothing": 0.0,
    "memory__update": "gradient",
    "memory__kmeans_samples": 10_000,
}
RELEASED = PRINTED | {
    "hidden_dim": 512,
    "projection_dim": 64,
    "n_components": 16,
    "network__learn_tau": True,
    "network__head": "mlp",
    "network__head_hidden_dim": 128,
    "network__head_dropout": 0.5,
    "network__n_heads": 2,
    "network__omics_hidden_dim": 512,
    "network__omics_dropout": 0.25,
    "network__edge_flow": "release",
    "network__identity_residual": True,
    "dropout": 0.5,
    "lambda_mse": 0.05,
    "loss__commit_reduction": "mean",
    "loss__commit_memories": "label",
    "loss__ortho_reduction": "mean",
    "loss__ortho_memories": "label",
    "memory__kmeans_samples": 50_000,
    "memory__kmeans_init": "random",
    "memory__warmup": 0,
    "memory__reseed_unused": False,
    "memory__renormalize": False,
    "n_genes": 768,
    "max_epochs": 100,
    "batch_size": 1,
    "learning_rate": 2e-4,
    "weight_decay": 1e-4,
    "sampler": "balanced",
    "early_stopping": True,
    "validation_fraction": 0.125,  # 1 of 7 + 1 parts
    "patience": 1,
    "input_dropout": 0.0,
    "instance_dropout": 0.0,
    "n_models": 1,
}
SCRIPT = {
    "optimizer": "adamw",
    "lr_schedule": "plateau",
    "accumulation_steps": 1,
    "max_grad_norm": 16.0,
    "clip": "global",
    "monitor": "auc",
    "tie_break": "latest",
    "patience": 1,
    "min_epochs": 3,
    "average_after": None,
    "best_after": 0.0,
}


@pytest.mark.parametrize(("preset", "expected"), [("paper", PRINTED), ("release", RELEASED)])
def test_preset_is_what_the_paper_prints_or_the_script_sets(preset, expected):
    found = MoMKDClassifier.preset(preset).get_params()
    assert {name: found[name] for name in expected} == expected


def test_release_preset_trains_as_the_script():
    clf = MoMKDClassifier.preset("release")
    clf.device_ = "cpu"
    config = clf._training_config()
    assert {name: getattr(config, name) for name in SCRIPT} == SCRIPT


def test_default_preset_is_the_constructor_and_an_unknown_one_lists_all():
    assert MoMKDClassifier.preset("default").get_params() == MoMKDClassifier().get_params()
    assert MoMKDClassifier.preset("release", random_state=3).random_state == 3
    with pytest.raises(ValueError, match=r"default.*paper.*release.*small.*unified"):
        MoMKDClassifier.preset("best")


def test_release_preset_learns_the_temperature_and_the_paper_keeps_it(cohort):
    bags, y, omics = cohort
    for preset, moves in (("release", True), ("paper", False)):
        small = {"hidden_dim": 16, "projection_dim": 8, "max_epochs": 1, "random_state": 0}
        clf = MoMKDClassifier.preset(preset, **small)
        tau = clf.fit(bags, y, omics=omics).module_.log_tau.exp().item()
        assert (tau != pytest.approx(0.2, abs=1e-7)) == moves


def fitted_with(**options):
    bags, y = make_bags()
    clf = fit(bags, y, make_omics(y), max_epochs=2, learning_rate=0.05, **options)
    return clf.predict_proba(bags)


@cache
def fitted_plainly():
    return fitted_with()


@pytest.mark.parametrize(
    "options",
    [
        {"network__head": "linear"},
        {"loss__commit_reduction": "sum", "loss__ortho_reduction": "sum"},
        {"loss__ortho_memories": "all"},
        {"loss__commit_memories": "all"},
        {"loss__assignment": "euclidean"},
        {"memory__kmeans_init": "k-means++"},
        {"training__lr_schedule": "cosine"},
        {"sampler": "shuffle"},
        {"training__max_grad_norm": 0.01},
        {"alpha_omics": 0, "alpha_wsi": 0, "lambda_mem": 0, "lambda_mse": 0},
        {"training__max_grad_norm": 0.5, "training__clip": "branch"},
        {"n_genes": 4},
        {"network__n_heads": 2},
        {"network__edge_flow": "release", "n_neighbors": 2},
        {"network__edge_flow": "symmetric", "n_neighbors": 2},
        {"loss__margin": 0.6},
        {"loss__beta": 5},
        {"loss__tau_agg": 10},
        {"tau": 0.5},
        {"network__learn_tau": True},
        {"memory__update": "ema"},
        {"memory__update": "fixed"},
    ],
    ids=str,
)
def test_every_option_changes_the_fit_and_works(options):
    proba = fitted_with(**options)
    assert np.isfinite(proba).all()
    assert not np.array_equal(proba, fitted_plainly())


def test_verbose_shows_a_progress_bar(cohort, capsys):
    bags, y, _ = cohort
    fit(bags, y, verbose=1)
    assert "2/2" in capsys.readouterr().err
    fit(bags, y)
    assert capsys.readouterr().err == ""


# --- bad input -----------------------------------------------------------------------------


def broken(bags, i, **kwargs):
    listed = list(bags)
    listed[i] = Bag(**kwargs, bag_id="BAD", patient_id="PX")
    return listed


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"features": np.empty((0, 6))}, "'BAD' is empty"),
        ({"features": np.full((3, 6), np.nan)}, "'BAD'.*NaN"),
        ({"features": np.full((3, 6), np.inf)}, "'BAD'.*infinite"),
        ({"features": np.ones((3, 5))}, "5 features in bag 'BAD'.*expecting 6"),
        ({"features": np.ones((3, 6)), "coords": [[0, 0]]}, "'BAD'.*3 instances"),
    ],
)
def test_fit_unusable_bag_is_named(cohort, kwargs, message):
    bags, y, _ = cohort
    with pytest.raises(BagError, match=message):
        fit(broken(bags, 5, **kwargs), y)


def test_fit_list_without_ids_names_the_position(cohort):
    bags, y, _ = cohort
    arrays = [bag.features for bag in bags]
    arrays[4] = arrays[4] * np.nan
    with pytest.raises(BagError, match="bag 4"):
        fit(arrays, y)


def test_fit_truncated_file_is_named(cohort, tmp_path):
    bags, y, _ = cohort
    path = tmp_path / "S05.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n truncated")
    with pytest.raises(BagFileError, match=r"S05\.h5"):
        fit(broken(bags, 5, features=SlideFile(str(path))), y)


def test_predict_other_width_is_refused(cohort):
    bags, y, _ = cohort
    clf = fit(bags, y)
    with pytest.raises(ValueError, match=r"X has 3 features in bag 0.*expecting 6"):
        clf.predict([np.ones((2, 3))])


@pytest.mark.parametrize("method", ["predict", "predict_proba", "transform", "decision_function"])
def test_methods_before_fit_raise_not_fitted(quick, method):
    with pytest.raises(NotFittedError):
        getattr(quick, method)([np.ones((2, 3))])


def test_fit_missing_label_names_the_bag(cohort):
    bags, y, _ = cohort
    labels = y.astype(object)
    labels[3] = None
    with pytest.raises(ValueError, match=r"1 labels are missing.*'S03'"):
        fit(bags, labels)


def test_fit_one_class_is_refused(cohort):
    bags, y, _ = cohort
    with pytest.raises(ValueError, match="one class"):
        fit(bags, np.ones_like(y))


def test_fit_class_of_one_patient_explains_early_stopping():
    bags, _ = make_bags(8)
    with pytest.raises(ValueError, match="early_stopping=False"):
        fit(bags, np.array([1, 0, 0, 0, 0, 0, 0, 0]))


def test_fit_given_split_with_torn_patient_is_refused():
    patients = [f"P{i // 2}" for i in range(24)]
    bags, y = make_bags(patients=patients)
    split = [(np.arange(1, 24), np.array([0]))]
    with pytest.raises(LeakageError, match="'P0'"):
        fit(bags, y, training__validation_split=split)


def test_fit_groups_that_tear_a_patient_are_refused():
    bags, y = make_bags(patients=[f"P{i // 2}" for i in range(24)])
    with pytest.raises(LeakageError, match="'P0'"):
        fit(bags, y, groups=np.arange(24))


def test_fit_inner_split_keeps_patients_whole():
    bags, _ = make_bags(patients=[f"P{i // 2}" for i in range(24)])
    y = np.arange(24) // 2 % 2
    omics = make_omics(np.arange(12) % 2).rename(index=lambda i: f"P{int(i[1:])}")
    clf = fit(bags, y, omics)
    assert clf.n_paired_ % 2 == 0  # whole patients of two slides each


def test_fit_omics_of_strangers_is_refused(cohort):
    bags, y, omics = cohort
    with pytest.raises(OmicsError, match=r"No omics row belongs.*omics=None"):
        fit(bags, y, omics.rename(index=lambda i: "Q" + i))


def test_fit_sliced_by_position_is_recognised(cohort):
    bags, y, omics = cohort
    with pytest.raises(OmicsError, match="align_omics"):
        fit(bags[:20], y[:20], omics.iloc[4:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.rename(columns={"G1": "G0"}), "genes.*'G0'"),
        (lambda f: pd.concat([f, f.iloc[:1]]), "patients.*'P00'"),
        (lambda f: f.round().astype(int) - 100, "negative counts.*patient 'P.*gene 'G"),
        (lambda f: f.mask(f == f.iloc[2, 3]), "'P02'.*'G3'"),
        (lambda f: f.assign(G4="high"), "'G4'"),
    ],
    ids=["duplicate genes", "duplicate patients", "negative counts", "NaN", "text"],
)
def test_fit_bad_omics_names_gene_or_patient(cohort, change, message):
    bags, y, omics = cohort
    with pytest.raises(OmicsError, match=message):
        fit(bags, y, change(omics), early_stopping=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_dim", 0),
        ("memory__update", "momentum"),
        ("dropout", 1.0),
        ("tau", 0),
        ("max_epochs", 1.5),
    ],
)
def test_fit_parameter_out_of_range_is_named(cohort, name, value):
    bags, y, _ = cohort
    with pytest.raises(ValueError, match=f"'{name.split('__')[-1]}' parameter"):
        fit(bags, y, **{name: value})


def test_fit_heads_must_divide_width(cohort):
    bags, y, _ = cohort
    with pytest.raises(ValueError, match="network__n_heads=3 must divide hidden_dim=16"):
        fit(bags, y, network__n_heads=3)


# --- after a failure -----------------------------------------------------------------------


def test_refit_that_fails_leaves_no_mixed_model(cohort):
    bags, y, omics = cohort
    clf = fit(bags, y, omics)
    with pytest.raises(BagError):
        clf.fit(broken(bags, 5, features=np.full((2, 6), np.nan)), np.array(["b", "a"])[y])
    with pytest.raises(NotFittedError):
        clf.predict(bags)
    assert not hasattr(clf, "genes_")


@pytest.mark.parametrize("early_stopping", [True, False])
def test_fit_that_diverges_raises_naming_the_epoch(cohort, early_stopping):
    bags, y, _ = cohort
    huge = [bag.features * 1e30 for bag in bags]
    with pytest.raises(TrainingError, match=r"diverged in epoch 1.*learning rate"):
        fit(huge, y, early_stopping=early_stopping)


def test_predict_overflow_names_the_bag(cohort):
    bags, y, _ = cohort
    clf = fit(bags, y)
    with pytest.raises(BagError, match=r"bag 1.*not finite.*1e\+36"):
        clf.predict([np.ones((2, 6)), np.full((2, 6), 1e36)])


# --- other ways to say it ------------------------------------------------------------------


def test_omics_transformer_without_names_keeps_or_numbers_the_genes(cohort):
    bags, y, omics = cohort
    nameless = make_pipeline(FunctionTransformer(np.tanh), StandardScaler())
    assert list(fit(bags, y, omics, omics_transformer=nameless).genes_) == list(omics.columns)
    narrow = FunctionTransformer(lambda values: np.asarray(values)[:, :2])
    assert list(fit(bags, y, omics, omics_transformer=narrow).genes_) == ["omics0", "omics1"]


@pytest.mark.filterwarnings("ignore:No features were selected")
def test_omics_transformer_that_keeps_nothing_is_refused(cohort):
    bags, y, omics = cohort
    with pytest.raises(OmicsError, match=r"shape \(\d+, 0\)"):
        fit(bags, y, omics, omics_transformer=SelectFpr(alpha=1e-300))


@pytest.mark.parametrize(
    "kind", [lambda y: y.astype(object), lambda y: pd.Series(y, dtype="Int64"), lambda y: y > 0]
)
def test_labels_of_object_nullable_or_bool_type_work(cohort, kind):
    bags, y, _ = cohort
    clf = fit(bags, kind(y))
    assert list(clf.classes_) == [0, 1]
    assert clf.classes_.dtype.kind in "ib"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"device": "gpu"}, "device='gpu' cannot be used"),
        ({"training__validation_split": []}, "no split"),
        ({"training__validation_split": [([0], [99])]}, "beyond the 24 bags"),
        ({"memory__update": "fixed", "memory__reseed_unused": True}, "excludes"),
    ],
)
def test_fit_settings_that_cannot_work_are_explained(cohort, overrides, message):
    bags, y, _ = cohort
    with pytest.raises(ValueError, match=message):
        fit(bags, y, **overrides)


def test_fit_callbacks_of_another_kind_are_refused(cohort):
    bags, y, _ = cohort
    with pytest.raises(TypeError, match="skorch callbacks"):
        fit(bags, y, training__callbacks=[print])


def test_fit_missing_group_names_the_bag(cohort):
    bags, y, _ = cohort
    with pytest.raises(ValueError, match=r"1 groups are missing.*'S02'"):
        fit(bags, y, groups=[None if i == 2 else str(i) for i in range(24)])


def test_fit_no_bags_is_refused():
    with pytest.raises(ValueError, match="no bags"):
        fit([], [])
