"""z-scores within the patient or the site: transductive, and where it is not."""

import pickle

import numpy as np
import pandas as pd
import pytest
from conftest import make_bags, make_omics, quick_classifier
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_momkd import Bag, BagSequence, InstanceStandardizer, InstanceTransformer, patient_bags
from sk_momkd.exceptions import BagError, CohortError

PATIENTS = ["A", "A", "B", "C", "C", "D"]
SITES = {"A": "x", "B": "x", "C": "y", "D": "z"}


@pytest.fixture
def slides():
    """Slides of unequal size whose features are shifted and scaled by patient."""
    random = np.random.default_rng(0)
    return BagSequence(
        Bag(
            random.normal(10 * ord(p), 1 + ord(p) % 5, size=(3 + 2 * i, 4)),
            bag_id=f"S{i}",
            patient_id=p,
        )
        for i, p in enumerate(PATIENTS)
    )


def pooled(bags, chosen):
    return np.concatenate([bags[i].features for i in chosen]).astype(np.float64)


def z_scores(values, statistics):
    return (values - statistics.mean(axis=0)) / statistics.std(axis=0)


@pytest.mark.parametrize(
    ("by", "groups"), [("patient", [[0, 1], [2], [3, 4], [5]]), ("site", [[0, 1, 2], [3, 4], [5]])]
)
def test_patches_are_standardised_with_all_slides_of_the_group(slides, by, groups):
    sites = SITES if by == "site" else None
    scaled = InstanceStandardizer(by, sites=sites).fit_transform(slides)
    for group in groups:
        own = pooled(slides, group)
        np.testing.assert_allclose(pooled(scaled, group), z_scores(own, own), atol=1e-4)
    assert scaled.ids.tolist() == slides.ids.tolist()
    assert scaled.patient_ids.tolist() == PATIENTS


def test_patient_in_slides_equals_patient_in_one_bag(slides):
    by_slide = InstanceStandardizer().fit_transform(slides)
    by_patient = InstanceStandardizer().fit_transform(patient_bags(slides))
    np.testing.assert_allclose(pooled(by_slide, [0, 1]), by_patient[0].features, atol=1e-5)


def test_patient_alone_is_independent_of_what_was_fitted(slides):
    one = InstanceStandardizer().fit(slides[[0]]).transform(slides[[3, 4]])
    other = InstanceStandardizer().fit(slides).transform(slides)
    np.testing.assert_array_equal(one[1].features, other[4].features)


def test_patient_one_slide_at_a_time_differs_as_documented(slides):
    fitted = InstanceStandardizer().fit(slides)
    together, alone = fitted.transform(slides[[0, 1]])[0], fitted.transform(slides[[0]])[0]
    assert np.abs(together.features - alone.features).max() > 0.01


def test_known_site_uses_the_statistics_of_fit(slides):
    fitted = InstanceStandardizer("site", sites=SITES).fit(slides[:2])
    alone = fitted.transform(slides[[2]])[0].features
    np.testing.assert_allclose(alone, z_scores(slides[2].features, pooled(slides, [0, 1])), 1e-3)
    np.testing.assert_array_equal(alone, fitted.transform(slides)[2].features)
    assert list(fitted.scalers_) == ["x"]


def test_unknown_site_uses_its_own_bags_or_raises(slides):
    fitted = InstanceStandardizer("site", sites=SITES).fit(slides[:3])
    own = pooled(slides, [3, 4])
    scaled = fitted.transform(slides[[3, 4]])
    np.testing.assert_allclose(pooled(scaled, [0, 1]), z_scores(own, own), atol=1e-4)
    assert list(fitted.scalers_) == ["x"]
    fitted.handle_unknown = "error"
    with pytest.raises(CohortError, match=r"3 bags are of sites.*not in fit: 'y', 'z'\."):
        fitted.transform(slides)


def test_sites_of_tcga_barcodes_need_no_mapping():
    names = ["TCGA-A2-A04P", "TCGA-A2-A04Q", "TCGA-BH-A0B3"]
    bags = [Bag(np.eye(3) * (i + 1), patient_id=name) for i, name in enumerate(names)]
    fitted = InstanceStandardizer("site").fit(bags)
    assert list(fitted.scalers_) == ["A2", "BH"]
    assert fitted.scalers_["A2"].n_samples_seen_ == 6


@pytest.mark.parametrize("sites", [SITES, pd.Series(SITES)])
def test_sites_as_dict_or_series_survive_clone(slides, sites):
    copy = clone(InstanceStandardizer("site", sites=sites))
    assert sorted(copy.fit(slides).scalers_) == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("sites", "said"),
    [
        ({"A": "x"}, "3 patients have no site: 'B', 'C', 'D'"),
        (SITES | {"B": None}, "1 patients have no site: 'B'"),
        (pd.Series(["x", "y", "y"], index=["A", "A", "B"]), "1 patients occur twice.*'A'"),
    ],
)
def test_site_of_a_patient_unknown_or_ambiguous_raises(slides, sites, said):
    with pytest.raises(CohortError, match=said):
        InstanceStandardizer("site", sites=sites).fit(slides)


