"""Intervals of few patients: by hand, at the boundary, and in the results themselves."""

import numpy as np
import pytest
from conftest import make_bags
from scipy import stats
from sklearn.dummy import DummyClassifier

from sk_momkd.evaluation.comparison import compare
from sk_momkd.evaluation.cross_validation import evaluate
from sk_momkd.evaluation.external import evaluate_external
from sk_momkd.evaluation.fold_results import PatientPredictions, auroc_components
from sk_momkd.evaluation.metrics import auroc
from sk_momkd.evaluation.small_samples import (
    ClassSizes,
    auroc_interval,
    proportion_interval,
    small_sample_intervals,
    small_sample_note,
)


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (4, 4), (3, 10), (19, 19)])
def test_proportion_interval_is_exact(hits, n):
    expected = stats.binomtest(hits, n).proportion_ci(0.95, method="exact")
    assert proportion_interval(hits / n, n, 0.95) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("value", [0.0, 0.5, 0.7, 1.0])
def test_limits_of_the_auroc_are_z_standard_errors_away(value):
    low, high = auroc_interval(value, [ClassSizes(4, 9)], 0.95)
    assert low <= value <= high
    for limit in {low, high} - {0.0, 1.0}:
        extra = (4 + 9) / 2 - 1
        spread = 1 + extra * ((1 - limit) / (2 - limit) + limit / (1 + limit))
        error = np.sqrt(limit * (1 - limit) * spread / 36)
        assert abs(value - limit) == pytest.approx(1.959964 * error, abs=1e-5)
    assert high - low > 0.2


def test_interval_narrows_with_patients_and_mirrors():
    wide, narrow = (auroc_interval(0.8, [ClassSizes(n, n)], 0.95) for n in (5, 18))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    low, high = auroc_interval(0.2, [ClassSizes(5, 5)], 0.95)
    assert (1 - high, 1 - low) == pytest.approx(wide, abs=1e-6)


@pytest.mark.parametrize("truth", [0.5, 0.75, 0.9])
def test_auroc_interval_covers_the_truth_where_the_bootstrap_is_too_narrow(truth):
    random, y = np.random.default_rng(0), np.arange(60) < 4
    held = 0
    for _ in range(400):
        score = random.normal(size=60) + np.sqrt(2) * stats.norm.ppf(truth) * y
        value = auroc(y, score, np.ones((1, 60)))[0]
        low, high = auroc_interval(value, [ClassSizes(4, 56)], 0.95)
        held += low <= truth <= high
    assert held / 400 > 0.9


def test_classes_of_twenty_patients_keep_the_bootstrap():
    y = np.repeat([0, 1], 20)
    assert small_sample_intervals({"auroc": 0.8}, y, [y], 0.95) == {}
    assert small_sample_note(["a", "b"], y) == ""
    assert "19 of 'b'" in small_sample_note(["a", "b"], y[:-1])
    assert "auroc" in small_sample_intervals({"auroc": 0.8}, y[:-1], [y], 0.95)


def perfect(n=8):
    """Bags that any pooled classifier tells apart."""
    bags, y = make_bags(n)
    return bags.replace(
        type(b)(b.features * 0 + 1 + 9 * k, bag_id=b.bag_id, patient_id=b.patient_id)
        for b, k in zip(bags, y, strict=True)
    ), y


def test_perfect_scores_of_eight_patients_have_wide_intervals(pooled_lr):
    bags, y = perfect()
    result = evaluate(pooled_lr, bags, y, cv=2, n_bootstrap=50)
    table = result.summary
    for metric in ("auroc", "fold_auroc", "auprc", "balanced_accuracy", "accuracy", "sensitivity"):
        assert table.loc[metric, "value"] == 1
        assert table.loc[metric, "low"] < 0.8
        assert table.loc[metric, "high"] == 1
    assert table.loc["sensitivity", "low"] == pytest.approx(0.398, abs=0.001)
    assert "4 of 0, 4 of 1" in result.note
    assert result.note in str(result)
    assert "score intervals" in result._repr_html_()


