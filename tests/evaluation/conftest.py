"""Estimators on bags that fit in a millisecond."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer


def mean_patch(bags):
    return np.array([bag.load().features.mean(axis=0) for bag in bags])


class Recorder(ClassifierMixin, BaseEstimator):
    """Takes omics and groups as the package's classifiers do, and keeps what came."""

    def __init__(self, random_state=None, threshold=None):
        self.random_state = random_state
        self.threshold = threshold

    def fit(self, X, y, omics=None, groups=None):
        self.received_ = {"ids": list(X.ids), "omics": omics, "groups": groups}
        self.model_ = LogisticRegression().fit(mean_patch(X), y)
        self.classes_ = self.model_.classes_
        self.validation_ = None
        if self.threshold is not None:  # the best F1 is reached at this probability
            low = self.threshold / 2
            self.validation_ = pd.DataFrame(
                {
                    "bag_id": ["a", "b", "c"],
                    "patient_id": ["A", "A", "C"],
                    "y": self.classes_[[1, 1, 0]],
                    "p_0": [1 - self.threshold] * 2 + [1 - low],
                    "p_1": [self.threshold] * 2 + [low],
                }
            )
        return self

    def predict_proba(self, X):
        return self.model_.predict_proba(mean_patch(X))

    def predict(self, X):
        return self.model_.predict(mean_patch(X))


@pytest.fixture
def pooled_lr():
    return make_pipeline(FunctionTransformer(mean_patch), LogisticRegression())


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def noisy_cohort():
    """40 patients with one or two slides each, faint signal, eight sites."""
    from sk_momkd import Bag, BagSequence

    random = np.random.default_rng(3)
    bags, y, sites = [], [], []
    for i in range(40):
        for slide in range(1 + i % 2):
            features = random.normal(size=(4, 5)) + 0.2 * (i % 4 < 2)
            bags.append(Bag(features, bag_id=f"P{i:02d}-{slide}", patient_id=f"P{i:02d}"))
            y.append("basal" if i % 4 < 2 else "luminal")
            sites.append(f"site{i // 5}")
    return BagSequence(bags), np.array(y), np.array(sites)
