"""Thresholds from out-of-fold predictions, against values by hand."""

import warnings

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_curve

from sk_momkd import DecisionThreshold
from sk_momkd.evaluation.evaluation_tables import build_evaluation
from sk_momkd.evaluation.fold_results import FoldResult, PatientPredictions
from sk_momkd.evaluation.statistics import Bootstrap
from sk_momkd.evaluation.study import as_study
from sk_momkd.evaluation.thresholds import best_cuts, choose_threshold


def scores(n_positive=30, n_negative=60, seed=0):
    random = np.random.default_rng(seed)
    y = np.repeat([1, 0], [n_positive, n_negative])
    logit = random.normal(1.5 * y - 1, 1)
    return y, 1 / (1 + np.exp(-logit))


def part(y, p, n_folds=3):
    n = np.arange(len(y))
    proba = np.stack([1 - p, p], axis=1)
    return PatientPredictions(n, n % n_folds, y, proba, np.full(len(y), np.nan), np.ones(len(y)))


def chosen(criterion="youden", *, y, p, classes=("neg", "pos"), draws=100, **options):
    return choose_threshold([part(y, p)], classes, criterion, Bootstrap(draws, 0.95, 0), **options)


def test_youden_is_the_point_of_the_roc_curve_that_is_highest():
    y, p = scores()
    found = chosen(y=y, p=p)
    false, true, _ = roc_curve(y, p, drop_intermediate=False)
    assert found.sensitivity + found.specificity - 1 == pytest.approx((true - false).max())
    assert found.low <= found.value <= found.high
    assert (found.n_positive, found.n_negative) == (30, 60)
    assert found.sensitivity_low < found.sensitivity < found.sensitivity_high


def test_f1_is_the_highest_that_any_threshold_reaches():
    y, p = scores()
    found = chosen("f1", y=y, p=p)
    best = max(f1_score(y, p >= t) for t in p)
    assert f1_score(y, p >= found.value) == pytest.approx(best)


@pytest.mark.parametrize("share", [0.5, 0.8, 0.9, 0.95, 1.0])
def test_bounds_are_kept_at_the_least_cost(share):
    y, p = scores()
    cuts = np.unique(np.concatenate([p - 1e-12, [1.0]]))
    sensitivity = np.array([(p[y == 1] >= t).mean() for t in cuts])
    specificity = np.array([(p[y == 0] < t).mean() for t in cuts])
    found = chosen(("sensitivity", share), y=y, p=p)
    assert found.sensitivity >= share
    assert found.specificity == pytest.approx(specificity[sensitivity >= share].max())
    found = chosen(("specificity", share), y=y, p=p)
    assert found.specificity >= share
    assert found.sensitivity == pytest.approx(sensitivity[specificity >= share].max())


def test_weights_count_as_copies():
    y, p = scores(10, 15)
    weights = np.random.default_rng(1).integers(0, 3, (5, len(y)))
    for criterion in ("youden", "f1", ("sensitivity", 0.8), ("specificity", 0.8)):
        found = best_cuts(y == 1, p, weights, criterion)
        for w, cut in zip(weights, found, strict=True):
            alone = best_cuts(
                np.repeat(y == 1, w), np.repeat(p, w), np.ones((1, w.sum())), criterion
            )
            called = np.repeat(p, w) >= cut
            assert (called == (np.repeat(p, w) >= alone[0])).all()


def test_tied_scores_stay_on_one_side():
    y, p = np.array([0, 1, 0, 1, 1]), np.array([0.2, 0.4, 0.4, 0.4, 0.9])
    found = best_cuts(y == 1, p, np.ones((1, 5)), ("sensitivity", 0.5))
    assert 0.2 < found[0] <= 0.4
    every = best_cuts(y == 1, p, np.ones((1, 5)), ("specificity", 1.0))
    assert 0.4 < every[0] <= 0.9


def test_draw_without_a_class_has_no_threshold():
    y, p = np.array([0, 1]), np.array([0.2, 0.9])
    assert np.isnan(best_cuts(y == 1, p, np.array([[1, 0], [0, 1]]), "youden")).all()


def test_negatives_with_probability_one_limit_the_specificity():
    y, p = scores(40, 40)
    p[np.flatnonzero(y == 0)[:4]] = 1.0
    assert chosen(("specificity", 0.9), y=y, p=p).specificity == pytest.approx(0.9)
    for by in ("pooled", "fold"):
        with pytest.raises(ValueError, match=r"0\.1 of the patients of 'neg' .* reached is 0\.9\."):
            chosen(("specificity", 0.95), y=y, p=p, by=by)
    found = chosen(("sensitivity", 0.01), y=y, p=p)  # whoever has the probability 1 is called
    assert found.sensitivity == (p[y == 1] >= found.value).mean() >= 0.01


def test_probability_one_is_positive_at_each_candidate():
    y, p = np.array([0, 1, 0]), np.array([1.0, 1.0, 0.4])
    cuts = best_cuts(y == 1, p, np.ones((1, 3)), ("specificity", 0.5))
    assert 0.4 < cuts[0] < 1
    assert best_cuts(y == 1, p, np.ones((1, 3)), ("specificity", 0.9)) == cuts  # the highest
    assert best_cuts(y == 1, np.ones(3), np.ones((1, 3)), "youden") <= 1


