"""AUROC and average precision against scikit-learn and against weights written out."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from sk_momkd.evaluation.metrics import auroc, average_precision, one_vs_rest, placements

MEASURES = [(auroc, roc_auc_score), (average_precision, average_precision_score)]


def drawn(seed, n=60, ties=True):
    random = np.random.default_rng(seed)
    score = random.normal(size=n)
    return random.random(n) < 0.4, score.round(1) if ties else score


@pytest.mark.parametrize(("ours", "theirs"), MEASURES)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ties", [True, False])
def test_measure_equals_sklearn(ours, theirs, seed, ties):
    positive, score = drawn(seed, ties=ties)
    value = ours(positive, score, np.ones((1, 60)))
    np.testing.assert_allclose(value, theirs(positive, score), rtol=1e-12)


@pytest.mark.parametrize(("ours", "theirs"), MEASURES)
def test_measure_with_weights_equals_repeated_patients(ours, theirs):
    positive, score = drawn(0)
    weights = np.random.default_rng(1).multinomial(60, np.full(60, 1 / 60), size=7)
    expected = [theirs(np.repeat(positive, w), np.repeat(score, w)) for w in weights]
    np.testing.assert_allclose(ours(positive, score, weights), expected, rtol=1e-12)


@pytest.mark.parametrize("ours", [auroc, average_precision])
@pytest.mark.parametrize("label", [True, False])
def test_measure_of_one_class_is_nan(ours, label):
    assert np.isnan(ours(np.full(4, label), np.arange(4.0), np.ones((1, 4)))).all()


def test_measure_of_many_classes_is_the_mean_over_them():
    random = np.random.default_rng(0)
    y, proba = random.integers(0, 3, 50), random.dirichlet(np.ones(3), 50)
    value = one_vs_rest(auroc, y, proba, np.ones((1, 50)))
    np.testing.assert_allclose(value, roc_auc_score(y, proba, multi_class="ovr"), rtol=1e-12)


def test_placements_average_to_the_auroc():
    positive, score = drawn(3)
    above, below = placements(positive, score)
    assert above.mean() == pytest.approx(roc_auc_score(positive, score))
    assert below.mean() == pytest.approx(roc_auc_score(positive, score))
