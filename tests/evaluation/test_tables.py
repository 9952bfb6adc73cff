"""Results as text, HTML and files."""

import dataclasses

import pandas as pd
import pytest

from sk_momkd.evaluation.cross_validation import evaluate


@pytest.fixture
def result(noisy_cohort, pooled_lr):
    bags, y, sites = noisy_cohort
    return evaluate(pooled_lr, bags, y, groups=sites, cv=2, n_bootstrap=20)


def test_text_has_headline_and_tables(result):
    text = str(result)
    patients = "40 patients (20 x 'basal', 20 x 'luminal'), positive class 'luminal', 8 groups"
    assert text.startswith(f"LogisticRegression: {patients}")
    assert "calibration_error" in text
    assert "site7" in text
    assert repr(result) == f"<{result.headline}>"


def test_html_escapes_the_headline(result):
    page = dataclasses.replace(result, name="<LR>")._repr_html_()
    assert page.startswith("<p>&lt;LR&gt;")
    assert page.count("<table") == 2


def test_files_read_back(result, tmp_path):
    written = result.to_csv(tmp_path / "new")
    names = ["summary.csv", "folds.csv", "predictions.csv", "sites.csv", "result.txt"]
    assert [path.name for path in written] == names
    back = pd.read_csv(tmp_path / "new" / "summary.csv", index_col="metric")
    pd.testing.assert_frame_equal(back, result.summary)
    assert len(pd.read_csv(tmp_path / "new" / "predictions.csv")) == 40


def test_result_is_frozen(result):
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.summary = None


def test_text_hides_what_has_no_value_and_files_keep_it(result, tmp_path):
    assert "accuracy_tuned" not in str(result)
    result.to_csv(tmp_path)
    assert "accuracy_tuned" in (tmp_path / "summary.csv").read_text()


def test_interrupted_writing_leaves_the_files_as_they_were(result, tmp_path, monkeypatch):
    result.to_csv(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(result), "__str__", interrupt)
    shorter = dataclasses.replace(result, predictions=result.predictions[:3])
    with pytest.raises(KeyboardInterrupt):
        shorter.to_csv(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
