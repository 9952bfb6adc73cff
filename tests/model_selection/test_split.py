"""Splits: a patient is on one side, and every class on both."""

import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
from conftest import make_bags
from hypothesis import given, settings, strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    StratifiedGroupKFold,
    cross_val_predict,
    cross_val_score,
)

from sk_momkd import (
    Bag,
    BagSequence,
    PatientStratifiedKFold,
    as_bags,
    check_leakage,
)
from sk_momkd.exceptions import LeakageError

PATIENTS = np.repeat(np.arange(20), 3)
LABELS = PATIENTS % 2


def bags_of_patients(patients):
    return BagSequence(Bag(np.ones((1, 2)), patient_id=p) for p in patients)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ([0, 1], [2, 3]),
        (np.array([True, True, False, False]), np.array([False, False, True, True])),
        ([], [0, 1, 2, 3]),
    ],
)
def test_check_leakage_whole_patients_pass(train, test):
    assert check_leakage([(train, test)], bags_of_patients("AABB")) is None


def test_check_leakage_divided_patients_raise_naming_split_and_patients():
    splits = [([0, 1], [2, 3, 4]), ([0, 2], [1, 3, 4])]
    said = r"Split 1 has 2 patients on both sides: 'A', 'B'\. .*StratifiedGroupKFold"
    with pytest.raises(LeakageError, match=said):
        check_leakage(splits, bags_of_patients("AABBC"))


def test_check_leakage_same_bag_on_both_sides_raises_naming_it():
    bags = BagSequence([Bag(np.ones((1, 2)), bag_id="S0"), Bag(np.ones((1, 2)))])
    with pytest.raises(LeakageError, match="1 patients on both sides: \"bag 'S0'\""):
        check_leakage([([0], [0, 1])], bags)
    with pytest.raises(LeakageError, match="'bag 1'"):
        check_leakage([([1], [0, 1])], bags)


def test_check_leakage_bootstrap_that_repeats_a_bag_raises():
    bags = BagSequence([Bag(np.ones((1, 2))), Bag(np.ones((1, 2)), bag_id="S1")])[[0, 1, 0, 1]]
    with pytest.raises(LeakageError, match="2 patients on both sides"):
        check_leakage([([0, 1], [2, 3])], bags)


def test_check_leakage_bags_without_patients_pass():
    assert check_leakage(KFold(3).split(range(6)), [np.ones((2, 2))] * 6) is None


def test_check_leakage_of_splitters_finds_the_ungrouped_one():
    bags = bags_of_patients(PATIENTS)
    grouped = StratifiedGroupKFold(4).split(LABELS, LABELS, bags.patient_ids)
    assert check_leakage(grouped, bags) is None
    with pytest.raises(LeakageError, match="Split 0"):
        check_leakage(KFold(4, shuffle=True, random_state=0).split(LABELS), bags)


@pytest.mark.parametrize(
    ("split", "said"),
    [
        (([0], [1, 2], [3, 4]), "train and validation: 'A'"),
        (([0, 1], [2], [3, 4]), "validation and test: 'B'"),
        (([2], [0, 1], [3, 4]), "train and test: 'B'"),
    ],
)
def test_check_leakage_of_three_parts_names_the_two_sides(split, said):
    whole = ([0, 1], [2, 3], [4])
    assert check_leakage([whole], bags_of_patients("AABBC")) is None
    with pytest.raises(LeakageError, match=f"Split 1 has 1 patients on both sides of {said}"):
        check_leakage([whole, split], bags_of_patients("AABBC"))


def test_check_leakage_of_three_parts_finds_a_bag_that_occurs_twice():
    bags = [np.ones((1, 2))] * 4
    with pytest.raises(LeakageError, match="sides of train and test: 'bag 0'"):
        check_leakage([([0, 1], [2], [0, 3])], bags)
    with pytest.raises(LeakageError, match="sides of train and test: 'bag 3'"):
        check_leakage([([3], [], [-1])], bags)


def test_check_leakage_takes_empty_parts_and_masks():
    mask = np.array([True, False, False])
    assert check_leakage([(mask, np.array([]), ~mask)], bags_of_patients("ABC")) is None


@pytest.mark.parametrize("split", [([0],), ([0], [1], [2], []), ([0, 1], 2), (0, 1)])
def test_check_leakage_of_something_else_raises(split):
    with pytest.raises(ValueError, match=r"Split 0 is neither \(train, test\)"):
        check_leakage([split], bags_of_patients("ABC"))


