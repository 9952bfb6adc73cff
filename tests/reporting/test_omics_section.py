"""Section on the weight of the omics teacher, and what the first section says of it."""

import numpy as np
import pytest
from evaluation.test_teacher_weights import BAGS, FEW, OMICS, Chooser, Recorder, Y
from reporting.test_verdict import answers, context

from sk_momkd import align_omics, compare_omics, evaluate, report
from sk_momkd.reporting.html.omics_section import omics_section


@pytest.fixture(scope="module")
def comparison():
    return compare_omics(Chooser(), BAGS, Y, OMICS, **FEW)


def tables(section):
    return [block for block in section.blocks if block.block == "table"]


def rows(table):
    return [row for _, part in table.parts for row in part]


def test_section_of_a_comparison_has_weights_gains_and_reasons(comparison):
    section = omics_section(context(comparison.evaluations["with"], comparison=comparison))
    by_method, gains, reasons = tables(section)
    assert by_method.columns == ["method", "weight 0", "weight 0.5"]
    assert rows(by_method) == [["with", "0", "3"], ["permuted", "3", "0"]]
    assert rows(gains)[1] == ["0.5", "3", "0.800", "0.100"]
    assert gains.columns == ["weight", "folds that chose it", "AUROC", "gain over weight 0"]
    assert [row[2:] for row in rows(reasons)] == [["0.5", "The teacher has weight 0.5."]] * 3


def test_page_has_the_weights_in_its_verdict_and_reasons_in_one_section(comparison, tmp_path):
    page = report(comparison, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "The weight chosen for the omics teacher was 0.5 in 3 folds." in page
    assert page.count("The teacher has weight 0.5.") == 3
    assert page.count("chosen in each fold: 0.5 in 3 folds.") == 1  # and in no warning


def test_evaluation_counts_weights_and_paired_slides():
    result = evaluate(Chooser(), BAGS, Y, omics=OMICS, keep_models=True, **FEW)
    known = context(result, models={(0, i): model for i, model in enumerate(result.models)})
    found = answers(result, models=known.models)["Does omics help?"]
    assert "training for 16 slides (the model of fold 0)" in found
    assert "chosen in each fold: 0.5 in 3 folds." in found
    assert len(tables(omics_section(known))) == 2


def test_model_without_evaluation_gives_its_sentence_and_gains():
    model = Chooser().fit(BAGS, np.array(Y), omics=align_omics(OMICS, BAGS))
    section = omics_section(context(None, models={(0, 0): model}))
    assert section.blocks[1].text == "The teacher has weight 0.5."
    (gains,) = tables(section)
    assert rows(gains)[1] == ["0.5", "0.800", "0.100"]


def test_section_without_a_choice_says_how_to_get_one():
    section = omics_section(context(evaluate(Recorder(), BAGS, Y, **FEW)))
    assert "No weight of an omics teacher was chosen" in section.blocks[0].text
    given = Chooser(weight=0.5).fit(BAGS, Y, omics=align_omics(OMICS, BAGS))
    assert omics_section(context(None, models={(0, 0): given})) == section
