"""Headlines and pages name the label of the table that was coded 1."""

import html

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier

from sk_momkd import cache_bags, evaluate, evaluate_external, load_cohort, report, simulate_cohort


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    paths = simulate_cohort(folder, n_patients=12, n_patches=4, n_features=4, random_state=0)
    table = pd.read_csv(paths.table, dtype=str)
    words = {"aggressive": "Positive", "indolent": "Negative"}
    return table.assign(HER2=table["subtype"].map(words)), paths.features


def run(bags, y, **options):
    return evaluate(DummyClassifier(), bags, y, cv=2, n_bootstrap=10, **options)


NAMED = "positive class 1 ('Positive' of 'HER2')"


@pytest.mark.parametrize("unit", ["slide", "patient"])
def test_headline_names_the_label_of_the_table(files, unit, tmp_path):
    bags, y, _, join = load_cohort(*files, label="HER2", positive="Positive", unit=unit)
    assert NAMED in run(bags, y).headline
    assert NAMED in run(bags[::-1], y[::-1]).headline
    assert NAMED in run(cache_bags(bags, tmp_path), y).headline
    assert "1 ('Positive'): 6" in str(join)
    assert "0 ('Negative'): 6" in str(join)


def test_several_values_are_all_named(files):
    table, features = files
    table = table.assign(HER2=np.where(table["HER2"] == "Positive", "3+", "0"))
    table.loc[table.index[table["HER2"] == "3+"][0], "HER2"] = "2+"
    bags, y, _, _ = load_cohort(table, features, label="HER2", positive=["2+", "3+"], negative="0")
    assert " of 'HER2')" in run(bags, y).headline
    assert "'2+'" in run(bags, y).headline
    assert "'3+'" in run(bags, y).headline


def test_other_labels_of_the_same_bags_get_no_name(files):
    bags, y, _, _ = load_cohort(*files, label="HER2", positive="Positive")
    assert "of 'HER2'" not in run(bags, 1 - y).headline
    plain, text, _, join = load_cohort(*files, label="HER2")
    assert "positive class 'Positive', 2 folds" in run(plain, text).headline
    assert "Positive: 6" in str(join)


def test_page_and_external_result_name_it_and_the_ensemble(files, tmp_path):
    pytest.importorskip("matplotlib")
    bags, y, _, join = load_cohort(*files, label="HER2", positive="Positive")
    half = np.arange(len(bags)) % 4 < 2
    here = run(bags[half], y[half], keep_models=True)
    there = evaluate_external(here, bags[~half], y[~half], n_bootstrap=10)
    assert NAMED in there.headline
    assert f"AUROC {there.summary.loc['auroc', 'ensemble']:.3f}" in there.headline
    assert "of the ensemble" in there.headline
    page = html.unescape(report(there, tmp_path / "r.html", join=join).read_text("utf-8"))
    assert there.headline in page
    assert "AUROC of the ensemble of 2 models" in page
    assert "sensitivity (positive class: 1 = 'Positive' of 'HER2')" in page
    assert "1 = 'Positive' of 'HER2' (positive) against 0 = 'Negative' of 'HER2'." in page
    assert "6 x 1 ('Positive')" in page
