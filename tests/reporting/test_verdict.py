"""The first section of the page: answers in plain words, against results written down by hand."""

import re

import numpy as np
import pandas as pd
import pytest
from evaluation.test_misclassified import TRUE, evaluation
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import LeaveOneOut
from sklearn.pipeline import make_pipeline

from sk_momkd import Bag, BagPooling, BagSequence, evaluate, evaluate_external, report
from sk_momkd.reporting.html.context import ReportContext
from sk_momkd.reporting.html.verdict_section import verdict_section


def context(result, **known):
    settings = {"comparison": None, "models": {}, "bags": None, "labels": {}}
    return ReportContext(result=result, **(settings | known))


def answers(result, **known):
    return dict(verdict_section(context(result, **known)).blocks[0].answers)


LEARNER = make_pipeline(BagPooling(), LogisticRegression())


def bags_of(y, letter="P"):
    """A bag for each label, which it shows but for some noise."""
    random = np.random.default_rng(0)
    return BagSequence(
        Bag(label + random.normal(size=(3, 4)), patient_id=f"{letter}{i:02d}")
        for i, label in enumerate(y)
    )


def evaluated(y, **settings):
    return evaluate(LEARNER, bags_of(y), y, n_bootstrap=20, **settings)


def many(true_of_yes, true_of_no, n=20):
    """`n` patients of each class, whose probabilities of the true class are evenly spread."""
    y = ["yes"] * n + ["no"] * n
    spread = [np.linspace(*ends, n) for ends in (true_of_yes, true_of_no)]
    return evaluation(np.concatenate(spread), y=y, sites=None, n_draws=200)


def test_good_model_is_called_better_than_chance():
    found = answers(many((0.6, 0.9), (0.6, 0.9)))["How good is it?"]
    assert "one 'yes' and one not" in found
    assert "in 100 of 100 cases" in found
    assert found.endswith("It is better than chance.")


def test_model_whose_interval_holds_chance_has_not_learned():
    found = answers(many((0.3, 0.7), (0.3, 0.7)))["How good is it?"]
    assert re.search("in (4[5-9]|5[0-5]) of 100 cases", found)
    assert "not shown that the model has learned" in found


def test_exchanged_labels_are_suspected():
    assert "exchanged" in answers(many((0.1, 0.4), (0.1, 0.4)))["How good is it?"]


def test_groups_say_whether_the_place_was_new():
    new = evaluated(np.arange(12) % 2, groups=[f"site {i // 4}" for i in range(12)], cv=3)
    assert "seen no patient of this group" in answers(new)["For whom?"]
    plain = answers(many((0.6, 0.9), (0.6, 0.9)))["For whom?"]
    assert "may have seen other patients of the same place" in plain


@pytest.mark.filterwarnings("ignore:.*group")
def test_groups_that_the_splits_share_are_no_new_places():
    folds = [np.flatnonzero(np.arange(12) % 3 == fold) for fold in range(3)]
    cv = [(np.setdiff1d(np.arange(12), fold), fold) for fold in folds]
    shared = evaluated(np.arange(12) // 6, groups=[f"site {i // 4}" for i in range(12)], cv=cv)
    assert "patients of a group in training and in test" in answers(shared)["For whom?"]
    some = evaluated(np.arange(12) // 6, groups=[f"site {i // 4}" for i in range(12)], cv=cv[:1])
    assert "patients of a group in training and in test" in answers(some)["For whom?"]


def test_leave_one_out_is_judged_by_the_pooled_predictions():
    y = np.arange(12) % 2
    found = answers(evaluated(y, cv=LeaveOneOut()))
    assert "that are predicted, one" in found["How good is it?"]


def test_three_classes_have_no_consequences_and_a_mean_over_classes():
    section = verdict_section(context(evaluated(np.arange(12) % 3, cv=2)))
    assert len(section.blocks) == 1
    assert "mean over the classes" in section.blocks[0].answers[0][1]


@pytest.mark.filterwarnings("ignore:It could not be checked")
def test_external_cohort_is_named_as_such():
    y = np.arange(12) % 2
    fitted = LEARNER.fit(bags_of(y), y)
    result = evaluate_external([fitted], bags_of(y, "X"), y, n_bootstrap=20)
    section = verdict_section(context(result))
    whom = dict(section.blocks[0].answers)["For whom?"]
    assert "12 patients of a cohort other than that of training" in whom
    assert [row[0][:7] for _, rows in section.blocks[1].parts for row in rows] == ["predict"]


def test_class_that_was_not_tested_leaves_consequences_out_with_the_reason():
    y = np.arange(12) // 6
    one_class = [(np.r_[:4, 6:12], np.arange(4, 6))]
    section = verdict_section(context(evaluated(y, cv=one_class)))
    assert "cannot be counted" in section.blocks[1].text
    assert "cannot be said" in dict(section.blocks[0].answers)["How good is it?"]


def test_threshold_that_cannot_be_had_is_left_out_with_the_reason():
    y = ["yes"] * 20 + ["no"] * 20
    certain = evaluation(np.r_[np.ones(20), np.zeros(5), np.ones(15)], y=y, sites=None)
    decided = verdict_section(context(certain)).blocks[1]
    assert "no threshold with a specificity of 90%" in decided.caption
    assert "by sensitivity needs several folds" in decided.caption
    rules = [row[0] for _, rows in decided.parts for row in rows]
    assert rules == ["predict (most probable class)"]


def test_few_patients_make_every_number_unreliable():
    assert "no number on this page is reliable" in answers(evaluation(TRUE))["How sure is that?"]
    sure = answers(many((0.6, 0.9), (0.6, 0.9)))["How sure is that?"]
    assert "40 patients, 20 in the smallest class" in sure
    assert "reliable" not in sure


def test_verdict_of_a_comparison_answers_whether_omics_helps():
    class Compared:
        verdict = "Omics helps."

    result = evaluation(TRUE)
    assert answers(result, comparison=Compared())["Does omics help?"] == "Omics helps."
    assert "compare_omics" in answers(result)["Does omics help?"]


def test_consequences_per_100_patients_add_up():
    result = many((0.35, 0.9), (0.4, 0.9))  # 13 of 20 and 15 of 20 rightly called
    decided = verdict_section(context(result)).blocks[1]
    assert "of whom 50 are 'yes'" in decided.caption
    rows = {row[0]: list(map(int, row[1:])) for _, part in decided.parts for row in part}
    called, rightly, wrongly, missed = rows["predict (most probable class)"]
    sensitivity, specificity = result.summary.loc[["sensitivity", "specificity"], "value"]
    assert rightly == round(50 * sensitivity)
    assert wrongly == round(50 * (1 - specificity))
    for called, rightly, wrongly, missed in rows.values():
        assert called == rightly + wrongly
        assert rightly + missed == 50


def test_section_without_a_result_says_what_would_fill_it():
    assert "evaluate(...)" in verdict_section(context(None)).missing


@pytest.mark.parametrize("sites", ["AABB", None])
def test_page_shows_subgroups(tmp_path, sites):
    sex = pd.DataFrame({"sex": list("fmfm")}, index=["P0", "P1", "P2", "P3"])
    page = report(evaluation(TRUE, sites=sites), tmp_path / "r.html", subgroups=sex).read_text()
    assert "By subgroup" in page
    assert ("By group (site)" in page) == (sites is not None)
