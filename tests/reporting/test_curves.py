"""ROC and precision-recall curves."""

import pytest
from sklearn.metrics import auc, roc_auc_score

from sk_momkd import (
    PRDisplay,
    ROCDisplay,
)
from sk_momkd.reporting.repeat_predictions import predictions_by_repeat


def test_roc_has_a_curve_per_repeat_with_its_area_and_the_interval(demo):
    display = ROCDisplay.from_result(demo.result)
    ((label, curves),) = display.curves.items()
    expected = [roc_auc_score(p.y, p.proba[:, 1]) for p in predictions_by_repeat(demo.result)]
    assert [c.area for c in curves] == pytest.approx(expected)
    row = demo.result.summary.loc["auroc"]
    assert label == f"AUROC {row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
    x, y = display.ax_.lines[0].get_data()
    assert auc(x, y) == pytest.approx(expected[0])


def test_roc_and_pr_of_three_classes_have_a_curve_each(three_classes):
    assert len(ROCDisplay.from_result(three_classes).curves) == 3
    labels = list(PRDisplay.from_result(three_classes).curves)
    assert [label.split(",")[0] for label in labels] == [f"{c} against the rest" for c in range(3)]
