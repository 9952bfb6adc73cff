"""A detector of patches: fitted on training bags, it drops patches when a bag is read."""

import pickle

import numpy as np
import pytest
import sklearn
from conftest import make_omics, quick_classifier
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_momkd import (
    BackgroundDetector,
    Bag,
    BagSequence,
    InstanceFilter,
    InstanceTransformer,
    align_omics,
    patient_bags,
)
from sk_momkd.data.graph import build_edges
from sk_momkd.exceptions import BagError

WIDTH = 16
GLASS = np.linspace(-2, 2, WIDTH)


def slides_with_glass(n=24, seed=0):
    """Slides of 12 to 20 patches; the first 4 to 8 are glass, the rest tissue with a signal."""
    random = np.random.default_rng(seed)
    y = np.arange(n) % 2
    bags, n_glass = [], random.integers(4, 9, size=n)
    for i in range(n):
        tissue = random.normal(size=(random.integers(8, 13), WIDTH)) + 0.8 * y[i]
        glass = GLASS + 0.02 * random.normal(size=(n_glass[i], WIDTH))
        features = np.concatenate([glass, tissue])
        coords = np.stack([np.arange(len(features)), np.zeros(len(features))], axis=1) * 256
        bags.append(Bag(features, coords, bag_id=f"S{i:02d}", patient_id=f"P{i:02d}"))
    return BagSequence(bags), y, n_glass


@pytest.fixture
def slides():
    return slides_with_glass()


def background_filter(**parameters):
    return InstanceFilter(BackgroundDetector(), random_state=0, **parameters)


def test_planted_background_is_dropped_from_every_bag(slides):
    bags, _, n_glass = slides
    kept = background_filter().fit_transform(bags)
    assert isinstance(kept, BagSequence)
    for before, after, n in zip(bags, kept, n_glass, strict=True):
        np.testing.assert_array_equal(after.features, before.features[n:])
        np.testing.assert_array_equal(after.coords, before.coords[n:])
    assert kept.ids.tolist() == bags.ids.tolist()
    assert kept.patient_ids.tolist() == bags.patient_ids.tolist()


def test_what_is_dropped_is_told(slides):
    bags, _, n_glass = slides
    fitted = background_filter().fit(bags)
    counts = fitted.counts(bags)
    assert (counts["n_instances"] - counts["n_kept"]).tolist() == n_glass.tolist()
    assert counts.index.tolist() == bags.ids.tolist()
    total = sum(bag.n_instances for bag in bags)
    assert fitted.dropped_fraction_ == pytest.approx(n_glass.sum() / total)
    assert fitted.n_features_in_ == WIDTH


def test_stored_edges_and_new_graphs_fit_the_patches_that_are_left(slides):
    bags, _, n_glass = slides
    bag, n = bags[0], n_glass[0]
    chain = np.stack([np.arange(bag.n_instances - 1), np.arange(1, bag.n_instances)])
    stored = Bag(bag.features, bag.coords, edge_index=chain, bag_id="G")
    kept = background_filter().fit(bags).transform([stored, bag])
    np.testing.assert_array_equal(kept[0].edge_index, chain[:, n:] - n)
    edges = build_edges(kept[1].load(), n_neighbors=2)
    assert edges.max() == bag.n_instances - n - 1


def test_patient_of_several_slides_keeps_its_slides_apart(slides):
    bags, _, n_glass = slides
    pairs = BagSequence(
        Bag(bag.features, bag.coords, bag_id=bag.bag_id, patient_id=f"Q{i // 2}")
        for i, bag in enumerate(bags)
    )
    patients = patient_bags(pairs)
    kept = background_filter().fit(patients).transform(patients)[0].load()
    sizes = [bags[i].n_instances - n_glass[i] for i in (0, 1)]
    np.testing.assert_array_equal(kept.slide_index, np.repeat([0, 1], sizes))
    edges = build_edges(kept, n_neighbors=3)
    assert (kept.slide_index[edges[0]] == kept.slide_index[edges[1]]).all()