def test_site_of_a_bag_without_patient_raises_naming_it():
    with pytest.raises(CohortError, match="bag 0 has no patient id"):
        InstanceStandardizer("site").fit([np.eye(3)])


def test_bags_without_patient_are_standardised_alone():
    bags = [np.eye(3), 5 + np.eye(3)]
    one, two = InstanceStandardizer().fit_transform(bags)
    np.testing.assert_allclose(one.features, two.features, atol=1e-5)


def test_constant_and_large_features_stay_finite_and_exact():
    random = np.random.default_rng(0)
    values = np.stack([np.full(50, 7.0), 1e6 + random.normal(size=50)], axis=1).astype(np.float32)
    scaled = InstanceStandardizer().fit_transform([Bag(values, patient_id="A")])[0].features
    assert (scaled[:, 0] == 0).all()
    np.testing.assert_allclose(scaled[:, 1].std(), 1, rtol=1e-3)


def test_single_patch_of_a_patient_raises_naming_it(slides):
    bags = BagSequence([*slides, Bag(np.ones((1, 4)), bag_id="S9", patient_id="E")])
    with pytest.raises(BagError, match=r"^bag 'S9' is the only bag of 'E' and has a single patch"):
        InstanceStandardizer().fit_transform(bags)


def test_other_width_raises_naming_the_bag(slides):
    odd = Bag(np.ones((3, 5)), bag_id="S9", patient_id="A")
    with pytest.raises(BagError, match="5 features in bag 'S9', but the bags before it have 4"):
        InstanceStandardizer("site", sites=SITES).fit([*slides, odd])
    fitted = InstanceStandardizer("site", sites=SITES).fit(slides)
    with pytest.raises(BagError, match=r"^bag 'S9' does not suit its transformer: X has 5"):
        fitted.transform([odd])[0].load()


def test_transform_reads_bags_of_known_sites_only_when_asked(slides, monkeypatch):
    fitted = InstanceStandardizer("site", sites=SITES).fit(slides)
    monkeypatch.setattr(Bag, "load", lambda *args: pytest.fail("a bag was read"))
    assert len(fitted.transform(slides)[1:4]) == 3


@pytest.mark.parametrize(
    "parameters", [{"by": "slide"}, {"by": "site", "sites": ["x"]}, {"handle_unknown": "ignore"}]
)
def test_wrong_parameter_raises(slides, parameters):
    with pytest.raises(ValueError, match=list(parameters)[-1]):
        InstanceStandardizer(**parameters).fit(slides)


def test_sites_with_patients_raise(slides):
    with pytest.raises(ValueError, match="by='site'"):
        InstanceStandardizer(sites=SITES).fit(slides)


def test_transform_before_fit_and_fit_without_bags_raise():
    with pytest.raises(NotFittedError):
        InstanceStandardizer().transform([np.eye(3)])
    with pytest.raises(BagError, match="no bags"):
        InstanceStandardizer().fit(BagSequence([]))


def test_pickle_and_bootstrap(slides):
    scaled = InstanceStandardizer().fit(slides).transform(slides[[1, 1, 0]])
    again = pickle.loads(pickle.dumps(scaled))
    assert again.ids.tolist() == ["S1", "S1", "S0"]
    np.testing.assert_array_equal(again[2].features, scaled[2].features)


def test_shift_of_a_patient_is_taken_away_and_that_of_training_is_not(slides):
    shifted = BagSequence([slides[0], slides[1].map(lambda x: 3 * x + 100)])
    one = BagSequence(Bag(b.features, patient_id=b.bag_id) for b in shifted)
    plain = BagSequence(Bag(b.features, patient_id=b.bag_id) for b in slides[:2])
    removed = [InstanceStandardizer().fit_transform(bags)[1].features for bags in (one, plain)]
    np.testing.assert_allclose(*removed, atol=1e-3)
    left = InstanceTransformer(StandardScaler()).fit(plain).transform(one)[1].features
    assert np.abs(left - removed[0]).max() > 1


def test_pipeline_in_folds_learns_sites_of_training_bags_alone():
    bags, y = make_bags(24)
    sites = {f"P{i:02d}": f"site {i % 3}" for i in range(24)}
    train, test = np.arange(16), np.arange(16, 24)
    changed = BagSequence([*bags[train], *bags[test].map(lambda x: 100 * x)])
    fitted = []
    for X in (bags, changed):
        pipe = make_pipeline(
            InstanceStandardizer("site", sites=sites), quick_classifier(max_epochs=1)
        )
        folds = cross_validate(
            pipe, X, y, cv=[(train, test)], return_estimator=True, error_score="raise"
        )
        fitted.append(folds["estimator"][0][0].scalers_["site 1"].mean_)
    np.testing.assert_array_equal(*fitted)


def test_pipeline_with_omics_cross_validates():
    bags, y = make_bags(24)
    pipe = make_pipeline(InstanceStandardizer(), quick_classifier(max_epochs=1))
    pipe.set_output(transform="pandas")
    params = {"momkdclassifier__omics": make_omics(y)}
    scores = cross_val_score(pipe, bags, y, params=params, cv=2, error_score="raise")
    assert np.isfinite(scores).all()
