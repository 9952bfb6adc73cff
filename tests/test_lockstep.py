"""Networks that are trained in lockstep end where the library's own fits end."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sk_momkd import ABMILClassifier, DSMILClassifier, as_bags

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from lockstep import Lockstep

SGD = {"training__optimizer": "sgd", "learning_rate": 0.01, "attention_dropout": 0.0}
SHORT = {"max_epochs": 2, "early_stopping": False, "random_state": 3}
ABMIL_SMALL = {"hidden_dims": (6, 5), "dim": 4, "attention_dim": 3} | SGD
CLASSIFIERS = {
    "abmil": ABMILClassifier(dropout=0.5, gated=False).set_params(**ABMIL_SMALL),
    "abmil_gated": ABMILClassifier(dropout=0.0).set_params(**ABMIL_SMALL),
    "dsmil": DSMILClassifier(query_dim=4, learning_rate=0.01),
    "dsmil_linear": DSMILClassifier(query_dim=4, value_layer=True, nonlinear=False),
    "dsmil_value_layer": DSMILClassifier(query_dim=4, value_layer=True),
}


@pytest.fixture(scope="module")
def folds():
    """Training bags of two fits, in order of size and of other sizes in each."""
    random = np.random.default_rng(0)
    sizes = np.sort(random.integers(1, 6, size=(2, 4)), axis=1)
    bags = [as_bags([random.normal(size=(n, 7)) for n in row]) for row in sizes]
    return bags, [random.permutation(np.arange(4) % 2) for _ in bags]


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_fits_end_with_the_weights_of_the_library(name, folds):
    clf = CLASSIFIERS[name].set_params(**SHORT)
    stack = Lockstep(clf, *folds)
    assert list(stack.epochs()) == [1, 2]
    for i, (bags, y) in enumerate(zip(*folds, strict=True)):
        clf.fit(bags, y)
        for part, weight in clf.module_.named_parameters():
            torch.testing.assert_close(stack.weights[part][i], weight, rtol=1e-5, atol=1e-5)
        found = stack.probabilities([folds[0][0]] * 2)[i]
        np.testing.assert_allclose(found, clf.predict_proba(folds[0][0])[:, 1], atol=1e-5)


def test_settings_that_cannot_be_trained_in_lockstep_are_refused(folds):
    with pytest.raises(ValueError, match="early_stopping must be False"):
        Lockstep(DSMILClassifier(random_state=0), *folds)
    with pytest.raises(ValueError, match="dropout in the attention"):
        Lockstep(ABMILClassifier(random_state=0), *folds)
