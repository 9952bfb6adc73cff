"""Counts, gene scores and z-scores, each learned from the patients of `fit` alone."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_ind
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator

from sk_momkd import GeneSelector, LogCounts
from sk_momkd.exceptions import ExpressionScaleWarning, OmicsError
from sk_momkd.preprocessing.omics import default_omics_transformer

COUNTS = pd.DataFrame([[0, 3], [1, 7], [15, 0]], ["P0", "P1", "P2"], ["ERBB2", "ESR1"])


def random_expression(n=30, n_genes=12, n_classes=2, seed=0):
    random = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    return random.normal(size=(n, n_genes)) * random.uniform(0.5, 3, n_genes) + y[:, None] * 0.2, y


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize("estimator", [LogCounts(), GeneSelector(2)])
@pytest.mark.filterwarnings("ignore::sk_momkd.exceptions.ExpressionScaleWarning")
def test_check_estimator_passes_every_check(estimator):
    results = check_estimator(estimator)
    assert len(results) > 40
    assert [r["check_name"] for r in results if r["status"] not in ("passed", "skipped")] == []


@pytest.mark.parametrize(
    ("values", "is_counts"),
    [
        ([[0, 3], [1, 7]], True),
        ([[0.0, 3.0], [1.0, 7.0]], True),
        ([[0.0, 3.0], [1.0, 7.5]], False),
        ([[-0.5, 3.0], [1.0, 7.0]], False),
    ],
)
def test_log_counts_whole_numbers_are_counts(values, is_counts):
    values = np.array(values)
    transformer = LogCounts().fit(values)
    assert transformer.is_counts_ is is_counts
    expected = np.log2(values + 1) if is_counts else values
    np.testing.assert_allclose(transformer.transform(values), expected)


def test_log_counts_of_float32_stay_float32():
    assert LogCounts().fit_transform(COUNTS.to_numpy(np.float32)).dtype == np.float32


def test_log_counts_decision_is_learned_in_fit_alone():
    halves = COUNTS + 0.5
    np.testing.assert_allclose(LogCounts().fit(COUNTS).transform(halves), np.log2(halves + 1))
    np.testing.assert_allclose(LogCounts().fit(halves).transform(COUNTS), COUNTS)


@pytest.mark.parametrize("step", ["fit", "transform"])
def test_log_counts_negative_counts_raise_naming_patient_and_gene(step):
    negative = COUNTS.copy()
    negative.loc["P1", "ESR1"] = -4
    transformer = LogCounts().fit(COUNTS)
    said = r"1 negative counts.*\(-4\) for patient 'P1', gene 'ESR1'.*omics_transformer without"
    with pytest.raises(OmicsError, match=said):
        getattr(transformer, step)(negative)


@pytest.mark.parametrize("step", ["fit", "transform"])
def test_log_counts_of_several_negative_counts_the_first_is_named(step):
    negative = COUNTS.copy()
    negative.loc["P1", "ESR1"], negative.loc["P2", "ERBB2"] = -4, -9
    said = r"2 negative counts.*\(-4\) for patient 'P1', gene 'ESR1'"
    with pytest.raises(OmicsError, match=said):
        getattr(LogCounts().fit(COUNTS), step)(negative)


def test_log_counts_negative_counts_of_an_array_raise_naming_positions():
    with pytest.raises(OmicsError, match="for patient 1, gene 0"):
        LogCounts().fit(np.array([[0, 1], [-2, 3]]))


def test_log_counts_feature_names_are_kept():
    assert LogCounts().fit(COUNTS).get_feature_names_out().tolist() == ["ERBB2", "ESR1"]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_gene_scores_are_the_largest_welch_t_of_scipy(n_classes, dtype):
    X, y = random_expression(n_classes=n_classes)
    X = X.astype(dtype)
    welch = [ttest_ind(X[y == c], X[y != c], equal_var=False).statistic for c in range(n_classes)]
    scores = GeneSelector(3).fit(X, y).scores_
    np.testing.assert_allclose(scores, np.abs(welch).max(axis=0), rtol=1e-4)


@pytest.mark.parametrize("labels", [["low", "high"], [False, True], [7, -1]])
def test_gene_scores_do_not_depend_on_how_labels_are_written(labels):
    X, y = random_expression()
    written = GeneSelector().fit(X, np.array(labels)[y])
    np.testing.assert_array_equal(written.scores_, GeneSelector().fit(X, y).scores_)


def test_gene_score_of_a_class_with_one_patient_counts_the_spread_of_the_rest():
    X = np.array([[0.0, 1.0], [0.2, 0.0], [0.1, 0.5], [4.0, 0.4]])
    scores = GeneSelector(1).fit(X, [0, 0, 0, 1]).scores_
    np.testing.assert_allclose(scores, [3.9 / np.sqrt(0.01 / 3), 0.1 / np.sqrt(0.25 / 3)])


def test_gene_ties_are_ordered_by_variance():
    y = np.array([0, 0, 1, 1])
    untold = np.array([-1.0, 1.0, -1.0, 1.0])  # equal means: t = 0 in every gene
    X = np.outer(untold, [1, 4, 2, 3])
    assert GeneSelector(2).fit(X, y).scores_.tolist() == [0, 0, 0, 0]
    assert GeneSelector(2).fit(X, y).get_support().tolist() == [False, True, False, True]


@pytest.mark.parametrize("level", [0.0, 1.0, 5.0])
def test_gene_that_is_constant_comes_last(level):
    X, y = random_expression()
    X[:, 4] = level
    selector = GeneSelector(11).fit(X, y)
    assert selector.scores_[4] == 0
    assert np.flatnonzero(~selector.get_support()).tolist() == [4]


@pytest.mark.parametrize("n_genes", [12, 13, 768])
def test_gene_selector_more_genes_than_there_are_keeps_all(n_genes):
    X, y = random_expression()
    np.testing.assert_array_equal(GeneSelector(n_genes).fit_transform(X, y), X)


def test_gene_selector_keeps_the_highest_scores_in_their_order():
    X, y = random_expression()
    selector = GeneSelector(4).fit(X, y)
    best = np.sort(np.argsort(-selector.scores_)[:4])
    assert np.flatnonzero(selector.get_support()).tolist() == best.tolist()
    np.testing.assert_array_equal(selector.transform(X), X[:, best])


def test_gene_selector_feature_names_are_the_genes_kept():
    X, y = random_expression()
    frame = pd.DataFrame(X, columns=[f"G{j}" for j in range(12)])
    selector = GeneSelector(3).fit(frame, y)
    assert selector.get_feature_names_out().tolist() == list(frame.columns[selector.get_support()])


def test_gene_selector_one_class_raises():
    with pytest.raises(ValueError, match="at least two classes, but all 3 training patients"):
        GeneSelector().fit(COUNTS, [1, 1, 1])


def test_default_transformer_is_log_selection_and_scaling():
    random = np.random.default_rng(0)
    y = np.arange(20) % 2
    counts = random.poisson(5 + 20 * y[:, None] * (np.arange(6) < 2), size=(20, 6))
    out = default_omics_transformer(2).fit_transform(counts, y)
    logs = np.log2(counts[:, :2] + 1)
    np.testing.assert_allclose(out, (logs - logs.mean(axis=0)) / logs.std(axis=0))


def test_default_transformer_names_the_genes():
    X, y = random_expression()
    frame = pd.DataFrame(X, columns=[f"G{j}" for j in range(12)])
    transformer = clone(default_omics_transformer(3)).fit(frame, y)
    names = transformer.get_feature_names_out()
    assert list(names) == list(frame.columns[transformer[2].get_support()])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("level", [0.1, 7.3, np.log2(3), 1e6 + 0.1])
@pytest.mark.parametrize("n", [10, 33, 100])
def test_gene_that_is_constant_at_any_level_comes_last(level, n, dtype):
    values = np.random.default_rng(0).normal(size=(n, 3))
    values[:, 1] = level
    scores = GeneSelector(2).fit(values.astype(dtype), np.arange(n) % 3 == 0).scores_
    assert scores[1] == 0


def test_gene_that_separates_classes_without_any_spread_comes_first():
    values = np.array([[0, 0.1], [0, 0.3], [1, 0.2], [1, 0.5]])
    assert GeneSelector(1).fit(values, [0, 0, 1, 1]).get_support().tolist() == [True, False]


@pytest.mark.parametrize("n_genes", [0, -1])
def test_gene_selector_without_genes_raises(n_genes):
    with pytest.raises(ValueError, match="n_genes"):
        GeneSelector(n_genes).fit(np.arange(8.0).reshape(4, 2), [0, 0, 1, 1])


def test_log_counts_expression_without_log_warns_and_leaves_it():
    values = np.array([[0.5, 900.0], [12.0, 3.25]])
    with pytest.warns(ExpressionScaleWarning, match=r"maximum of 900.*log1p"):
        np.testing.assert_array_equal(LogCounts().fit_transform(values), values)


def test_log_counts_a_few_large_values_are_outliers_and_no_other_unit():
    values = np.random.default_rng(0).uniform(0, 15, size=(40, 5))
    values[3, 2] = 36893.3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not LogCounts().fit(values).is_counts_
