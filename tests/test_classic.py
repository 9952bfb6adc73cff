"""The benchmark on the classical MIL sets: scores of a fold, settings, and what the page says."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import classic

Y = np.array([0, 0, 1, 1])


def test_scores_are_of_the_last_epoch_and_the_best_ones_are_kept_apart():
    p = np.array([[0.1, 0.2, 0.8, 0.9], [0.1, 0.2, 0.3, 0.4], [0.6, 0.2, 0.3, 0.4]])
    found = classic.scores(Y, p)
    assert (found["accuracy"], found["best_epoch"], found["number_of_best_epoch"]) == (0.25, 1, 1)
    assert classic.scores(Y, p[1:])["best_epoch_and_threshold"] == 1.0
    assert classic.scores(Y, p[2:])["best_epoch_and_threshold"] == 0.75
    assert classic.scores(Y, p)["auc"] == 0.5


@pytest.mark.parametrize("method", classic.METHODS)
@pytest.mark.parametrize("cohort", classic.COHORTS)
def test_every_cell_has_a_classifier_without_validation_part_and_a_published_number(method, cohort):
    clf = classic.make_classifier(method, cohort, 0)
    clf._validate_params()
    assert not clf.early_stopping
    mean, spread = classic.published(method, cohort)
    assert 0.5 < mean < 1
    assert 0 < spread < 0.1


def test_page_compares_the_mean_of_the_runs_with_the_paper(tmp_path, monkeypatch):
    monkeypatch.setattr(classic, "RESULTS", tmp_path)
    rows = pd.DataFrame(
        {
            "method": "DSMIL",
            "cohort": "tiger",
            "run": [0, 0, 1, 1],
            "accuracy": [0.9, 0.8, 0.7, 0.8],
            "best_epoch": 0.85,
            "best_epoch_and_threshold": 0.9,
            "auc": 0.9,
            "accuracy_train": 1.0,
            "cpu_seconds": 1.0,
        }
    )
    classic.write(rows)
    page = (tmp_path / "classic.md").read_text()
    row = "| DSMIL | tiger | 2 | .869 ± .008 | **.800** | .071 | .082 | -.069 | no | .850 | .900 |"
    assert row in page
