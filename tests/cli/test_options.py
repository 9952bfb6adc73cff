"""Each option that a command accepts is used by it, or refused."""

import json

import pytest

pytest.importorskip("typer")

from cli.conftest import LOGISTIC, NO_PAGE, cohort_options, declared, run

import sk_momkd


@pytest.fixture
def no_page(monkeypatch):
    """A report page that is made at once."""
    from sk_momkd.reporting.html import page

    def written(result, path, **options):
        path.write_text("a page")
        return path

    monkeypatch.setattr(page, "report", written)


def test_key_that_is_not_read_is_noticed(here, demo, reads):
    assert run("inspect", "--table", demo.table, "--features", demo.features).code == 0
    assert ("cohort", "table") in reads
    assert ("evaluation", "n_bootstrap") not in reads
    assert declared("inspect") - reads == {
        ("cohort", "positive"),  # which need --label
        ("cohort", "negative"),
        ("evaluation", "cv"),
        ("model", "random_state"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("command", ["inspect", "evaluate", "fit", "report"])
def test_command_uses_every_option_that_it_accepts(here, demo, reads, no_page, command):
    quick = [] if command == "inspect" else LOGISTIC
    threshold = ["--threshold", "f1"] if command == "fit" else []  # for which it cross-validates
    outcome = run(command, *cohort_options(demo, omics=True), *quick, *threshold)
    assert outcome.code == 0, outcome
    assert declared(command) - reads == set()


@pytest.mark.slow
def test_compare_uses_every_option_that_it_accepts(here, demo, reads, no_page, monkeypatch):
    from sk_momkd.evaluation import omics_comparison

    def stopped(*arguments, **keywords):
        raise ValueError("enough")

    monkeypatch.setattr(omics_comparison, "compare_omics", stopped)
    methods = ["--methods", "logistic", *LOGISTIC]
    assert run("compare", *cohort_options(demo), *methods, "--out", "methods").code == 0
    assert (here / "methods/comparison.html").exists()
    assert run("compare", *cohort_options(demo, omics=True), "--out", "omics").code == 3
    assert declared("compare") - reads == set()


@pytest.mark.slow
def test_external_uses_every_option_that_it_accepts(here, other, logistic, reads, no_page):
    outcome = run("external", logistic, *cohort_options(other), "--n-bootstrap", 50)
    assert outcome.code == 0, outcome
    assert declared("external") - reads == set()


@pytest.mark.slow
def test_predict_uses_every_option_that_it_accepts(here, other, logistic, reads):
    outcome = run("predict", logistic, "--table", other.table, "--features", other.features)
    assert outcome.code == 0, outcome
    assert declared("predict") - reads == set()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare", "--reference", "momkd"], "--reference has no effect without --methods"),
        (
            ["compare", "--methods", "momkd,abmil", "--within-class"],
            "--within-class has no effect with --methods",
        ),
        (
            ["compare", "--methods", "momkd", "--self-distillation"],
            "--self-distillation has no effect with --methods",
        ),
        (["compare", "--methods", "abmil", "--preset", "default"], "--preset is for the method"),
        (["compare", "--methods", "abmil", "--set", "dropout=0.1"], "--set is for the method"),
        (["compare", "--methods", "logistic", "--device", "cuda"], "takes no device"),
        (["evaluate", "--method", "logistic", "--preset", "nonsense"], "takes no preset"),
        (["evaluate", "--method", "logistic", "--no-scale"], "takes no scale"),
        (["fit", "--method", "logistic", "--device", "cuda"], "takes no device"),
        (["inspect", "--table", "t.csv", "--features", "f", "--positive", "1"], "--label"),
        (["evaluate", "--layer", "counts"], "--layer has no effect without --omics"),
        (["evaluate", "--sample-type", "06"], "--sample-type has no effect without --barcodes"),
        (["evaluate", "--splits", "folds", "--cv", "3"], "--cv has no effect beside the splits"),
        (["evaluate", "--threshold", "1.5"], "got '1.5'"),
        (["evaluate", "--threshold", "sensitivity=2"], "got 'sensitivity=2'"),
        (["convert", "bags", "f", "g", "--to", "h5ad", "--dtype", "float16"], "no effect"),
        (["report", "--no-page"], "No such option"),
        (["evaluate", "--max-epochs", "20"], "--set max_epochs=VALUE"),
        (["fit", "--epochs=20"], "There is no option --epochs."),
        (["compare", "--lable", "her2"], "--label"),
        (["external", "model.zip", "--cv", "3"], "No such option"),
        (["predict", "model.zip", "--parts", "p"], "--parts is for files or a folder"),
        (["predict", "model.zip", "--unit", "bag"], "must be one of slide, patient"),
    ],
)
def test_option_without_effect_is_refused(here, arguments, said):
    outcome = run(*arguments)
    assert outcome.code == 2, outcome
    assert said in " ".join(outcome.err.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--table", "nowhere.csv"], "table (nowhere.csv) has no effect"),
        (["--unit", "patient"], "unit (patient) has no effect"),
        (["--rows", "patient"], "--rows patient needs to know the patient"),
    ],
)
def test_predict_refuses_keys_of_tables_beside_files(here, demo, logistic, arguments, said):
    outcome = run("predict", logistic, demo.features, *arguments)
    assert outcome.code == 2, outcome
    assert said in " ".join(outcome.err.split())


@pytest.mark.slow
def test_explain_refuses_a_table_beside_files(here, demo, model):
    outcome = run("explain", model, demo.features, "--table", "nowhere.csv")
    assert outcome.code == 2, outcome
    assert "table (nowhere.csv) has no effect" in outcome.err.replace("\n", "")


