"""Splits and seeds; leaks are refused."""

import numpy as np
import pytest
from sklearn.model_selection import KFold, ShuffleSplit, StratifiedGroupKFold, StratifiedKFold

from sk_momkd import PatientStratifiedKFold
from sk_momkd.evaluation.study import as_study, make_plan
from sk_momkd.exceptions import LeakageError


@pytest.fixture
def study(noisy_cohort):
    return as_study(*noisy_cohort[:2])


def patients_tested(study, folds):
    return np.sort(np.concatenate([study.patients_at(test) for _, test in folds])).tolist()


def test_plan_tests_each_patient_once_in_each_repeat(study):
    plan = make_plan(study, 4, 3, 0)
    assert [len(folds) for folds in plan.splits] == [4, 4, 4]
    for folds in plan.splits:
        assert patients_tested(study, folds) == list(range(40))
    first, second = (folds[0][1].tolist() for folds in plan.splits[:2])
    assert first != second
    assert len({seed for seeds in plan.seeds for seed in seeds}) == 12


def test_plan_of_the_same_random_state_is_the_same(study):
    one, other = make_plan(study, 4, 2, 7), make_plan(study, 4, 2, 7)
    assert one.seeds == other.seeds
    assert str(one.splits) == str(other.splits)
    assert make_plan(study, 4, 2, 8).seeds != one.seeds


def test_sites_stay_whole_in_the_folds(noisy_cohort):
    bags, y, sites = noisy_cohort
    study = as_study(bags, y, groups=sites)
    for train, test in make_plan(study, 4, 1, 0).splits[0]:
        assert not set(study.groups[train]) & set(study.groups[test])


def test_given_splits_refer_to_the_order_that_came(noisy_cohort):
    bags, y, _ = noisy_cohort
    order = np.random.default_rng(0).permutation(len(y))
    given = list(PatientStratifiedKFold(4, random_state=0).split(bags[order], y[order]))
    study = as_study(bags[order], y[order])
    for (_, test), (_, ours) in zip(given, make_plan(study, given, 2, 0).splits[1], strict=True):
        assert set(study.bags[ours].ids) == set(bags[order][test].ids)


def test_splitter_that_shuffles_is_shuffled_anew_in_repeats(study):
    cv = StratifiedGroupKFold(4, shuffle=True, random_state=0)
    one, other = make_plan(study, cv, 2, 0).splits
    assert [t.tolist() for _, t in one] != [t.tolist() for _, t in other]
    assert cv.random_state == 0


@pytest.mark.parametrize("cv", [KFold(7), StratifiedKFold(4, shuffle=True, random_state=0)])
def test_splitter_that_parts_a_patient_raises(study, cv):
    with pytest.raises(LeakageError, match="on both sides"):
        make_plan(study, cv, 1, 0)


def test_given_split_that_parts_a_patient_raises_and_names_it(noisy_cohort):
    bags, y, _ = noisy_cohort
    slides = {name: i for i, name in enumerate(bags.ids)}
    train = [i for name, i in slides.items() if name != "P01-0" and i > 20]
    test = [slides["P01-0"], *range(5, 20)]
    with pytest.raises(LeakageError, match="P01"):
        make_plan(as_study(bags, y), [([*train, slides["P01-1"]], test)], 1, 0)


def test_sites_that_are_split_warn(noisy_cohort):
    bags, y, sites = noisy_cohort
    given = list(PatientStratifiedKFold(2, random_state=0).split(bags, y))
    with pytest.warns(UserWarning, match="groups on both sides"):
        make_plan(as_study(bags, y, groups=sites), given, 1, 0)


@pytest.mark.parametrize(
    ("cv", "n_repeats", "random_state", "said"),
    [
        (4, 0, 0, "n_repeats"),
        (4, 1, None, "random_state"),
        (3.5, 1, 0, "cv must be"),
        ([], 1, 0, "at least one"),
        ([([0], [5], [9])], 1, 0, "three parts"),
        ([([], [1, 2])], 1, 0, "empty side"),
        ([([0], [9]), ([3], [9])], 1, 0, "tested in several splits"),
        (ShuffleSplit(40, test_size=1), 1, 0, "several splits|on both sides"),
    ],
)
def test_unusable_plan_says_why(study, cv, n_repeats, random_state, said):
    with pytest.raises(ValueError, match=said):
        make_plan(study, cv, n_repeats, random_state)


@pytest.mark.parametrize(
    "part", [np.arange(30.0), np.arange(30, 70), [f"P{i}" for i in range(30)], [True] * 30]
)
def test_plan_of_a_part_without_positions_says_what_was_expected(study, part):
    with pytest.raises(ValueError, match="expected positions of 60 bags, from 0 to 59"):
        make_plan(study, [(part, np.arange(30, 40))], 1, 0)
