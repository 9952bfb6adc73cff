"""The random validation part: whole groups, every class on both sides, the asked size."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from sk_momkd import Bag, BagSequence
from sk_momkd.model_selection.split import inner_split
from sk_momkd.model_selection.validation_part import stratified_group_split

PATIENTS = np.repeat(np.arange(20), 3)
LABELS = PATIENTS % 2


def split(y, groups, fraction=0.2, seed=0, patients=None):
    random = np.random.RandomState(seed)
    y, groups = np.asarray(y), np.asarray(groups)
    return stratified_group_split(
        y, groups, fraction=fraction, random_state=random, patients=patients
    )


def how_often_each_validates(y, groups, seeds, patients=None, fraction=0.125):
    """Share of the seeds under which each group is in the validation part."""
    names, counts = np.unique(groups), 0
    for seed in range(seeds):
        _, valid = split(y, groups, fraction, seed, patients)
        counts = counts + np.isin(names, groups[valid])
    return counts / seeds


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_split_keeps_groups_whole_and_classes_on_both_sides(seed, fraction):
    train, valid = split(LABELS, PATIENTS, fraction, seed)
    assert sorted(np.concatenate([train, valid])) == list(range(60))
    assert not set(PATIENTS[train]) & set(PATIENTS[valid])
    assert set(LABELS[train]) == set(LABELS[valid]) == {0, 1}
    assert len(valid) == pytest.approx(60 * fraction, abs=3)


@st.composite
def cohorts(draw):
    """Sites of unequal size, each class at two or more; patients of one to four slides."""
    sizes = draw(st.lists(st.integers(1, 30), min_size=6, max_size=12))
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    n_classes = draw(st.integers(2, 3))
    shares = random.dirichlet(np.ones(n_classes))
    rows = []
    for site, size in enumerate(sizes):
        for p in range(size):
            label = site % n_classes if p == 0 else random.choice(n_classes, p=shares)
            rows += [(site, f"{site}-{p}", label)] * random.integers(1, 5)
    site, patient, label = map(np.array, zip(*rows, strict=True))
    return label, site, patient, draw(st.floats(0.05, 0.5)), draw(st.integers(0, 10**6))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(cohorts())
def test_split_of_random_cohorts_holds_its_promises(cohort):
    y, sites, patients, fraction, seed = cohort
    for groups in (sites, patients):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            train, valid = split(y, groups, fraction, seed, patients)
        assert sorted([*train, *valid]) == list(range(len(y)))
        assert not set(groups[train]) & set(groups[valid])
        assert set(y[train]) == set(y[valid]) == set(y)
        n_patients, asked = len(set(patients[valid])), fraction * len(set(patients))
        n_classes = len(set(y))
        assert abs(n_patients - asked) <= max(asked / 2, n_classes) or caught
        if groups is patients:  # only then is the asked size always possible
            assert abs(n_patients - asked) <= n_classes


@pytest.mark.filterwarnings("ignore:The validation part has")
@pytest.mark.parametrize("n_sites", [4, 6, 12])
def test_split_no_site_validates_under_every_seed(n_sites):
    """One site holds 40 % of the patients, the others share the rest."""
    rest = np.random.RandomState(0).randint(1, n_sites, 120)
    sites = np.concatenate([np.zeros(80, int), rest])
    y = np.random.RandomState(1).randint(0, 2, 200)
    often = how_often_each_validates(y, sites, 25, np.arange(200))
    assert often.max() < 0.9
    assert (often > 0).sum() >= n_sites / 2


def test_split_patient_of_forty_slides_validates_about_as_often_as_the_others():
    patients = np.concatenate([np.zeros(40, int), np.arange(1, 60).repeat(2)])
    often = how_often_each_validates(patients % 2, patients, 60)
    assert 0 < often[0] < 0.35
    assert often.mean() == pytest.approx(0.125, abs=0.02)


@pytest.mark.parametrize("grouped", [False, True])
def test_split_two_positives_of_six_hundred_give_a_part_of_the_asked_size(grouped):
    y = np.zeros(600, dtype=int)
    y[[17, 401]] = 1
    groups = np.arange(600) % 40 if grouped else np.arange(600)
    groups[401] = 2 if grouped else 401  # another site than the first positive's
    positives = set()
    for seed in range(12):
        _, valid = split(y, groups, 0.125, seed, np.arange(600))
        assert len(valid) == pytest.approx(75, abs=8 if grouped else 1)
        assert y[valid].sum() == 1
        positives |= set(valid[y[valid] == 1])
    assert positives == {17, 401}


def test_split_without_repeated_groups_is_stratified():
    y = np.array([0] * 40 + [1] * 10)
    _, valid = split(y, np.arange(50))
    assert np.bincount(y[valid]).tolist() == [8, 2]


@pytest.mark.parametrize("groups", [PATIENTS, np.arange(60)], ids=["grouped", "single"])
def test_split_is_seeded(groups):
    first, again, other = (split(LABELS, groups, seed=seed)[1] for seed in (3, 3, 4))
    assert first.tolist() == again.tolist() != other.tolist()


def test_split_rare_class_does_not_enlarge_the_part():
    y = np.array([0] * 30 + [1, 1, 1])
    train, valid = split(y, np.arange(33), fraction=0.05)
    assert np.bincount(y[valid]).tolist() == [1, 1]
    assert np.bincount(y[train]).tolist() == [29, 2]


def test_split_patients_of_several_classes_stay_whole():
    groups, y = np.repeat(np.arange(10), 2), np.tile([0, 1], 10)
    train, valid = split(y, groups)
    assert not set(groups[train]) & set(groups[valid])


def test_split_that_cannot_have_the_asked_size_warns_with_the_figures():
    sites = np.repeat([0, 1], 50)
    with pytest.warns(UserWarning, match=r"50 of 100 patients, where validation_fraction=0.1 .*10"):
        split(np.arange(100) % 2, sites, 0.1, patients=np.arange(100))


@pytest.mark.parametrize(
    ("y", "groups"),
    [([0, 0, 0, 1], [0, 1, 2, 3]), ([0, 0, 0, 1, 1, 1], [0, 1, 2, 3, 3, 3])],
    ids=["one_bag", "one_patient"],
)
def test_split_class_of_a_single_patient_raises_naming_the_remedy(y, groups):
    said = rf"Class number 1 has a single patient.*n_samples = {len(y)}.*early_stopping=False"
    with pytest.raises(ValueError, match=said):
        split(y, groups)


def test_split_that_cannot_hold_every_class_raises_naming_the_remedy():
    y = [0, 1, 1, 2, 0, 2]  # three patients, each of two of three classes
    with pytest.raises(ValueError, match=r"every class on both sides.*early_stopping=False"):
        split(y, [0, 0, 1, 1, 2, 2])


def test_inner_split_counts_patients_not_slides():
    """Half of the slides are those of four patients; a part of a fifth has a fifth of the rest."""
    names = np.concatenate([np.repeat(np.arange(4), 9), np.arange(4, 40)])
    bags = BagSequence(Bag(np.ones((1, 2)), patient_id=f"P{p}") for p in names)
    _, valid = inner_split(
        bags,
        names % 2,
        names,
        fraction=0.2,
        splitter=None,
        random_state=np.random.RandomState(0),
    )
    assert len(set(names[valid])) == 8
