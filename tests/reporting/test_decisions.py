"""Net benefit by hand, and confusion matrices."""

import numpy as np
import pytest

from sk_momkd import (
    ConfusionDisplay,
    DecisionCurveDisplay,
)
from sk_momkd.reporting.displays.decisions import net_benefit


def test_decision_curve_by_hand_and_its_marks():
    positive = np.array([True, True, False, False])
    proba = np.array([0.9, 0.4, 0.6, 0.1])
    found = net_benefit(positive, proba, np.array([0.2, 0.5, 0.8]))
    np.testing.assert_allclose(found, [2 / 4 - 1 / 4 * 0.25, 1 / 4 - 1 / 4, 1 / 4])


def test_decision_curve_of_all_crosses_zero_at_the_share_of_positives(demo):
    display = DecisionCurveDisplay.from_result(demo.result)
    crossing = display.thresholds[np.argmin(np.abs(display.everyone))]
    assert crossing == pytest.approx(0.5, abs=0.011)
    assert set(display.chosen) == set(demo.result.folds["threshold"])


def test_decision_curve_of_three_classes_is_refused(three_classes):
    with pytest.raises(ValueError, match="needs two classes, but the result has 3"):
        DecisionCurveDisplay.from_result(three_classes)


def test_confusion_counts_are_the_decisions_of_predict(demo, three_classes):
    counts = ConfusionDisplay.from_result(demo.result).counts
    table = demo.result.predictions
    right = (table["y"] == table["predicted"]).sum() / 2  # repeats
    assert counts.trace() == right
    assert counts.sum() == 20
    untuned = ConfusionDisplay.from_result(three_classes)
    assert untuned.note == "most probable class"
    assert untuned.counts.sum() == 36
