import json

import numpy as np
import pytest
import torch
from conftest import make_bags, make_omics
from inspection.conftest import small_momkd
from quick import CLASSIFIERS, quick, takes_omics
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_momkd import (
    BackgroundDetector,
    Bag,
    BagPooling,
    BagSequence,
    InstanceFilter,
    InstanceTransformer,
    MoMKDClassifier,
    background_report,
    cohort_scores,
    explain_prediction,
    memory_usage,
    patch_affinities,
    patch_attention,
    patient_bags,
    read_bags,
    to_geojson,
    write_trident,
)
from sk_momkd.data.arrays import BagArrays
from sk_momkd.data.bag import BagInfo

KEYS = ["bag_id", "patient_id", "patch", "x", "y"]


def mass_inside(attention, planted):
    """Share of each slide's attention in the planted region, and of its area."""
    rows = [
        (own["attention"].to_numpy()[planted[bag]].sum(), planted[bag].mean())
        for bag, own in attention.groupby("bag_id", sort=False)
    ]
    return np.array(rows).T


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_attention_of_every_classifier_sums_to_one_in_each_bag(name):
    bags, y = make_bags()
    omics = {"omics": make_omics(y)} if takes_omics(name) else {}
    clf = quick(name, max_epochs=1, early_stopping=False).fit(bags, y, **omics)
    table = patch_attention(clf, bags[:3])
    assert list(table.columns[:5]) == KEYS
    maps = [c for c in table if c.startswith("attention")]
    assert len(maps) == len([c for c in table if c.startswith("raw_attention")]) >= 1
    sums = table.groupby("bag_id")[maps].sum()
    np.testing.assert_allclose(sums, 1, atol=1e-5)
    assert len(table) == sum(bag.n_instances for bag in bags[:3])


def test_attention_with_a_map_per_class_has_a_column_per_class():
    bags, y = make_bags()
    labels = np.array(["wt", "mut"])[y]
    clf = quick("DSMILClassifier", max_epochs=1, early_stopping=False).fit(bags, labels)
    named = {"attention_mut", "raw_attention_mut", "attention_wt", "raw_attention_wt"}
    assert set(patch_attention(clf, bags[:1])) == {*KEYS, *named}


def test_attention_of_named_gene_groups_has_their_names():
    bags, y = make_bags()
    omics = make_omics(y)
    groups = {"first": list(omics.columns[:6]), "second": list(omics.columns[6:])}
    clf = quick("GHANetClassifier", max_epochs=1, early_stopping=False, gene_groups=groups)
    table = patch_attention(clf.fit(bags, y, omics=omics), bags[:1])
    assert list(table.columns[5:]) == [
        "attention_group_first",
        "raw_attention_group_first",
        "attention_group_second",
        "raw_attention_group_second",
    ]


def test_raw_attention_of_momkd_is_equation_6_and_gives_the_attention(momkd, unseen):
    bag = unseen.bags[0]
    table = patch_attention(momkd, [bag])
    (output,) = momkd._forward(BagSequence([bag]))
    affinity = output.affinity.double().numpy()
    score = affinity[:, 1].max(axis=1) - affinity[:, 0].max(axis=1)
    np.testing.assert_allclose(table["raw_attention"], score, atol=1e-6)
    weights = np.exp(score / momkd.tau)
    np.testing.assert_allclose(table["attention"], weights / weights.sum(), rtol=1e-4)
    np.testing.assert_array_equal(table[["x", "y"]], bag.coords)
    assert table["patch"].to_list() == list(range(bag.n_instances))
    assert set(table["patient_id"]) == {bag.patient_id}


def test_raw_attention_without_memory_is_zero_for_an_average_patch():
    bags, y = make_bags()
    clf = quick("ABMILClassifier", max_epochs=1, early_stopping=False).fit(bags, y)
    table = patch_attention(clf, bags[:1])
    np.testing.assert_allclose(np.exp(table["raw_attention"]) / len(table), table["attention"])


@pytest.mark.long
def test_mean_attention_of_several_fits_lies_on_the_planted_region(momkd, training, unseen):
    fits = [small_momkd(random_state=seed) for seed in (1, 2)]
    models = [momkd, *(clf.fit(training.bags, training.y, omics=training.omics) for clf in fits)]
    found = [mass_inside(patch_attention(m, unseen.bags), unseen.planted) for m in models]
    mass, area = np.mean(found, axis=0)
    positive = np.asarray(unseen.y) == 1
    # Over 14 seeds the ratio is 2.9 with a standard deviation of 0.4, so 0.25 for three fits.
    assert 0.2 < area[positive].mean() < 0.3
    assert mass[positive].mean() > 1.75 * area[positive].mean()
    assert mass.mean() > 1.75 * area.mean()


