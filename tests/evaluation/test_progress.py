"""One progress bar over all fits: its total, where it is written, and when."""

import sys

import numpy as np
import pytest
from conftest import make_bags, make_omics
from joblib import parallel_config
from quick import quick
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.dummy import DummyClassifier

from sk_momkd import (
    Bag,
    BagSequence,
    compare,
    compare_omics,
    evaluate,
    learning_curve,
    permutation_check,
    progress,
    seed_spread,
)
from sk_momkd.progress import labelled, progress_bar

Y = np.arange(20) % 2
BAGS = BagSequence(
    Bag(np.ones((2, 3)), bag_id=f"S{i:02d}", patient_id=f"P{i:02d}") for i in range(20)
)
FEW = {"cv": 2, "n_bootstrap": 20}


class TakesOmics(ClassifierMixin, BaseEstimator):
    """It says .5 of everything."""

    def fit(self, X, y, omics=None):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        return np.full((len(X), 2), 0.5)

    def predict(self, X):
        return np.full(len(X), self.classes_[0])


def many_methods(**options):
    compare({"a": DummyClassifier(), "b": DummyClassifier()}, BAGS, Y, **FEW, **options)


def with_and_without(**options):
    compare_omics(TakesOmics(), BAGS, Y, make_omics(Y).set_axis(BAGS.patient_ids), **FEW, **options)


CALLS = {
    "evaluate": (lambda **o: evaluate(DummyClassifier(), BAGS, Y, n_repeats=3, **FEW, **o), 6),
    "compare": (many_methods, 4),
    "compare_omics": (with_and_without, 6),
    "permutation_check": (
        lambda **o: permutation_check(DummyClassifier(), BAGS, Y, cv=2, n_permutations=3, **o),
        8,
    ),
    "seed_spread": (lambda **o: seed_spread(DummyClassifier(), BAGS, Y, cv=2, n_seeds=3, **o), 6),
    "learning_curve": (
        lambda **o: learning_curve(DummyClassifier(), BAGS, Y, fractions=(0.5, 1), **FEW, **o),
        4,
    ),
}


@pytest.fixture
def bars(monkeypatch):
    """All bars that are made."""
    made, plain = [], progress._logged_bar()

    def record(**settings):
        made.append(plain(**settings))
        return made[-1]

    monkeypatch.setattr(progress, "_logged_bar", lambda: record)
    return made


@pytest.mark.parametrize("name", CALLS)
def test_bar_counts_all_fits_on_standard_error_alone(name, bars, capfd):
    call, n_fits = CALLS[name]
    call(verbose=True)
    out, err = capfd.readouterr()
    (bar,) = bars
    assert (bar.total, bar.n) == (n_fits, n_fits)
    assert out == ""
    assert err.lstrip("\r").startswith(name)
    assert f"{n_fits}/{n_fits}" in err
    assert "fit/s]" in err or "s/fit]" in err  # and before it elapsed<left


@pytest.mark.parametrize("options", [{}, {"verbose": False}])
@pytest.mark.parametrize("name", CALLS)
def test_nothing_is_written_where_nobody_looks(name, options, capfd):
    CALLS[name][0](**options)
    assert capfd.readouterr() == ("", "")


def test_bar_is_shown_by_default_in_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    CALLS["evaluate"][0]()
    assert "evaluate DummyClassifier: 100%" in capsys.readouterr().err


@pytest.mark.parametrize("backend", ["threading", pytest.param("loky", marks=pytest.mark.slow)])
def test_bar_counts_fits_of_several_workers_and_results_are_the_same(backend, bars):
    alone = evaluate(DummyClassifier(), BAGS, Y, **FEW)
    with parallel_config(backend=backend):
        result = evaluate(DummyClassifier(), BAGS, Y, n_jobs=2, verbose=True, **FEW)
    assert bars[-1].n == 2
    assert result.predictions.equals(alone.predictions)


def test_time_left_is_told_by_the_fits_of_this_run(bars, tmp_path, caplog):
    caplog.set_level("INFO", "sk_momkd.progress")
    few = {"cv": 2, "n_seeds": 1, "store": tmp_path}
    seed_spread(DummyClassifier(), BAGS, Y, **few)
    seed_spread(DummyClassifier(), BAGS, Y, **few | {"n_seeds": 3}, verbose=True)
    assert (bars[-1].total, bars[-1].n, bars[-1].initial) == (6, 6, 2)
    before, last = caplog.messages[-2:]
    assert before.endswith(f": read 2 of 6 fits from {tmp_path}")
    assert "6 of 6 fits in" in last
    caplog.clear()
    seed_spread(DummyClassifier(), BAGS, Y, **few | {"n_seeds": 3})
    (only,) = caplog.messages
    assert only.endswith(f": read 6 of 6 fits from {tmp_path}")


@pytest.mark.parametrize(
    ("seconds", "n", "most"), [(0.1, 300, 4), (1, 300, 31), (30, 20, 20), (0.5, 40_000, 110)]
)
def test_log_has_about_a_hundred_lines_of_a_long_run(seconds, n, most, monkeypatch, caplog):
    caplog.set_level("INFO", "sk_momkd.progress")
    now = [0.0]
    monkeypatch.setattr("sk_momkd.progress.time.perf_counter", lambda: now[0])
    bar = progress_bar(n, "fit", "test", shown=False)
    for _ in range(n):
        now[0] += seconds
        bar.update()
    assert most / 2 < len(caplog.messages) <= most
    assert caplog.messages[-1].startswith(f"test: {n} of {n} fits in ")
    assert all(" left" in line for line in caplog.messages[:-1])


def test_bar_is_closed_by_an_error(bars):
    with pytest.raises(ValueError, match="strategy"):
        evaluate(DummyClassifier(strategy="none"), BAGS, Y, verbose=True, **FEW)
    assert bars[0].disable  # as after close


def test_bars_inside_others_have_labels(capfd):
    with labelled("fold 1"), labelled(""), labelled("model 2 of 3"):
        inner = progress_bar(5, "epoch", "training ABMIL", shown=True)
    assert inner.desc == "fold 1, model 2 of 3, training ABMIL"
    assert not inner.leave
    inner.close()
    outer = progress_bar(5, "epoch", "training ABMIL", shown=True)
    assert (outer.desc, outer.leave) == ("training ABMIL", True)
    outer.close()


@pytest.mark.slow
def test_bars_of_fits_name_fold_and_model(bars):
    bags, y = make_bags(12)
    clf = quick("ABMILClassifier", max_epochs=1, n_models=2, verbose=1)
    evaluate(clf, bags, y, cv=2, n_bootstrap=20)
    titles = [bar.desc.rstrip(": ") for bar in bars[1:]]
    assert titles == [
        f"repeat 0, fold {fold}, model {model} of 2, training ABMIL"
        for fold in (0, 1)
        for model in (1, 2)
    ]