@pytest.mark.slow
def test_explain_refuses_a_model_without_attention(here, demo, logistic):
    outcome = run("explain", logistic, demo.features)
    assert outcome.code == 3, outcome
    assert "has no attention" in outcome.err


@pytest.mark.slow
def test_patients_are_bags_in_predictions_where_they_were_in_training(here, demo):
    table = _with_two_slides_each(demo, here)
    options = ["--table", table, "--features", demo.features, "--unit", "patient"]
    label = ["--label", "subtype", "--positive", "aggressive", "--method", "logistic"]
    assert run("fit", *options, *label).code == 0
    rows = json.loads(run("predict", "results/model.zip", *options, "--json").out)
    bags = sk_momkd.load_cohort(table, demo.features, label="subtype", unit="patient").bags
    proba = sk_momkd.load_model("results/model.zip").predict_proba(bags)
    assert len(rows) == 8
    assert [row["p_1"] for row in rows] == pytest.approx(proba[:, 1].tolist())


def _with_two_slides_each(demo, folder):
    """The table of the cohort where two slides of one class are of one patient."""
    import pandas as pd

    frame = pd.read_csv(demo.table, dtype=str).sort_values("subtype", kind="stable")
    frame["case_id"] = [f"P{i // 2}" for i in range(len(frame))]
    frame.to_csv(folder / "two.csv", index=False)
    return folder / "two.csv"


@pytest.mark.slow
def test_threshold_that_is_a_number_is_that_of_the_evaluated_models(here, demo):
    options = [*cohort_options(demo), *LOGISTIC, NO_PAGE, "--json"]
    outcome = run("evaluate", *options, "--threshold", 0.3)
    assert outcome.code == 0, outcome
    found = json.loads(outcome.out)
    assert "at the threshold 0.3 of predict" in found["note"]
    rows = found["predictions"]
    assert [row["predicted"] for row in rows] == [int(row["p_1"] >= 0.3) for row in rows]


def test_three_classes_with_a_threshold_are_refused_before_training(here, demo):
    table = _with_three_classes(demo, here)
    options = ["--table", table, "--features", demo.features, "--label", "grade"]
    for command in ("evaluate", "fit"):
        outcome = run(command, *options, "--threshold", "youden")
        assert outcome.code == 2, outcome
        assert "has 3: 'A', 'B', 'C'" in outcome.err.replace("\n", " ")
        assert not (here / "results/fits").exists()
        assert not (here / "results/run.yaml").exists()
    outcome = run("fit", *options, "--prior", "0.2")
    assert outcome.code == 2, outcome
    assert "for two classes; there are 3" in outcome.err.replace("\n", " ")


def test_run_file_of_init_has_no_threshold_for_three_classes(here, demo):
    table = _with_three_classes(demo, here)
    assert run("init", table, demo.features, "--label", "grade").code == 0
    assert "threshold: null" in (here / "run.yaml").read_text()
    assert run("init", demo.table, demo.features, "--overwrite").code == 0
    assert "threshold: youden" in (here / "run.yaml").read_text()


def _with_three_classes(demo, folder):
    import pandas as pd

    frame = pd.read_csv(demo.table, dtype=str)
    frame["grade"] = [f"{'ABC'[i % 3]}" for i in range(len(frame))]
    frame[["slide_id", "case_id", "grade"]].to_csv(folder / "three.csv", index=False)
    return folder / "three.csv"


def test_prior_of_a_method_without_one_is_refused_before_training(here, demo):
    outcome = run("fit", *cohort_options(demo), "--method", "logistic", "--prior", "0.2")
    assert outcome.code == 2, outcome
    assert "has no prior" in outcome.err


def test_omics_branch_of_a_method_without_one_is_refused_before_training(here, demo):
    options = [*cohort_options(demo, omics=True), "--method", "logistic", "--include-omics"]
    outcome = run("fit", *options)
    assert outcome.code == 2, outcome
    assert "learns without omics" in outcome.err.replace("\n", " ")


def test_comparison_of_omics_needs_a_method_that_learns_from_it(here, demo):
    outcome = run("compare", *cohort_options(demo, omics=True), "--method", "logistic")
    assert outcome.code == 2, outcome
    assert "histology alone" in outcome.err.replace("\n", " ")


@pytest.mark.slow
def test_report_without_its_packages_is_refused_with_how_to_install_them(here, demo, monkeypatch):
    from sk_momkd.reporting.html import page

    def lacking(*arguments, **keywords):
        raise ImportError("The report needs jinja2: pip install jinja2")

    monkeypatch.setattr(page, "report", lacking)
    options = [*cohort_options(demo), *LOGISTIC]
    outcome = run("evaluate", *options)  # which has results without a page
    assert outcome.code == 0, outcome
    assert "No report was written." in outcome.err
    outcome = run("report", *options)
    assert outcome.code == 3, outcome
    assert "pip install jinja2" in outcome.err
    assert outcome.out == ""


@pytest.mark.slow
def test_report_writes_a_page_whatever_the_run_file_of_evaluate_says(here, demo, no_page):
    assert run("evaluate", *cohort_options(demo), *LOGISTIC, NO_PAGE).code == 0
    outcome = run("report", "results/run.yaml", "--json")
    assert outcome.code == 0, outcome
    assert (here / json.loads(outcome.out)["report"]).read_text() == "a page"


@pytest.mark.slow
def test_training_patients_are_refused_by_an_option_that_exists(here, demo, logistic, no_page):
    arguments = ["external", logistic, *cohort_options(demo), "--n-bootstrap", 50]
    refused = run(*arguments)
    assert refused.code == 3
    assert "If only their ids are the same, --allow-training-patients." in refused.err
    assert run(*arguments, "--allow-training-patients").code == 0
