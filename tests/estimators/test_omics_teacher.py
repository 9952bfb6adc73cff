"""Soft labels of the omics teacher: their formula, who is held out, and what they change."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_bags, make_omics, quick_classifier
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.feature_selection import SelectFromModel
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from sk_momkd.data.omics import as_omics
from sk_momkd.estimators.cross_fitted_teacher import cross_fit
from sk_momkd.exceptions import ExpressionScaleWarning, OmicsError


class FirstGene(ClassifierMixin, BaseEstimator):
    """Its logit is the first gene; it remembers in `seen` whom each fit saw."""

    seen: list = []  # noqa: RUF012  (shared by clones on purpose)

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.seen.append(set(X.index))
        return self

    def decision_function(self, X):
        return X.to_numpy()[:, 0]

    def predict(self, X):
        return (self.decision_function(X) > 0).astype(int)


def labels_of(frame, y, *, teacher, rows=None, groups=None, temperature=0.5):
    rows = np.arange(len(y)) if rows is None else rows
    groups = np.arange(len(y)) if groups is None else groups
    fitted = cross_fit(
        teacher,
        as_omics(frame),
        rows,
        y,
        groups,
        classes=range(y.max() + 1),
        random_state=0,
        pairs=False,
    )
    soft = np.zeros((len(rows), y.max() + 1))
    soft[rows >= 0] = fitted.soft_labels(temperature)
    return soft


def weights(clf):
    return torch.cat([p.detach().flatten() for p in clf.module_.parameters()])


def test_labels_are_the_sigmoid_of_logits_in_standard_deviations():
    y = np.arange(20) % 2
    frame = make_omics(y)
    soft = labels_of(frame, y, teacher=FirstGene(), temperature=0.5)
    z = frame.to_numpy(np.float32)[:, 0]
    np.testing.assert_allclose(soft[:, 1], 1 / (1 + np.exp(-2 * z / z.std())), rtol=1e-5)
    np.testing.assert_allclose(soft.sum(axis=1), 1, rtol=1e-6)


def test_labels_come_from_teachers_that_never_saw_the_group():
    y, FirstGene.seen = np.arange(20) % 2, []
    frame, groups = make_omics(y), np.arange(20) // 4
    labels_of(frame, y, teacher=FirstGene(), groups=groups)
    assert len(FirstGene.seen) == 5
    for seen in FirstGene.seen:
        held = {groups[i] for i, name in enumerate(frame.index) if name not in seen}
        assert held
        assert not held & {groups[i] for i, n in enumerate(frame.index) if n in seen}


def test_labels_of_noise_by_a_memoriser_tell_nothing_of_the_label():
    random = np.random.default_rng(0)
    y = random.permutation(np.arange(200) % 2)
    frame = pd.DataFrame(random.normal(size=(200, 5)), index=[f"P{i}" for i in range(200)])
    frame.columns = [f"G{j}" for j in range(5)]
    teacher = KNeighborsClassifier(1)  # in the sample it would be right every time
    soft = labels_of(frame, y, teacher=teacher)
    assert abs(np.mean((soft[:, 1] > 0.5) == (y == 1)) - 0.5) < 0.12


def test_labels_of_a_patient_with_several_bags_are_one_and_count_once():
    y, FirstGene.seen = np.arange(12) % 2, []
    frame = make_omics(y)
    rows = np.append(np.arange(12), [0, 0, -1])
    labels = np.append(y, [y[0], y[0], 1])
    soft = labels_of(frame, labels, teacher=FirstGene(), rows=rows, groups=rows)
    assert np.array_equal(soft[12], soft[0])
    assert np.array_equal(soft[13], soft[0])
    assert not soft[14].any()
    assert all(len(seen) <= 10 for seen in FirstGene.seen)


def test_labels_of_three_classes_sum_to_one_and_follow_the_classes():
    y = np.arange(60) % 3
    random = np.random.default_rng(1)
    frame = pd.DataFrame(
        random.normal(size=(60, 4)) + 3 * np.eye(3, 4)[y],
        index=[f"P{i}" for i in range(60)],
        columns=list("abcd"),
    )
    soft = labels_of(frame, y, teacher=LogisticRegression())
    np.testing.assert_allclose(soft.sum(axis=1), 1, rtol=1e-5)
    assert np.mean(soft.argmax(axis=1) == y) > 0.8


def test_labels_need_two_groups_of_every_class():
    y = np.arange(6) % 2
    with pytest.raises(OmicsError, match="class 1 is in 1"):
        labels_of(make_omics(y), y, teacher=None, groups=np.array([0, 9, 1, 9, 2, 9]))


def test_labels_need_a_teacher_that_separates_patients():
    y = np.arange(24) % 2
    with pytest.raises(OmicsError, match="same for all patients of each fold"):
        labels_of(make_omics(y), y, teacher=DummyClassifier())


@pytest.mark.parametrize("n_classes", [3, 4])
def test_labels_need_one_output_per_class(n_classes):
    y = np.arange(24) % n_classes
    with pytest.raises(OmicsError, match="decision_function_shape='ovr'"):
        labels_of(make_omics(y), y, teacher=SVC(decision_function_shape="ovo"))


def test_fit_names_the_class_with_too_little_omics():
    bags, y = make_bags()
    clf = quick_classifier(lambda_teacher=0.5, early_stopping=False)
    with pytest.raises(OmicsError, match="class 'pos' is in 1"):
        clf.fit(bags, np.array(["neg", "pos"])[y], omics=make_omics(y).iloc[[0, 1, 2, 4]])


def test_fit_is_the_same_with_a_teacher_of_chance_and_rows_in_any_order():
    bags, y = make_bags()
    omics = make_omics(y).astype(np.float32)
    teacher, selector = RandomForestClassifier(4), SelectFromModel(ExtraTreesClassifier(4))
    settings = {"max_epochs": 1, "teacher": teacher, "omics_transformer": selector}
    first, second = (
        quick_classifier(lambda_teacher=0.5, **settings).fit(bags, y, omics=table)
        for table in (omics, omics[::-1])
    )
    assert torch.equal(weights(first), weights(second))
    assert teacher.random_state is None


def test_fit_learns_from_soft_labels_and_never_from_those_of_validation():
    bags, y = make_bags()
    omics = make_omics(y)
    settings = {"max_epochs": 2, "alpha_omics": 0.0, "lambda_mse": 0.0}
    plain = quick_classifier(**settings).fit(bags, y, omics=omics)
    soft = quick_classifier(lambda_teacher=0.5, **settings).fit(bags, y, omics=omics)
    assert not torch.equal(weights(plain), weights(soft))
    mutated = omics.copy()
    mutated.loc[soft.validation_["patient_id"]] = 50.0
    again = quick_classifier(lambda_teacher=0.5, **settings).fit(bags, y, omics=mutated)
    assert torch.equal(weights(soft), weights(again))


def test_fit_without_omics_is_the_same_with_and_without_a_teacher():
    bags, y = make_bags()
    plain = quick_classifier(max_epochs=2).fit(bags, y)
    distilled = quick_classifier(max_epochs=2, lambda_teacher=0.5).fit(bags, y)
    assert torch.equal(weights(plain), weights(distilled))


@pytest.mark.parametrize("alignment", [False, True])
def test_fit_semi_paired_with_any_teacher(alignment):
    bags, y = make_bags()
    clf = quick_classifier(
        max_epochs=2, lambda_teacher=0.7, teacher=SVC(), loss__teacher_alignment=alignment
    )
    clf.fit(bags, y, omics=make_omics(y).iloc[:16])
    assert clf.n_paired_ < 24
    assert np.isfinite(clf.predict_proba(bags)).all()


def log_expression(n, n_genes=30):
    """Labels, and log expression in which a third of the genes differ between classes."""
    random, y = np.random.default_rng(0), np.arange(n) % 2
    values = random.normal(5, 1, size=(n, n_genes)) + 1.2 * y[:, None] * (np.arange(n_genes) < 10)
    return y, pd.DataFrame(values, [f"P{i}" for i in range(n)], [f"G{j}" for j in range(n_genes)])


def means(soft, y):
    return np.array([soft[y == c, 1].mean() for c in (0, 1)])


def one_value(frame):
    frame.iloc[17, 4] = 4e4


def filler(frame):
    frame.iloc[17, 4] = 1e30


def negative(frame):
    frame.iloc[3, 25] = -4e4


def constant_but_one(frame):
    frame["G20"] = 0.0
    frame.iloc[17, 20] = 4e4


def patient_in_counts(frame):
    frame.iloc[17] = 1000 * 2 ** frame.iloc[17]


def gene_in_counts(frame):
    frame["G4"] = 2 ** frame["G4"]


def three_of_a_gene(frame):
    frame.iloc[[1, 2, 8], 4] = [4e4, 3e4, 5e6]


@pytest.mark.filterwarnings("ignore::sk_momkd.exceptions.ExpressionScaleWarning")
@pytest.mark.parametrize(
    ("disturb", "n"),
    [
        (one_value, 200),
        (one_value, 40),
        (filler, 40),
        (negative, 40),
        (constant_but_one, 40),
        (gene_in_counts, 40),
        (three_of_a_gene, 40),
        (patient_in_counts, 200),
    ],
)
def test_labels_barely_move_by_an_outlier(disturb, n):
    y, frame = log_expression(n)
    clean = labels_of(frame, y, teacher=None)
    disturb(frame)
    soft = labels_of(frame, y, teacher=None)
    assert means(clean, y)[0] < 0.3
    assert means(clean, y)[1] > 0.7
    np.testing.assert_allclose(means(soft, y), means(clean, y), atol=0.04)
    others = np.arange(n) != 17
    assert np.abs(soft - clean)[others].mean() < 0.05


def test_labels_by_a_teacher_that_does_not_clip_keep_their_spread():
    y, frame = log_expression(200)
    clean = labels_of(frame[["G0"]], y, teacher=FirstGene())
    frame.iloc[17, 0] = 4e4
    soft = labels_of(frame[["G0"]], y, teacher=FirstGene())
    np.testing.assert_allclose(means(soft, y), means(clean, y), atol=0.02)


def test_labels_with_an_outlier_do_not_depend_on_the_order_of_the_table():
    y, frame = log_expression(60)
    one_value(frame)
    order = np.random.default_rng(1).permutation(60)
    soft = labels_of(frame, y, teacher=None)
    again = labels_of(frame.iloc[order], y, teacher=None, rows=np.argsort(order))
    np.testing.assert_array_equal(again, soft)


@pytest.mark.filterwarnings("ignore::sk_momkd.exceptions.ExpressionScaleWarning")
def test_labels_clip_by_the_training_part_of_each_fold_alone():
    y, frame = log_expression(60)
    frame["G0"] = np.where(np.arange(60) % 5 == 0, 1e6, frame["G0"])  # a fifth, in one group
    groups = np.arange(60) % 5
    clean = labels_of(frame, y, teacher=None, groups=groups)
    frame.loc[frame.index[groups == 0], "G0"] = 1e9  # farther out: beyond the limit either way
    again = labels_of(frame, y, teacher=None, groups=groups)
    np.testing.assert_allclose(again[groups == 0], clean[groups == 0], rtol=1e-5)


def test_fit_warns_once_of_an_outlier_in_training():
    bags, y = make_bags()
    omics = make_omics(y)
    omics.iloc[:, 2] += 0.5  # no counts
    clf = quick_classifier(lambda_teacher=0.5, max_epochs=1, early_stopping=False)
    omics.iloc[5, 2] = 4e4
    with pytest.warns(ExpressionScaleWarning, match=f"{omics.columns[2]}.*{omics.index[5]}") as log:
        clf.fit(bags, y, omics=omics)
    assert sum(issubclass(w.category, ExpressionScaleWarning) for w in log) == 1
