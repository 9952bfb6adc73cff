"""The paper's tables, scaled down: rows, resumption, and what the pages say."""

import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from sk_momkd import as_bags, read_bags, simulate_cohort
from sk_momkd.exceptions import LeakageError

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import paper
import paper_methods
import presets
import published
import when_omics_helps

CALL = [
    *("--simulate", "--labels", "visible", "--patients", "24", "--patches", "6"),
    *("--seeds", "0", "--n-splits", "2", "--batch-size", "8", "--max-epochs", "1"),
    *("--n-bootstrap", "50", "--set", "hidden_dim=8", "projection_dim=4", "dim=16"),
    *("network__omics_hidden_dim=8", "network__head_hidden_dim=8", "memory__kmeans_samples=50"),
]
OTHER_WORDS = {"aggressive": "bad", "indolent": "good"}
TABLES = ("1", "2", "3", "4", "fig3", "s3")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Folder of a run of all tables."""
    folder = tmp_path_factory.mktemp("results")
    paper.main([*CALL, "--tables", *TABLES, "--results", str(folder)])
    return folder


@pytest.fixture(scope="module")
def task():
    """The simulated task of the run, for computing its numbers otherwise."""
    return paper.simulated_tasks(paper.parse(CALL))[0]


def fits(folder):
    return paper.read_fits(folder / "paper_simulated_fits_0.csv")


def probabilities(folder, method, column="p"):
    rows = fits(folder)
    mine = rows[rows["method"] == method].sort_values("fold")
    return [np.array(text.split(), dtype=float) for text in mine[column]]


def table(folder, name):
    rows = pd.read_csv(folder / f"paper_simulated_table{name}.csv")
    return rows.set_index("method")


def test_paper_writes_one_row_per_method_and_fold(results):
    rows = fits(results)
    methods = {m for name in TABLES for m in paper_methods.TABLES[name]}
    expected = {(method, fold) for method in methods for fold in (0, 1)}
    assert len(rows) == len(expected)
    assert set(zip(rows["method"], rows["fold"], strict=True)) == expected
    assert rows["settings"].str.contains("batch_size=8 max_epochs=1").all()
    assert (rows["cpu_seconds"] > 0).all()


def test_paper_predicts_every_patient_once_and_the_other_cohort_with_every_fold(results):
    for method in ("ABMIL", "LR on pooled bags"):
        assert sum(map(len, probabilities(results, method))) == 24
        assert [len(p) for p in probabilities(results, method, "p_external")] == [24, 24]


def test_paper_table_1_has_the_aucs_of_scikit_learn(results, task):
    plan = paper.folds(task.study, 2, 0)
    for method in ("MoMKD", "WiKG", "LR on omics (privileged)"):
        aucs = [
            roc_auc_score(task.study.labels[task.study.patients_at(test)], p)
            for (_, test), p in zip(plan.splits[0], probabilities(results, method), strict=True)
        ]
        row = table(results, "1").loc[method]
        assert row["auc"] == pytest.approx(np.mean(aucs), abs=1e-5)
        assert row["sd"] == pytest.approx(np.std(aucs, ddof=1), abs=1e-5)


def test_paper_differences_are_to_the_first_row_and_lie_in_their_intervals(results):
    rows = table(results, "1")
    assert np.isnan(rows.loc["MoMKD", "difference"])
    others = rows.drop(index="MoMKD")
    np.testing.assert_allclose(
        others["difference"], others["auc"] - rows.loc["MoMKD", "auc"], atol=2e-5
    )
    assert (others["low"] <= others["difference"]).all()
    assert (others["difference"] <= others["high"]).all()


def test_paper_table_2_has_the_mean_of_the_fold_models_and_their_ensemble(results, task):
    models, labels = probabilities(results, "DSMIL", "p_external"), task.external.labels
    row = table(results, "2").loc["DSMIL"]
    assert row["auc"] == pytest.approx(
        np.mean([roc_auc_score(labels, p) for p in models]), abs=1e-5
    )
    assert row["ensemble"] == pytest.approx(roc_auc_score(labels, np.mean(models, 0)), abs=1e-5)


def test_paper_page_has_every_table_and_says_how_it_was_made(results):
    page = (results / "paper_simulated.md").read_text()
    for name in TABLES:
        assert f"## {paper_methods.TITLES[name]}" in page
    shown = {method for name in TABLES for method in paper_methods.TABLES[name]}
    for method in paper_methods.METHODS:
        assert (f"| {method} |" in page) == (method in shown)
    assert "`python benchmarks/paper.py --simulate" in page
    assert str(results) not in page


def test_paper_figure_3_follows_the_memory_over_epochs(results):
    numbers = pd.read_csv(results / "paper_simulated_fig3.csv")
    assert numbers["method"].to_list() == ["MoMKD", "MoMKD as printed"]
    assert numbers[["epoch", "fits"]].to_numpy().tolist() == [[1, 2], [1, 2]]
    assert numbers["memory_active_ratio"].between(0, 1, inclusive="right").all()
    assert numbers["memory_perplexity_0"].between(1, 16).all()


def test_paper_figure_3_has_both_definitions_and_loss_terms_their_weights(results):
    numbers = pd.read_csv(results / "paper_simulated_fig3.csv")
    assert numbers["memory_ever_used"].between(0, 1).all()
    momkd = numbers[numbers["method"] == "MoMKD"].iloc[0]
    assert momkd["weighted_align_wsi"] == pytest.approx(0.2 * momkd["train_align_wsi"], rel=1e-3)
    page = (results / "paper_simulated.md").read_text()
    assert "ever used in an epoch (the paper's wording)" in page
    assert "## The loss terms during training" in page


def test_paper_tables_1_and_2_have_acc_and_f1_of_scikit_learn(results, task):
    study, rows = task.study, fits(results)
    mine = rows[rows["method"] == "ABMIL"].sort_values("fold")
    scores = []
    for fit, (_, test) in zip(mine.itertuples(), paper.folds(study, 2, 0).splits[0], strict=True):
        y, p = study.labels[study.patients_at(test)], np.array(fit.p.split(), dtype=float)
        at = [(y, p > 0.5), (y, p >= fit.threshold)]
        scores.append([f(*pair) for pair in at for f in (accuracy_score, macro_f1)])
    found = table(results, "1").loc["ABMIL"]
    columns = ["acc", "f1", "acc_tuned", "f1_tuned"]
    np.testing.assert_allclose(found[columns].astype(float), np.mean(scores, axis=0), atol=1e-4)
    np.testing.assert_allclose(found["acc_sd"], np.std(scores, axis=0, ddof=1)[0], atol=1e-4)

    y, models = task.external.labels, probabilities(results, "ABMIL", "p_external")
    expected = np.mean(
        [macro_f1(y, p >= t) for p, t in zip(models, mine["threshold"], strict=True)]
    )
    assert table(results, "2").loc["ABMIL", "f1_tuned"] == pytest.approx(expected, abs=1e-4)


def macro_f1(y, predicted):
    return f1_score(y, predicted, average="macro")


def test_paper_misclassified_patients_are_those_of_the_rows(results, task):
    found = pd.read_csv(results / "paper_simulated_s3.csv")
    wrong = set()
    plan = paper.folds(task.study, 2, 0)
    for p, (_, test) in zip(probabilities(results, "MoMKD"), plan.splits[0], strict=True):
        patients = task.study.patients_at(test)
        wrong |= set(task.study.names[patients[(p > 0.5) != task.study.labels[patients]]])
    assert set(found["patient_id"]) == wrong
    assert {"p_true_omics", "wrong_pooled", "margin", "group"} <= set(found)


def test_paper_numbers_stand_beside_ours(results):
    page = (results / "paper_simulated.md").read_text()
    assert "| | HER2, paper | PR, paper | ODX, paper | visible, ours |" in page.replace(
        "|  |", "| |"
    )
    assert "| MoMKD | .796 (.007) | .879 (.009) | .823 (.023) |" in page
    assert "UNI v2" in page


def test_published_numbers_are_of_rows_that_exist():
    for table_name, rows in published.TABLES.items():
        assert set(rows) <= set(paper_methods.TABLES[table_name]), table_name
        assert all(0 < number.mean < 1 for row in rows.values() for number in row.values())


def test_paper_killed_run_goes_on_and_repeats_only_what_is_missing(results, tmp_path, capsys):
    whole = (results / "paper_simulated_fits_0.csv").read_text().splitlines(keepends=True)
    last = fits(results).iloc[-1]
    path = tmp_path / "paper_simulated_fits_0.csv"
    path.write_text("".join(whole[:-1]) + whole[-1][:40])  # killed while writing its last row
    paper.main([*CALL, "--tables", "4", "--results", str(tmp_path)])
    again = path.read_text().splitlines(keepends=True)
    assert again[:-1] == whole[:-1]
    assert "run again" in capsys.readouterr().out
    redone = fits(tmp_path).iloc[-1]
    same = ["task", "method", "seed", "fold", "data", "p", "p_external", "history"]
    assert redone[same].to_list() == last[same].to_list()


def test_paper_other_patients_under_the_same_name_are_refused(results):
    others = [*CALL, "--patients", "20", "--results", str(results)]
    with pytest.raises(SystemExit, match="other patients, labels, omics or folds"):
        paper.main(others)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Options of two cohorts in files, the table of the first as it may be changed."""
    folder = tmp_path_factory.mktemp("cohorts")
    size = {"n_patients": 24, "n_patches": 4, "n_features": 8, "n_genes": 20, "n_sites": 6}
    here, there = (
        simulate_cohort(folder / name, prefix=name, random_state=i, **size)
        for i, name in enumerate(("HERE", "THERE"))
    )
    paths = {"table": here.table, "features": here.features, "omics": here.omics}
    paths |= {"external-table": there.table, "external-features": there.features}
    return paths


