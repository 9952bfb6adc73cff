import numpy as np
import pytest
from conftest import quick_classifier
from quick import quick
from sklearn.pipeline import make_pipeline

from sk_momkd import (
    BackgroundDetector,
    Bag,
    BagSequence,
    InstanceFilter,
    background_report,
    patch_attention,
)

N_TISSUE, N_GLASS = 30, 30


@pytest.fixture(scope="module")
def glassy():
    """16 slides of two classes, half of whose patches are bare glass."""
    random = np.random.default_rng(0)
    y = np.arange(16) % 2
    bags = []
    for i, label in enumerate(y):
        tissue = random.normal(size=(N_TISSUE, 8))
        tissue[:10, 0] += 3 * label
        glass = 5 + 0.01 * random.normal(size=(N_GLASS, 8))
        coords = np.stack([np.arange(N_TISSUE + N_GLASS), np.zeros(N_TISSUE + N_GLASS)], axis=1)
        bags.append(Bag(np.concatenate([tissue, glass]), coords * 256, bag_id=f"S{i:02d}"))
    return BagSequence(bags), y


@pytest.fixture(scope="module")
def fitted(glassy):
    return quick_classifier(max_epochs=3, early_stopping=False).fit(*glassy)


def test_components_on_bare_glass_are_flagged_with_the_remedy(fitted, glassy):
    bags, _ = glassy
    report = background_report(fitted, bags)
    np.testing.assert_array_equal(report.slides["background"], 0.5)
    assert report.components["n_patches"].sum() == 2 * len(bags) * (N_TISSUE + N_GLASS)
    on_glass = report.components[report.components["flagged"]]
    # All glass is one direction, so of each class one component holds all of it.
    assert on_glass.groupby("class").size().to_dict() == {0: 1, 1: 1}
    assert (on_glass["n_patches"] * on_glass["background"]).to_list() == [16 * N_GLASS] * 2
    assert "InstanceFilter(BackgroundDetector())" in report.remedy
    assert on_glass.index[0] in str(report)
    assert report.remedy in str(report)


def test_attention_on_background_is_its_share_of_the_attention(fitted, glassy):
    bags, _ = glassy
    report = background_report(fitted, bags, threshold=0.4)
    attention = patch_attention(fitted, bags)
    share = attention[attention["patch"] >= N_TISSUE].groupby("bag_id")["attention"].sum()
    np.testing.assert_allclose(report.slides["attention"], share, atol=1e-6)
    np.testing.assert_array_equal(report.slides["flagged"], share > 0.4)


def test_with_the_remedy_nothing_is_left_to_flag(glassy):
    bags, y = glassy
    clf = quick_classifier(max_epochs=1, early_stopping=False)
    model = make_pipeline(InstanceFilter(BackgroundDetector(), random_state=0), clf).fit(bags, y)
    report = background_report(model, bags)
    assert (report.slides["background"] == 0).all()
    assert (report.slides["n_patches"] == N_TISSUE).all()
    assert not report.components["flagged"].any()
    assert report.remedy is None


def test_slides_alone_are_reported_without_a_memory(glassy):
    bags, y = glassy
    clf = quick("ABMILClassifier", max_epochs=1, early_stopping=False).fit(bags, y)
    report = background_report(clf, bags)
    assert report.components is None
    assert (report.slides["background"] == 0.5).all()


def test_cohort_without_background_has_nothing_flagged(momkd, unseen):
    report = background_report(momkd, unseen.bags)
    assert (report.slides["background"] == 0).all()
    assert (report.slides["attention"] == 0).all()
    assert report.remedy is None


def test_patches_dropped_without_coordinates_are_refused(glassy):
    bags, y = glassy
    bare = BagSequence(Bag(bag.features, bag_id=bag.bag_id) for bag in bags)
    clf = quick("ABMILClassifier", max_epochs=1, early_stopping=False)
    model = make_pipeline(InstanceFilter(BackgroundDetector(), random_state=0), clf).fit(bare, y)
    with pytest.raises(ValueError, match="'S00': a filter of the pipeline drops patches"):
        background_report(model, bare)


@pytest.mark.parametrize("threshold", [0, 1, 1.5])
def test_threshold_outside_its_range_is_refused(fitted, glassy, threshold):
    with pytest.raises(ValueError, match="threshold must be between 0 and 1"):
        background_report(fitted, glassy[0], threshold=threshold)
