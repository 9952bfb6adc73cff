"""Metrics of subgroups, against predictions written down by hand."""

import numpy as np
import pandas as pd
import pytest
from evaluation.test_misclassified import AGAIN, TRUE, evaluation

from sk_momkd import subgroup_metrics

AGE = pd.DataFrame({"sex": ["f", "m", "f", "m"]}, index=["P0", "P1", "P2", "P3"])


def found(result, subgroups):
    return subgroup_metrics(result, subgroups).set_index(["variable", "subgroup"])


def test_metrics_of_each_subgroup_are_those_of_its_patients():
    table = found(evaluation(TRUE), AGE)
    # positive probabilities: P0 .9, P1 .4 ("yes"), P2 .7, P3 .4 ("no")
    assert table.loc[("", "all patients"), "auroc"] == (2 + 0.5) / 4
    assert table.loc[("sex", "f"), ["n_patients", "n_no", "n_yes"]].tolist() == [2, 1, 1]
    assert table.loc[("sex", "f"), "auroc"] == 1.0
    assert table.loc[("sex", "m"), "auroc"] == 0.5
    assert table.loc[("sex", "f"), ["sensitivity", "specificity"]].tolist() == [1.0, 0.0]
    assert table.loc[("sex", "m"), ["sensitivity", "specificity"]].tolist() == [0.0, 1.0]


def test_metrics_are_means_over_repeats():
    one, other = (found(evaluation(p), AGE)["brier"] for p in (TRUE, AGAIN))
    both = found(evaluation(TRUE, AGAIN), AGE)["brier"]
    np.testing.assert_allclose(both, (one + other) / 2)


def test_subgroup_with_one_class_has_no_auroc_and_no_interval():
    one_class = pd.DataFrame({"arm": ["a", "a", "b", "b"]}, index=AGE.index)
    table = found(evaluation(TRUE), one_class)
    assert table.loc[("arm", "a"), ["auroc", "low", "high"]].isna().all()
    assert table.loc[("arm", "a"), "sensitivity"] == 0.5


def test_interval_of_few_patients_is_not_empty():
    row = found(evaluation(TRUE), AGE).loc[("sex", "f")]
    assert row["low"] < row["auroc"] == row["high"] == 1.0


def test_numbers_of_many_values_are_split_at_their_median():
    y = ["yes", "no"] * 6
    result = evaluation(np.linspace(0.1, 0.9, 12), y=y, sites=None)
    ages = pd.DataFrame({"age": [np.nan, *range(31, 42)]}, index=[f"P{i:02d}" for i in range(12)])
    table = found(result, ages)
    assert table.loc["age", "n_patients"].to_dict() == {"< 36": 5, ">= 36": 6, "unknown": 1}


def test_patients_without_a_row_are_unknown():
    table = found(evaluation(TRUE), AGE.drop("P3"))
    assert table.loc[("sex", "unknown"), "n_patients"] == 1


def test_index_without_patients_raises_showing_both_sides():
    with pytest.raises(ValueError, match=r"result has 'P0', .* index has '0'.*set_index"):
        subgroup_metrics(evaluation(TRUE), AGE.reset_index(drop=True))


def test_patient_with_two_rows_raises():
    with pytest.raises(ValueError, match="several rows of a patient: 'P0'"):
        subgroup_metrics(evaluation(TRUE), pd.concat([AGE, AGE.head(1)]))
