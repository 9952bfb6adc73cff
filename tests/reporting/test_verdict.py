"""The first section of the page: answers in plain words, against results written down by hand."""

import numpy as np
import pandas as pd
import pytest
from evaluation.test_misclassified import TRUE, evaluation

from sk_momkd import report
from sk_momkd.reporting.html.context import ReportContext
from sk_momkd.reporting.html.verdict_section import verdict_section


def context(result, **known):
    settings = {"comparison": None, "models": {}, "bags": None, "labels": {}}
    return ReportContext(result=result, **(settings | known))


def answers(result, **known):
    return dict(verdict_section(context(result, **known)).blocks[0].answers)


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
    assert "in 50 of 100 cases" in found or "in 49 of 100 cases" in found  # ties by rounding
    assert "not shown that the model has learned" in found


def test_exchanged_labels_are_suspected():
    assert "exchanged" in answers(many((0.1, 0.4), (0.1, 0.4)))["How good is it?"]


def test_groups_say_whether_the_place_was_new():
    assert "others" not in answers(evaluation(TRUE))["For whom?"]
    assert "seen no patient of this group" in answers(evaluation(TRUE))["For whom?"]
    assert "other patients of the same places" in answers(many((0.6, 0.9), (0.6, 0.9)))["For whom?"]


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
