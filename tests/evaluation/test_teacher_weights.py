"""Weights of the omics teacher in results: kept by fold, counted, stored and shown."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import make_bags, make_omics
from evaluation.conftest import Recorder
from quick import quick
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sk_momkd import (
    BagPooling,
    PatientStratifiedKFold,
    PrivilegedClassifier,
    compare,
    compare_omics,
    evaluate,
)
from sk_momkd.data.value_digest import digest
from sk_momkd.evaluation.omics_comparison import _weights_of_controls
from sk_momkd.evaluation.teacher_weights import choice_of, learned_from_omics
from sk_momkd.exceptions import PairingWarning

FEW = {"cv": 3, "n_bootstrap": 20}
BAGS, Y = make_bags(24)
OMICS = make_omics(Y)


class Chooser(Recorder):
    """Chooses the weight 0.5 where the rows of omics are those of the bags, else 0."""

    def __init__(self, random_state=None, threshold=None, weight="auto", useful=True):
        super().__init__(random_state, threshold)
        self.weight, self.useful = weight, useful

    def fit(self, X, y, omics=None, groups=None):
        own = omics is not None and self.useful and is_own(omics)
        self.weight_ = 0.5 * own if self.weight == "auto" else self.weight
        self.n_paired_ = 0 if omics is None else len(X)
        self.teacher_verdict_ = f"The teacher has weight {self.weight_:g}."
        index = pd.Index([0.0, 0.5], name="weight")
        columns = {"auroc": [0.7, 0.7 + 0.1 * own], "gain": [0, 0.1 * own]}
        report = pd.DataFrame(columns, index=index)
        self.teacher_report_ = report.iloc[: 0 if omics is None else None]
        return super().fit(X, y, omics, groups)


def is_own(omics):
    rows = omics.rows(np.arange(len(omics.ids)))
    return np.allclose(rows, OMICS.loc[list(omics.ids)])


def test_fold_keeps_weight_verdict_and_report_of_its_fit():
    result = evaluate(Chooser(), BAGS, Y, omics=OMICS, **FEW)
    assert result.folds["teacher_weight"].tolist() == [0.5] * 3
    assert result.folds["teacher_verdict"].tolist() == ["The teacher has weight 0.5."] * 3
    report = result.teacher_report
    assert report.columns.tolist() == ["repeat", "fold", "weight", "chosen", "auroc", "gain"]
    assert report["fold"].tolist() == [0, 0, 1, 1, 2, 2]
    assert report["chosen"].tolist() == [False, True] * 3
    assert "omics teacher, chosen in each fold: 0.5 in 3 folds." in str(result)


@pytest.mark.parametrize(
    ("clf", "omics"),
    [(Chooser(), None), (Chooser(weight=0.5), OMICS), (Recorder(), OMICS)],
    ids=["without omics", "given", "of another kind"],
)
def test_nothing_is_told_where_no_weight_was_to_be_chosen(clf, omics):
    result = evaluate(clf, BAGS, Y, omics=omics, **FEW)
    assert "teacher_weight" not in result.folds
    assert result.teacher_report is None
    assert "teacher" not in str(result)


def wrapped(kind):
    steps = make_pipeline(FunctionTransformer(), Chooser())
    if kind == "pipeline":
        return steps
    return GridSearchCV(
        steps, {"chooser__threshold": [None]}, cv=PatientStratifiedKFold(2), refit=True
    )


@pytest.mark.parametrize("kind", ["pipeline", "search"])
def test_weight_is_found_inside_of_pipelines_and_searches(kind):
    result = evaluate(wrapped(kind), BAGS, Y, omics=OMICS, **FEW)
    assert result.folds["teacher_weight"].tolist() == [0.5] * 3


def test_stored_folds_have_their_weights(tmp_path):
    first = evaluate(Chooser(), BAGS, Y, omics=OMICS, store=tmp_path, **FEW)
    again = evaluate(Chooser(), BAGS, Y, omics=OMICS, store=tmp_path, **FEW)
    pd.testing.assert_frame_equal(first.teacher_report, again.teacher_report)
    pd.testing.assert_frame_equal(
        first.folds.filter(like="teacher"), again.folds.filter(like="teacher")
    )
    assert str(first) == str(again)


def test_stored_folds_that_are_older_than_the_weights_are_read(tmp_path):
    first = evaluate(Recorder(), BAGS, Y, omics=OMICS, store=tmp_path, **FEW)
    for path in tmp_path.glob("*/*.jsonl"):
        head, *lines = path.read_text().removesuffix("\n").split("\n")
        row = {k: v for k, v in json.loads(head).items() if not k.startswith("teacher")}
        del row["digest_of_fit"]
        row["digest_of_fit"] = digest(json.dumps(row))
        path.write_text("\n".join([json.dumps(row), *lines, ""]))
    again = evaluate(Recorder(), BAGS, Y, omics=OMICS, store=tmp_path, **FEW)
    pd.testing.assert_frame_equal(first.folds, again.folds)  # with the seconds of the first call


def test_comparison_shows_the_weights_of_methods_that_choose():
    methods = {"chooses": Chooser(), "does not": Recorder()}
    result = compare(methods, BAGS, Y, omics=OMICS, **FEW)
    assert result.summary.loc["chooses", "teacher_weight"] == "0.5 in 3 folds"
    assert pd.isna(result.summary.loc["does not", "teacher_weight"])


def test_each_training_of_compare_omics_shows_its_weights(tmp_path):
    result = compare_omics(Chooser(), BAGS, Y, OMICS, self_distillation=True, store=tmp_path, **FEW)
    assert result.summary["teacher_weight"].fillna("").to_dict() == {
        "with": "0.5 in 3 folds",
        "without": "",
        "permuted": "0 in 3 folds",
        "self-distillation": "0 in 3 folds",
    }
    assert "The weight chosen for the omics teacher was 0.5 in 3 folds." in result.verdict
    assert "teacher_weight" in str(result)


def test_weight_0_in_each_fold_is_no_lack_of_patients():
    result = compare_omics(Chooser(useful=False), BAGS, Y, OMICS, **FEW)
    assert result.verdict.startswith("No gain is possible: training with and without omics was")
    assert "weight 0 was chosen for the omics teacher in each fold" in result.verdict
    assert "too few" not in result.verdict


def evaluations_with(**weights):
    def one(chosen):
        table = pd.DataFrame() if chosen is None else pd.DataFrame({"teacher_weight": chosen})
        return type("Stub", (), {"folds": table})

    return {name.replace("_", "-"): one(chosen) for name, chosen in weights.items()}


def test_controls_with_smaller_weights_are_named():
    arms = {"with": [1.0, 0.5], "without": None, "permuted": [0.0, 0.0]}
    note = _weights_of_controls(evaluations_with(**arms, self_distillation=[0.75, 0.75]))
    assert "(permuted: 0 in 2 folds)" in note
    assert "give all the same weight" in note
    assert _weights_of_controls(evaluations_with(**arms | {"permuted": [1.0, 0.5]})) == ""
    assert _weights_of_controls(evaluations_with(**dict.fromkeys(arms))) == ""


def test_classifiers_of_the_package_are_read_under_their_own_names():
    student = make_pipeline(BagPooling(), LogisticRegression())
    network = quick("ABMILClassifier", max_epochs=1, early_stopping=False, lambda_teacher="auto")
    for clf in (PrivilegedClassifier(student), network):
        with pytest.warns(PairingWarning, match=r"Only .* training patients of class"):
            clf.fit(BAGS[:12], Y[:12], omics=OMICS)
        choice = choice_of(clf)
        assert choice["teacher_weight"] == 0
        assert choice["teacher_verdict"] == clf.teacher_verdict_
        assert choice["teacher_report"] is None
        assert learned_from_omics(clf) is clf