def test_external_result_of_few_patients_says_so(pooled_lr):
    bags, y = perfect()
    fitted = pooled_lr.fit(bags, y)
    fresh = bags.replace(type(b)(b.features, bag_id=f"X{i}") for i, b in enumerate(bags))
    result = evaluate_external([fitted, fitted], fresh, y, n_bootstrap=20)
    row = result.summary.loc["auroc"]
    assert row["ensemble_low"] == row["low"] == pytest.approx(0.58, abs=0.005)
    assert result.note in str(result)


def test_differences_of_few_patients_are_those_of_student(pooled_lr, noisy_cohort):
    bags, y, _ = noisy_cohort
    few = np.flatnonzero((y == "basal") | (np.arange(len(y)) % 7 == 0))
    result = compare(
        {"lr": pooled_lr, "guess": DummyClassifier()}, bags[few], y[few], cv=2, n_bootstrap=20
    )
    row = result.differences.loc["guess"]
    assert (row["low"] > 0 or row["high"] < 0) == (row["p_delong"] < 0.05)
    assert (row["low"] + row["high"]) / 2 == pytest.approx(row["auroc"])
    assert (row["fold_low"] + row["fold_high"]) / 2 == pytest.approx(row["fold_auroc"])
    assert "Student's t" in str(result)


def test_components_within_folds_average_to_the_auroc_within_folds():
    random = np.random.default_rng(0)
    y, fold = np.arange(24) % 2, np.arange(24) // 8
    p = random.random(24)
    part = PatientPredictions(
        np.arange(24), fold, y, np.stack([1 - p, p], axis=1), np.full(24, np.nan), np.ones(24)
    )
    above, below = auroc_components([part], within_folds=True)
    expected = part.fold_auroc(np.ones((1, 24)))[0]
    assert above.mean() == pytest.approx(expected)
    assert below.mean() == pytest.approx(expected)


def three_classes(n=18):
    bags, _ = make_bags(n)
    y = np.array(["a", "b", "c"])[np.arange(n) % 3]
    shift = {"a": 0, "b": 5, "c": 10}
    return bags.replace(
        type(b)(b.features * 0 + 1 + shift[c], bag_id=b.bag_id)
        for b, c in zip(bags, y, strict=True)
    ), y


def test_external_cohort_that_lacks_one_of_three_classes_is_evaluated_on_the_others(pooled_lr):
    bags, y = three_classes()
    fitted = pooled_lr.fit(bags, y)
    here = np.flatnonzero(y != "b")
    fresh = bags[here].replace(
        type(b)(b.features, bag_id=f"X{i}") for i, b in enumerate(bags[here])
    )
    with pytest.warns(UserWarning, match="no patient of class 'b'.*AUROC") as caught:
        result = evaluate_external([fitted], fresh, y[here], n_bootstrap=20)
    assert caught[0].filename == __file__
    assert result.classes == ("a", "b", "c")
    assert (
        result.summary.loc[["auroc", "auprc", "balanced_accuracy"], "ensemble"].tolist() == [1] * 3
    )
    assert result.summary["ensemble_low"].notna().all()
    assert {"p_a", "p_b", "p_c"} <= set(result.predictions)


def test_external_label_that_no_model_knows_is_refused(pooled_lr):
    bags, y = make_bags(8)
    fitted = pooled_lr.fit(bags, y)
    fresh = bags.replace(type(b)(b.features, bag_id=f"X{i}") for i, b in enumerate(bags))
    with pytest.raises(ValueError, match="y holds 2, expected only 0, 1"):
        evaluate_external([fitted], fresh, np.where(np.arange(8) == 3, 2, y))


class Fails(DummyClassifier):
    def fit(self, X, y):
        raise ValueError("too few")


def test_error_of_a_fit_names_its_fold_and_method():
    bags, y = make_bags(8)
    with pytest.raises(ValueError, match="too few") as raised:
        compare({"ok": DummyClassifier(), "bad": Fails()}, bags, y, cv=2, n_bootstrap=5)
    notes = " ".join(raised.value.__notes__)
    assert "fold 0 (repeat 0), with 4 training patients (2 x 0, 2 x 1)" in notes
    assert "method 'bad'" in notes
