"""From files to a report, a model and predictions of a second cohort, without Python."""

import json
import shlex
import shutil
from functools import wraps
from pathlib import Path

import pandas as pd
import pytest
import torch

pytest.importorskip("typer")

from cli.conftest import LOGISTIC, NO_PAGE, QUICK, cohort_options, declared, run
from official import network, their_state

import sk_momkd
from sk_momkd.cli.examples import EXAMPLES
from sk_momkd.losses.momkd import momkd_terms


@pytest.mark.long
def test_evaluate_writes_tables_report_and_how_it_was_made(here, demo):
    outcome = run("evaluate", *cohort_options(demo, omics=True), *QUICK, "--n-slides", 1, "--json")
    assert outcome.code == 0, outcome
    found = json.loads(outcome.out)
    assert {"summary", "folds", "predictions"} <= set(found)
    assert len(found["predictions"]) == 16
    results = here / "results"
    made = {path.name for path in results.iterdir()}
    assert {"run.yaml", "versions.json", "log.txt", "evaluation", "report.html"} <= made
    assert "torch" in json.loads((results / "versions.json").read_text())
    log = (results / "log.txt").read_text()
    assert "evaluate MoMKDClassifier: 2 of 2 fits" in log
    assert "2 of 2 fits" in outcome.err  # no terminal, so progress is a line


@pytest.mark.slow
def test_resolved_run_file_repeats_the_run(here, demo):
    options = [*cohort_options(demo), *LOGISTIC, NO_PAGE]
    assert run("evaluate", *options).code == 0
    first = (here / "results/evaluation/predictions.csv").read_bytes()
    again = run("evaluate", "results/run.yaml", "--out", "again")
    assert again.code == 0, again
    assert (here / "again/evaluation/predictions.csv").read_bytes() == first


@pytest.mark.slow
def test_evaluation_that_was_interrupted_goes_on_with_the_same_command(here, demo, monkeypatch):
    from sklearn.linear_model import LogisticRegression

    options = [*cohort_options(demo), *LOGISTIC, "--cv", 3, NO_PAGE]
    assert run("evaluate", *options, "--out", "whole").code == 0
    fit, fits = LogisticRegression.fit, []

    def counted(self, *arguments, **keywords):
        fits.append(1)
        if len(fits) in (2, 4):
            raise KeyboardInterrupt
        return fit(self, *arguments, **keywords)

    monkeypatch.setattr(LogisticRegression, "fit", counted)
    assert [run("evaluate", *options).code for _ in range(3)] == [130, 130, 0]
    assert len(fits) == 5  # each of three folds once, and two that were interrupted
    for name in ("predictions.csv", "summary.csv"):
        stopped = (here / "results/evaluation" / name).read_bytes()
        assert stopped == (here / "whole/evaluation" / name).read_bytes()
    other = run("evaluate", *options, "--set", "C=2")
    assert other.code == 3
    assert "--out" in other.err


@pytest.mark.slow
def test_fit_that_was_interrupted_goes_on_to_the_same_model(here, demo, monkeypatch):
    options = [*cohort_options(demo), *QUICK, "--set", "max_epochs=3"]
    assert run("fit", *options, "--out", "whole").code == 0
    steps = []

    @wraps(momkd_terms)
    def counted(*arguments, **keywords):
        steps.append(1)
        if len(steps) == 2:
            raise KeyboardInterrupt
        return momkd_terms(*arguments, **keywords)

    monkeypatch.setattr("sk_momkd.estimators.momkd.momkd_terms", counted)
    assert run("fit", *options).code == 130
    assert (here / "results/checkpoints").exists()
    assert run("fit", *options).code == 0
    assert len(steps) == 4  # three epochs of one step, and the one that was interrupted
    assert not (here / "results/checkpoints").exists()
    whole, stopped = (sk_momkd.load_model(f"{name}/model.zip") for name in ("whole", "results"))
    bags = sk_momkd.read_bags(demo.features)
    assert (stopped.predict_proba(bags) == whole.predict_proba(bags)).all()


@pytest.mark.slow
def test_predictions_are_those_of_the_model(here, demo, model):
    outcome = run("predict", model, demo.features, "--out", "p.csv")
    assert outcome.code == 0, outcome
    assert "were in the training" in outcome.err  # this cohort was trained on
    table = pd.read_csv("p.csv")
    fitted = sk_momkd.load_model(model)
    proba = fitted.predict_proba(sk_momkd.read_bags(demo.features))
    assert table["p_1"].to_numpy() == pytest.approx(proba[:, 1], abs=1e-6)
    assert (table["predicted"] == (table["p_1"] >= 0.4)).all()
    assert (here / "p.csv.run.yaml").exists()