def test_check_leakage_of_one_split_instead_of_a_list_raises():
    with pytest.raises(ValueError, match="Split 0 is neither"):
        check_leakage(([0, 1], [2]), bags_of_patients("ABC"))


class MeanThreshold(ClassifierMixin, BaseEstimator):
    """Class 1 where a bag's mean is above the cut; remembers the patients it has seen."""

    def __init__(self, cut=1.0):
        self.cut = cut

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.seen_ = set(as_bags(X).patient_ids)
        return self

    def predict(self, X):
        return np.array([int(bag.features.mean() > self.cut) for bag in X])


def bags_of(patients):
    return BagSequence(Bag(np.ones((1, 2)), patient_id=p) for p in patients)


def slides(n_patients=40, per_patient=3):
    """Bags of patients with one to `per_patient` slides; every fourth patient is positive."""
    patients = [f"P{i:03d}" for i in range(n_patients) for _ in range(1 + i % per_patient)]
    y = np.array([int(p[1:]) % 4 == 0 for p in patients], dtype=int)
    return bags_of(patients), y


def patients_in(bags, part):
    return set(bags[part].patient_ids)


@st.composite
def cohorts(draw):
    """Patients with one to four slides of any labels, some slides without patient, and folds."""
    n_splits = draw(st.integers(2, 4))
    n_classes = draw(st.integers(1, 3))
    rows = []
    for c in range(n_classes):  # enough patients of each class, so that the folds exist
        for i in range(draw(st.integers(max(4, n_splits), 8))):
            rows += [(f"P{c}-{i}", c)] * draw(st.integers(1, 4))
    rows += [(None, draw(st.integers(0, n_classes - 1))) for _ in range(draw(st.integers(0, 4)))]
    for i in range(draw(st.integers(0, 3))):  # patients of several labels
        labels = draw(st.lists(st.integers(0, n_classes - 1), min_size=2, max_size=4))
        rows += [(f"M{i}", c) for c in labels]
    rows = draw(st.permutations(rows))
    seed = draw(st.integers(0, 1000))
    return bags_of(p for p, _ in rows), np.array([c for _, c in rows]), n_splits, seed


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(cohorts())
def test_split_never_divides_a_patient_and_tests_each_bag_once(cohort):
    bags, y, n_splits, seed = cohort
    folds = list(PatientStratifiedKFold(n_splits, random_state=seed).split(bags, y))
    assert len(folds) == n_splits
    check_leakage(folds, bags)
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(len(bags)))
    for train, test in folds:
        assert sorted([*train, *test]) == list(range(len(bags)))
        assert set(y[test]) == set(y)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(cohorts())
def test_split_three_never_divides_a_patient_and_uses_each_bag(cohort):
    bags, y, n_splits, seed = cohort
    splitter = PatientStratifiedKFold(n_splits, random_state=seed)
    splits = list(splitter.split_three(bags, y))
    check_leakage(splits, bags)
    for (train, valid, test), (_, alone) in zip(splits, splitter.split(bags, y), strict=True):
        assert sorted([*train, *valid, *test]) == list(range(len(bags)))
        assert test.tolist() == alone.tolist()
        assert len(train) > 0
        assert len(valid) > 0


@settings(max_examples=40, deadline=None)
@given(cohorts(), st.integers(0, 1000), st.integers(2, 6))
@pytest.mark.filterwarnings("ignore:The test part of fold")
def test_split_never_divides_a_group_of_patients(cohort, seed, n_sites):
    bags, y, _, _ = cohort
    names = np.array([p or f"alone {i}" for i, p in enumerate(bags.patient_ids)])
    random = np.random.default_rng(seed)
    site_of = {name: random.integers(2, 2 + n_sites) for name in np.unique(names)}
    site_of |= {f"P{c}-{i}": i for c in range(3) for i in (0, 1)}  # each class at two sites
    sites = np.array([site_of[name] for name in names])
    folds = list(PatientStratifiedKFold(2, random_state=seed).split(bags, y, groups=sites))
    check_leakage(folds, bags)
    for train, test in folds:
        assert not set(sites[train]) & set(sites[test])