def paper_of_files(
    paths, folder, *more, table="1", external=False, methods=(paper_methods.POOLED,)
):
    shown = [k for k in paths if external or not k.startswith("external")]
    call = [part for k in shown for part in (f"--{k}", str(paths[k]))]
    call += ["--labels", "subtype", "--positive", "aggressive", "--name", "files", "--seeds", "0"]
    call += ["--n-splits", "2", "--n-bootstrap", "20"]
    call += ["--methods", *methods] if methods else []
    paper.main([*call, "--tables", table, "--results", str(folder), *more])
    return pd.read_csv(folder / f"paper_files_table{table}.csv")


def test_paper_fits_of_other_labels_are_refused(files, tmp_path):
    paper_of_files(files, tmp_path)
    with pytest.raises(SystemExit, match="other patients, labels, omics"):
        paper_of_files(files, tmp_path, "--positive", "indolent")


def test_paper_other_cohort_is_predicted_when_it_comes_and_when_it_changes(files, tmp_path):
    paper_of_files(files, tmp_path)
    first = paper_of_files(files, tmp_path, table="2", external=True)
    table = pd.read_csv(files["external-table"])
    table[4:].to_csv(tmp_path / "fewer.csv", index=False)
    fewer = files | {"external-table": tmp_path / "fewer.csv"}
    changed = paper_of_files(fewer, tmp_path, table="2", external=True)
    alone = paper_of_files(fewer, tmp_path / "alone", table="2", external=True)
    assert changed["auc"].tolist() == alone["auc"].tolist()
    assert len(paper.read_fits(tmp_path / "paper_files_fits_0.csv")) == first["fits"].sum() == 2