def test_transform_reads_no_bag(slides, monkeypatch):
    bags, _, _ = slides
    fitted = background_filter().fit(bags)
    monkeypatch.setattr(Bag, "load", lambda *args: pytest.fail("a bag was read"))
    assert len(fitted.transform(bags)[1:4]) == 3


def test_bag_of_glass_alone_raises_naming_it_when_read(slides):
    bags, _, _ = slides
    fitted = background_filter().fit(bags)
    kept = fitted.transform([Bag(np.tile(GLASS, (5, 1)), bag_id="S99")])
    with pytest.raises(BagError, match=r"bag 'S99' is empty after its filter.*remove the slide"):
        kept[0].load()
    assert fitted.counts([np.tile(GLASS, (5, 1))]).loc["bag 0"].tolist() == [5, 0]


def test_outlier_detector_of_scikit_learn_keeps_inliers(slides):
    bags, _, _ = slides
    fitted = InstanceFilter(IsolationForest(random_state=0), max_patches=None).fit(bags)
    for before, after in zip(bags[:4], fitted.transform(bags)[:4], strict=True):
        mask = fitted.detector_.predict(before.features) == 1
        np.testing.assert_array_equal(after.features, before.features[mask])
    assert 0 < fitted.dropped_fraction_ < 1


def test_classifier_of_patches_that_was_fitted_before_is_used_as_it_is(slides):
    bags, _, n_glass = slides
    patches = np.concatenate([bags[0].features, bags[1].features])
    is_tissue = np.concatenate([np.arange(bags[i].n_instances) >= n_glass[i] for i in (0, 1)])
    classifier = LogisticRegression().fit(patches, is_tissue)
    fitted = InstanceFilter(FrozenEstimator(classifier)).fit(bags)
    assert fitted.transform(bags)[5].n_instances == bags[5].n_instances - n_glass[5]


def test_classifier_that_is_not_fitted_raises():
    with pytest.raises(
        TypeError, match=r"LogisticRegression learns.*FrozenEstimator\(classifier\)"
    ):
        InstanceFilter(LogisticRegression()).fit([np.eye(4)], [0])


@pytest.mark.parametrize("labels", [["tissue", "glass"], [1, 2], ["1", "0"]])
def test_detector_with_other_predictions_raises(slides, labels):
    classifier = LogisticRegression().fit(slides[0][0].features[3:5], labels)
    with pytest.raises(ValueError, match="expected 1 for patches to keep"):
        InstanceFilter(FrozenEstimator(classifier)).fit(slides[0])


def test_detector_of_clusters_raises(slides):
    with pytest.raises(ValueError, match=r"KMeans predicts [23456]"):
        InstanceFilter(KMeans(7, random_state=0)).fit(slides[0])


