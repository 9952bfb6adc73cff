"""Metrics against scikit-learn's; the threshold and the calibration error by hand."""

import numpy as np
import pytest
from sklearn import metrics

from sk_momkd.estimators.validation_scores import best_threshold
from sk_momkd.evaluation.metrics import patient_metrics


def predictions(n_classes, seed=0, n=80):
    random = np.random.default_rng(seed)
    y = random.integers(0, n_classes, n)
    return y, random.dirichlet(np.ones(n_classes) + np.eye(n_classes)[y].sum(axis=0) / n, n)


def expected(y, proba):
    """Metrics by scikit-learn."""
    chosen, two = proba.argmax(axis=1), proba.shape[1] == 2
    ranked = proba[:, 1] if two else proba
    one_hot = np.eye(proba.shape[1])[y]
    found = {
        "auroc": metrics.roc_auc_score(y, ranked, multi_class="ovr"),
        "auprc": metrics.average_precision_score(y if two else one_hot, ranked),
        "balanced_accuracy": metrics.balanced_accuracy_score(y, chosen),
        "f1_macro": metrics.f1_score(y, chosen, average="macro"),
        "accuracy": metrics.accuracy_score(y, chosen),
    }
    if two:
        found["sensitivity"] = metrics.recall_score(y, chosen)
        found["specificity"] = metrics.recall_score(y, chosen, pos_label=0)
        found["brier"] = metrics.brier_score_loss(y, proba[:, 1])
    else:
        found["brier"] = ((proba - one_hot) ** 2).sum(axis=1).mean()
    return found


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_metrics_equal_sklearn(n_classes, seed):
    y, proba = predictions(n_classes, seed)
    ours = {name: v[0] for name, v in patient_metrics(y, proba, np.ones((1, 80))).items()}
    ours = {name: value for name, value in ours.items() if not name.endswith("_tuned")}
    for name, value in expected(y, proba).items():
        assert ours[name] == pytest.approx(value, rel=1e-12), name
    assert set(ours) == set(expected(y, proba)) | {"calibration_error"}


@pytest.mark.parametrize("n_classes", [2, 3])
def test_metrics_of_many_draws_equal_those_of_repeated_patients(n_classes):
    y, proba = predictions(n_classes)
    weights = np.random.default_rng(1).multinomial(80, np.full(80, 1 / 80), size=300)
    ours = patient_metrics(y, proba, weights)
    for i in (0, 299):
        for name, value in expected(
            np.repeat(y, weights[i]), np.repeat(proba, weights[i], 0)
        ).items():
            assert ours[name][i] == pytest.approx(value, rel=1e-12), name


def test_tuned_metrics_use_the_other_decision():
    y = np.array([0, 0, 1, 1])
    proba = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    found = patient_metrics(y, proba, np.ones((1, 4)), np.array([0, 0, 1, 1]))
    assert found["accuracy"] == 0.5
    assert found["accuracy_tuned"] == 1


def test_metrics_of_many_classes_have_no_thresholds():
    two, three = (patient_metrics(*predictions(n), np.ones((1, 80))) for n in (2, 3))
    assert np.isnan(two["accuracy_tuned"]).all()
    assert not {"accuracy_tuned", "sensitivity"} & set(three)


def test_calibration_error_by_hand():
    y = np.array([0, 1, 1, 1])
    positive = np.array([0.12, 0.18, 0.75, 1.0])
    found = patient_metrics(y, np.stack([1 - positive, positive], axis=1), np.ones((1, 4)))
    # bins .1-.2: |.30 - 1|; .7-.8: .25; .9-1: 0
    assert found["calibration_error"][0] == pytest.approx((0.70 + 0.25) / 4)


def test_calibration_error_of_many_classes_is_of_the_predicted_class():
    y, proba = np.array([0, 1]), np.array([[0.6, 0.2, 0.2], [0.1, 0.2, 0.7]])
    found = patient_metrics(y, proba, np.ones((1, 2)))["calibration_error"]
    assert found[0] == pytest.approx((0.4 + 0.7) / 2)


@pytest.mark.parametrize("seed", range(5))
def test_best_threshold_has_the_first_highest_f1(seed):
    random = np.random.default_rng(seed)
    y, p = random.random(40) < 0.4, random.random(40).round(1)
    candidates = np.unique(p)
    f1 = [metrics.f1_score(y, p >= t) for t in candidates]
    assert best_threshold(y, p) == candidates[int(np.argmax(f1))]


def test_best_threshold_on_a_tie_is_the_lowest():
    # at .2: 2 of 4 called positive are; F1 2/3. At .8: one of one, F1 2/3.
    assert best_threshold(np.array([1, 0, 0, 1], bool), np.array([0.2, 0.3, 0.4, 0.8])) == 0.2