@pytest.mark.parametrize(("magnification", "size"), [(40, 512), (20, 256)])
def test_attention_and_geojson_lie_on_the_planted_region_at_20x_and_40x(
    momkd, unseen, tmp_path, magnification, size
):
    bag = unseen.bags[int(np.flatnonzero(np.asarray(unseen.y) == 1)[0])]
    scaled = Bag(bag.features, bag.coords // 512 * size, bag_id=bag.bag_id)
    write_trident(
        tmp_path / f"{bag.bag_id}.h5",
        scaled,
        patch_size_level0=size,
        level0_magnification=magnification,
    )
    (slide,) = read_bags(tmp_path)
    table = patch_attention(momkd, [slide])
    np.testing.assert_allclose(
        table["attention"], patch_attention(momkd, [bag])["attention"], rtol=1e-5
    )
    path = to_geojson(table, tmp_path / "S.geojson", bag=slide)
    planted = {tuple(corner) for corner in scaled.coords[unseen.planted[bag.bag_id]].tolist()}
    inside = sum(tile["attention"] for corner, tile in squares(path, size) if corner in planted)
    mass = table["attention"].to_numpy()[unseen.planted[bag.bag_id]].sum()
    assert inside == pytest.approx(mass, abs=1e-4)


def squares(path, size):
    """Corner and measurements of each tile, all of which must be `size` wide."""
    for feature in json.loads(path.read_text())["features"]:
        ring = np.array(feature["geometry"]["coordinates"][0])
        assert (np.ptp(ring, axis=0) == size).all()
        yield tuple(ring.min(axis=0)), feature["properties"]["measurements"]


def test_attention_of_a_pipeline_is_that_of_the_transformed_bags(momkd, unseen):
    scale = InstanceTransformer(StandardScaler()).fit(unseen.bags[:4])
    model = make_pipeline(scale, momkd)
    through = patch_attention(model, unseen.bags[:2])
    direct = patch_attention(momkd, scale.transform(unseen.bags[:2]))
    np.testing.assert_array_equal(through["attention"], direct["attention"])


def with_glass(n_glass=20, coords=True, seed=0):
    """Bags of two classes, each with a dense cluster of near-identical patches in the middle."""
    random = np.random.default_rng(seed)
    bags, y = [], np.arange(12) % 2
    for i, label in enumerate(y):
        tissue = random.normal(label, size=(40, 8))
        glass = 5 + 0.01 * random.normal(size=(n_glass, 8))
        features = np.concatenate([tissue[:20], glass, tissue[20:]])
        where = np.stack([np.arange(len(features)), np.full(len(features), i)], axis=1) * 256
        bags.append(Bag(features, where if coords else None, bag_id=f"S{i:02d}"))
    return BagSequence(bags), y


@pytest.mark.parametrize("coords", [True, False])
def test_patch_numbers_behind_a_filter_are_those_of_the_bag_as_given(coords):
    bags, y = with_glass(coords=coords)
    clf = quick("ABMILClassifier", max_epochs=1, early_stopping=False)
    model = make_pipeline(InstanceFilter(BackgroundDetector(), random_state=0), clf).fit(bags, y)
    table = patch_attention(model, bags[:1])
    kept = [*range(20), *range(40, 60)]
    assert table["patch"].to_list() == (kept if coords else [-1] * 40)
    assert table["attention"].sum() == pytest.approx(1, abs=1e-5)


def test_large_slide_in_a_file_is_read_in_blocks_with_the_same_attention(momkd, tmp_path):
    random = np.random.default_rng(0)
    n = 9000
    coords = np.stack(np.divmod(np.arange(n), 100), axis=1) * 512
    bag = Bag(random.normal(size=(n, 32)), coords, bag_id="large")
    write_trident(tmp_path / "large.h5", bag, patch_size_level0=512)
    (lazy,) = read_bags(tmp_path)
    lazy_table, table = patch_attention(momkd, [lazy]), patch_attention(momkd, [bag])
    np.testing.assert_allclose(lazy_table["attention"], table["attention"], rtol=1e-4)
    np.testing.assert_array_equal(lazy_table[["patch", "x", "y"]], table[["patch", "x", "y"]])


class Source:
    """A slide whose file describes its geometry."""

    shape = (2, 6)

    def __init__(self, **info):
        self.info_ = BagInfo("custom", **info)

    def read(self):
        return BagArrays(np.ones((2, 6)), np.array([[100, 200], [300, 200]]), None)

    def info(self):
        return self.info_


@pytest.mark.parametrize(
    ("info", "x"),
    [
        ({"unit": "level-0 px", "patch_size": 50.0}, [100, 300]),
        ({"unit": "level-0 px", "patch_size": 50.0, "anchor": "centre"}, [75, 275]),
        ({"unit": "level-0 px", "anchor": "centre"}, [np.nan, np.nan]),
        ({"unit": "um", "patch_size": 50.0}, [100, 300]),
    ],
)
def test_corners_follow_what_the_file_says_about_its_coordinates(info, x):
    bags, y = make_bags()
    clf = quick("ABMILClassifier", max_epochs=1, early_stopping=False).fit(bags, y)
    table = patch_attention(clf, [Bag(Source(**info), bag_id="S1")])
    np.testing.assert_array_equal(table["x"], x)


def test_bags_without_ids_and_coordinates_are_named_by_their_place():
    bags, y = make_bags()
    clf = quick("ABMILClassifier", max_epochs=1, early_stopping=False).fit(bags, y)
    table = patch_attention(clf, [np.ones((2, 6)), np.full((3, 6), 2.0)])
    assert table["bag_id"].to_list() == ["bag 0"] * 2 + ["bag 1"] * 3
    assert table[["x", "y"]].isna().all(axis=None)


def test_attention_of_another_classifier_names_those_that_have_it():
    bags, y = make_bags()
    model = make_pipeline(BagPooling("mean"), LogisticRegression()).fit(bags, y)
    with pytest.raises(TypeError, match=r"LogisticRegression has no attention.*ABMILClassifier"):
        patch_attention(model, bags)


def test_attention_before_fit_says_so():
    bags, _ = make_bags(n=2)
    with pytest.raises(NotFittedError):
        patch_attention(MoMKDClassifier(), bags)


def test_attention_of_no_bags_says_so(momkd):
    with pytest.raises(ValueError, match="no bags to inspect"):
        patch_attention(momkd, BagSequence([]))


def test_patches_of_a_patients_slides_are_told_apart(momkd, unseen, tmp_path):
    one = [
        Bag(bag.features, bag.coords, bag_id=bag.bag_id, patient_id="P") for bag in unseen.bags[:2]
    ]
    (patient,) = patient_bags(one)
    table = patch_attention(momkd, [patient])
    sizes = [bag.n_instances for bag in one]
    assert table["slide_id"].to_list() == np.repeat([b.bag_id for b in one], sizes).tolist()
    assert table["attention"].sum() == pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match="has 2 slides, whose coordinates overlap"):
        to_geojson(table, tmp_path / "P.geojson", bag=patient, patch_size=512)
    path = to_geojson(table, tmp_path / "S.geojson", bag=patient.slides[1], patch_size=512)
    corners = [corner for corner, _ in squares(path, 512)]
    np.testing.assert_array_equal(corners, one[1].coords)


