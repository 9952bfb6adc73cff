"""Ragged bags through scikit-learn's tools."""

import pickle

import anndata
import numpy as np
import pytest
import sklearn
from conftest import make_bags, make_omics, quick_classifier
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedGroupKFold,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_momkd import InstanceTransformer, align_omics

SMALL = {"max_epochs": 2, "early_stopping": False}


@pytest.fixture
def clf():
    return quick_classifier(**SMALL)


def test_cross_val_score_with_omics_learns():
    bags, y = make_bags(40)
    scores = cross_val_score(
        quick_classifier(max_epochs=15, early_stopping=False),
        bags,
        y,
        params={"omics": make_omics(y)},
        cv=3,
        scoring="roc_auc",
    )
    assert scores.mean() > 0.7


def test_cross_val_predict_reads_each_bag_in_its_fold(clf, cohort):
    bags, y, omics = cohort
    proba = cross_val_predict(clf, bags, y, params={"omics": omics}, method="predict_proba", cv=3)
    assert proba.shape == (24, 2)
    np.testing.assert_allclose(proba.sum(axis=1), 1)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_grid_search_over_parameters_refits(clf, cohort, n_jobs):
    bags, y, omics = cohort
    grid = GridSearchCV(clf, {"alpha_omics": [0.0, 0.05]}, cv=2, n_jobs=n_jobs)
    grid.fit(bags, y, omics=omics)
    assert grid.predict(bags).shape == (24,)
    assert len(grid.cv_results_["params"]) == 2
    assert np.isfinite(grid.cv_results_["mean_test_score"]).all()


def test_pipeline_standardises_inside_the_fold(clf, cohort):
    bags, y, omics = cohort
    pipe = make_pipeline(InstanceTransformer(StandardScaler()), clf)
    scores = cross_val_score(pipe, bags, y, params={"momkdclassifier__omics": omics}, cv=2)
    assert np.isfinite(scores).all()
    pipe.fit(bags, y, momkdclassifier__omics=omics)
    assert pipe.transform(bags).shape == (24, 8)


def test_learning_curve_runs_over_growing_parts(clf, cohort):
    bags, y, omics = cohort
    sizes, train, test = learning_curve(
        clf, bags, y, params={"omics": omics}, cv=2, train_sizes=[0.5, 1.0], shuffle=True
    )
    assert list(sizes) == [6, 12]
    assert np.isfinite(train).all()
    assert np.isfinite(test).all()


def test_calibrated_classifier_gives_probabilities(clf, cohort):
    bags, y, omics = cohort
    calibrated = CalibratedClassifierCV(clf, cv=2).fit(bags, y, omics=align_omics(omics, bags))
    np.testing.assert_allclose(calibrated.predict_proba(bags).sum(axis=1), 1)


def test_tuned_threshold_finds_a_threshold(clf, cohort):
    bags, y, _ = cohort
    tuned = TunedThresholdClassifierCV(clf, cv=2).fit(bags, y)
    assert 0 <= tuned.best_threshold_ <= 1


def test_nested_grouped_search_routes_groups_and_omics(cohort):
    bags, y, omics = cohort
    sites = np.arange(24) // 2 % 6
    with sklearn.config_context(enable_metadata_routing=True):
        clf = quick_classifier(max_epochs=2, validation_fraction=0.5)
        clf.set_fit_request(omics=True, groups=True)
        inner = GridSearchCV(clf, {"loss__margin": [0.2, 0.3]}, cv=StratifiedGroupKFold(2))
        result = cross_validate(
            inner,
            bags,
            y,
            params={"omics": align_omics(omics, bags), "groups": sites},
            cv=StratifiedGroupKFold(3),
            return_estimator=True,
            return_indices=True,
            error_score="raise",
        )
    assert len(result["estimator"]) == 3
    for train, test in zip(*result["indices"].values(), strict=True):
        assert not set(sites[train]) & set(sites[test])
    assert all(search.best_estimator_.n_paired_ > 0 for search in result["estimator"])


@pytest.mark.parametrize("aligned", [True, False])
def test_permuted_omics_in_cross_validation_is_right_or_raises(clf, cohort, aligned):
    bags, y, omics = cohort
    shuffled = omics.sample(frac=1, random_state=1)
    expected = cross_val_predict(
        clf, bags, y, params={"omics": omics}, method="decision_function", cv=3
    )
    if not aligned:  # scikit-learn cuts a table of this length by position
        with pytest.raises(ValueError, match="align_omics"):
            cross_val_score(clf, bags, y, params={"omics": shuffled}, cv=3, error_score="raise")
        return
    got = cross_val_predict(
        clf,
        bags,
        y,
        params={"omics": align_omics(shuffled, bags)},
        method="decision_function",
        cv=3,
    )
    np.testing.assert_array_equal(got, expected)


def test_clone_and_pickle_keep_parameters_and_predictions(clf, cohort):
    bags, y, omics = cohort
    clf.fit(bags, y, omics=omics)
    again = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(again.predict_proba(bags), clf.predict_proba(bags))
    assert clone(clf).get_params() == clf.get_params()
    assert not hasattr(clone(clf), "module_")


def test_set_output_pandas_names_the_memory(clf, cohort):
    bags, y, _ = cohort
    frame = clf.set_output(transform="pandas").fit(bags, y).transform(bags)
    assert list(frame.columns[:2]) == ["memory_0_0", "memory_0_1"]
    assert frame.shape == (24, 8)


def test_html_repr_shows_the_estimator(clf):
    assert "MoMKDClassifier" in clf._repr_html_()


def test_backed_anndata_sliced_by_cross_validation_equals_memory(clf, cohort, tmp_path):
    bags, y, omics = cohort
    adata = anndata.AnnData(omics)
    adata.write_h5ad(tmp_path / "omics.h5ad")
    scores = [
        cross_val_predict(clf, bags, y, cv=3, method="decision_function", params={"omics": table})
        for table in (anndata.read_h5ad(tmp_path / "omics.h5ad", backed="r"), adata)
    ]
    np.testing.assert_array_equal(*scores)


def test_grid_search_in_parallel_takes_aligned_omics(clf, cohort):
    bags, y, omics = cohort
    grid = GridSearchCV(clf, {"tau": [0.2, 0.4]}, cv=2, n_jobs=2, error_score="raise")
    grid.fit(bags, y, omics=align_omics(omics.iloc[:20], bags))
    assert grid.best_estimator_.n_paired_ == 20
