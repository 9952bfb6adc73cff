"""Situations around evaluation: stacks, absent classes, single models, wrong `cv`, tables."""

import pickle
from dataclasses import replace

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, LeaveOneOut
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from sk_momkd import (
    Bag,
    BagPooling,
    BagSequence,
    MoMKDClassifier,
    PatientStratifiedKFold,
    compare,
    evaluate,
    evaluate_external,
    learning_curve,
    permutation_check,
    read_bags,
    seed_spread,
)
from sk_momkd.evaluation.result_tables import escaped
from sk_momkd.evaluation.routing import warn_if_patients_are_split
from sk_momkd.evaluation.thresholds import VALIDATION_PART
from sk_momkd.reporting.html.context import ReportContext
from sk_momkd.reporting.html.result_sections import calibration_section

N = 24
Y = np.arange(N) % 2
RANDOM = np.random.default_rng(0)
BAGS = BagSequence(
    Bag(RANDOM.normal(y, 1, size=(3, 2)), bag_id=f"S{i}", patient_id=f"P{i}")
    for i, y in enumerate(Y)
)


def pooled(model=None):
    return make_pipeline(BagPooling(), LogisticRegression() if model is None else model)


@pytest.mark.parametrize("final", [None, LogisticRegression()])
def test_evaluate_stack_with_any_final_estimator(final):
    stack = StackingClassifier([("a", pooled()), ("b", pooled())], final_estimator=final, cv=2)
    result = evaluate(stack, BAGS, Y, cv=2, n_bootstrap=20)
    assert 0.5 < result.summary.loc["auroc", "value"] <= 1


def test_evaluate_without_probabilities_raises_before_any_fit():
    with pytest.raises(TypeError, match="has no predict_proba"):
        evaluate(pooled(LinearSVC()), BAGS, Y)


@pytest.mark.parametrize(
    "estimator",
    [
        StackingClassifier([("a", pooled())], cv=3),
        VotingClassifier([("a", StackingClassifier([("a", pooled())]))], voting="soft"),
        make_pipeline(BagPooling(), StackingClassifier([("a", LogisticRegression())])),
    ],
)
def test_stack_that_separates_slides_of_a_patient_warns(estimator):
    with pytest.warns(UserWarning, match="StackingClassifier splits by StratifiedKFold"):
        warn_if_patients_are_split(estimator, 10, 5)


@pytest.mark.parametrize(
    "around",
    [
        lambda inner: VotingClassifier([("a", inner), ("b", pooled())], voting="soft"),
        lambda inner: StackingClassifier([("a", inner)], cv=PatientStratifiedKFold()),
        lambda inner: FixedThresholdClassifier(VotingClassifier([("a", inner)], voting="soft")),
    ],
)
def test_calibration_inside_others_that_separates_slides_warns(around, recwarn):
    with pytest.warns(UserWarning, match="CalibratedClassifierCV splits by StratifiedKFold"):
        warn_if_patients_are_split(around(CalibratedClassifierCV(pooled())), 10, 5)
    by_patient = CalibratedClassifierCV(pooled(), cv=PatientStratifiedKFold())
    warn_if_patients_are_split(around(by_patient), 10, 5)
    assert not recwarn.list


def test_stack_that_keeps_patients_does_not_warn(recwarn):
    by_patient = PatientStratifiedKFold()
    warn_if_patients_are_split(StackingClassifier([("a", pooled())], cv=by_patient), 10, 5)
    warn_if_patients_are_split(StackingClassifier([("a", pooled())]), 5, 5)
    warn_if_patients_are_split(VotingClassifier([("a", pooled())]), 10, 5)
    assert not recwarn.list


def test_external_cohort_without_one_of_three_classes_warns_and_counts_the_rest():
    y = np.array(["a", "b", "c"])[np.arange(N) % 3]
    models = [pooled().fit(BAGS, y) for _ in range(2)]
    outside = BagSequence(Bag(b.features, patient_id=f"X{i}") for i, b in enumerate(BAGS[:8]))
    with pytest.warns(UserWarning, match="has no patient of class 'b'.*AUROC"):
        result = evaluate_external(models, outside, ["a", "c"] * 4, n_bootstrap=20)
    assert result.classes == ("a", "b", "c")
    predicted = models[0].predict(outside)
    expected = np.mean(predicted == np.array(["a", "c"] * 4))
    assert result.summary.loc["accuracy", "value"] == pytest.approx(expected)
    assert np.isfinite(result.summary.loc["auroc", "value"])  # over the classes that are there
    assert "p_b" in result.predictions
    assert "accuracy" in str(result)


def test_external_takes_one_fitted_classifier_and_refuses_others():
    outside = BagSequence(Bag(b.features, patient_id=f"X{i}") for i, b in enumerate(BAGS[:8]))
    model = pooled().fit(BAGS, Y)
    one = evaluate_external(model, outside, Y[:8], n_bootstrap=20)
    assert one.summary.equals(evaluate_external([model], outside, Y[:8], n_bootstrap=20).summary)
    with pytest.raises(TypeError, match="a fitted classifier or a list of them, got int"):
        evaluate_external(3, outside, Y[:8])


def test_evaluate_cv_as_text_raises():
    with pytest.raises(ValueError, match=r"cv must be an int, a splitter or a list.*got '5'"):
        evaluate(pooled(), BAGS, Y, cv="5")


