"""Results of another run are not replaced, and run files beside results are true."""

import json
import shutil
from hashlib import sha256

import pandas as pd
import pytest

pytest.importorskip("typer")

from cli.conftest import LOGISTIC, NO_PAGE, cohort_options, run
from ruamel.yaml import YAML

from sk_momkd.cli.config import resolve
from sk_momkd.cli.problems import UsageProblem


def content(path):
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


@pytest.fixture
def half(demo, here):
    """A table with half of the slides."""
    frame = pd.read_csv(demo.table, dtype=str)
    frame.iloc[::2].to_csv(here / "half.csv", index=False)
    return here / "half.csv"


@pytest.mark.slow
def test_fit_on_another_table_does_not_replace_the_model(here, demo, half):
    options = [*cohort_options(demo), "--method", "logistic"]
    assert run("fit", *options).code == 0
    before = (here / "results/model.zip").read_bytes()
    log = (here / "results/log.txt").read_bytes()
    outcome = run("fit", *options, "--table", half)
    assert outcome.code == 2, outcome
    said = outcome.err.replace("\n", " ")
    assert "cohort.table" in said
    assert "--out" in said
    assert (here / "results/model.zip").read_bytes() == before
    assert (here / "results/log.txt").read_bytes() == log
    assert run("fit", *options, "--table", half, "--out", "second").code == 0
    assert run("fit", *options, "--cache", "copies").code == 0  # which changes no content


@pytest.mark.slow
def test_external_and_compare_leave_results_of_evaluate(here, demo, other, logistic):
    options = [*cohort_options(demo), *LOGISTIC]
    assert run("evaluate", *options, NO_PAGE).code == 0
    before = (here / "results/run.yaml").read_bytes()
    external = ["external", logistic, *cohort_options(other), "--n-bootstrap", 50, NO_PAGE]
    assert run(*external).code == 0
    refused = run(*external, "--out", "results")
    assert refused.code == 2, refused
    assert "cohort.table" in refused.err.replace("\n", " ")
    assert run("compare", *options, "--methods", "logistic", NO_PAGE).code == 0
    assert (here / "results/run.yaml").read_bytes() == before
    kept = content(here / "results/comparison.run.yaml")
    assert kept["comparison"]["methods"] == ["logistic"]


@pytest.mark.slow
def test_run_file_of_external_is_of_the_model_and_repeats_it(here, other, logistic):
    options = [*cohort_options(other), "--n-bootstrap", 50, NO_PAGE]
    assert run("external", logistic, *options).code == 0
    path = here / "external_results/run.yaml"
    values = content(path)
    digest = sha256(logistic.read_bytes()).hexdigest()
    assert values["model"] == {"random_state": 0, "file": str(logistic), "sha256": digest}
    assert set(values) == {"cohort", "model", "evaluation", "report"}
    assert set(values["evaluation"]) == {"keep_sites", "n_bootstrap", "confidence_level"}
    first = (here / "external_results/external/predictions.csv").read_bytes()
    again = run("external", logistic, "--config", path, "--out", "again")
    assert again.code == 0, again
    assert (here / "again/external/predictions.csv").read_bytes() == first
    shutil.copy(logistic, here / "another.zip")
    refused = run("external", "another.zip", *options)
    assert refused.code == 2, refused
    assert "model.file" in refused.err.replace("\n", " ")


@pytest.mark.slow
def test_run_file_of_external_trains_nothing(here, other, logistic):
    options = [*cohort_options(other), "--n-bootstrap", 50, NO_PAGE]
    assert run("external", logistic, *options).code == 0
    outcome = run("fit", "external_results/run.yaml", "--out", "new")
    assert outcome.code == 2, outcome
    assert "names no method" in outcome.err.replace("\n", " ")


@pytest.mark.slow
def test_run_file_of_predictions_is_of_the_model(here, other, logistic):
    assert run("predict", logistic, other.features, "--out", "p.csv").code == 0
    values = content(here / "p.csv.run.yaml")
    assert set(values) == {"cohort", "model", "prediction"}
    assert values["model"]["file"] == str(logistic)
    assert values["prediction"]["slides"] == [str(other.features)]
    assert set(values["cohort"]) == {"allow_external", "allow_constant", "allow_mixed"}
    options = ["--table", other.table, "--features", other.features, "--rows", "patient"]
    assert run("predict", logistic, *options, "--out", "q.csv").code == 0
    again = run("predict", logistic, "--config", "q.csv.run.yaml", "--rows", "patient", "--json")
    assert again.code == 0, again
    assert [row["patient_id"] for row in json.loads(again.out)] == list(
        pd.read_csv("q.csv")["patient_id"]
    )


def test_run_that_is_refused_does_not_take_the_folder(here, demo):
    options = ["--table", demo.table, "--features", demo.features, "--method", "logistic"]
    assert run("fit", *options, "--label", "no").code == 3
    assert not (here / "results/run.yaml").exists()


def test_folder_that_was_moved_is_the_same_run(tmp_path):
    from sk_momkd.cli.run_folder import _is_same

    (tmp_path / "there.csv").touch()
    assert _is_same("cohort.table", "/gone/slides.csv", "/new/slides.csv")
    assert not _is_same("cohort.table", "/gone/slides.csv", "/new/other.csv")
    assert not _is_same("cohort.table", str(tmp_path / "there.csv"), "/new/there.csv")
    assert not _is_same("cohort.label", "her2", "er")


def test_default_preset_of_the_file_gives_way_to_the_default_of_another_method(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("model: {method: momkd, preset: small}\n")
    assert resolve(path, {"model": {"method": "abmil"}}).model.preset == "unified"
    assert resolve(path, {"model": {"method": "logistic"}}).model.preset is None
    path.write_text("model: {method: momkd, preset: release}\n")
    assert resolve(path, {"model": {"method": "abmil"}}).model.preset == "release"


def test_run_file_of_a_saved_model_is_read_where_nothing_is_trained(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "cohort: {label: her2}\nmodel: {file: m.zip, sha256: abc, random_state: 3}\n"
        "prediction: {rows: slide}\n"
    )
    run = resolve(path, {})
    assert (run.cohort.label, run.model.random_state, run.model.method) == ("her2", 3, "momkd")
    with pytest.raises(UsageProblem, match=r"saved model m\.zip"):
        resolve(path, {}, trains=True)
