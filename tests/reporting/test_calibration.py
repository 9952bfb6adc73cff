"""The calibration curve holds all patients and gives the calibration error."""

import numpy as np
import pytest

from sk_momkd import (
    ReliabilityDisplay,
)
from sk_momkd.reporting.repeat_predictions import predictions_by_repeat


def test_reliability_bins_hold_all_patients_and_give_the_calibration_error(demo):
    display = ReliabilityDisplay.from_result(demo.result)
    assert display.count.sum() == 20
    one = evaluate_first_repeat(demo.result)
    gap = np.abs(one.predicted - one.observed) @ one.count / 20
    first = predictions_by_repeat(demo.result)[0]
    bins = np.clip((first.proba[:, 1] * 10).astype(int), 0, 9)
    excess = np.bincount(bins, first.proba[:, 1] - first.y)
    assert gap == pytest.approx(np.abs(excess).sum() / 20)


def evaluate_first_repeat(result):
    import dataclasses

    table = result.predictions
    alone = dataclasses.replace(result, predictions=table[table["repeat"] == 0])
    return ReliabilityDisplay.from_result(alone)