@pytest.mark.parametrize("seed", range(5))
def test_split_balances_patients_of_each_class_although_slides_differ(seed):
    bags, y = slides(43)
    label_of = dict(zip(bags.patient_ids, y, strict=True))
    counts = []
    for _, test in PatientStratifiedKFold(5, random_state=seed).split(bags, y):
        labels = [label_of[p] for p in patients_in(bags, test)]
        counts.append(np.bincount(labels, minlength=2))
    assert (np.ptp(counts, axis=0) <= 1).all()
    assert np.ptp(np.sum(counts, axis=1)) <= 1


def test_split_stratifies_a_patient_of_several_labels_by_the_majority_and_keeps_it_whole():
    bags = bags_of(["A"] * 3 + ["B"] * 3 + ["C", "D"])
    y = np.array([0, 1, 1, 0, 0, 1, 1, 0])  # A and C are mostly 1, B and D mostly 0
    for _, test in PatientStratifiedKFold(2, random_state=0).split(bags, y):
        assert len(patients_in(bags, test) & {"A", "C"}) == 1
        assert len(patients_in(bags, test) & {"B", "D"}) == 1


def test_split_patient_with_a_tie_counts_for_the_first_class():
    bags = bags_of(["A", "A", "B", "C", "D"])
    y = ["neg", "pos", "pos", "pos", "neg"]
    for _, test in PatientStratifiedKFold(2, random_state=0).split(bags, y):
        assert len(patients_in(bags, test) & {"A", "D"}) == 1


def test_split_is_seeded():
    bags, y = slides()

    def tests_of(seed):
        return [
            test.tolist() for _, test in PatientStratifiedKFold(random_state=seed).split(bags, y)
        ]

    def three(seed):
        splits = PatientStratifiedKFold(random_state=seed).split_three(bags, y)
        return [[part.tolist() for part in split] for split in splits]

    assert tests_of(3) == tests_of(3) != tests_of(4)
    assert three(3) == three(3) != three(4)
    assert tests_of(np.random.RandomState(3)) == tests_of(3)


def test_split_unshuffled_is_the_same_on_each_call():
    bags, y = slides()
    splitter = PatientStratifiedKFold(shuffle=False)
    first, again = (
        [[part.tolist() for part in split] for split in splitter.split_three(bags, y)]
        for _ in range(2)
    )
    assert first == again


@pytest.mark.parametrize("kind", ["list", "object_array", "lists_of_arrays"])
def test_split_takes_bags_in_any_sequence(kind):
    bags, y = slides()
    expected = [test.tolist() for _, test in PatientStratifiedKFold(random_state=0).split(bags, y)]
    groups = None
    X = list(bags)
    if kind == "object_array":
        X = np.fromiter(bags, dtype=object)
    elif kind == "lists_of_arrays":
        X, groups = [np.ones((2, 3))] * len(bags), bags.patient_ids
    got = [t.tolist() for _, t in PatientStratifiedKFold(random_state=0).split(X, y, groups)]
    assert got == expected


def test_split_array_with_groups_equals_the_bags():
    bags, y = slides()
    splitter = PatientStratifiedKFold(random_state=0)
    expected = [test.tolist() for _, test in splitter.split(bags, y)]
    assert [t.tolist() for _, t in splitter.split(y, y, bags.patient_ids)] == expected


def test_split_takes_labels_of_pandas_and_strings():
    bags, y = slides()
    splitter = PatientStratifiedKFold(random_state=0)
    expected = [test.tolist() for _, test in splitter.split(bags, y)]
    for labels in (pd.Series(y), np.where(y, "b", "a"), np.where(y, "b", "a").astype(object)):
        assert [test.tolist() for _, test in splitter.split(bags, labels)] == expected


def test_split_bags_without_patient_are_their_own():
    bags, y = bags_of([None] * 10), np.arange(10) % 2
    tests = [test for _, test in PatientStratifiedKFold(5, random_state=0).split(bags, y)]
    assert [sorted(y[test]) for test in tests] == [[0, 1]] * 5


def test_split_three_gives_the_parts_of_the_paper():
    bags = bags_of([f"P{i}" for i in range(200) for _ in range(1 + i % 3)])
    y = np.array([int(p[1:]) % 4 == 0 for p in bags.patient_ids])
    label_of = dict(zip(bags.patient_ids, y, strict=True))
    for split in PatientStratifiedKFold(random_state=1).split_three(bags, y):
        patients = [patients_in(bags, part) for part in split]
        assert [len(p) for p in patients] == [140, 20, 40]
        assert [sum(label_of[p] for p in part) for part in patients] == [35, 5, 10]


