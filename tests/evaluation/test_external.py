"""Fitted models on a cohort from elsewhere."""

import numpy as np
import pytest
from conftest import make_bags
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier

from sk_momkd import Bag, BagPooling, BagSequence
from sk_momkd.evaluation.cross_validation import evaluate
from sk_momkd.evaluation.external import evaluate_external
from sk_momkd.exceptions import LeakageError


@pytest.fixture
def here(recorder):
    bags, y = make_bags(24)
    return evaluate(recorder, bags, y, cv=3, n_bootstrap=20, keep_models=True)


@pytest.fixture
def elsewhere():
    return make_bags(20, seed=5, patients=[f"X{i // 2}" for i in range(20)])[0], np.arange(
        20
    ) // 2 % 2


def test_table_is_the_mean_over_models_and_their_ensemble(here, elsewhere):
    result = evaluate_external(here, *elsewhere, n_bootstrap=50)
    table = result.predictions
    assert len(table) == 10
    each = [roc_auc_score(table["y"], table[f"p_1_model{i}"]) for i in range(3)]
    assert result.summary["value"]["auroc"] == pytest.approx(np.mean(each))
    assert result.summary["std"]["auroc"] == pytest.approx(np.std(each, ddof=1))
    np.testing.assert_allclose(result.by_model["auroc"], each)
    columns = [f"p_1_model{i}" for i in range(3)]
    np.testing.assert_allclose(table["p_1"], table[columns].mean(axis=1))
    ensemble = roc_auc_score(table["y"], table["p_1"])
    assert result.summary["ensemble"]["auroc"] == pytest.approx(ensemble)
    assert "3 fitted Recorder on 10 external patients" in str(result)


def test_list_of_models_gives_the_same_numbers(here, elsewhere):
    one = evaluate_external(here, *elsewhere, n_bootstrap=20).summary
    other = evaluate_external(list(here.models), *elsewhere, n_bootstrap=20).summary
    assert one.equals(other)


def test_thresholds_come_from_the_models(recorder, elsewhere):
    bags, y = make_bags(24)
    recorder.set_params(threshold=0.3)
    here = evaluate(recorder, bags, y, cv=2, n_bootstrap=20, keep_models=True)
    sites = np.array([f"s{i // 4}" for i in range(20)])
    result = evaluate_external(here, *elsewhere, groups=sites, n_bootstrap=20)
    assert result.by_model["threshold"].tolist() == [0.3, 0.3]
    called = result.predictions["p_1"] >= 0.3
    value = (called == (result.predictions["y"] == 1)).mean()
    assert result.summary["ensemble"]["accuracy_tuned"] == pytest.approx(value)
    assert {"low_sites", "ensemble_high_sites"} <= set(result.summary)


def test_patient_of_the_training_cohort_raises(here):
    bags, y = make_bags(4)
    with pytest.raises(LeakageError, match="'P00', 'P01'"):
        evaluate_external(here, bags, y)


def test_bag_of_the_training_cohort_without_patient_raises(recorder):
    bags, y = make_bags(12)
    unknown = [Bag(b.features, b.coords, bag_id=f"S{i}") for i, b in enumerate(bags)]
    here = evaluate(recorder, BagSequence(unknown), y, cv=2, keep_models=True, n_bootstrap=20)
    with pytest.raises(LeakageError, match=r"12 patients \(\"bag 'S0'\""):
        evaluate_external(here, BagSequence(unknown), y)
    nameless = BagSequence([Bag(b.features, b.coords) for b in bags])
    here = evaluate(recorder, nameless, y, cv=2, keep_models=True, n_bootstrap=20)
    assert len(evaluate_external(here, nameless, y, n_bootstrap=20).predictions) == 12  # unknown


def test_evaluation_without_models_says_how_to_keep_them(recorder, elsewhere):
    bags, y = make_bags(12)
    result = evaluate(recorder, bags, y, cv=2, n_bootstrap=20)
    with pytest.raises(ValueError, match="keep_models=True"):
        evaluate_external(result, *elsewhere)


def without_ids(bags, *, slides):
    return BagSequence(
        Bag(b.features, b.coords, bag_id=f"S{i}" if slides else None) for i, b in enumerate(bags)
    )


def test_training_bags_without_ids_are_said_whatever_the_models_remember(recorder, pooled_lr):
    bags, y = make_bags(12)
    own = make_pipeline(BagPooling(), pooled_lr[-1])
    for model in (recorder, own):  # the second remembers that there were no ids
        here = evaluate(model, without_ids(bags, slides=False), y, cv=2, keep_models=True)
        assert here.n_trained_without_id == 12
        with pytest.warns(UserWarning, match="not be checked.*: training bags had no ids"):
            result = evaluate_external(here, bags, y, n_bootstrap=20)
        assert "does not remember" not in result.separation


def test_slides_that_were_trained_without_patient_are_known_when_they_have_one(recorder):
    bags, y = make_bags(12)
    here = evaluate(recorder, without_ids(bags, slides=True), y, cv=2, keep_models=True)
    again = BagSequence(
        Bag(b.features, b.coords, bag_id=f"S{i}", patient_id=f"new {i}") for i, b in enumerate(bags)
    )
    with pytest.raises(LeakageError, match=r"12 patients \('new 0, by its slide S0'"):
        evaluate_external(here, again, y)


def test_evaluation_of_patients_with_ids_is_checked(here, elsewhere, recwarn):
    assert "no patient of training" in evaluate_external(here, *elsewhere).separation
    assert not recwarn.list


def test_reversed_labels_are_suspected(pooled_lr):
    bags, y = make_bags(24)
    fitted = pooled_lr.fit(bags, y)
    others, labels = make_bags(40, seed=5, patients=[f"X{i}" for i in range(40)])
    with pytest.warns(UserWarning, match=r"below that of chance.*Here the positive class is 1"):
        evaluate_external(fitted, others, 1 - labels, n_bootstrap=20)


def test_models_of_different_methods_are_all_named(pooled_lr, elsewhere):
    bags, y = make_bags(24)
    tree = clone(pooled_lr).set_params(logisticregression=DecisionTreeClassifier(random_state=0))
    models = [pooled_lr.fit(bags, y), tree.fit(bags, y)]
    result = evaluate_external(models, *elsewhere, n_bootstrap=20)
    assert "2 fitted LogisticRegression and DecisionTreeClassifier on" in result.headline
