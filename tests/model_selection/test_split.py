"""A patient stands on one side, and every class on both."""

import numpy as np
import pytest
from sklearn.model_selection import KFold, StratifiedGroupKFold

from sk_momkd import Bag, BagSequence, check_leakage
from sk_momkd.exceptions import LeakageError
from sk_momkd.model_selection.split import stratified_group_split

PATIENTS = np.repeat(np.arange(20), 3)
LABELS = PATIENTS % 2


def bags_of(patients):
    return BagSequence(Bag(np.ones((1, 2)), patient_id=p) for p in patients)


def split(y, groups, fraction=0.2, seed=0):
    random = np.random.RandomState(seed)
    y, groups = np.asarray(y), np.asarray(groups)
    return stratified_group_split(y, groups, fraction=fraction, random_state=random)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ([0, 1], [2, 3]),
        (np.array([True, True, False, False]), np.array([False, False, True, True])),
        ([], [0, 1, 2, 3]),
    ],
)
def test_check_leakage_whole_patients_pass(train, test):
    assert check_leakage([(train, test)], bags_of("AABB")) is None


def test_check_leakage_torn_patients_raise_naming_split_and_patients():
    splits = [([0, 1], [2, 3, 4]), ([0, 2], [1, 3, 4])]
    said = r"Split 1 has 2 patients on both sides: 'A', 'B'\. .*StratifiedGroupKFold"
    with pytest.raises(LeakageError, match=said):
        check_leakage(splits, bags_of("AABBC"))


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
    bags = bags_of(PATIENTS)
    grouped = StratifiedGroupKFold(4).split(LABELS, LABELS, bags.patient_ids)
    assert check_leakage(grouped, bags) is None
    with pytest.raises(LeakageError, match="Split 0"):
        check_leakage(KFold(4, shuffle=True, random_state=0).split(LABELS), bags)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_split_keeps_groups_whole_and_classes_on_both_sides(seed, fraction):
    train, valid = split(LABELS, PATIENTS, fraction, seed)
    assert sorted(np.concatenate([train, valid])) == list(range(60))
    assert not set(PATIENTS[train]) & set(PATIENTS[valid])
    assert set(LABELS[train]) == set(LABELS[valid]) == {0, 1}
    assert len(valid) == pytest.approx(60 * fraction, abs=3)


def test_split_without_repeated_groups_is_stratified():
    y = np.array([0] * 40 + [1] * 10)
    _, valid = split(y, np.arange(50))
    assert np.bincount(y[valid]).tolist() == [8, 2]


@pytest.mark.parametrize("groups", [PATIENTS, np.arange(60)], ids=["grouped", "single"])
def test_split_is_seeded(groups):
    first, again, other = (split(LABELS, groups, seed=seed)[1] for seed in (3, 3, 4))
    assert first.tolist() == again.tolist() != other.tolist()


def test_split_rare_class_gets_fewer_folds():
    y = np.array([0] * 30 + [1, 1, 1])
    train, valid = split(y, np.arange(33), fraction=0.05)
    assert np.bincount(y[valid]).tolist() == [10, 1]
    assert np.bincount(y[train]).tolist() == [20, 2]


def test_split_patients_of_several_classes_stay_whole():
    groups, y = np.repeat(np.arange(10), 2), np.tile([0, 1], 10)
    train, valid = split(y, groups)
    assert not set(groups[train]) & set(groups[valid])


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
    assert check_leakage([whole], bags_of("AABBC")) is None
    with pytest.raises(LeakageError, match=f"Split 1 has 1 patients on both sides of {said}"):
        check_leakage([whole, split], bags_of("AABBC"))


def test_check_leakage_of_three_parts_finds_a_bag_that_stands_twice():
    bags = [np.ones((1, 2))] * 4
    with pytest.raises(LeakageError, match="sides of train and test: 'bag 0'"):
        check_leakage([([0, 1], [2], [0, 3])], bags)
    with pytest.raises(LeakageError, match="sides of train and test: 'bag 3'"):
        check_leakage([([3], [], [-1])], bags)


def test_check_leakage_takes_empty_parts_and_masks():
    mask = np.array([True, False, False])
    assert check_leakage([(mask, np.array([]), ~mask)], bags_of("ABC")) is None


@pytest.mark.parametrize("split", [([0],), ([0], [1], [2], []), ([0, 1], 2), (0, 1)])
def test_check_leakage_of_something_else_raises(split):
    with pytest.raises(ValueError, match=r"Split 0 is no \(train, test\)"):
        check_leakage([split], bags_of("ABC"))


def test_check_leakage_of_one_split_instead_of_a_list_raises():
    with pytest.raises(ValueError, match="Split 0 is no"):
        check_leakage(([0, 1], [2]), bags_of("ABC"))