def test_patients_of_all_repeats_count_and_each_repeat_needs_both_classes():
    y, p = scores(30, 60)
    whole = part(y, p)
    failed = whole.take(whole.fold != 0)
    for repeats in ([failed, whole], [whole, failed]):
        found = choose_threshold(repeats, ("neg", "pos"), "youden", Bootstrap(20, 0.95, 0))
        assert (found.n_positive, found.n_negative) == (30, 60)
        assert "3 folds x 2 repeats" in found.source
    one = whole.take(whole.y == 0)
    with pytest.raises(ValueError, match=r"of repeat 1 there are .* 60 of 'neg' and 0 of 'pos'"):
        choose_threshold([whole, one], ("neg", "pos"), "youden", Bootstrap(20, 0.95, 0))


def test_threshold_by_fold_is_the_median_of_the_folds():
    y, p = scores()
    whole = part(y, p)
    each = [
        best_cuts(f.y == 1, f.proba[:, 1], np.ones((1, len(f.y))), "youden")[0]
        for f in whole.of_folds()
    ]
    assert chosen(y=y, p=p, by="fold").value == pytest.approx(np.median(each))


def test_cross_fitted_rates_are_at_thresholds_of_the_other_folds():
    y, p = scores()
    called = np.zeros(len(y), dtype=bool)
    fold = np.arange(len(y)) % 3
    for k in range(3):
        others = fold != k
        cut = best_cuts(y[others] == 1, p[others], np.ones((1, others.sum())), "youden")[0]
        called[~others] = p[~others] >= cut
    found = chosen(y=y, p=p)
    assert found.sensitivity_cross_fitted == pytest.approx(called[y == 1].mean())
    assert found.specificity_cross_fitted == pytest.approx((~called[y == 0]).mean())


def test_few_patients_warn_with_their_number():
    y, p = scores(5, 60)
    with pytest.warns(UserWarning, match=r"rests on 5 patients of 'pos' and 60 of 'neg'"):
        chosen(y=y, p=p)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y, p = scores(20, 20)
        chosen(y=y, p=p)


def test_text_names_class_criterion_patients_and_source():
    y, p = scores()
    text = str(chosen(("sensitivity", 0.9), y=y, p=p, name="ABMIL", prior="training"))
    assert "probability of 'pos', chosen by sensitivity of at least 0.9 on 30 positive" in text
    assert "out-of-fold predictions of ABMIL, 3 folds, pooled" in text
    assert "prior='training'" in text


@pytest.mark.parametrize(
    "criterion", ["acc", ("sensitivity", 90), ("sensitivity", 0), ("ppv", 0.9), None]
)
def test_unknown_criteria_raise(criterion):
    y, p = scores()
    with pytest.raises(ValueError, match="must be one of 'youden', 'f1', or a pair"):
        chosen(criterion, y=y, p=p)


def test_three_classes_and_unknown_units_raise():
    y, p = scores()
    with pytest.raises(ValueError, match="two classes, but there are 3"):
        chosen(y=y, p=p, classes=("a", "b", "c"))
    with pytest.raises(ValueError, match="by must be"):
        chosen(y=y, p=p, by="slide")
    with pytest.raises(ValueError, match="between 0 and 1"):
        DecisionThreshold(1.5)


def evaluation(priors, n_validation=None, shares=None):
    y, p = scores(20, 20)
    study = as_study(np.ones((40, 1)), y)
    y = study.labels
    folds = [
        FoldResult(
            0,
            k,
            np.arange(40),
            np.arange(k, 40, 2),
            np.stack([1 - p, p], 1)[k::2],
            np.ones(20),
            np.nan,
            0.0,
            0.0,
            prior=prior,
            n_validation=n_validation,
            shares=None if shares is None else {0: 1 - shares[k], 1: shares[k]},
        )
        for k, prior in enumerate(priors)
    ]
    return build_evaluation("LR", study, folds, Bootstrap(10, 0.95, 0))


def test_threshold_of_an_evaluation_refers_to_the_prior_of_its_models():
    assert evaluation(["training", "training"]).threshold().prior == "training"
    assert evaluation(["sampler", "training"]).threshold().prior is None
    found = evaluation(["training", "training"], shares=[0.2, 0.4]).threshold()
    assert found.prior == pytest.approx({0: 0.7, 1: 0.3})
    assert "prior={0: 0.7, 1: 0.3}" in str(found)
    assert evaluation(["sampler", "training"], shares=[0.2, 0.4]).threshold().prior is None


def test_thresholds_of_a_small_validation_part_warn_with_its_size():
    with pytest.warns(UserWarning, match=r"LR: .* parts of 5 patients, 2 of 0 in the smallest"):
        evaluation([None, None], n_validation=np.array([2, 3]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluation([None, None], n_validation=np.array([10, 30]))