def test_split_three_keeps_given_groups_whole():
    bags, y = slides(60)
    sites = np.array([int(p[1:]) // 4 for p in bags.patient_ids])
    for train, valid, test in PatientStratifiedKFold(3, random_state=0).split_three(bags, y, sites):
        parts = [set(sites[part]) for part in (train, valid, test)]
        assert sum(len(part) for part in parts) == len(set.union(*parts)) == 15


def test_split_three_of_too_few_patients_raises_naming_class_and_counts():
    bags, y = bags_of("ABCDEF"), [0, 0, 0, 0, 1, 1]
    said = r"Class 1 has 1 patients, too few for both .* validation part of fold 0.*\{0: 2, 1: 1\}"
    with pytest.raises(ValueError, match=said):
        list(PatientStratifiedKFold(2, random_state=0).split_three(bags, y))


@pytest.mark.parametrize(
    ("y", "n_splits", "said"),
    [
        ([0, 1] * 3 + [0] * 6, 3, "Class 1 has 0 patients.* name the column of slides as patient"),
        ([1] * 2 + [0] * 10, 2, "Class 1 has 1 patients.* or add patients who have it"),
        ([1] * 4 + [0] * 8, 3, "Class 1 has 2 patients.* Use at most 2 folds"),
    ],
)
def test_advice_about_a_rare_class_is_one_that_helps(y, n_splits, said):
    with pytest.raises(ValueError, match=said):
        next(PatientStratifiedKFold(n_splits).split(bags_of("AABBCCDDEEFF"), y))


def test_split_of_a_rare_class_raises_naming_class_and_counts():
    bags = bags_of("AABBCCDDEEFF")
    y = ["pos" if p in "AB" else "neg" for p in bags.patient_ids]
    said = r"Class 'pos' has 2 patients, too few for n_splits=3.*\{'neg': 4, 'pos': 2\}"
    with pytest.raises(ValueError, match=said):
        next(PatientStratifiedKFold(3).split(bags, y))


def test_split_of_a_class_that_no_patient_mostly_has_raises():
    bags, y = bags_of("AAABBC"), [0, 0, 1, 0, 0, 0]
    with pytest.raises(ValueError, match=r"Class 1 has 0 patients.*label of most of its bags"):
        next(PatientStratifiedKFold(2).split(bags, y))


def test_split_of_a_class_in_too_few_groups_raises_naming_them():
    bags, y = bags_of("ABCDEFGH"), [1, 1, 1, 0, 0, 0, 0, 0]
    with pytest.raises(
        ValueError, match=r"Class 1 has 3 patients in 1 groups, too few for n_splits"
    ):
        next(PatientStratifiedKFold(2).split(bags, y, groups=list("xxxyyzzz")))


def test_split_that_leaves_a_class_out_of_a_test_part_warns():
    splitter = PatientStratifiedKFold(2, shuffle=False)
    with pytest.warns(UserWarning, match=r"test part of fold \d has no patient of class '1'"):
        list(splitter.split(bags_of("ABCD"), [1, 0, 1, 0], groups=list("xyyz")))


def test_split_by_groups_that_divide_a_patient_raises_naming_it():
    bags = bags_of("AABBCD")
    said = r"2 patients are in several groups: 'A', 'B'\..*would leak"
    with pytest.raises(LeakageError, match=said):
        next(PatientStratifiedKFold(2).split(bags, [0, 0, 1, 1, 0, 1], groups=[0, 1, 2, 3, 4, 5]))


@pytest.mark.parametrize(
    ("X", "y", "groups", "said"),
    [
        (bags_of("ABCD"), None, None, "y is None"),
        (bags_of("ABCD"), [0, 1, np.nan, 1], None, "1 labels are missing, the first for bag 2"),
        (bags_of("ABCD"), [0.5, 1.1, 2.7, 3.2], None, "continuous"),
        (bags_of("ABCD"), [0, 1, 0], None, "inconsistent numbers of samples"),
        (bags_of("ABCD"), [0, 1, 0, 1], ["a", None, "b", "c"], "1 groups are missing.*bag 1"),
        (bags_of("ABCD"), [0, 1, 0, 1], ["a", "b"], "inconsistent numbers of samples"),
        (np.ones((4, 2)), [0, 1, 0, 1], None, "X is a ndarray, which has no patient ids"),
        (np.ones((4, 2)), [0, 1, 0, 1], [0, 1, np.nan, 2], "groups are missing.*position 2"),
        (bags_of(""), [], None, "no bags"),
    ],
)
def test_split_of_unusable_input_raises(X, y, groups, said):
    with pytest.raises(ValueError, match=said):
        next(PatientStratifiedKFold(2).split(X, y, groups))


@pytest.mark.parametrize(
    ("settings_", "said"),
    [
        ({"n_splits": 1}, "n_splits=2 or more"),
        ({"n_splits": 2.5}, "Integral"),
        ({"shuffle": False, "random_state": 0}, "random_state"),
    ],
)
def test_split_with_unusable_settings_raises(settings_, said):
    bags, y = slides()
    with pytest.raises(ValueError, match=said):
        next(PatientStratifiedKFold(**settings_).split(bags, y))


def test_splitter_shows_its_settings_and_pickles():
    splitter = PatientStratifiedKFold(3, random_state=7)
    assert repr(splitter) == "PatientStratifiedKFold(n_splits=3, random_state=7, shuffle=True)"
    assert repr(pickle.loads(pickle.dumps(splitter))) == repr(splitter)
    assert splitter.get_n_splits() == splitter.get_n_splits(None, None, None) == 3


def learnable():
    """24 bags of 12 patients, two neighbours each of one label."""
    patients = [f"P{i // 4 * 2 + i % 2}" for i in range(24)]
    return make_bags(patients=patients)


def test_cross_val_score_needs_no_groups():
    bags, y = learnable()
    scores = cross_val_score(MeanThreshold(0.6), bags, y, cv=PatientStratifiedKFold(3))
    assert len(scores) == 3
    assert scores.mean() > 0.8
    cv = PatientStratifiedKFold(3, random_state=0)
    assert cross_val_predict(MeanThreshold(0.6), bags, y, cv=cv).shape == (24,)


def test_grid_search_takes_the_patients_from_the_bags():
    bags, y = learnable()
    grid = GridSearchCV(
        MeanThreshold(), {"cut": [-9.0, 0.6, 9.0]}, cv=PatientStratifiedKFold(3, random_state=0)
    )
    assert grid.fit(bags, y).best_params_ == {"cut": 0.6}


def test_nested_search_never_scores_a_patient_it_has_seen():
    bags, y = learnable()
    cv = PatientStratifiedKFold(3, random_state=0)

    def unseen(estimator, X, y):
        assert not estimator_of(estimator).seen_ & set(X.patient_ids)
        return 1.0

    grid = GridSearchCV(
        MeanThreshold(), {"cut": [0.6, 9.0]}, cv=cv, scoring=unseen, error_score="raise"
    )
    scores = cross_val_score(grid, bags, y, cv=cv, scoring=unseen, error_score="raise")
    assert scores.tolist() == [1.0] * 3
    mixed = KFold(3, shuffle=True, random_state=0)
    with pytest.raises(AssertionError):
        cross_val_score(grid, bags, y, cv=mixed, scoring=unseen, error_score="raise")


def estimator_of(search):
    return getattr(search, "best_estimator_", search)


def test_nested_search_with_routing_passes_sites_to_both_levels():
    bags, y = learnable()
    sites = np.array([p in ("P0", "P1", "P2", "P3") for p in bags.patient_ids]).astype(int)
    sites[np.isin(bags.patient_ids, ["P4", "P5"])] = 2
    sites[np.isin(bags.patient_ids, ["P8", "P9"])] = 3
    seen = []

    class Recording(PatientStratifiedKFold):
        def split(self, X, y=None, groups=None):
            seen.append((len(X), None if groups is None else set(groups)))
            return super().split(X, y, groups)

    with sklearn.config_context(enable_metadata_routing=True):
        grid = GridSearchCV(MeanThreshold(), {"cut": [0.6, 9.0]}, cv=Recording(2, random_state=0))
        cross_val_score(grid, bags, y, cv=Recording(2, random_state=0), params={"groups": sites})
        without = cross_val_score(grid, bags, y, cv=Recording(2, random_state=0))
    assert len(without) == 2
    assert seen[0] == (24, {0, 1, 2, 3})
    assert all(groups for _, groups in seen[1:3])
    assert not seen[1][1] & seen[2][1]
    assert all(groups is None for _, groups in seen[3:])