@pytest.mark.slow
def test_predictions_by_patient_with_prior_and_threshold(here, demo, model):
    options = ["--table", demo.table, "--features", demo.features, "--rows", "patient"]
    before = json.loads(run("predict", model, *options, "--json").out)
    outcome = run("predict", model, *options, "--prior", 0.1, "--threshold", 0.9, "--json")
    assert outcome.code == 0, outcome
    after = json.loads(outcome.out)
    assert [row["patient_id"] for row in after] == [row["patient_id"] for row in before]
    for old, new in zip(before, after, strict=True):  # half of the training is of each class
        odds = old["p_1"] / old["p_0"] * 0.1 / 0.9
        assert new["p_1"] == pytest.approx(odds / (1 + odds), abs=1e-6)
        assert new["predicted"] == int(new["p_1"] >= 0.9)


@pytest.mark.slow
def test_predictions_as_parquet_are_those_of_csv(here, demo, model):
    pytest.importorskip("pyarrow")
    for name in ("p.csv", "p.parquet"):
        assert run("predict", model, demo.features, "--out", name, "--quiet").code == 0
    pd.testing.assert_frame_equal(
        pd.read_parquet("p.parquet").drop(columns="patient_id"),
        pd.read_csv("p.csv").drop(columns="patient_id"),
    )


@pytest.mark.slow
def test_predictions_that_were_interrupted_go_on_with_the_same_command(
    here, demo, logistic, monkeypatch
):
    from sk_momkd.inspection import cohort_predictions

    assert run("predict", logistic, demo.features, "--out", "whole.csv").code == 0
    predict, files = cohort_predictions._predict_file, []

    def counted(model, file, reading):
        files.append(file)
        if len(files) == 10:
            raise KeyboardInterrupt
        return predict(model, file, reading)

    monkeypatch.setattr(cohort_predictions, "_predict_file", counted)
    command = ["predict", logistic, demo.features, "--parts", "parts", "--out", "p.csv"]
    stopped = run(*command)
    assert stopped.code == 130
    assert "same command goes on" in stopped.err
    assert {path.name for path in here.iterdir() if not path.name.startswith("whole")} == {"parts"}
    assert run(*command).code == 0
    assert len(files) == 10 + 8  # the first part of 8 files is there
    whole, table = pd.read_csv("whole.csv"), pd.read_csv("p.csv")
    columns = ["bag_id", "p_0", "p_1", "predicted"]
    pd.testing.assert_frame_equal(table[columns], whole[columns])


@pytest.mark.slow
def test_file_that_cannot_be_predicted_is_a_row_and_is_tried_again(here, demo, model):
    features = shutil.copytree(demo.features, "features")
    first, *_ = sorted(Path(features).iterdir())
    content = first.read_bytes()
    first.write_bytes(content[:100])
    command = ["predict", model, features, "--parts", "parts", "--out", "p.csv"]
    outcome = run(*command)
    assert outcome.code == 4, outcome
    assert f"1 of 16 files have no prediction, the first is {first}" in " ".join(
        outcome.err.split()
    )
    assert outcome.err.count("have no prediction") == 1
    assert pd.read_csv("p.csv")["error"].notna().sum() == 1
    first.write_bytes(content)
    outcome = run(*command)
    assert outcome.code == 0, outcome
    assert "were in the training" in outcome.err
    assert pd.read_csv("p.csv")["p_1"].notna().all()
    other = run(*command, "--threshold", 0.1)
    assert other.code == 3
    assert "another model" in other.err


@pytest.mark.slow
def test_external_refuses_patients_of_training(here, demo, model):
    outcome = run("external", model, *cohort_options(demo))
    assert outcome.code == 3
    assert "were in training" in outcome.err


@pytest.mark.slow
def test_external_reports_new_patients(here, model, other):
    options = [*cohort_options(other), "--n-bootstrap", 50, NO_PAGE, "--json"]
    outcome = run("external", model, *options)
    assert outcome.code == 0, outcome
    assert len(json.loads(outcome.out)["predictions"]) == 8
    assert (here / "external_results/external/summary.csv").exists()
    assert not (here / "results").exists()


@pytest.mark.slow
def test_explain_writes_maps_tables_and_genes(here, demo, model, reads):
    pytest.importorskip("shap")
    options = ["--table", demo.table, "--features", demo.features, "--omics", demo.omics]
    outcome = run("explain", model, *options, "--slide", "SIM-001-01Z-00-DX1", "--json")
    assert outcome.code == 0, outcome
    names = {Path(path).name for path in json.loads(outcome.out)["files"]}
    assert {"patches.csv", "genes.csv", "genes.png", "prototypes.png"} <= names
    assert {f"SIM-001-01Z-00-DX1_attention.{end}" for end in ("png", "geojson")} <= names
    assert set(pd.read_csv("explanation/patches.csv")["bag_id"]) == {"SIM-001-01Z-00-DX1"}
    assert declared("explain") - reads == set()
    refused = run("explain", model, demo.features, "--slide", "SIM-001")
    assert refused.code == 2
    assert "SIM-001-01Z-00-DX1" in refused.err