def test_ensemble_has_the_mean_attention_and_the_memory_of_its_first_model():
    bags, y = make_bags()
    settings = {"max_epochs": 1, "early_stopping": False, "n_models": 2}
    clf = quick("MoMKDClassifier", **settings).fit(bags, y)
    per_model = [[out.attention for out in outputs] for outputs in clf._forward_models(bags[:2])]
    expected = torch.cat([(a + b) / 2 for a, b in per_model])[:, 0]
    table = patch_attention(clf, bags[:2])
    np.testing.assert_allclose(table["attention"], expected, atol=1e-6)
    own = clf.transform(bags[:2])[:, :8]
    np.testing.assert_allclose(cohort_scores(clf, bags[:2]).X, own, atol=1e-6)
    affinities = patch_affinities(clf, bags[:2])
    assert affinities.var_names[0] == "memory_0_0"
    assert affinities.shape[1] == 8
    assert len(memory_usage(clf, bags, y).components) == 8
    assert background_report(clf, bags).components is None
    explained = explain_prediction(clf, bags[:2], n_permutations=1, random_state=0)
    assert explained.fidelity_error < 1e-5


def test_bag_that_may_be_constant_is_inspected_as_it_is_predicted():
    bags, y = make_bags()
    clf = quick("ABMILClassifier", max_epochs=1, early_stopping=False).fit(bags, y)
    blank = Bag(np.zeros((3, 6)), allow_constant=True)
    assert len(patch_attention(clf, [blank])) == 3