def test_paper_refuses_training_patients_elsewhere_and_groups_that_are_no_column(files, tmp_path):
    same = files | {f"external-{k}": files[k] for k in ("table", "features")}
    with pytest.raises(LeakageError, match="24 patients of the external cohort"):
        paper_of_files(same, tmp_path, table="2", external=True)
    with pytest.raises(SystemExit, match=r"--groups sit: the table has .'slide_id'"):
        paper_of_files(files, tmp_path, "--groups", "sit")


def test_paper_seeds_have_files_of_their_own_and_tables_those_of_the_call(files, tmp_path):
    both = paper_of_files(files, tmp_path, "--seeds", "0", "1")
    rows = [paper.read_fits(tmp_path / f"paper_files_fits_{seed}.csv") for seed in (0, 1)]
    assert [set(part["seed"]) for part in rows] == [{0}, {1}]
    second = paper_of_files(files, tmp_path, "--seeds", "1")
    assert (both["fits"].item(), second["fits"].item()) == (4, 2)
    assert len(paper.read_fits(tmp_path / "paper_files_fits_1.csv")) == 2


def test_paper_takes_a_positive_value_for_each_label(files, tmp_path):
    table = pd.read_csv(files["table"]).assign(other=lambda t: t["subtype"].map(OTHER_WORDS))
    table.to_csv(tmp_path / "two.csv", index=False)
    two = {**files, "table": tmp_path / "two.csv"}
    call = ("--labels", "subtype", "other", "--positive", "aggressive", "bad")
    rows = paper_of_files(two, tmp_path, *call).set_index("task")
    assert rows.loc["subtype", "auc"] == rows.loc["other", "auc"]


def test_paper_needs_as_many_positive_values_as_labels(files, tmp_path, capsys):
    with pytest.raises(SystemExit):
        paper_of_files(files, tmp_path, "--positive", "aggressive", "bad")
    assert "--positive has ['aggressive', 'bad'], --labels" in capsys.readouterr().err