def test_evaluate_polars_omics_names_the_remedy():
    class Polars:
        def to_pandas(self):
            return pd.DataFrame()

    with pytest.raises(TypeError, match=r"Polars, which has no ids.*DataFrame with patient ids"):
        evaluate(MoMKDClassifier(), BAGS, Y, omics=Polars())


def test_series_of_labels_in_another_order_gives_the_same_evaluation():
    order = np.random.default_rng(1).permutation(N)
    y = pd.Series(Y[order], index=[f"S{i}" for i in order])
    expected = evaluate(pooled(), BAGS, Y, cv=2, n_bootstrap=20)
    joined = evaluate(pooled(), BAGS, y, cv=2, n_bootstrap=20)
    assert joined.summary.equals(expected.summary)


def test_escaped_tables_hold_no_formulas(tmp_path):
    bags = BagSequence(Bag(b.features, patient_id=f"=cmd{i}") for i, b in enumerate(BAGS))
    result = evaluate(make_pipeline(BagPooling(), DummyClassifier()), bags, Y, cv=2, n_bootstrap=20)
    result.to_csv(tmp_path / "plain")
    result.to_csv(tmp_path / "escaped", escape_formulas=True)
    plain = pd.read_csv(tmp_path / "plain" / "predictions.csv")["patient_id"]
    safe = pd.read_csv(tmp_path / "escaped" / "predictions.csv")["patient_id"]
    assert plain.str.startswith("=cmd").all()
    assert (safe == "'" + plain).all()
    frame = pd.DataFrame({"@a": ["+1", -1.5, None, "x"]}, index=["-b", "c", "=d", "e"])
    assert escaped(frame).columns.tolist() == ["'@a"]
    assert escaped(frame)["'@a"].tolist()[:2] == ["'+1", -1.5]
    assert escaped(frame).index.tolist() == ["'-b", "c", "'=d", "e"]


def test_hash_of_bags_changes_with_their_files(tmp_path):
    np.save(tmp_path / "x.npy", 1)
    file = tmp_path / "S1.h5"
    file.write_bytes(b"first")
    before = joblib.hash(read_bags(file))
    assert joblib.hash(read_bags(file)) == before
    file.write_bytes(b"other!")
    assert joblib.hash(read_bags(file)) != before
    assert pickle.loads(pickle.dumps(read_bags(file)[0].source)) == read_bags(file)[0].source


def test_caption_of_the_decision_curve_speaks_of_thresholds_only_where_there_are_some():
    def section(result):
        context = ReportContext(result=result, comparison=None, models={}, bags=None, labels={})
        return str(calibration_section(context))

    result = evaluate(pooled(), BAGS, Y, cv=2, n_bootstrap=20)
    assert "Marks show" not in section(result)
    assert "chose the threshold" not in section(result)
    by_part = result.folds.assign(threshold=0.4, threshold_source=VALIDATION_PART)
    chosen = section(replace(result, folds=by_part))
    assert "Marks show the thresholds" in chosen
    assert "chose the threshold with the best F1" in chosen


@pytest.mark.parametrize(
    "run",
    [
        lambda cv: evaluate(pooled(), BAGS, Y, cv=cv, n_repeats=2, n_bootstrap=20).summary,
        lambda cv: compare({"a": pooled(), "b": pooled()}, BAGS, Y, cv=cv, n_bootstrap=20).folds,
        lambda cv: permutation_check(pooled(), BAGS, Y, cv=cv, n_permutations=2).summary,
        lambda cv: seed_spread(pooled(), BAGS, Y, cv=cv, n_seeds=2).summary,
        lambda cv: learning_curve(pooled(), BAGS, Y, cv=cv, fractions=[0.5, 1]).points,
    ],
    ids=["evaluate", "compare", "permutation", "seeds", "curve"],
)
def test_splits_that_come_from_a_generator_are_kept_for_all_fits(run):
    halves = [(np.arange(12, N), np.arange(12)), (np.arange(12), np.arange(12, N))]
    once, again = run(split for split in halves), run(halves)
    timed = [column for column in once if "seconds" in str(column)]
    pd.testing.assert_frame_equal(once.drop(columns=timed), again.drop(columns=timed))


@pytest.mark.parametrize(
    "call",
    [
        lambda e: evaluate(e, BAGS, Y),
        lambda e: compare({"a": e}, BAGS, Y),
        lambda e: evaluate_external(e, BAGS, Y),
        lambda e: learning_curve(e, BAGS, Y),
        lambda e: permutation_check(e, BAGS, Y),
    ],
)
def test_class_in_place_of_an_estimator_is_named(call):
    with pytest.raises(TypeError, match=r"the class MoMKDClassifier; pass an instance"):
        call(MoMKDClassifier)


def test_compare_of_a_list_asks_for_a_dict():
    with pytest.raises(TypeError, match="estimators is a list, expected a dict of classifiers"):
        compare([pooled(), pooled()], BAGS, Y)
    with pytest.raises(TypeError, match=r"The estimator is a list.*compare\(\.\.\.\) takes a dict"):
        evaluate([pooled()], BAGS, Y)


def test_test_parts_without_a_class_give_one_warning():
    with pytest.warns(UserWarning, match="fold 0.*and 23 other test parts lack a class") as caught:
        evaluate(pooled(), BAGS, Y, cv=LeaveOneOut(), n_bootstrap=20)
    assert sum("lack a class" in str(w.message) for w in caught) == 1
