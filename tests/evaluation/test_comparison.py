"""`compare`: the same folds, seeds and patients for all."""

import time

import numpy as np
import pytest
from conftest import make_bags, make_omics, quick_classifier
from sklearn.dummy import DummyClassifier

from sk_momkd.evaluation.comparison import compare
from sk_momkd.evaluation.statistics import delong_test, holm

FEW = {"cv": 3, "n_bootstrap": 100}


def test_estimator_against_itself_differs_by_exactly_zero():
    bags, y = make_bags(24)
    clf = quick_classifier(max_epochs=2)
    sites = np.array([f"s{i // 2 % 6}" for i in range(24)])
    result = compare({"a": clf, "b": clf}, bags, y, groups=sites, n_repeats=2, **FEW)
    row = result.differences.loc["b"]
    zero = [c for c in row.index if "auroc" in c or "low" in c or "high" in c]
    assert len(zero) == 10
    assert (row[zero] == 0).all()
    assert (row["p_delong"], row["wins"], row["ties"], row["losses"]) == (1, 0, 6, 0)


def test_differences_are_those_of_the_tables(noisy_cohort, pooled_lr):
    bags, y, sites = noisy_cohort
    methods = {"guess": DummyClassifier(), "lr": pooled_lr, "again": pooled_lr}
    result = compare(methods, bags, y, groups=sites, **FEW)
    assert result.reference == "guess"
    assert result.differences.index.tolist() == ["lr", "again"]
    row, value = result.differences.loc["lr"], result.summary["auroc"]
    assert row["auroc"] == pytest.approx(value["lr"] - value["guess"])
    by_fold = result.folds.pivot(index="fold", columns="method", values="auroc")
    gap = by_fold["lr"] - by_fold["guess"]
    assert row["fold_auroc"] == pytest.approx(gap.mean())
    assert (row["wins"], row["losses"]) == ((gap > 0).sum(), (gap < 0).sum())
    assert row["low"] < row["auroc"] < row["high"]
    assert row["fold_low"] < row["fold_auroc"] < row["fold_high"]


def test_p_values_are_delong_and_holm(noisy_cohort, pooled_lr, recorder):
    bags, y, _ = noisy_cohort
    methods = {"lr": pooled_lr, "guess": DummyClassifier(), "same": recorder}
    result = compare(methods, bags, y, **FEW)
    wide = result.predictions.pivot(index="patient_id", columns="method", values="p_luminal")
    truth = result.predictions.groupby("patient_id")["y"].first() == "luminal"
    test = delong_test(truth, wide["guess"], wide["lr"])
    assert result.differences["p_delong"]["guess"] == pytest.approx(test.p_value)
    corrected = holm(result.differences["p_delong"])
    np.testing.assert_allclose(result.differences["p_holm"], corrected)


def test_methods_share_folds_and_draws(noisy_cohort, pooled_lr):
    bags, y, _ = noisy_cohort
    result = compare({"a": pooled_lr, "b": DummyClassifier()}, bags, y, n_repeats=2, **FEW)
    one, other = (result.evaluations[m].predictions for m in "ab")
    assert one[["repeat", "fold", "patient_id"]].equals(other[["repeat", "fold", "patient_id"]])
    assert {"summary", "differences", "folds", "predictions"} == set(result.tables())


class Hoarder(DummyClassifier):
    """Holds `mib` of memory while it fits, and none of it afterwards."""

    def __init__(self, mib=0):
        super().__init__()
        self.mib = mib

    def fit(self, X, y):
        held = np.ones((self.mib, 2**20), dtype=np.uint8)
        super().fit(X, y)
        time.sleep(0.2)  # longer than between two readings
        del held
        return self


@pytest.mark.long
def test_memory_of_a_fit_is_measured_on_request(noisy_cohort):
    bags, y, _ = noisy_cohort
    methods = {"little": Hoarder(), "much": Hoarder(200), "little again": Hoarder()}
    result = compare(methods, bags, y, measure_memory=True, **FEW)
    held = result.summary["fit_mib"]
    assert held["much"] == pytest.approx(200, abs=20)
    assert held[["little", "little again"]].max() < 20
    assert np.isfinite(result.folds["fit_mib"]).all()
    assert "fit_mib" not in compare({"little": Hoarder()}, bags, y, **FEW).summary


def test_omics_goes_to_those_that_take_it(pooled_lr, recorder):
    bags, y = make_bags(24)
    methods = {"lr": pooled_lr, "omics": recorder}
    result = compare(methods, bags, y, omics=make_omics(y), keep_models=True, **FEW)
    assert result.summary["omics"].to_dict() == {"lr": False, "omics": True}
    assert result.evaluations["omics"].models[0].received_["omics"] is not None
    with pytest.raises(TypeError, match="none of 'lr' takes omics"):
        compare({"lr": pooled_lr}, bags, y, omics=make_omics(y))


def test_three_classes_are_compared_without_delong(noisy_cohort, pooled_lr):
    bags, _, _ = noisy_cohort
    y = np.array([int(p[1:]) % 3 for p in bags.patient_ids])
    row = compare({"a": DummyClassifier(), "b": pooled_lr}, bags, y, **FEW).differences.loc["b"]
    assert np.isnan(row["p_delong"])
    assert np.isfinite(row["low"])


def test_one_method_alone_has_no_differences(noisy_cohort, pooled_lr):
    bags, y, _ = noisy_cohort
    assert compare({"a": pooled_lr}, bags, y, **FEW).differences.empty


def test_unknown_reference_is_refused(noisy_cohort, pooled_lr):
    with pytest.raises(ValueError, match="reference='b' is none of 'a'"):
        compare({"a": pooled_lr}, *noisy_cohort[:2], reference="b")
    with pytest.raises(ValueError, match="no estimator"):
        compare({}, *noisy_cohort[:2])
