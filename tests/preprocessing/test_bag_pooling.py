"""Bags as rows: pooled statistics, and logistic regression on them."""

import numpy as np
import pytest
import sklearn
from conftest import make_bags
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import StandardScaler

from sk_momkd import Bag, BagPooling
from sk_momkd.exceptions import BagError


@pytest.mark.parametrize(
    ("statistics", "expected"),
    [
        ("mean", [2, 0]),
        ("mean+std", [2, 0, 1, 2]),
        ("max", [3, 2]),
        ("mean+max", [2, 0, 3, 2]),
    ],
)
def test_transform_by_hand(statistics, expected):
    pooling = BagPooling(statistics)
    bag = np.array([[1.0, -2.0], [3.0, 2.0]])
    pooled = pooling.fit_transform([bag, np.ones((1, 2))])
    np.testing.assert_allclose(pooled[0], expected)
    assert pooled.dtype == np.float64
    assert pooling.transform([bag]).shape == (1, len(pooling.get_feature_names_out()))


def test_names_and_pandas_output():
    bags, y = make_bags(4)
    frame = BagPooling("mean+std").set_output(transform="pandas").fit_transform(bags, y)
    assert list(frame.columns[[0, 5, 6]]) == ["mean_0", "mean_5", "std_0"]


def test_pipeline_with_logistic_regression_learns_bags():
    bags, y = make_bags(40)
    pipe = make_pipeline(BagPooling(), StandardScaler(), LogisticRegression())
    assert cross_val_score(pipe, bags, y, cv=4, scoring="roc_auc").mean() > 0.9
    grid = GridSearchCV(pipe, {"bagpooling__statistics": ["mean", "mean+std"]}, cv=2)
    assert grid.fit(bags, y).score(bags, y) > 0.8


def test_errors_name_the_parameter_and_the_bag():
    bags, y = make_bags(4)
    with pytest.raises(ValueError, match="'statistics' parameter"):
        BagPooling("median").fit(bags)
    with pytest.raises(BagError, match=r"X has 3 features in bag 1.*expecting 6"):
        BagPooling().fit(bags, y).transform([np.ones((2, 6)), np.ones((2, 3))])


def test_pandas_output_has_slide_ids_as_index():
    bags = [Bag(np.ones((2, 3)) * i, bag_id=f"S{i}.svs") for i in (2, 1)] + [Bag(np.ones((1, 3)))]
    pooling = BagPooling("mean+max").set_output(transform="pandas")
    for table in (pooling.fit_transform(bags), pooling.transform(bags)):
        assert table.index.tolist() == ["S2", "S1", "bag 2"]
        assert table.columns.tolist() == pooling.get_feature_names_out().tolist()
    both = make_union(BagPooling(), BagPooling("max"))
    both = make_pipeline(both, StandardScaler()).set_output(transform="pandas")
    assert both.fit_transform(bags).index.tolist() == ["S2", "S1", "bag 2"]
    assert both.fit_transform(bags).shape == (3, 6)
    with sklearn.config_context(transform_output="pandas"):
        assert BagPooling().fit_transform(bags).index[0] == "S2"
    assert isinstance(BagPooling().fit_transform(bags), np.ndarray)
