"""Training patients are refused wherever models meet another cohort."""

import pickle

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.dummy import DummyClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sk_momkd import (
    ABMILClassifier,
    Bag,
    BagPooling,
    BagSequence,
    evaluate,
    evaluate_external,
    prediction_table,
)
from sk_momkd.evaluation.fold_fit import tuned_threshold
from sk_momkd.exceptions import LeakageError

N = 20
Y = np.arange(N) % 2
FEW = {"n_bootstrap": 20}


def cohort(letter):
    random = np.random.default_rng(ord(letter))
    return BagSequence(
        Bag(random.normal(y, 1, size=(3, 2)), bag_id=f"{letter}{i}", patient_id=f"{letter}p{i}")
        for i, y in enumerate(Y)
    )


HERE, ELSEWHERE = cohort("H"), cohort("E")
MIXED = BagSequence([*HERE[:2], *ELSEWHERE[2:]])


@pytest.fixture(scope="module")
def fitted():
    return ABMILClassifier(dim=4, random_state=0, max_epochs=1, early_stopping=True).fit(HERE, Y)


def pooled():
    return make_pipeline(BagPooling(), LogisticRegression())


def test_external_cohort_with_training_patients_is_refused_also_by_a_loaded_model(fitted):
    unpickled = pickle.loads(pickle.dumps(fitted))
    for models in (fitted, [fitted, fitted], unpickled, [pooled().fit(HERE, Y)]):
        with pytest.raises(LeakageError, match=r"2 patients \('Hp0', 'Hp1'\) of the external"):
            evaluate_external(models, MIXED, Y, **FEW)


def test_patients_of_the_validation_part_count_as_training_patients(fitted):
    held_out = fitted.validation_["patient_id"].tolist()
    rows = np.flatnonzero(np.isin(HERE.patient_ids, held_out))
    with pytest.raises(LeakageError, match=f"{len(held_out)} patients"):
        evaluate_external(fitted, HERE[rows], Y[rows], **FEW)


def test_training_patients_that_are_allowed_are_said_in_the_result(fitted):
    with pytest.warns(UserWarning, match="2 patients .*were allowed by the caller"):
        result = evaluate_external(fitted, MIXED, Y, allow_training_patients=True, **FEW)
    assert "2 patients ('Hp0', 'Hp1') were in training" in str(result)


def test_new_patients_pass_without_a_word(fitted, recwarn):
    result = evaluate_external([fitted, pooled().fit(HERE, Y)], ELSEWHERE, Y, **FEW)
    assert "training" not in str(result)
    assert "no patient of training" in result.separation
    assert not recwarn.list


def test_models_that_do_not_remember_say_that_it_cannot_be_checked():
    with pytest.warns(UserWarning, match="not be checked.*DummyClassifier does not remember"):
        result = evaluate_external(DummyClassifier().fit(HERE, Y), HERE, Y, **FEW)
    assert "could not be checked" in str(result)


def test_prediction_table_of_training_patients_warns(fitted, recwarn):
    for unit in ("bag", "patient"):
        with pytest.warns(UserWarning, match=r"2 patients \('Hp0', 'Hp1'\) were in the training"):
            prediction_table(fitted, MIXED, unit=unit)
    prediction_table(fitted, MIXED, allow_training_patients=True)
    prediction_table(fitted, ELSEWHERE)
    assert not recwarn.list


def test_evaluation_of_a_part_that_was_trained_on_test_patients_is_refused():
    frozen = CalibratedClassifierCV(FrozenEstimator(pooled().fit(HERE, Y)), cv=2)
    with pytest.raises(LeakageError, match=r"trained before the evaluation, on 10 patients"):
        evaluate(frozen, HERE, Y, cv=2, **FEW)
    assert evaluate(frozen, ELSEWHERE, Y, cv=2, **FEW).summary.loc["auroc", "value"] > 0


def test_threshold_of_a_loaded_model_is_missing_where_the_prior_has_changed(fitted):
    loaded = pickle.loads(pickle.dumps(fitted))
    assert tuned_threshold(loaded, [0, 1]) == tuned_threshold(fitted, [0, 1])
    again = pickle.loads(pickle.dumps(loaded))
    again.set_params(prior=[0.9, 0.1])
    with pytest.warns(UserWarning, match="refers to another prior"):
        assert np.isnan(tuned_threshold(again, [0, 1]))
    again.set_params(prior=[0.5, 0.5])  # the shares of training, by another name
    assert tuned_threshold(again, [0, 1]) == tuned_threshold(fitted, [0, 1])
    np.testing.assert_array_equal(again.predict_proba(HERE), fitted.predict_proba(HERE))
