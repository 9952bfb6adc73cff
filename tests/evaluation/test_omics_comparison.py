"""With, without and with permuted omics; what may be claimed."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import make_bags, make_omics, quick_classifier
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import FitFailedWarning

from sk_momkd import align_omics
from sk_momkd.evaluation.omics_comparison import (
    _cause,
    _power_note,
    compare_omics,
    cyclic_permutation,
    outcome_of,
    permute_omics,
    pooled_slides,
)
from sk_momkd.evaluation.study import as_study
from sk_momkd.exceptions import OmicsError


def values(table):
    return table.rows(np.arange(len(table.ids)))


@pytest.mark.parametrize("within_class", [False, True])
def test_permuted_omics_differ_for_every_patient_and_keep_their_marginals(within_class):
    bags, y = make_bags(20)
    study = as_study(bags, y, omics=make_omics(y))
    moved = permute_omics(study, np.random.default_rng(0), within_class=within_class)
    before, after = values(study.omics), values(moved)
    assert before.index.equals(after.index)
    assert (before != after).any(axis=1).all()
    for gene in before:
        np.testing.assert_array_equal(np.sort(before[gene]), np.sort(after[gene]))


def test_permutation_within_class_keeps_the_class():
    bags, y = make_bags(20)
    marked = pd.DataFrame({"label": y, "patient": np.arange(20)}, index=bags.patient_ids)
    study = as_study(bags, y, omics=marked)
    moved = values(permute_omics(study, np.random.default_rng(0), within_class=True))
    np.testing.assert_array_equal(moved["label"], y)
    assert (moved["patient"] != np.arange(20)).all()


def test_permutation_leaves_rows_of_others_alone():
    bags, y = make_bags(20)
    study = as_study(bags[:10], y[:10], omics=align_omics(make_omics(y), bags))
    moved = values(permute_omics(study, np.random.default_rng(0)))
    before = values(study.omics)
    assert moved.iloc[10:].equals(before.iloc[10:])
    assert (moved.iloc[:10] != before.iloc[:10]).any(axis=1).all()


@pytest.mark.parametrize("n", [1, 2, 7])
def test_cyclic_permutation_visits_all(n):
    members = np.arange(n)
    source, at = cyclic_permutation(members, np.random.default_rng(n)), 0
    for _ in range(n - 1):
        at = source[at]
        assert at != 0
    assert source[at] == 0


@pytest.mark.parametrize(
    ("without", "permuted", "outcome"),
    [
        ((0.01, 0.05), (0.01, 0.05), "gain"),
        ((0.01, 0.05), (-0.01, 0.05), "unspecific"),
        ((0.01, 0.05), (np.nan, np.nan), "unspecific"),
        ((0.0, 0.05), (0.01, 0.05), "no gain shown"),
        ((-0.01, 0.05), (0.01, 0.05), "no gain shown"),
        ((np.nan, np.nan), (0.01, 0.05), "no gain shown"),
        ((-0.05, -0.01), (0.01, 0.05), "harm"),
    ],
)
def test_gain_is_claimed_only_above_none_and_above_permuted(without, permuted, outcome):
    columns = ["fold_low", "fold_high"]
    rows = {"with - without": without, "with - permuted": permuted}
    assert outcome_of(pd.DataFrame.from_dict(rows, orient="index", columns=columns)) == outcome


def test_methods_differ_in_omics_alone(recorder):
    bags, y = make_bags(24)
    result = compare_omics(recorder, bags, y, make_omics(y), cv=3, n_repeats=2, n_bootstrap=50)
    assert result.outcome == "no gain shown"  # the recorder does not use what it gets
    assert (result.differences["fold_auroc"] == 0).all()
    assert result.differences.index.tolist() == [
        "with - without",
        "with - permuted",
        "permuted - without",
    ]
    assert set(result.predictions["method"]) == {"with", "without", "permuted"}
    assert str(result).startswith("Does omics help Recorder?")
    assert "No gain shown: AUROC +0.000 [+0.000, +0.000] (95%)" in result.verdict
    assert "One seed" not in result.verdict


def test_three_fits_of_a_real_classifier_differ():
    bags, y = make_bags(20)
    clf = quick_classifier(max_epochs=2, early_stopping=False, alpha_omics=5.0)
    result = compare_omics(clf, bags, y, make_omics(y), cv=2, n_bootstrap=20)
    p = result.predictions.pivot(index="patient_id", columns="method", values="p_1")
    assert (p["with"] != p["without"]).any()
    assert (p["with"] != p["permuted"]).any()
    assert "One seed" in result.verdict


class OmicsDependent(DummyClassifier):
    """Learns from histology only if omics agrees with the labels, or only if there is any."""

    def __init__(self, any_omics=False):
        super().__init__()
        self.any_omics = any_omics

    def fit(self, X, y, omics=None):
        row = None if omics is None else omics.rows(omics.match(X)).to_numpy()[:, 0]
        self.has_learned_ = omics is not None and (
            self.any_omics or np.corrcoef(row, y)[0, 1] > 0.5
        )
        return super().fit(np.zeros((len(X), 1)), y)

    def predict_proba(self, X):
        if not self.has_learned_:
            return super().predict_proba(np.zeros((len(X), 1)))
        score = 1 / (1 + np.exp(-np.array([bag.load().features.mean() for bag in X])))
        return np.stack([1 - score, score], axis=1)


@pytest.mark.parametrize(
    ("any_omics", "outcome", "said"),
    [
        (False, "gain", "Omics helped"),
        (True, "unspecific", "not shown to come from the patients' own omics"),
    ],
)
def test_verdict_tells_a_gain_of_omics_from_a_gain_of_training(any_omics, outcome, said):
    bags, y = make_bags(40)
    classifier = OmicsDependent(any_omics)
    result = compare_omics(classifier, bags, y, make_omics(y), cv=2, n_bootstrap=100)
    assert result.outcome == outcome
    assert said in result.verdict


def test_estimator_without_omics_is_refused(pooled_lr):
    bags, y = make_bags(12)
    with pytest.raises(TypeError, match="is not trained with omics"):
        compare_omics(pooled_lr, bags, y, make_omics(y))


def test_comparison_without_omics_names_what_is_missing():
    bags, y = make_bags(12)
    with pytest.raises(ValueError, match="compare_omics needs omics"):
        compare_omics(OmicsDependent(any_omics=True), bags, y, None)


def test_gain_that_would_be_found_follows_from_the_width_of_the_interval():
    differences = pd.DataFrame(
        {"fold_low": [-0.02], "fold_high": [0.034], "correlation": [0.973]},
        index=["with - without"],
    )
    y = np.arange(200) % 2
    patients = SimpleNamespace(patients=np.arange(200), y=y)
    evaluation = SimpleNamespace(repeats=[patients], classes=(0, 1))
    note = _power_note(differences, evaluation, 0.95)
    assert f"about {0.027 * (1.95996 + 0.84162) / 1.95996:.3f} to be found" in note  # 0.039
    wide = _power_note(differences.assign(fold_high=0.088), evaluation, 0.95)
    assert f"about {0.054 * (1.95996 + 0.84162) / 1.95996:.3f} to be found" in wide
    assert _power_note(differences, evaluation, 0.9) != note  # the same interval, said with less
    # A fold of the first repeat failed: its patients are in the second, and are counted once.
    few = SimpleNamespace(patients=np.arange(30), y=y[:30])
    failed = SimpleNamespace(repeats=[few, patients], classes=(0, 1))
    assert _power_note(differences, failed, 0.95) == note
    assert _power_note(differences, SimpleNamespace(repeats=[few], classes=(0, 1)), 0.95) != note


class NeedsPairs(OmicsDependent):
    def fit(self, X, y, omics=None):
        if omics is not None and (omics.match(X) >= 0).sum() < 3:
            raise OmicsError("Too few patients with omics")
        return super().fit(X, y, omics)


def test_fold_with_too_few_paired_patients_is_named_and_left_out():
    bags, y = make_bags(24)
    halves = [(np.arange(12, 24), np.arange(12)), (np.arange(12), np.arange(12, 24))]
    omics = make_omics(y).iloc[[*range(12), 12, 13]]
    few = {"cv": halves, "n_bootstrap": 20}
    with pytest.warns(FitFailedWarning, match=r"12 training patients.*2 of them with omics"):
        result = compare_omics(NeedsPairs(), bags, y, omics, **few)
    assert "1 of 2 folds of with failed" in result.note
    assert "1 of 2 folds of permuted failed" in str(result)
    with pytest.raises(OmicsError) as caught:
        compare_omics(NeedsPairs(), bags, y, omics, error_score="raise", **few)
    assert "fold 0 (repeat 0)" in caught.value.__notes__[0]
    assert caught.value.__notes__[1] == "This was method 'with'."


def test_self_distillation_gives_the_pooled_slides_of_the_patients_with_omics():
    bags, y = make_bags(12)
    study = as_study(bags, y, omics=make_omics(y).iloc[:8])
    table = pooled_slides(study)
    assert table.ids.tolist() == [f"P{i:02d}" for i in range(8)]
    assert table.rows(np.array([3])).to_numpy()[0, :6] == pytest.approx(
        bags[3].load().features.mean(axis=0), rel=1e-5
    )


def test_self_distillation_is_a_fourth_row_and_the_cause_is_open_where_slides_help_as_much():
    bags, y = make_bags(40)  # their first feature follows the label
    known = (OmicsDependent(), bags, y, make_omics(y))
    result = compare_omics(*known, self_distillation=True, cv=2, n_bootstrap=100)
    assert result.summary.index.tolist() == ["with", "without", "permuted", "self-distillation"]
    assert "with - self-distillation" in result.differences.index
    assert "The cause is open" in result.verdict


def test_cause_is_omics_where_slides_in_its_place_help_less():
    row = {"fold_auroc": 0.03, "fold_low": 0.01, "fold_high": 0.05}
    table = pd.DataFrame.from_dict({"with - self-distillation": row}, orient="index")
    assert "what omics knows beyond the slide: AUROC +0.030" in _cause(table, 0.95)
