"""Soft labels of an omics teacher in every classifier of bags, and the choice of their weight."""

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_bags, make_omics
from quick import CLASSIFIERS, PRIVILEGED, quick
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge

from sk_momkd import Bag, BagPooling, BagSequence
from sk_momkd.data.arrays import BagArrays
from sk_momkd.data.omics import as_omics
from sk_momkd.estimators.base import BaseMILClassifier
from sk_momkd.estimators.cross_fitted_teacher import cross_fit
from sk_momkd.estimators.pooled_student import (
    _student_scores,
    permuted_within_class,
    pooled_evidence,
    ridge,
    slide_teacher,
)
from sk_momkd.estimators.teacher_evidence import Evidence
from sk_momkd.estimators.teacher_weight import Samples, targets_by_weight
from sk_momkd.exceptions import PairingWarning

NETWORKS = [name for name, cls in CLASSIFIERS.items() if issubclass(cls, BaseMILClassifier)]
SHORT = {"max_epochs": 1, "early_stopping": False}


def weights(clf):
    return torch.cat([p.detach().flatten() for p in clf.module_.parameters()])


def cohort(n=160, seed=0, *, visible=1.0, known=1.0):
    """Bags and omics of one cause, whose label is noisy; without `visible` slides show nothing."""
    random = np.random.default_rng(seed)
    cause = random.normal(size=n)
    y = (cause + random.normal(size=n) > 0).astype(int)
    genes = known * cause[:, None] + random.normal(size=(n, 30))
    names = [f"P{i:03d}" for i in range(n)]
    shown = visible * cause[:, None, None] * np.eye(6)[0] + random.normal(size=(n, 4, 6))
    bags = BagSequence(Bag(x, patient_id=name) for x, name in zip(shown, names, strict=True))
    return bags, y, pd.DataFrame(genes, index=names, columns=[f"G{j}" for j in range(30)])


def teacher_of(bags, y, omics):
    pooled = BagPooling("mean+std").fit_transform(bags)
    samples = Samples(pooled, y, np.array([0, 1]), np.arange(len(y)))
    known = (as_omics(omics), np.arange(len(y)), y, np.arange(len(y)))
    return samples, cross_fit(
        LogisticRegression(C=0.01), *known, classes=[0, 1], random_state=0, pairs=True
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_fit_every_network_learns_from_soft_labels(name):
    bags, y = make_bags()
    omics = make_omics(y)
    plain = {"omics": omics} if name in PRIVILEGED else {}
    alone = quick(name, **SHORT).fit(bags, y, **plain)
    clf = quick(name, **SHORT, lambda_teacher=0.5).fit(bags, y, omics=omics.iloc[:18])
    full = quick(name, **SHORT, lambda_teacher=0.5).fit(bags, y, omics=omics)
    assert (alone.lambda_teacher_, full.lambda_teacher_) == (0, 0.5)
    assert (clf.n_paired_, full.n_paired_) == (18, 24)
    assert not torch.equal(weights(alone), weights(full))
    assert full.predict_proba(bags).shape == (24, 2)


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - set(PRIVILEGED)))
def test_fit_of_histology_alone_refuses_omics_and_names_lambda_teacher(name):
    bags, y = make_bags()
    with pytest.raises(TypeError, match=r'lambda_teacher=0 .*lambda_teacher="auto"'):
        quick(name).fit(bags, y, omics=make_omics(y))


def test_fit_without_omics_does_not_depend_on_lambda_teacher():
    bags, y = make_bags()
    alone, asked = (
        quick("ABMILClassifier", **SHORT, lambda_teacher=share).fit(bags, y)
        for share in (0, "auto")
    )
    assert torch.equal(weights(alone), weights(asked))
    assert asked.lambda_teacher_ == 0
    assert "No omics was given" in asked.teacher_verdict_


@pytest.mark.parametrize("weight", [0.0, 0.75])
def test_fit_auto_takes_the_weight_that_the_evidence_decides_and_reports(weight, monkeypatch):
    bags, y, omics = cohort(60)
    monkeypatch.setattr(Evidence, "decision", lambda self: (weight, "the reason"))
    clf = quick("ABMILClassifier", **SHORT, lambda_teacher="auto").fit(bags, y, omics=omics)
    assert (clf.lambda_teacher_, clf.teacher_verdict_) == (weight, "the reason")
    assert list(clf.teacher_report_.index) == [0, 0.25, 0.5, 0.75, 1]
    assert {"permuted", "self_distilled"} < set(clf.teacher_report_)


class Counted:
    """A file that counts how often it is read."""

    def __init__(self, features):
        self.features, self.n_reads = features, 0
        self.shape = features.shape

    def read(self):
        self.n_reads += 1
        return BagArrays(self.features, None, None)


@pytest.mark.parametrize("share", [0.5, "auto"])
def test_fit_reads_bags_once_whoever_needs_them_first(share):
    bags, y, omics = cohort(60)
    sources = [Counted(bag.features) for bag in bags]
    read = bags.replace(bag.with_source(s) for bag, s in zip(bags, sources, strict=True))
    clf = quick("MoMKDClassifier", **SHORT, lambda_teacher=share, training__cache_bytes=2**20)
    clf.fit(read, y, omics=omics)
    first, *others = (source.n_reads for source in sources)  # the first one says how wide bags are
    assert (first, set(others)) == (2, {1})
    assert torch.equal(weights(clf), weights(clone(clf).fit(bags, y, omics=omics)))


