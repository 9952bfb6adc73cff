"""A Series with the ids of the bags is joined by id or refused; others are in their order."""

import numpy as np
import pandas as pd
import pytest

from sk_momkd import (
    ABMILClassifier,
    Bag,
    BagSequence,
    PatientStratifiedKFold,
    patient_labels,
    prediction_table,
)
from sk_momkd.data.bag_order import in_bag_order
from sk_momkd.data.validation import encode_labels
from sk_momkd.evaluation.study import as_study
from sk_momkd.exceptions import BagError, CohortError

N = 8
Y = np.arange(N) % 2
SLIDES, PATIENTS = [f"S{i}" for i in range(N)], [f"P{i}" for i in range(N)]
BAGS = BagSequence(
    Bag(np.full((2, 3), i), bag_id=s, patient_id=p)
    for i, (s, p) in enumerate(zip(SLIDES, PATIENTS, strict=True))
)
ORDER = np.array([3, 0, 7, 1, 2, 6, 4, 5])


def by_fit(y, bags=BAGS):
    return encode_labels(ABMILClassifier(), y, bags).numbers


def by_splitter(y, bags=BAGS):
    splits = PatientStratifiedKFold(2, random_state=0).split_three(bags, y)
    expected = PatientStratifiedKFold(2, random_state=0).split_three(bags, Y)
    assert all(np.array_equal(a, b) for s, e in zip(splits, expected, strict=True)
               for a, b in zip(s, e, strict=True))  # fmt: skip
    return Y


def by_evaluate(y, bags=BAGS):
    study = as_study(bags, y)
    return study.y[np.argsort(study.order)]


ENTRIES = [by_fit, by_splitter, by_evaluate, lambda y, bags=BAGS: patient_labels(bags, y)]


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("ids", [SLIDES, PATIENTS, [f" {s}.svs" for s in SLIDES]])
def test_series_in_another_order_is_joined_by_id(entry, ids):
    shuffled = pd.Series(Y[ORDER], index=[ids[i] for i in ORDER])
    assert entry(shuffled).tolist() == Y.tolist()
    assert entry(shuffled.to_frame("label")).tolist() == Y.tolist()


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("index", [None, ORDER, [f"row{i}" for i in ORDER]])
def test_series_without_ids_is_in_the_order_of_the_bags(entry, index):
    assert entry(pd.Series(Y, index=index)).tolist() == Y.tolist()


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(
    ("index", "said"),
    [
        ([*SLIDES[1:], "S9"], r"no entry for 'S0'; entries for 'S9'.*y\.loc\[bags\.ids\]"),
        ([*SLIDES[:-1], "S0"], "no entry for 'S7'; several entries for 'S0'"),
    ],
)
def test_series_with_ids_of_some_bags_raises_naming_them(entry, index, said):
    with pytest.raises(CohortError, match=said):
        entry(pd.Series(Y, index=index))


def test_groups_with_ids_are_joined_too():
    sites = pd.Series([f"site{i // 4}" for i in ORDER], index=[SLIDES[i] for i in ORDER])
    study = as_study(BAGS, Y, groups=sites)
    assert study.groups[np.argsort(study.order)].tolist() == ["site0"] * 4 + ["site1"] * 4


def test_slices_of_scikit_learn_keep_the_order():
    y = pd.Series(Y, index=SLIDES)
    assert by_fit(y.iloc[ORDER], BAGS[ORDER]).tolist() == Y[ORDER].tolist()
    bootstrap = np.array([0, 0, 3, 5])
    assert in_bag_order(y.iloc[bootstrap], BAGS[bootstrap], "y").tolist() == Y[bootstrap].tolist()


def test_numbers_that_are_ids_and_row_numbers_raise_unless_named():
    bags = BagSequence(Bag(np.ones((1, 2)), bag_id=i) for i in range(N))
    y = pd.Series(Y).iloc[ORDER]
    with pytest.raises(CohortError, match=r"may also be row numbers.*y\.rename_axis.*to_numpy"):
        in_bag_order(y, bags, "y")
    assert in_bag_order(y.rename_axis("slide"), bags, "y").tolist() == Y.tolist()
    assert in_bag_order(pd.Series(Y), bags[ORDER], "y").tolist() == Y.tolist()


