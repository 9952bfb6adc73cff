"""Further arguments of `fit`, such as sample weights, reach each fold with the bags they are of."""

import numpy as np
import pandas as pd
import pytest
from conftest import make_bags, make_omics
from evaluation.conftest import Recorder, mean_patch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sk_momkd import (
    BagPooling,
    PatientStratifiedKFold,
    compare,
    compare_omics,
    evaluate,
    learning_curve,
    permutation_check,
    seed_spread,
)
from sk_momkd.exceptions import StoreError

BAGS, Y = make_bags(24)
FEW = {"cv": 3, "n_bootstrap": 20, "error_score": "raise"}
POOLED = make_pipeline(BagPooling(), LogisticRegression())
WEIGHTS = np.linspace(0.01, 5, len(Y))
WEIGHTED = {"sample_weight": WEIGHTS}


class Weighted(Recorder):
    """Refuses weights that are not those of its bags."""

    def fit(self, X, y, omics=None, groups=None, sample_weight=None):
        place = [list(BAGS.ids).index(name) for name in X.ids]
        np.testing.assert_array_equal(sample_weight, WEIGHTS[place])
        return super().fit(X, y, omics, groups)


def probabilities(result):
    return result.predictions.sort_values("patient_id")["p_1"].to_numpy()


def test_weights_give_what_cross_validation_of_scikit_learn_gives():
    splits = list(PatientStratifiedKFold(3, random_state=0).split(BAGS, Y))
    found = evaluate(POOLED, BAGS, Y, params=WEIGHTED, **FEW | {"cv": splits})
    expected = cross_val_predict(
        LogisticRegression(), mean_patch(BAGS), Y, cv=splits, method="predict_proba",
        params=WEIGHTED,
    )  # fmt: skip
    np.testing.assert_allclose(probabilities(found), expected[:, 1], rtol=1e-5)
    without = evaluate(POOLED, BAGS, Y, **FEW | {"cv": splits})
    assert np.abs(probabilities(found) - probabilities(without)).max() > 0.01


@pytest.mark.parametrize(
    "around",
    [
        lambda clf: clf,
        lambda clf: make_pipeline(FunctionTransformer(), clf),
        lambda clf: GridSearchCV(clf, {"threshold": [None]}, cv=PatientStratifiedKFold(2)),
        lambda clf: CalibratedClassifierCV(clf, cv=PatientStratifiedKFold(2)),
        lambda clf: VotingClassifier([("a", clf), ("b", clf)], voting="soft"),
    ],
    ids=["alone", "pipeline", "search", "calibration", "voting"],
)
def test_weights_reach_the_classifier_inside_in_any_order_of_the_bags(around):
    moved = np.random.default_rng(0).permutation(len(Y))
    evaluate(around(Weighted()), BAGS[moved], Y[moved], params={"sample_weight": WEIGHTS[moved]},
             **FEW)  # fmt: skip
    by_id = pd.Series(WEIGHTS[moved], index=np.array(BAGS.ids)[moved])
    evaluate(around(Weighted()), BAGS, Y, params={"sample_weight": by_id}, **FEW)


def test_all_methods_and_controls_are_weighted():
    compare({"a": Weighted(), "b": Weighted()}, BAGS, Y, params=WEIGHTED, **FEW)
    compare_omics(Weighted(), BAGS, Y, make_omics(Y), params=WEIGHTED, **FEW)


def test_permutations_seeds_and_parts_of_the_patients_are_weighted():
    permutation_check(Weighted(), BAGS, Y, n_permutations=2, params=WEIGHTED, cv=3)
    seed_spread(Weighted(), BAGS, Y, n_seeds=2, params=WEIGHTED, cv=3)
    learning_curve(Weighted(), BAGS, Y, fractions=[0.5, 1], params=WEIGHTED, **FEW)


@pytest.mark.parametrize("check", [permutation_check, seed_spread, learning_curve])
def test_each_check_refuses_an_argument_that_no_fit_takes(check):
    with pytest.raises(TypeError, match="sample_weight"):
        check(make_pipeline(BagPooling(), KNeighborsClassifier()), BAGS, Y, params=WEIGHTED, cv=3)


@pytest.mark.parametrize(
    ("params", "error", "match"),
    [
        (
            {"sample_weight": WEIGHTS[1:]},
            ValueError,
            r"params\['sample_weight'\] has 23 values.*24",
        ),
        ({"sample_weight": 2.0}, ValueError, "has one value, expected one for each of the 24 bags"),
        ({"omics": WEIGHTS}, ValueError, "pass omics=, not params"),
        ({"sampel_weight": WEIGHTS}, TypeError, "LogisticRegression takes no sampel_weight"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(params, error, match):
    with pytest.raises(error, match=match):
        evaluate(POOLED, BAGS, Y, params=params, **FEW)


def test_method_that_takes_no_weights_is_named():
    methods = {"lr": POOLED, "knn": make_pipeline(BagPooling(), KNeighborsClassifier())}
    with pytest.raises(TypeError, match="KNeighborsClassifier takes no sample_weight") as caught:
        compare(methods, BAGS, Y, params=WEIGHTED, **FEW)
    assert "This was method 'knn'." in caught.value.__notes__


def test_store_knows_the_weights(tmp_path):
    first = evaluate(POOLED, BAGS, Y, params=WEIGHTED, store=tmp_path, **FEW)
    again = evaluate(POOLED, BAGS, Y, params=WEIGHTED, store=tmp_path, **FEW)
    assert first.predictions.equals(again.predictions)
    for other in ({"sample_weight": WEIGHTS[::-1].copy()}, None):
        with pytest.raises(StoreError, match="params"):
            evaluate(POOLED, BAGS, Y, params=other, store=tmp_path, **FEW)
