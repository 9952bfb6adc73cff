"""`evaluate`: pooled out-of-fold numbers by patient."""

import numpy as np
import pandas as pd
import pytest
from conftest import make_bags, make_omics, quick_classifier
from sklearn import metrics
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sk_momkd import InstanceStandardizer, PatientStratifiedKFold
from sk_momkd.evaluation.cross_validation import evaluate
from sk_momkd.exceptions import LeakageError

FEW = {"cv": 3, "n_bootstrap": 50}
COSTS = ["fit_seconds", "predict_seconds"]


def same_numbers(one, other):
    pd.testing.assert_frame_equal(one.summary, other.summary)
    pd.testing.assert_frame_equal(one.predictions, other.predictions)
    pd.testing.assert_frame_equal(one.folds.drop(columns=COSTS), other.folds.drop(columns=COSTS))


def test_summary_equals_sklearn_on_the_predictions(pooled_lr, noisy_cohort):
    bags, y, _ = noisy_cohort
    result = evaluate(pooled_lr, bags, y, **FEW)
    table = result.predictions
    assert table["patient_id"].tolist() == [f"P{i:02d}" for i in range(40)]
    truth, p = table["y"] == "luminal", table["p_luminal"]
    assert result.summary["value"]["auroc"] == pytest.approx(metrics.roc_auc_score(truth, p))
    value = metrics.f1_score(table["y"], table["predicted"], average="macro")
    assert result.summary["value"]["f1_macro"] == pytest.approx(value)
    inside = [
        metrics.roc_auc_score(f["y"] == "luminal", f["p_luminal"]) for _, f in table.groupby("fold")
    ]
    assert result.summary["value"]["fold_auroc"] == pytest.approx(np.mean(inside))
    assert result.summary["fold_std"]["auroc"] == pytest.approx(np.std(inside, ddof=1))
    np.testing.assert_allclose(result.folds["auroc"], inside)
    within = result.summary.dropna(subset="value")
    assert (within["low"] <= within["high"]).all()


def test_positive_class_turns_sensitivity_into_specificity(pooled_lr, noisy_cohort):
    bags, y, _ = noisy_cohort
    one = evaluate(pooled_lr, bags, y, **FEW).summary["value"]
    other = evaluate(pooled_lr, bags, y, pos_label="basal", **FEW).summary["value"]
    assert one["sensitivity"] == pytest.approx(other["specificity"])
    assert one["auroc"] == pytest.approx(other["auroc"])


def test_result_does_not_depend_on_jobs_or_on_the_order_of_bags():
    bags, y = make_bags(24)
    omics = make_omics(y)
    clf = quick_classifier(max_epochs=2)
    one = evaluate(clf, bags, y, omics=omics, n_repeats=2, n_jobs=1, **FEW)
    order = np.random.default_rng(0).permutation(24)
    other = evaluate(clf, bags[order], y[order], omics=omics, n_repeats=2, n_jobs=2, **FEW)
    same_numbers(one, other)


def test_repeats_have_seeds_and_folds_of_their_own(noisy_cohort, pooled_lr):
    bags, y, _ = noisy_cohort
    result = evaluate(pooled_lr, bags, y, n_repeats=2, **FEW)
    first, second = (t for _, t in result.predictions.groupby("repeat"))
    assert first["fold"].tolist() != second["fold"].tolist()
    values = [metrics.roc_auc_score(t["y"] == "luminal", t["p_luminal"]) for t in (first, second)]
    assert result.summary["value"]["auroc"] == pytest.approx(np.mean(values))
    assert result.summary["repeat_std"]["auroc"] == pytest.approx(np.std(values, ddof=1))
    same_numbers(result, evaluate(pooled_lr, bags, y, n_repeats=2, **FEW))


def test_tuned_metrics_use_the_threshold_of_the_validation_part(noisy_cohort, recorder):
    bags, y, _ = noisy_cohort
    result = evaluate(recorder.set_params(threshold=0.3), bags, y, **FEW)
    assert (result.predictions["threshold"] == 0.3).all()
    called = np.where(result.predictions["p_luminal"] >= 0.3, "luminal", "basal")
    np.testing.assert_array_equal(result.predictions["predicted_tuned"], called)
    value = metrics.accuracy_score(result.predictions["y"], called)
    assert result.summary["value"]["accuracy_tuned"] == pytest.approx(value)


def test_tuned_metrics_without_validation_part_are_unknown(noisy_cohort, pooled_lr):
    result = evaluate(pooled_lr, *noisy_cohort[:2], **FEW)
    assert np.isnan(result.summary["value"]["accuracy_tuned"])
    assert result.predictions["predicted_tuned"].isna().all()
    assert "accuracy_tuned" not in str(result)