@pytest.mark.slow
def test_card_names_classes_and_cohort(here, model):
    card = run("card", model).out
    assert "1 ('aggressive')" in card
    assert "16 slides of 16 patients" in card


@pytest.mark.slow
def test_converted_bags_hold_the_same_features(here, demo):
    for to in ("trident", "h5ad"):
        outcome = run("convert", "bags", demo.features, to, "--to", to)
        assert outcome.code == 0, outcome
        bag = sk_momkd.read_bags(to)[1]
        assert (bag.features == sk_momkd.read_bags(demo.features)[1].features).all()
        assert bag.info.patch_size == 512


@pytest.mark.long
def test_compare_of_methods_and_of_omics(here, demo):
    options = [*cohort_options(demo, omics=True), *QUICK, NO_PAGE, "--json"]
    outcome = run("compare", *options, "--methods", "momkd,logistic", "--out", "methods")
    assert outcome.code == 0, outcome
    assert {row["method"] for row in json.loads(outcome.out)["summary"]} == {"momkd", "logistic"}
    outcome = run("compare", *options, "--out", "omics")
    assert outcome.code == 0, outcome
    assert "verdict" in json.loads(outcome.out)
    nothing = run("compare", *cohort_options(demo))
    assert nothing.code == 2
    assert "--methods" in nothing.err


@pytest.mark.slow
def test_failed_fits_have_an_exit_code_of_their_own(here, demo, monkeypatch):
    from sk_momkd.preprocessing.bag_pooling import BagPooling

    transform, calls = BagPooling.transform, []

    def fails_once(self, X):
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("no memory of this fold")
        return transform(self, X)

    monkeypatch.setattr(BagPooling, "transform", fails_once)
    options = [*cohort_options(demo), *LOGISTIC, NO_PAGE]
    outcome = run("evaluate", *options)
    assert outcome.code == 4, outcome
    assert "1 of 2 folds" in outcome.out
    assert (here / "results/evaluation/failed.csv").exists()


def examples_in_help(command):
    """The examples of a help page, as a user would copy them."""
    page = run(*([] if command == "sk-momkd" else command.split()), "--help").out
    text = page.rpartition(" Examples\n")[2].replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip()]


ORDER = ("simulate", "init", "sk-momkd", "inspect", "evaluate", "compare", "fit", "predict")
ORDER += ("external", "explain", "report", "convert bags", "card", "versions")


@pytest.mark.long
def test_examples_of_every_help_page_work_when_they_are_pasted(here):
    pytest.importorskip("shap")
    assert {*ORDER, "convert checkpoint"} == set(EXAMPLES)
    done = set()
    for command in ORDER:
        examples = examples_in_help(command)
        assert len(examples) == len(EXAMPLES[command])
        for example in examples:
            if example not in done:
                outcome = run(*shlex.split(example)[1:])
                assert outcome.code == 0, (example, outcome)
            done.add(example)
    assert len(pd.read_csv("predictions.csv")) > 0
    assert "<html" in (here / "results/report.html").read_text(encoding="utf-8")


def test_example_of_a_checkpoint_gives_a_model_with_these_classes(here):
    torch.save(their_state(network()), "s_0_mkd_checkpoint.pt")
    (example,) = examples_in_help("convert checkpoint")
    outcome = run(*shlex.split(example)[1:])
    assert outcome.code == 0, outcome
    assert sk_momkd.load_model("official.zip").classes_.tolist() == ["high", "low"]
    assert sk_momkd.load_model("official.zip").pos_label_ == "high"


@pytest.mark.long
def test_three_commands_of_the_page_go_from_files_to_predictions(here, demo):
    page = (Path(__file__).parents[2] / "docs" / "command_line.md").read_text(encoding="utf-8")
    three = page.partition("## Three commands")[2].partition("```\n")[2].partition("```")[0]
    table = pd.read_csv(demo.table, dtype=str)
    words = {"aggressive": "Positive", "indolent": "Negative"}
    table.assign(her2=table["subtype"].map(words)).to_csv("slides.csv", index=False)
    table[["slide_id", "case_id"]].to_csv("new.csv", index=False)
    shutil.copytree(demo.features, "features")
    shutil.copytree(demo.features, "new_features")
    shutil.copy(demo.omics, "rna.h5ad")
    commands = [line for line in three.replace("\\\n", " ").splitlines() if line]
    assert len(commands) == 3
    for command in commands:
        quick = ["--set", "max_epochs=1"] if " evaluate " in command else []
        outcome = run(*shlex.split(command)[1:], *quick)
        assert outcome.code == 0, (command, outcome)
    assert len(pd.read_csv("predictions.csv")) == 16
