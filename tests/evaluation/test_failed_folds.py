"""A fold that fails does not take the others with it, and nobody can overlook it."""

import numpy as np
import pandas as pd
import pytest
from evaluation.conftest import Recorder
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import FitFailedWarning

from sk_momkd import Bag, BagSequence, compare, evaluate, learning_curve, permutation_check
from sk_momkd.exceptions import BagError, TrainingError

N = 24
Y = np.arange(N) % 2
RANDOM = np.random.default_rng(0)
BAGS = BagSequence(
    Bag(RANDOM.normal(y, 1, size=(3, 2)), bag_id=f"S{i:02d}", patient_id=f"P{i:02d}")
    for i, y in enumerate(Y)
)
FOLDS = [(np.setdiff1d(np.arange(N), test), test) for test in np.arange(N).reshape(4, 6)]
FEW = {"cv": FOLDS, "n_bootstrap": 20}


class Failing(Recorder):
    """Fails where P00 is in the test part (fit), or predicts P06 (predict)."""

    def __init__(self, when="fit", error=TrainingError, random_state=None, threshold=None):
        super().__init__(random_state, threshold)
        self.when, self.error = when, error

    def fit(self, X, y, omics=None, groups=None):
        if self.when == "always" or (self.when == "fit" and "S00" not in X.ids):
            raise self.error("Training diverged")
        return super().fit(X, y)

    def predict_proba(self, X):
        if self.when == "predict" and "S06" in X.ids:
            raise BagError("bag 'S06' is empty")
        return super().predict_proba(X)


def test_failed_fit_is_warned_of_listed_and_noted_and_the_rest_is_evaluated():
    with pytest.warns(FitFailedWarning) as caught:
        result = evaluate(Failing(), BAGS, Y, **FEW)
    assert len(caught) == 1
    message = str(caught[0].message)
    assert "Fold 0 (repeat 0) failed, so its 6 test patients have no prediction" in message
    assert "TrainingError: Training diverged This was the fit of fold 0" in message
    assert result.failed.to_dict("records") == [
        {
            "repeat": 0,
            "fold": 0,
            "n_train": 18,
            "n_test": 6,
            "error": "TrainingError: Training diverged",
        }
    ]
    assert result.folds["fold"].tolist() == [1, 2, 3]
    assert sorted(result.predictions["patient_id"]) == [f"P{i:02d}" for i in range(6, N)]
    assert "1 of 4 folds of Failing failed" in str(result)
    assert "18 patients" in result.headline
    assert "failed" in result.tables()


def test_failed_prediction_names_its_bag_and_the_rest_is_as_without_it():
    with pytest.warns(FitFailedWarning, match="BagError: bag 'S06' is empty"):
        result = evaluate(Failing("predict"), BAGS, Y, **FEW)
    whole = evaluate(Failing("never"), BAGS, Y, **FEW)
    rest = whole.predictions[whole.predictions["fold"] != 1].reset_index(drop=True)
    pd.testing.assert_frame_equal(result.predictions, rest)
    assert whole.failed is None
    assert "failed" not in whole.tables()


def test_error_that_is_to_be_raised_or_that_ends_all_folds_is_raised_as_it_was():
    with pytest.raises(TrainingError, match="diverged") as caught:
        evaluate(Failing(), BAGS, Y, error_score="raise", **FEW)
    assert "fold 0" in caught.value.__notes__[0]
    with pytest.raises(MemoryError) as caught:
        evaluate(Failing("always", MemoryError), BAGS, Y, **FEW)
    assert "All folds of the repeat failed" in caught.value.__notes__[-1]
    with pytest.raises(TrainingError, match="diverged"):
        permutation_check(Failing(), BAGS, Y, cv=FOLDS, n_permutations=1)
    with pytest.raises(KeyboardInterrupt):
        evaluate(Failing(error=KeyboardInterrupt), BAGS, Y, **FEW)
    with pytest.raises(ValueError, match=r'numpy.nan or "raise", got 0'):
        evaluate(Failing(), BAGS, Y, error_score=0, **FEW)


def test_comparison_takes_the_folds_that_neither_method_failed():
    methods = {"a": Failing("never"), "b": Failing(), "c": Failing("predict")}
    with pytest.warns(FitFailedWarning):
        result = compare(methods, BAGS, Y, reference="b", **FEW)
    assert "1 of 4 folds of b failed" in result.note
    assert "1 of 4 folds of c failed" in result.note
    assert result.differences.loc["a", "auroc"] == 0  # the same model on the same patients
    assert result.differences.loc["c", ["wins", "ties", "losses"]].tolist() == [0, 2, 0]


def test_methods_without_a_common_fold_cannot_be_compared():
    halves = [(np.arange(12, N), np.arange(12)), (np.arange(12), np.arange(12, N))]

    class Second(Failing):
        def fit(self, X, y, omics=None, groups=None):
            if "S00" in X.ids:
                raise TrainingError("diverged")
            return super().fit(X, y)

    methods = {"a": Failing(), "b": Second("never")}
    with (
        pytest.warns(FitFailedWarning),
        pytest.raises(ValueError, match="in each fold, one of them failed"),
    ):
        compare(methods, BAGS, Y, cv=halves, n_bootstrap=20)


def test_learning_curve_says_which_fractions_lack_folds():
    with pytest.warns(FitFailedWarning):
        curve = learning_curve(Failing("predict"), BAGS, Y, fractions=[0.5, 1], **FEW)
    assert curve.note.count("of 4 folds of Failing failed") == 2
    assert learning_curve(DummyClassifier(), BAGS, Y, fractions=[1], **FEW).note.count("fail") == 0