def test_masked_labels_are_missing_not_the_fill_value():
    y = np.ma.masked_array(Y, mask=[True] + [False] * (N - 1), fill_value=1)
    with pytest.raises(ValueError, match=r"1 labels are missing.*'S0'"):
        by_fit(y)
    assert by_fit(np.ma.masked_array(Y, mask=False)).tolist() == Y.tolist()


def test_masked_features_raise_naming_the_bag():
    features = np.ma.masked_array(np.ones((2, 3)), mask=[[True, False, False], [False] * 3])
    with pytest.raises(BagError, match="bag 'S1': 1 NaN"):
        Bag(features, bag_id="S1").load()
    integers = np.ma.masked_array(np.ones((2, 3), int), mask=True)
    with pytest.raises(BagError, match="bag 'S1': 6 NaN"):
        Bag(integers, bag_id="S1").load()


class Constant:
    """Gives each bag its number as score."""

    classes_ = np.array(["low", "high"])

    def predict_proba(self, bags):
        p = np.array([bag.features[0, 0] / 10 for bag in bags])
        return np.stack([1 - p, p], axis=1)


def test_prediction_table_per_patient_is_the_mean_over_slides():
    patients = ["B", "A", "B", None]
    bags = BagSequence(
        Bag(np.full((1, 1), i), bag_id=f"S{i}", patient_id=p) for i, p in enumerate(patients)
    )
    table = prediction_table(Constant(), bags, unit="patient")
    assert table["patient_id"].tolist() == ["B", "A", "bag 'S3'"]
    assert table["n_bags"].tolist() == [2, 1, 1]
    np.testing.assert_allclose(table["p_high"], [0.1, 0.1, 0.3], rtol=1e-5)
    assert "y" not in table
    y = ["high", "low", "high", "low"]
    assert prediction_table(Constant(), bags, y, unit="patient")["y"].tolist() == [*y[:2], "low"]
    with pytest.raises(CohortError, match="different labels: 'B'"):
        prediction_table(Constant(), bags, ["high", "low", "low", "low"], unit="patient")
    with pytest.raises(ValueError, match="unit must be"):
        prediction_table(Constant(), bags, unit="slide")


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(
    ("y", "said"),
    [
        (["1", 1] * 4, r"several types, such as '1' \(str\) and 1 \(int\)"),
        (np.array(["1", 0] * 4, dtype=object), r"such as '1' \(str\) and 0 \(int\)"),
        (dict(zip(SLIDES, Y, strict=True)), "y is a dict, expected a sequence"),
        (set(Y.tolist()), "y is a set"),
        ((v for v in Y), "y is a generator"),
    ],
    ids=["mixed", "objects", "dict", "set", "generator"],
)
def test_labels_that_are_no_sequence_of_one_type_raise(entry, y, said):
    y = (v for v in Y) if "generator" in said else y  # a new one for each entry
    with pytest.raises(ValueError, match=said):
        entry(y)


@pytest.mark.parametrize("entry", ENTRIES)
def test_series_of_patients_for_bags_of_slides_names_the_remedy(entry):
    bags = BagSequence(Bag(np.full((2, 3), i), bag_id=f"S{i}", patient_id=f"P{i // 2}")
                       for i in range(N))  # fmt: skip
    of_patients = pd.Series([0, 1, 0, 1], index=["P0", "P1", "P2", "P3"])
    with pytest.raises(CohortError, match=r"4 entries for 8 bags.*y\.loc\[bags\.patient_ids\]"):
        entry(of_patients, bags)


def test_score_joins_labels_by_id():
    bags = BagSequence(Bag(np.eye(2) + i, bag_id=s) for i, s in enumerate(SLIDES))
    clf = ABMILClassifier(dim=4, attention_dim=2, max_epochs=1, early_stopping=False)
    clf.set_params(random_state=0).fit(bags, Y)
    predicted = clf.predict(bags)
    shuffled = pd.Series(predicted[ORDER], index=[SLIDES[i] for i in ORDER])
    assert clf.score(bags, shuffled) == 1
    weight = (predicted == Y).astype(float)
    assert clf.score(bags, Y, sample_weight=weight) == 1
