"""G-HANet, MKD and TDC: what omics may reach, what is left behind, and the stages of TDC."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_bags, make_omics, mean_auc
from quick import PRIVILEGED, quick
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback

from sk_momkd import GHANetClassifier, MKDClassifier, TDCClassifier, align_omics
from sk_momkd.exceptions import OmicsError
from sk_momkd.models.ghanet import GHANet
from sk_momkd.models.tdc import TDC, TDCTeacher

NEW = [name for name in PRIVILEGED if name != "MoMKDClassifier"]
of_each = pytest.mark.parametrize("name", NEW)


def weights(clf):
    return torch.cat([p.detach().flatten() for p in clf.module_.parameters()])


def test_taught_are_the_methods_with_omics():
    assert NEW == ["GHANetClassifier", "MKDClassifier", "TDCClassifier"]


# --- leaks ---------------------------------------------------------------------------------


@of_each
def test_omics_of_validation_patients_does_not_train(name, cohort):
    bags, y, omics = cohort
    split = PredefinedSplit(np.where(np.arange(24) < 6, 0, -1))
    mutated = omics.copy()
    mutated.iloc[:6] = 1e3
    fits = [quick(name, max_epochs=3, training__validation_split=split) for _ in range(2)]
    first, second = (
        clf.fit(bags, y, omics=table) for clf, table in zip(fits, (omics, mutated), strict=True)
    )
    assert first.n_paired_ == 18
    np.testing.assert_array_equal(first.genes_, second.genes_)
    if name != "TDCClassifier":
        assert torch.equal(weights(first), weights(second))
        return
    # TDC's first stage looks at them, but for the choice of its epoch alone.
    trained = [column for column in first.teacher_history_ if column.startswith("train")]
    pd.testing.assert_frame_equal(first.teacher_history_[trained], second.teacher_history_[trained])


@of_each
def test_omics_of_test_patients_changes_nothing(name, cohort):
    bags, y, omics = cohort
    folds = [(np.arange(6, 24), np.arange(6))]
    scores = []
    for value in (0.0, 1e3):
        table = omics.copy()
        table.iloc[:6] += value
        clf = quick(name, max_epochs=2)
        train, test = folds[0]
        clf.fit(bags[train], y[train], omics=align_omics(table, bags))
        scores.append(clf.predict_proba(bags[test]))
    np.testing.assert_array_equal(*scores)


@of_each
def test_omics_in_any_order_and_form_gives_the_same_model(name, cohort):
    bags, y, omics = cohort
    tables = (omics, omics.sample(frac=1, random_state=1), omics.to_numpy())
    fits = [quick(name, max_epochs=1).fit(bags, y, omics=table) for table in tables]
    for clf in fits[1:]:
        assert torch.equal(weights(clf), weights(fits[0]))


@of_each
def test_histology_starts_alike_with_and_without_omics(name, cohort):
    bags, y, omics = cohort
    still = {"learning_rate": 1e-30, "weight_decay": 0.0, "early_stopping": False, "max_epochs": 1}
    with_omics = quick(name, **still).fit(bags, y, omics=omics)
    without = quick(name, **still).fit(bags, y)
    torch.testing.assert_close(weights(with_omics), weights(without), atol=1e-25, rtol=0)


# --- what is left behind -------------------------------------------------------------------


@of_each
def test_teacher_is_gone_after_fit_and_omics_had_its_effect(name, cohort):
    bags, y, omics = cohort
    taught = quick(name, max_epochs=3).fit(bags, y, omics=omics)
    alone = quick(name, max_epochs=3).fit(bags, y)
    assert taught.module_.omics_branch is None
    assert not [key for key in taught.module_.state_dict() if key.startswith("omics_branch")]
    assert weights(taught).shape == weights(alone).shape
    assert not torch.equal(weights(taught), weights(alone))
    assert (taught.n_paired_, alone.n_paired_) == (21, 0)


@pytest.mark.long
@of_each
def test_semi_paired_cohort_learns(name):
    bags, y = make_bags(40)
    omics = make_omics(y).iloc[:24]
    assert quick(name, max_epochs=1).fit(bags, y, omics=omics).n_paired_ < 24
    assert mean_auc(partial(quick, name, max_epochs=10), bags, y, omics=omics) >= 0.7


@of_each
@pytest.mark.parametrize("batch_size", [1, 24])
def test_batches_of_one_and_of_all_train(name, cohort, batch_size):
    bags, y, omics = cohort
    clf = quick(name, max_epochs=1, batch_size=batch_size).fit(bags, y, omics=omics.iloc[:12])
    assert np.isfinite(clf.predict_proba(bags)).all()


@pytest.mark.long
def test_three_classes_with_omics():
    y = np.repeat(["a", "b", "c"], 12)
    random = np.random.default_rng(0)
    X = [random.normal(size=(5, 3)) + 3 * np.eye(3)["abc".index(c)] for c in y]
    omics = np.eye(3)[["abc".index(c) for c in y]].repeat(4, axis=1) + random.normal(size=(36, 12))
    for name in NEW:
        make = partial(quick, name, max_epochs=10, validation_fraction=0.25)
        assert mean_auc(make, X, y, omics=omics) >= 0.75, name


def test_histories_name_the_losses(cohort):
    bags, y, omics = cohort
    expected = {
        GHANetClassifier: ["ce", "sce", "mse"],
        MKDClassifier: ["ce", "ce_omics", "ce_joint", "clod", "skd", "coral", "orthogonality"],
        TDCClassifier: ["ce", "kl_average", "crd_average", "kl_teacher", "crd_teacher"],
    }
    for cls, terms in expected.items():
        clf = quick(cls.__name__, max_epochs=1).fit(bags, y, omics=omics)
        assert {f"train_{term}" for term in terms} <= set(clf.history_), cls


# --- G-HANet's groups ----------------------------------------------------------------------


def test_gene_groups_by_name_are_the_columns_of_the_decoders(cohort, monkeypatch):
    bags, y, omics = cohort
    seen = {}
    monkeypatch.setattr(
        "sk_momkd.estimators.ghanet.GHANet",
        lambda *args, **kwargs: seen.update(kwargs) or GHANet(*args, **kwargs),
    )
    groups = {"signature": ["G2", "G0"], "other": ["G0", "G5", "G7"]}
    clf = quick("GHANetClassifier", max_epochs=1, gene_groups=groups, n_genes=8)
    clf.fit(bags, y, omics=omics)
    genes = list(clf.genes_)
    kept = [[genes.index(g) for g in group if g in genes] for group in groups.values()]
    assert seen["gene_groups"] == kept
    assert seen["n_groups"] == 2
    alone = quick("GHANetClassifier", max_epochs=1, gene_groups=list(groups.values())).fit(bags, y)
    assert weights(alone).shape == weights(clf).shape  # the tokens are the same without omics


@pytest.mark.parametrize(
    ("groups", "options", "message"),
    [
        ([["G0", "BRCA9"], ["G1"]], {}, "1 genes of gene_groups are not in omics: 'BRCA9'"),
        ({"x": ["G9"]}, {"n_genes": 3}, "kept none of the 1 genes of group 'x'"),
    ],
)
def test_gene_groups_that_cannot_be_used_are_named(cohort, groups, options, message):
    bags, y, omics = cohort
    clf = quick("GHANetClassifier", max_epochs=1, gene_groups=groups, **options)
    with pytest.raises(OmicsError, match=message):
        clf.fit(bags, y, omics=omics)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gene_groups": []}, "empty"),
        ({"gene_groups": ["G0", "G1"]}, "lists of gene names"),
        ({"gene_groups": [[0, 1]]}, "lists of gene names"),
        ({"gene_groups": {"signature": 5}}, "lists of gene names; group 'signature' is 5"),
        ({"n_heads": 3}, "n_heads=3 must divide dim=16"),
        ({"n_genes": 4}, "n_groups=6 is more than the 4 genes"),
    ],
)
def test_ghanet_settings_that_cannot_work_are_explained(cohort, options, message):
    bags, y, omics = cohort
    with pytest.raises(ValueError, match=message):
        quick("GHANetClassifier", **options).fit(bags, y, omics=omics)


def test_transmil_width_that_cannot_be_shared_is_explained(cohort):
    bags, y, _ = cohort
    with pytest.raises(ValueError, match=r"dim=16 must be a multiple of twice n_heads=3"):
        quick("TransMILClassifier", n_heads=3).fit(bags, y)


@pytest.mark.parametrize("betas", [(0.5,), (0.5, 1.0), ("a", "b"), (0.5, 0.9, 0.9)])
def test_dsmil_betas_that_are_no_two_shares_are_explained(cohort, betas):
    bags, y, _ = cohort
    with pytest.raises(ValueError, match=r"betas must be two numbers in \[0, 1\), got"):
        quick("DSMILClassifier", training__betas=betas).fit(bags, y)


def test_dsmil_betas_may_be_a_list(cohort):
    bags, y, _ = cohort
    fits = [
        quick("DSMILClassifier", max_epochs=1, training__betas=b) for b in ([0.5, 0.9], (0.5, 0.9))
    ]
    assert torch.equal(*(weights(clf.fit(bags, y)) for clf in fits))


@pytest.mark.parametrize("widths", [(0,), (-3,), ("a",), (4.0,)])
def test_tdc_widths_that_are_no_counts_are_explained(cohort, widths):
    bags, y, omics = cohort
    with pytest.raises(ValueError, match="omics_hidden_dims must be positive whole numbers"):
        quick("TDCClassifier", omics_hidden_dims=widths).fit(bags, y, omics=omics)


# --- TDC's stages --------------------------------------------------------------------------


class Modules(Callback):
    """Remember what is trained and how far its average has come."""

    def on_train_end(self, net, **kwargs):
        self.module_ = net.module_
        self.updates_ = int(net.module_.omics_branch.average.n_updates)
        self.teacher_ = net.module_.omics_branch.teacher


def test_tdc_teaches_in_two_stages(cohort, monkeypatch):
    bags, y, omics = cohort
    masking = []
    forward = TDCTeacher.forward

    def spy(self, *args, **kwargs):
        if self.training:
            masking.append(self.masking)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(TDCTeacher, "forward", spy)
    options = {"early_stopping": False, "batch_size": 24, "max_epochs": 4}
    clf = quick("TDCClassifier", training__callbacks=[Modules()], **options).fit(
        bags, y, omics=omics
    )
    assert masking == [False, False, True, True]  # one step per epoch
    assert len(clf.teacher_history_) == len(clf.history_) == clf.n_iter_ == 4
    assert {"train_kl_masked", "train_l1", "train_ce_fused"} <= set(clf.teacher_history_)
    assert len(clf.callbacks_) == 1
    assert isinstance(clf.callbacks_[0].module_, TDC)
    assert clf.callbacks_[0].updates_ == 5  # once at the start, once after each step
    assert not any(p.requires_grad for p in clf.callbacks_[0].teacher_.parameters())


def test_tdc_without_omics_has_one_stage(cohort):
    bags, y, omics = cohort
    clf = quick("TDCClassifier", max_epochs=2).fit(bags, y, omics=omics).fit(bags, y)
    assert not hasattr(clf, "teacher_history_")
    assert "train_kl_average" in clf.history_
    assert "train_kl_teacher" not in clf.history_


def test_tdc_teacher_is_chosen_with_omics_of_the_validation_part(cohort):
    bags, y, omics = cohort
    split = PredefinedSplit(np.where(np.arange(24) < 8, 0, -1))
    options = {
        "training__validation_split": split,
        "max_epochs": 6,
        "omics_transformer": StandardScaler(),
    }
    with_omics = quick("TDCClassifier", **options).fit(bags, y, omics=omics)
    without = quick("TDCClassifier", **options).fit(bags, y, omics=omics.iloc[8:])
    columns = [history.teacher_history_["valid_loss"] for history in (with_omics, without)]
    assert not np.allclose(*columns)


def test_cross_validation_takes_aligned_omics(cohort):
    bags, y, omics = cohort
    for name in NEW:
        proba = cross_val_predict(
            quick(name, max_epochs=1),
            bags,
            y,
            params={"omics": align_omics(omics.iloc[:20], bags)},
            method="predict_proba",
            cv=2,
        )
        assert np.isfinite(proba).all()