def test_evidence_is_of_the_pooled_bags_whatever_precision_they_are_trained_with(monkeypatch):
    bags, y, omics = cohort(60)
    seen = []

    def keep(samples, *args):
        seen.append(samples.X)
        return pooled_evidence(samples, *args)

    monkeypatch.setattr("sk_momkd.estimators.pooled_student.pooled_evidence", keep)
    for precision in ("float32", "bfloat16"):
        clf = quick("ABMILClassifier", **SHORT, lambda_teacher="auto", precision=precision)
        clf.fit(bags, y, omics=omics)
    for pooled in seen:
        np.testing.assert_array_equal(pooled, BagPooling("mean+std").fit_transform(bags))
    assert len(seen) == 2


def test_fit_auto_with_few_patients_has_weight_zero_and_warns():
    bags, y = make_bags()
    clf = quick("ABMILClassifier", **SHORT, lambda_teacher="auto")
    with pytest.warns(PairingWarning, match="fewer than the 10"):
        clf.fit(bags, y, omics=make_omics(y).iloc[:16])
    assert clf.lambda_teacher_ == 0


@pytest.mark.long
def test_weight_is_above_zero_where_slides_show_what_omics_knows_and_nowhere_else():
    chosen = {
        kind: np.mean([evidence(seed, **kind_of).decision()[0] for seed in range(6)])
        for kind, kind_of in {
            "both": {},
            "not visible": {"visible": 0.0},
            "not known": {"known": 0.0},
        }.items()
    }
    assert chosen["both"] > 0.2
    assert chosen["not visible"] < 0.1
    assert chosen["not known"] < 0.1


@cache
def evidence(seed, **kind):
    samples, teacher = teacher_of(*cohort(seed=seed, **kind))
    return pooled_evidence(samples, teacher, 0.5)


@pytest.mark.long
def test_controls_gain_less_than_the_teacher():
    reports = [evidence(seed).report.loc[0.5] for seed in range(4)]
    mean = pd.DataFrame(reports).mean()
    assert mean["gain"] > mean["permuted"]
    assert mean["gain"] > mean["self_distilled"]


def test_scores_of_a_fold_do_not_depend_on_its_labels():
    bags, y, omics = cohort(60)
    samples, teacher = teacher_of(bags, y, omics)
    pooled = np.stack([bag.features.mean(axis=0) for bag in bags])
    held = teacher.sample_folds == 2
    flipped = replace(samples, numbers=np.where(held, 1 - y, y))
    both = [
        _student_scores(pooled, one, [teacher, slide_teacher(pooled, one, teacher)], 0.5)[
            :, :, held
        ]
        for one in (samples, flipped)
    ]
    np.testing.assert_array_equal(*both)


def test_targets_of_each_weight_lie_between_the_labels_and_the_soft_labels():
    bags, y, omics = cohort(60)
    samples, teacher = teacher_of(bags, y, omics)
    hard, *mixed, soft = targets_by_weight(teacher, samples, 0.5, 2)
    np.testing.assert_array_equal(hard, samples.hard[teacher.sample_folds != 2])
    np.testing.assert_allclose(soft.mean(axis=0), hard.mean(axis=0))
    for weight, targets in zip((0.25, 0.5, 0.75), mixed, strict=True):
        np.testing.assert_allclose(targets, (1 - weight) * hard + weight * soft)


def test_permuted_teacher_keeps_class_and_fold():
    _, y, _ = data = cohort(60)
    teacher = teacher_of(*data)[1]
    mixed = permuted_within_class(teacher, 0)
    assert not np.array_equal(mixed.logits, teacher.logits)
    for c in (0, 1):
        for fold in range(teacher.n_folds):
            own = (y == c) & (teacher.patient_folds == fold)
            ours, theirs = (np.sort(t.held_out_logits[own, 1]) for t in (mixed, teacher))
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("n_features", [3, 50])
def test_ridge_is_that_of_scikit_learn(n_features):
    random = np.random.default_rng(0)
    X, targets, new = (
        random.normal(size=size) for size in ((20, n_features), (20, 2), (4, n_features))
    )
    z, z_new = ((values - X.mean(axis=0)) / X.std(axis=0) for values in (X, new))
    expected = Ridge(alpha=20).fit(z, targets).predict(np.clip(z_new, -6, 6))
    np.testing.assert_allclose(ridge(X, targets, new), expected, rtol=1e-8, atol=1e-10)


def test_soft_labels_are_at_the_class_shares_of_the_sampler():
    bags, y, omics = cohort(90)
    keep = np.sort(np.concatenate([np.flatnonzero(y == 0), np.flatnonzero(y == 1)[:12]]))
    seen = {}

    for sampler in ("balanced", "shuffle"):
        clf = quick("ABMILClassifier", **SHORT, lambda_teacher=1.0, sampler=sampler)
        made = clf._make_soft_labels
        clf._make_soft_labels = lambda *a, made=made, s=sampler: seen.setdefault(s, made(*a))
        clf.fit(bags[keep], y[keep], omics=omics)
    of_class = [seen["balanced"][y[keep] == c, 1].mean() for c in (0, 1)]
    assert np.mean(of_class) == pytest.approx(0.5, abs=1e-4)
    assert seen["shuffle"][:, 1].mean() == pytest.approx(y[keep].mean(), abs=1e-4)