def test_paper_groups_held_out_are_the_other_cohort_and_train_nothing(files, tmp_path):
    table = pd.read_csv(files["table"])
    sites = sorted(table["site"].unique())[:2]
    held_out = table["site"].isin(sites)
    call = ("--groups", "site", "--external-groups", *sites)
    found = paper_of_files(files, tmp_path, *call, table="2")
    halves = {"table": table[~held_out], "external-table": table[held_out]}
    split = files | {"external-features": files["features"]}
    for name, half in halves.items():
        split[name] = tmp_path / f"{name}.csv"
        half.to_csv(split[name], index=False)
    apart = paper_of_files(split, tmp_path / "apart", "--groups", "site", table="2", external=True)
    assert found.drop(columns="cpu_seconds").equals(apart.drop(columns="cpu_seconds"))
    predicted = (
        paper.read_fits(tmp_path / "paper_files_fits_0.csv")["p_external"].str.split().map(len)
    )
    assert predicted.tolist() == [held_out.sum()] * 2


def test_paper_folds_of_the_only_group_that_is_left_are_of_patients(files, tmp_path, capsys):
    table = pd.read_csv(files["table"])
    table["site"] = ["A", "B"] * (len(table) // 2)
    table.to_csv(tmp_path / "two.csv", index=False)
    more = ("--groups", "site", "--external-groups", "B")
    paper_of_files(files | {"table": tmp_path / "two.csv"}, tmp_path, *more, table="2")
    assert "subtype: site 'A' alone; folds are of patients." in capsys.readouterr().out
    assert "2 folds of whole patients" in (tmp_path / "paper_files.md").read_text()


def test_paper_groups_to_hold_out_must_be_there(files, tmp_path, capsys):
    with pytest.raises(SystemExit, match=r"'site' has no .'nowhere'.; it has"):
        paper_of_files(files, tmp_path, "--groups", "site", "--external-groups", "nowhere")
    with pytest.raises(SystemExit):
        paper_of_files(files, tmp_path, "--external-groups", "nowhere")
    assert "--external-groups needs --groups" in capsys.readouterr().err


def test_paper_presets_of_their_own_take_what_the_call_sets():
    protocol = paper_methods.Protocol(max_epochs=3, sizes={"hidden_dim": 8})
    small = protocol.model("small", None)[-1]
    assert (small.max_epochs, small.hidden_dim, small.lambda_teacher) == (3, 8, "auto")
    assert protocol.model("default, batches of 16", None)[-1].batch_size == 16


def test_paper_other_settings_are_other_rows(results, task):
    options = paper.parse([*CALL, "--results", str(results)])
    other = paper_methods.Protocol(batch_size=4)
    assert paper.known_fits(options, [task], other).empty


@pytest.mark.parametrize(
    ("size", "why"), [("no_such_size=3", "no method has it"), ("alpha_wsi=1", "varies it")]
)
def test_paper_size_that_does_not_apply_raises(tmp_path, size, why):
    call = [*CALL, size, "--tables", "3", "--results", str(tmp_path)]
    with pytest.raises(ValueError, match=why):
        paper.main(call)


def test_wsi_solely_has_neither_memory_nor_omics(task):
    model = paper_methods.Protocol(max_epochs=1, sizes={"hidden_dim": 8}).model("WSI solely", None)
    model.fit(task.study.bags, task.study.y)
    names = dict(model[-1].module_.named_parameters())
    assert not [n for n in names if "memory" in n or "omics" in n]
    assert set(model[-1].history_.filter(regex="^train_(?!loss)")) <= {"train_ce"}


def bags_in_files(folder, sizes, slide_features):
    for i, (size, measured) in enumerate(zip(sizes, slide_features, strict=True)):
        with h5py.File(folder / f"S{i}.h5", "w") as file:
            file["features"] = np.arange(3.0 * size).reshape(size, 3) + i
            file["coords"] = np.zeros((size, 2), dtype=int)
            if measured is not None:
                file["slide_features"] = measured
    return read_bags(folder)


@pytest.mark.exact_features
def test_regressions_read_joined_instances_and_slide_features(tmp_path):
    bags = bags_in_files(tmp_path, (2, 2), ([1.0, 2], [3, 4]))
    rows = paper_methods.join_instances(bags)
    assert rows.tolist() == [[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6]]
    assert paper_methods.slide_features(bags).tolist() == [[1, 2], [3, 4]]
    assert not any(paper_methods.obstacle(name, bags) for name in paper_methods.METHODS)


def test_obstacles_say_what_is_missing(tmp_path):
    stored = bags_in_files(tmp_path, (2, 3), ([1.0, 2], None))
    joined = paper_methods.obstacle(paper_methods.JOINED, stored)
    assert "2 to 3 instances" in joined
    slide = paper_methods.obstacle(paper_methods.SLIDE, stored)
    assert "1 of 2 bags" in slide
    assert "'S1'" in slide
    in_memory = as_bags([np.ones((2, 3))])
    assert "--in-memory" in paper_methods.obstacle(paper_methods.SLIDE, in_memory)


def test_paper_leaves_out_what_a_cohort_cannot_have_and_says_so(files, tmp_path, monkeypatch):
    rows = [paper_methods.POOLED, paper_methods.JOINED, paper_methods.SLIDE]
    monkeypatch.setitem(paper_methods.TABLES, "small", rows)
    found = paper_of_files(files, tmp_path, table="small", methods=())
    assert found["method"].tolist() == [paper_methods.POOLED]
    page = (tmp_path / "paper_files.md").read_text()
    assert "No row LR on joined instances: bags have" in page
    assert "No row LR on slide features: 24 of 24 bags have no" in page
    with pytest.raises(SystemExit, match=r"--methods 'LR on joined instances': bags have \d"):
        paper_of_files(files, tmp_path, table="small", methods=[paper_methods.JOINED])


@pytest.mark.long
def test_when_omics_helps_has_a_line_per_cell_and_counts_claims(tmp_path, monkeypatch):
    small = {"TRAINING": 24, "TEST": 20, "SMALL": when_omics_helps.SMALL | {"max_epochs": 1}}
    for name, value in small.items():
        monkeypatch.setattr(when_omics_helps, name, value)
    cells, claim = ["base", "omics says nothing"], "planted: omics knows which labels are wrong"
    call = ["--cells", *cells, "--seeds", "0", "1", "--claims", claim, "--cohorts", "1"]
    when_omics_helps.main([*call, "--results", str(tmp_path)])
    page = (tmp_path / "when_does_omics_help.md").read_text()
    gains = pd.read_csv(tmp_path / "when_does_omics_help.csv")
    claims = pd.read_csv(tmp_path / "when_does_omics_help_claims.csv")
    assert sorted(set(zip(gains["cell"], gains["seed"], strict=True))) == [
        (cell, seed) for cell in cells for seed in (0, 1)
    ]
    for cell in cells:
        mean = gains.loc[gains["cell"] == cell, "without omics"].mean()
        assert f"| {cell} | 2 | {mean:.3f}".replace("0.", ".") in page
    assert claims["outcome"].tolist() == ["gain"]
    assert "| 1 | 300 | 1 | 0 | 0 | 0 | 100% [21%, 100%] |" in page


def test_presets_page_counts_epochs_in_which_a_term_is_above_the_cross_entropy(tmp_path):
    shared = {"cohort": "c", "label": "x", "seed": 0, "batch_size": 1, "max_epochs": 2}
    shared |= {"patches": 9, "train": 7, "validation": 1, "test": 2, "positive_test": 1}
    shared |= {"epochs": 2, "best_epoch": 1, "cpu_seconds": 30.0, "machine": "m"}
    terms = {"ce": "0.4 0.2", "align_wsi": "0.5 0.1", "align_omics": "0.1 0.1", "mse": "0 0"}
    rows = [
        shared | terms | {"preset": "paper", "auc": 0.5, "memory": "0.8 0.6"},
        shared | terms | {"preset": "paper", "auc": 0.7, "memory": "0.8 0.6", "seed": 1},
        shared | terms | {"preset": "default", "auc": 0.6, "memory": "0.1 0.1"},
    ]
    path = tmp_path / "presets.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    presets.write(pd.read_csv(path), path)
    page = path.with_suffix(".md").read_text()
    assert "| c | x | paper | 2 | .600 (.141) | 2.0 | 1.0 | 30 |" in page
    assert "| c | paper | first | 0.4 | 0.8 | 0.5 | 0.1 | 0 | 2 |" in page
    # L_mem, L_wsi, L_omics, L_mse, any of them, their sum
    assert "| paper | 4 | 100 % | 50 % | 0 % | 0 % | 100 % | 100 % |" in page
    assert "| default | 2 | 0 % | 50 % | 0 % | 0 % | 50 % | 100 % |" in page
    assert "3 fits, 2 processor minutes" in page


def test_presets_keep_the_learning_rate_at_one_slide_and_scale_it_with_the_batch():
    for batch_size, factor in ((1, 1), (16, 4)):
        options = SimpleNamespace(batch_size=batch_size, max_epochs=3)
        clf = presets.classifier("release, stopped as default", 5, options)
        assert clf.learning_rate == pytest.approx(factor * 2e-4)
        assert (clf.hidden_dim, clf.patience, clf.max_epochs, clf.random_state) == (512, 15, 3, 5)
