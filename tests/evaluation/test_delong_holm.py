"""DeLong's test against its textbook form, Holm's correction by hand."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from sk_momkd.evaluation.statistics import delong_test, holm


def textbook(y, first, second):
    """DeLong, DeLong and Clarke-Pearson 1988, pair by pair."""
    y = np.asarray(y, bool)
    m, n = y.sum(), (~y).sum()
    above, below = np.zeros((2, m)), np.zeros((2, n))
    for r, score in enumerate((first, second)):
        for i, x in enumerate(score[y]):
            for j, z in enumerate(score[~y]):
                kernel = 1.0 if x > z else 0.5 if x == z else 0.0
                above[r, i] += kernel / n
                below[r, j] += kernel / m
    s = np.cov(above) / m + np.cov(below) / n
    gap = above[0].mean() - above[1].mean()
    error = np.sqrt(s[0, 0] + s[1, 1] - 2 * s[0, 1])
    p = 2 * stats.norm.cdf(-abs(gap / error))
    return gap, error, p, s[0, 1] / np.sqrt(s[0, 0] * s[1, 1])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ties", [True, False])
def test_delong_equals_the_textbook(seed, ties):
    random = np.random.default_rng(seed)
    y = np.arange(70) < 25
    common = random.normal(size=70) + y
    first, second = common + random.normal(size=70), common + random.normal(size=70)
    if ties:
        first, second = first.round(), second.round()
    test = delong_test(y, first, second)
    np.testing.assert_allclose(test, textbook(y, first, second), rtol=1e-10)
    expected = roc_auc_score(y, first) - roc_auc_score(y, second)
    assert test.difference == pytest.approx(expected)


def test_delong_of_equal_scores_is_no_difference():
    score = np.random.default_rng(0).normal(size=30)
    test = delong_test(np.arange(30) % 2, score, score)
    assert (test.difference, test.standard_error, test.p_value) == (0, 0, 1)
    assert test.correlation == pytest.approx(1)


def test_delong_of_repeats_compares_the_mean_auroc():
    random = np.random.default_rng(0)
    y = np.arange(40) % 2
    first, second = random.normal(size=(2, 3, 40)) + y
    gaps = [roc_auc_score(y, a) - roc_auc_score(y, b) for a, b in zip(first, second, strict=True)]
    assert delong_test(y, first, second).difference == pytest.approx(np.mean(gaps))
    once = delong_test(y, first[0], second[0])
    again = delong_test(y, first[[0, 0]], second[[0, 0]])
    np.testing.assert_allclose(once, again)


def test_delong_holds_its_level():
    random = np.random.default_rng(0)
    y, found = np.arange(90) % 3 == 0, 0
    for _ in range(400):
        common = random.normal(size=90) + y
        found += delong_test(y, *(common + random.normal(size=(2, 90)))).p_value < 0.05
    assert 0.02 < found / 400 < 0.09


@pytest.mark.parametrize(
    ("y", "first", "second", "said"),
    [
        ([0, 1, 1], [1, 2, 3], [1, 2, 3], "two patients of each class"),
        ([0, 0, 1, 1], [1, 2, 3], [1, 2, 3, 4], "one label and one score"),
        ([], [], [], "two patients of each class"),
        ([1, 1, 1], [1, 2, 3], [1, 2, 3], r"two patients of each class, got {1: 3}"),
        ([0, 0, 1, np.nan], [1, 2, 3, 4], [1, 2, 3, 4], "1 labels .* first at position 3"),
        (["a", "a", None, "b"], [1, 2, 3, 4], [1, 2, 3, 4], "1 labels .* first at position 2"),
        ([0, 0, 1, 1], [1, 2, 3, 4], [1, np.nan, 3, np.nan], "2 scores of the second method"),
        ([0, 0, 1, 1], [[1, 2, 3, 4], [1, 2, np.nan, 4]], [1, 2, 3, 4], "first method .*n 2"),
        ([0, 0, 1, 1, 2, 2], range(6), range(6), "two classes, but y holds 3: '0', '1', '2'"),
    ],
)
def test_delong_of_unusable_input_says_why(y, first, second, said):
    with pytest.raises(ValueError, match=said):
        delong_test(y, first, second)


@pytest.mark.parametrize(
    ("names", "pos_label"),
    [
        ([1, 2], None),
        ([-1, 1], None),
        ([False, True], None),
        ([0.0, 1.0], None),
        (["neg", "pos"], None),
        (["HER2-", "HER2+"], "HER2+"),
        ([2, 1], 1),
    ],
)
def test_delong_takes_labels_of_any_kind(names, pos_label):
    random = np.random.default_rng(0)
    y = np.arange(40) % 2
    first, second = random.normal(size=(2, 40)) + y
    expected = delong_test(y, first, second)
    labels = np.array(names)[y]
    assert delong_test(labels, first, second, pos_label=pos_label) == expected
    assert delong_test(labels.tolist(), first, second, pos_label=pos_label) == expected
    assert delong_test(labels.astype(object), first, second, pos_label=pos_label) == expected


def test_delong_of_an_unknown_positive_class_lists_the_classes():
    with pytest.raises(ValueError, match=r"pos_label='1' is no class of y\. The classes are 0, 1"):
        delong_test([0, 0, 1, 1], [1, 2, 3, 4], [1, 2, 3, 4], pos_label="1")
    with pytest.warns(UserWarning, match="'wt' is the positive class") as caught:
        delong_test(["mut", "mut", "wt", "wt"], [1, 2, 3, 4], [4, 2, 3, 4])
    assert caught[0].filename == __file__


def test_holm_by_hand():
    # sorted .005 .01 .03 .04, times 4 3 2 1 = .02 .03 .06 .04, then never falling
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])


def test_holm_equals_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = np.random.default_rng(0).random(50) ** 3
    np.testing.assert_allclose(holm(p), multitest.multipletests(p, method="holm")[1], rtol=1e-12)


def test_holm_leaves_unknown_p_values_out():
    np.testing.assert_allclose(holm([0.01, np.nan, 0.9]), [0.02, np.nan, 0.9])
    np.testing.assert_allclose(holm([0.8, 0.9]), [1, 1])
    assert holm([]).shape == (0,)
