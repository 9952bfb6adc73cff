"""Metrics of subgroups, against predictions written down by hand."""

import dataclasses

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


@pytest.mark.parametrize("dtype", [object, "Int64", float])
def test_numbers_keep_their_order_whatever_their_type_and_missing_ones_are_unknown(dtype):
    stages = pd.DataFrame({"stage": pd.Series([2, 10, 1, None], AGE.index, dtype=dtype)})
    table = found(evaluation(TRUE), stages)
    assert table.loc["stage"].index.tolist() == ["1", "2", "10", "unknown"]


def test_numbers_with_a_heap_at_the_lowest_are_split_above_it():
    y = ["yes", "no"] * 10
    result = evaluation(np.linspace(0.1, 0.9, 20), y=y, sites=None)
    counts = pd.DataFrame(
        {"n": [0] * 11 + list(range(1, 10))}, index=[f"P{i:02d}" for i in range(20)]
    )
    assert found(result, counts).loc["n", "n_patients"].to_dict() == {"<= 0": 11, "> 0": 9}


def test_ids_that_are_numbers_are_found():
    result = evaluation(TRUE)
    numbered = AGE.set_axis([0, 1, 2, 3])
    numbers = result.predictions["patient_id"].str[1:].astype(int)
    predictions = result.predictions.assign(patient_id=numbers)
    table = found(dataclasses.replace(result, predictions=predictions), numbered)
    assert table.loc[("sex", "f"), "n_patients"] == 2


def test_repeat_that_lacks_patients_counts_those_it_has():
    result = evaluation(TRUE, AGAIN)
    table = result.predictions
    fewer = table[(table["repeat"] == 0) | (table["patient_id"] != "P0")]
    row = found(dataclasses.replace(result, predictions=fewer), AGE).loc[("sex", "f")]
    assert row["n_patients"] == 2
    assert row["auroc"] == 1.0  # of the first repeat; the second has one class only


@pytest.mark.parametrize("wrong", [AGE["sex"], AGE.to_dict()])
def test_something_else_than_a_frame_is_refused(wrong):
    with pytest.raises(TypeError, match=r"must be a DataFrame .* got (Series|dict)"):
        subgroup_metrics(evaluation(TRUE), wrong)


def test_something_else_than_a_result_is_refused():
    with pytest.raises(TypeError, match="got list"):
        subgroup_metrics([], AGE)
