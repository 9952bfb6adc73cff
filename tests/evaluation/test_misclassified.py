"""Misclassified patients, against predictions written down by hand."""

import numpy as np
import pandas as pd
import pytest

from sk_momkd import Bag, BagSequence, misclassified_patients
from sk_momkd.evaluation.evaluation_tables import build_evaluation
from sk_momkd.evaluation.fold_results import FoldResult
from sk_momkd.evaluation.statistics import Bootstrap
from sk_momkd.evaluation.study import as_study

Y = ["yes", "yes", "no", "no"]  # "yes" sorts last and is the positive class
TRUE = [0.9, 0.4, 0.3, 0.6]  # probability of the true class, first repeat
AGAIN = [0.8, 0.7, 0.1, 0.6]


def evaluation(*repeats, y=Y, threshold=np.nan, sites="AABB", name="LR", n_draws=5):
    """An evaluation with these probabilities of the true classes, one fold per repeat."""
    ids = [f"P{i:0{len(str(len(y) - 1))}d}" for i in range(len(y))]  # sorted
    bags = BagSequence(Bag(np.ones((2, 3)), patient_id=i) for i in ids)
    study = as_study(bags, y, groups=list(sites) if sites else None)
    folds, everyone = [], np.arange(len(y))
    for i, true in enumerate(repeats):
        positive = np.where(np.array(y) == "yes", true, 1 - np.array(true))
        proba = np.stack([1 - positive, positive], axis=1)
        one = np.ones(len(y), dtype=int)
        folds.append(FoldResult(i, 0, everyone, everyone, proba, one, threshold, 0.0, 0.0))
    return build_evaluation(name, study, folds, Bootstrap(n_draws, 0.95, 0))


def test_misclassified_patients_are_ordered_by_how_often_and_how_clearly_they_are_wrong():
    found = misclassified_patients(evaluation(TRUE, AGAIN))
    assert found.patients["patient_id"].to_list() == ["P2", "P1"]
    assert found.patients["n_wrong"].to_list() == [2, 1]
    np.testing.assert_allclose(found.patients["p_true"], [0.2, 0.55])
    np.testing.assert_allclose(found.patients["margin"], [-0.6, 0.1])
    assert found.patients["group"].to_list() == ["B", "A"]
    assert str(found).startswith(
        "LR: 2 of 4 patients misclassified in at least one of 2 repeats, 1 in all of them"
    )


def test_misclassified_tables_count_every_patient():
    found = misclassified_patients(evaluation(TRUE, AGAIN))
    assert found.agreement["n_patients"].to_dict() == {"always": 1, "sometimes": 1, "never": 2}
    assert found.agreement[["n_no", "n_yes"]].sum().to_list() == [2, 2]
    assert found.sites.loc["B"].to_list() == [2, 1, 0.5]
    assert found.sites.loc["A", "wrong"] == 0.25


def test_misclassified_at_the_threshold_of_the_models():
    found = misclassified_patients(evaluation(TRUE, threshold=0.35), tuned=True)
    # P2 and P3 are negatives with positive probabilities .7 and .4
    assert found.patients["patient_id"].to_list() == ["P2", "P3"]
    np.testing.assert_allclose(found.patients["margin"], [-0.35, -0.05])
    assert "2 of 4 patients misclassified out of fold" in found.headline


def test_misclassified_at_thresholds_that_do_not_exist_raises():
    with pytest.raises(ValueError, match="LR has folds without a threshold"):
        misclassified_patients(evaluation(TRUE), tuned=True)


def test_other_evaluations_say_whether_they_are_wrong_too():
    other = evaluation([0.9, 0.2, 0.8], [0.9, 0.9, 0.8], y=Y[:3], sites="AAB", name="omics")
    found = misclassified_patients(evaluation(TRUE, sites=None), others={"omics": other})
    rows = found.patients.set_index("patient_id")
    of_omics = rows.loc[["P1", "P2"], ["p_true_omics", "wrong_omics"]]
    np.testing.assert_allclose(of_omics, [[0.55, 0.5], [0.8, 0]])
    assert found.agreement.loc["always", "wrong_omics"] == 0.25
    assert found.agreement.loc["never", "p_true_omics"] == pytest.approx(0.9)  # P3 is not there
    assert found.sites is None


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (["yes", "no", "no", "no"], "Patient 'P1' is 'no' in 'omics' and 'yes' in LR"),
        (["yes", "yes", "other", "other"], "'omics' was evaluated on the classes"),
    ],
)
def test_other_evaluations_of_other_labels_are_refused(y, message):
    other = evaluation(TRUE, y=y)
    with pytest.raises(ValueError, match=message):
        misclassified_patients(evaluation(TRUE), others={"omics": other})


def test_misclassified_patients_are_written_as_files(tmp_path):
    misclassified_patients(evaluation(TRUE, AGAIN)).to_csv(tmp_path)
    assert len(pd.read_csv(tmp_path / "patients.csv")) == 2
    assert pd.read_csv(tmp_path / "agreement.csv")["wrong"].to_list() == [
        "always",
        "sometimes",
        "never",
    ]