def test_sites_get_a_table_and_an_interval(noisy_cohort, pooled_lr):
    bags, y, sites = noisy_cohort
    result = evaluate(pooled_lr, bags, y, groups=sites, **FEW)
    assert result.sites.index.tolist() == sorted(set(sites))
    assert (result.sites["n_patients"] == 5).all()
    assert result.sites[["n_basal", "n_luminal"]].sum().tolist() == [20, 20]
    assert {"low_sites", "high_sites"} <= set(result.summary)
    one = result.predictions.query("group == 'site0'")
    value = metrics.accuracy_score(one["y"], one["predicted"])
    assert result.sites["accuracy"]["site0"] == pytest.approx(value)


def test_fold_of_one_class_is_named_and_left_out(noisy_cohort, pooled_lr):
    bags, y, _ = noisy_cohort
    first = np.array([int(p[1:]) for p in bags.patient_ids])
    only = np.flatnonzero((y == "basal") & (first < 20))
    rest = np.flatnonzero(first >= 20)
    other = np.flatnonzero((y == "luminal") & (first < 20))
    splits = [
        (np.r_[other, rest], only),
        (np.r_[only, other], rest),
    ]
    with pytest.warns(UserWarning, match=r"fold 0 \(repeat 0\) has no patient of class 'luminal'"):
        result = evaluate(pooled_lr, bags, y, cv=splits, n_bootstrap=50)
    assert np.isnan(result.folds["auroc"][0])
    assert result.summary["n_folds"]["auroc"] == 1
    assert result.summary["value"]["fold_auroc"] == pytest.approx(result.folds["auroc"][1])
    assert len(result.predictions) == 30


def test_planted_leak_raises(noisy_cohort, pooled_lr):
    bags, y, _ = noisy_cohort
    slides = np.arange(len(y))  # the last two are those of P39
    leaking = [(slides[30:], slides[:30]), (np.r_[slides[:30], slides[-1]], slides[30:-1])]
    with pytest.raises(LeakageError, match="P39"):
        evaluate(pooled_lr, bags, y, cv=leaking)


def test_three_classes_have_macro_metrics(noisy_cohort, pooled_lr):
    bags, _, _ = noisy_cohort
    y = np.array([int(p[1:]) % 3 for p in bags.patient_ids])
    result = evaluate(pooled_lr, bags, y, **FEW)
    proba = result.predictions[["p_0", "p_1", "p_2"]]
    value = metrics.roc_auc_score(result.predictions["y"], proba, multi_class="ovr")
    assert result.summary["value"]["auroc"] == pytest.approx(value)
    assert not {"sensitivity", "accuracy_tuned"} & set(result.summary.index)


def test_pipelines_and_searches_around_ours_take_omics():
    bags, y = make_bags(18)
    clf = quick_classifier(max_epochs=2, early_stopping=False)
    pipe = make_pipeline(InstanceStandardizer(), clf)
    cv = PatientStratifiedKFold(2, random_state=0)
    search = GridSearchCV(pipe, {"momkdclassifier__alpha_omics": [0.0, 0.1]}, cv=cv)
    sites = np.array([f"s{i // 2 % 6}" for i in range(18)])
    settings = {"omics": make_omics(y), "groups": sites, "cv": 2, "n_bootstrap": 20}
    for estimator in (pipe, search):
        result = evaluate(estimator, bags, y, keep_models=True, **settings)
        assert result.name == "MoMKDClassifier"
        assert len(result.models) == 2
        last = getattr(result.models[0], "best_estimator_", result.models[0])[-1]
        assert last.n_paired_ == (result.folds["n_train"][0])


def test_omics_for_an_estimator_without_is_an_error(pooled_lr):
    bags, y = make_bags(12)
    with pytest.raises(TypeError, match="is not trained with omics"):
        evaluate(pooled_lr, bags, y, omics=make_omics(y))


def test_models_are_kept_only_if_asked(noisy_cohort, pooled_lr):
    bags, y, _ = noisy_cohort
    assert evaluate(pooled_lr, bags, y, **FEW).models == ()
    assert len(evaluate(pooled_lr, bags, y, keep_models=True, **FEW).models) == 3
    assert not hasattr(pooled_lr[-1], "coef_")


@pytest.mark.parametrize("wrong", [{"n_bootstrap": 0}, {"confidence_level": 1.0}])
def test_unusable_bootstrap_is_refused(wrong, pooled_lr, noisy_cohort):
    with pytest.raises(ValueError, match="n_bootstrap"):
        evaluate(pooled_lr, *noisy_cohort[:2], **wrong)


def test_labels_without_signal_stay_near_chance(noisy_cohort):
    bags, y, _ = noisy_cohort
    result = evaluate(DummyClassifier(), bags, y, **FEW)
    assert result.summary["value"]["fold_auroc"] == 0.5
