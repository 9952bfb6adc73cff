import numpy as np
import pandas as pd
import pytest
from conftest import make_bags
from quick import quick

from sk_momkd import (
    evaluate,
    prediction_table,
    to_stamp,
)


@pytest.fixture(scope="module")
def abmil():
    bags, y = make_bags()
    labels = np.array(["wt", "mut"])[y]
    clf = quick("ABMILClassifier", max_epochs=2, early_stopping=False).fit(bags, labels)
    return clf, bags, labels


def test_prediction_table_has_ids_labels_and_probabilities(abmil):
    clf, bags, labels = abmil
    table = prediction_table(clf, bags, labels)
    assert list(table) == ["bag_id", "patient_id", "y", "p_mut", "p_wt", "predicted"]
    np.testing.assert_array_equal(table[["p_mut", "p_wt"]], clf.predict_proba(bags))
    assert table["predicted"].to_list() == clf.predict(bags).tolist()
    assert table["bag_id"].to_list() == list(bags.ids)


def test_stamp_table_averages_slides_and_orders_patients_by_loss(tmp_path):
    table = pd.DataFrame(
        {
            "patient_id": ["A", "B", "B", None],
            "bag_id": ["s1", "s2", "s3", "s4"],
            "y": ["mut", "wt", "wt", None],
            "p_mut": [0.1, 0.2, 0.4, 0.6],
            "p_wt": [0.9, 0.8, 0.6, 0.4],
        }
    )
    written = to_stamp(table, tmp_path / "patient-preds.csv", label="KRAS")
    expected = pd.DataFrame(
        {
            "PATIENT": ["B", "A", "s4"],
            "KRAS": ["wt", "mut", None],
            "pred": ["wt", "wt", "mut"],
            "KRAS_mut": [0.3, 0.1, 0.6],
            "KRAS_wt": [0.7, 0.9, 0.4],
            "loss": [-np.log(0.7), -np.log(0.1), np.nan],
        }
    )
    pd.testing.assert_frame_equal(written, expected, check_dtype=False)
    read = pd.read_csv(tmp_path / "patient-preds.csv")
    assert list(read) == list(expected)
    assert read["PATIENT"].to_list() == ["B", "A", "s4"]


def test_stamp_table_takes_numbers_as_labels_and_no_labels(tmp_path):
    table = pd.DataFrame({"patient_id": ["A", "B"], "p_0": [0.2, 0.9], "p_1": [0.8, 0.1]})
    written = to_stamp(table.assign(y=[1, 0]), tmp_path / "a.csv", label="HER2")
    assert written["HER2"].to_list() == ["0", "1"]
    written = to_stamp(table, tmp_path / "b.csv", label="HER2")
    assert written[["HER2", "loss"]].isna().all(axis=None)
    assert written["pred"].to_list() == ["1", "0"]


def test_stamp_table_takes_the_predictions_of_an_evaluation(abmil, tmp_path):
    clf, bags, labels = abmil
    predictions = evaluate(clf, bags, labels, cv=2, n_bootstrap=10).predictions
    written = to_stamp(predictions, tmp_path / "patient-preds.csv", label="KRAS")
    assert sorted(written["PATIENT"]) == sorted(bags.patient_ids)
    assert written["loss"].is_monotonic_increasing


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"patient_id": ["A"], "y": ["a"]}, "need the columns patient_id and p_<class>"),
        ({"patient_id": ["A", "A"], "y": ["a", "b"], "p_a": 1, "p_b": 0}, "1 patients.*'A'"),
        ({"patient_id": ["A"], "y": ["c"], "p_a": 1, "p_b": 0}, "y holds 'c'"),
        ({"patient_id": [None], "p_a": 1, "p_b": 0}, "neither a patient id nor a bag id"),
    ],
)
def test_stamp_table_that_cannot_be_made_says_why(tmp_path, table, said):
    with pytest.raises(ValueError, match=said):
        to_stamp(pd.DataFrame(table), tmp_path / "preds.csv", label="x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("label", ["PATIENT", "pred", "loss"])
def test_stamp_table_refuses_a_label_that_would_overwrite_a_column(tmp_path, label):
    table = pd.DataFrame({"patient_id": ["A"], "y": ["a"], "p_a": 1, "p_b": 0})
    with pytest.raises(ValueError, match=f"label '{label}' is the name of another column"):
        to_stamp(table, tmp_path / "preds.csv", label=label)