@pytest.mark.parametrize("parameters", [{"detector": 3}, {"max_patches": 0}, {"random_state": "x"}])
def test_fit_wrong_parameter_raises(slides, parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        InstanceFilter(**({"detector": BackgroundDetector()} | parameters)).fit(slides[0])


def test_fit_draws_equally_many_patches_of_each_bag(slides):
    class Spy(BackgroundDetector):
        def fit(self, X, y=None):
            self.seen_ = X
            return super().fit(X)

    bags, _, _ = slides
    big = BagSequence([*bags, Bag(np.tile(bags[0].features, (20, 1)), bag_id="big")])
    fits = [InstanceFilter(Spy(), max_patches=250, random_state=s).fit(big) for s in (0, 0, 1)]
    assert fits[0].detector_.seen_.shape == (250, WIDTH)
    np.testing.assert_array_equal(fits[0].detector_.seen_, fits[1].detector_.seen_)
    assert (fits[0].detector_.seen_ != fits[2].detector_.seen_).any()


def test_fit_bags_of_other_width_raise_naming_the_bag():
    with pytest.raises(BagError, match="5 features in bag 1, but the bags before it have 6"):
        InstanceFilter(BackgroundDetector()).fit([np.ones((2, 6)), np.ones((2, 5))])


def test_transform_of_other_width_raises_naming_the_bag(slides):
    fitted = background_filter().fit(slides[0])
    with pytest.raises(BagError, match=r"^bag 'S9' does not suit its filter: X has 5 features"):
        fitted.transform([Bag(np.ones((2, 5)), bag_id="S9")])[0].load()


def test_transform_before_fit_and_fit_without_bags_raise():
    with pytest.raises(NotFittedError):
        background_filter().transform([np.ones((2, 6))])
    with pytest.raises(BagError, match="no bags"):
        background_filter().fit(BagSequence([]))


def test_clone_and_pickle(slides):
    bags, _, _ = slides
    fitted = background_filter().fit(bags)
    copy = clone(fitted).set_params(detector__max_distance=0.1)
    assert not hasattr(copy, "detector_")
    assert fitted.detector.max_distance == 0.25
    again = pickle.loads(pickle.dumps(fitted.transform(bags)))
    np.testing.assert_array_equal(again[5].features, fitted.transform(bags)[5].features)


def test_bags_filtered_before_a_refit_stay_as_they_were(slides):
    bags, _, _ = slides
    fitted = background_filter().fit(bags)
    kept = fitted.transform(bags)
    n = kept[0].n_instances
    fitted.fit([np.random.default_rng(0).normal(size=(50, WIDTH))])
    assert kept[0].n_instances == n


def test_pipeline_in_folds_learns_from_training_bags_alone(slides, quick):
    bags, y, _ = slides
    train, test = np.arange(16), np.arange(16, 24)
    changed = BagSequence([*bags[train], *bags[test].map(lambda x: 100 * x)])
    quick.set_params(max_epochs=1)
    fitted = []
    for X in (bags, changed):
        folds = cross_validate(
            make_pipeline(background_filter(), quick),
            X,
            y,
            cv=[(train, test)],
            return_estimator=True,
            error_score="raise",
        )
        fitted.append(folds["estimator"][0][0])
    alone = background_filter().fit(bags[train])
    for one in fitted:
        np.testing.assert_array_equal(one.detector_.centers_, alone.detector_.centers_)
        assert one.detector_.radius_ == alone.detector_.radius_


@pytest.mark.slow
def test_pipeline_with_omics_in_cross_validation_joins_them_by_id(slides):
    bags, y, _ = slides
    omics = align_omics(make_omics(y), bags)
    pipe = make_pipeline(
        background_filter(), InstanceTransformer(StandardScaler()), quick_classifier(max_epochs=2)
    )
    params = {"momkdclassifier__omics": omics}
    scores = cross_val_score(pipe, bags, y, params=params, cv=2, error_score="raise")
    assert np.isfinite(scores).all()
    pipe.fit(bags, y, momkdclassifier__omics=omics)
    assert pipe[-1].n_paired_ > 0
    by_hand = pipe[-1].predict_proba(pipe[:-1].transform(bags))
    np.testing.assert_array_equal(pipe.predict_proba(bags), by_hand)


def test_pipeline_with_metadata_routing_hands_omics_to_the_classifier(slides):
    bags, y, _ = slides
    with sklearn.config_context(enable_metadata_routing=True):
        clf = quick_classifier(max_epochs=2).set_fit_request(omics=True)
        result = cross_validate(
            make_pipeline(background_filter(), clf),
            bags,
            y,
            params={"omics": align_omics(make_omics(y), bags)},
            cv=2,
            return_estimator=True,
            error_score="raise",
        )
    assert all(pipe[-1].n_paired_ > 0 for pipe in result["estimator"])


@pytest.mark.slow
def test_grid_search_reaches_the_detector_and_set_output_leaves_bags_alone(slides):
    bags, y, _ = slides
    pipe = make_pipeline(background_filter(), quick_classifier(max_epochs=1))
    pipe.set_output(transform="pandas")
    grid = GridSearchCV(
        pipe, {"instancefilter__detector__max_distance": [0.1, 0.25]}, cv=2, error_score="raise"
    )
    assert grid.fit(bags, y).predict(bags).shape == (24,)
