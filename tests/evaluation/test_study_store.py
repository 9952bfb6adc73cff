"""A study that stops goes on, is shared by processes, and refuses fits of another study."""

import copy
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_omics
from evaluation.conftest import Recorder
from joblib import parallel_config
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import FitFailedWarning
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import LinearSVC

from sk_momkd import (
    Bag,
    BagPooling,
    BagSequence,
    StudyStore,
    compare,
    compare_omics,
    evaluate,
    learning_curve,
    permutation_check,
    read_bags,
    seed_spread,
)
from sk_momkd.data.omics import OmicsTable
from sk_momkd.evaluation import study_store
from sk_momkd.evaluation.planned_fits import PlannedFits
from sk_momkd.evaluation.study import as_study, make_plan
from sk_momkd.exceptions import LeakageError, ModelFileError, StoreError, TrainingError

N = 24
Y = np.where(np.arange(N) % 2, "luminal", "basal")
RANDOM = np.random.default_rng(0)
FEATURES = [RANDOM.normal(i % 2, 2, size=(3, 2)) for i in range(N)]
FEW = {"cv": 3, "n_bootstrap": 20}
SECONDS = ["fit_seconds", "predict_seconds"]


def cohort(features=FEATURES):
    return BagSequence(
        Bag(x, bag_id=f"S{i:02d}", patient_id=f"P{i // 2 if i < 4 else i:02d}")
        for i, x in enumerate(features)
    )


BAGS = cohort()


def pooled(**settings):
    return make_pipeline(BagPooling(), LogisticRegression(**settings))


class Counting(Recorder):
    """Counts its fits, and fails or is interrupted after some."""

    fits = 0
    limit = None
    error = KeyboardInterrupt

    def fit(self, X, y, omics=None, groups=None):
        if Counting.limit is not None and Counting.fits >= Counting.limit:
            raise Counting.error("enough")
        Counting.fits += 1
        super().fit(X, y)
        shift = 0 if self.random_state is None else self.random_state % 7 / 10
        self.model_.intercept_ = self.model_.intercept_ + shift  # the seed has an effect
        return self


@pytest.fixture(autouse=True)
def counted():
    Counting.fits, Counting.limit, Counting.error = 0, None, KeyboardInterrupt
    yield
    Counting.limit = None


RNA = make_omics(np.arange(N) % 2).set_axis([f"P{i:02d}" for i in range(N)])
CALLS = {
    "evaluate": (lambda **o: evaluate(Counting(), BAGS, Y, n_repeats=2, **FEW, **o), 6),
    "compare": (
        lambda **o: compare({"a (1)": Counting(), "a [1]": Counting()}, BAGS, Y, **FEW, **o),
        6,
    ),
    "compare_omics": (lambda **o: compare_omics(Counting(), BAGS, Y, RNA, **FEW, **o), 9),
    "permutation_check": (
        lambda **o: permutation_check(Counting(), BAGS, Y, cv=3, n_permutations=2, **o),
        9,
    ),
    "seed_spread": (lambda **o: seed_spread(Counting(), BAGS, Y, cv=3, n_seeds=2, **o), 6),
    "learning_curve": (
        lambda **o: learning_curve(Counting(), BAGS, Y, fractions=(0.5, 1), **FEW, **o),
        6,
    ),
}


def tables(result):
    return {k: t.drop(columns=SECONDS, errors="ignore") for k, t in result.tables().items()}


def assert_same(one, other):
    first, second = tables(one), tables(other)
    assert first.keys() == second.keys()
    for name, table in first.items():
        pd.testing.assert_frame_equal(table, second[name], check_exact=True)
    assert str(one.headline) == str(other.headline)
    assert one.note == other.note


@pytest.mark.parametrize("name", CALLS)
def test_interrupted_call_goes_on_and_gives_the_same_result(name, tmp_path):
    call, n_fits = CALLS[name]
    expected = call()
    assert Counting.fits == n_fits
    Counting.fits, Counting.limit = 0, n_fits - 2
    with pytest.raises(KeyboardInterrupt):
        call(store=tmp_path / "store")
    assert len(StudyStore(tmp_path / "store").fits()) == n_fits - 2
    Counting.fits, Counting.limit = 0, None
    result = call(store=tmp_path / "store")
    assert Counting.fits == 2
    assert_same(result, expected)
    again = call(store=tmp_path / "store")
    assert Counting.fits == 2
    if name == "evaluate":  # seconds are those of the fits, which were run once
        pd.testing.assert_frame_equal(again.folds, result.folds, check_exact=True)
    assert not list((tmp_path / "store").rglob("*.claim*"))
    assert not list((tmp_path / "store").rglob("*.part"))


def test_more_of_the_same_is_added(tmp_path):
    seed_spread(Counting(), BAGS, Y, cv=3, n_seeds=2, store=tmp_path)
    seed_spread(Counting(), BAGS, Y, cv=3, n_seeds=3, store=tmp_path)
    assert Counting.fits == 9
    compared = tmp_path / "compared"
    compare({"a": Counting()}, BAGS, Y, **FEW, store=compared)
    result = compare({"b": DummyClassifier(), "a": Counting()}, BAGS, Y, **FEW, store=compared)
    assert Counting.fits == 12
    assert_same(result, compare({"b": DummyClassifier(), "a": Counting()}, BAGS, Y, **FEW))
    finer = compare({"a": Counting()}, BAGS, Y, cv=3, n_bootstrap=30, store=compared)
    assert finer.evaluations["a"].bootstrap.n_draws == 30  # which no fit depends on


OTHER = [*FEATURES[:-1], FEATURES[-1] + 1]
CHANGES = {
    "C was 1.0 and is 0.5": {"estimator": pooled(C=0.5)},
    "estimator was sklearn.pipeline.Pipeline and is": {"estimator": Counting()},
    "content of 1 bags differs: 'S23'": {"bags": cohort(OTHER)},
    "1 bags of it are missing": {"bags": BAGS[:-1], "y": Y[:-1], "omics": None},
    "label of 1 bags differs: 'S23'": {"y": [*Y[:-1], "basal"]},
    "its classes are": {"pos_label": "basal"},
    "group of 24 bags differs": {"groups": np.arange(N) // 4},
    "3 folds and has 4": {"cv": 4},
    "n_repeats was 1 and is 2": {"n_repeats": 2},
    "random_state differs": {"random_state": 1},
    "measure_memory was False and is True": {"measure_memory": True},
    "it is of evaluate, and this is compare": {"call": compare},
}


@pytest.mark.parametrize("difference", CHANGES)
def test_store_of_another_study_is_refused_by_what_differs(difference, tmp_path):
    evaluate(pooled(), BAGS, Y, **FEW, store=tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.json*")}
    given = {"estimator": pooled(), "bags": BAGS, "y": Y, **FEW} | CHANGES[difference]
    call, clf = given.pop("call", evaluate), given.pop("estimator")
    given.pop("omics", None)
    clf = {"LogisticRegression": clf} if call is compare else clf
    with pytest.raises(StoreError) as caught:
        call(clf, given.pop("bags"), given.pop("y"), store=tmp_path, **given)
    assert difference in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.json*")} == before


def test_other_splits_omics_and_versions_are_named(tmp_path, monkeypatch):
    given = {"cv": [(np.arange(8, N), np.arange(8))], "n_bootstrap": 20}
    clf = Counting()
    evaluate(clf, BAGS, Y, omics=RNA, **given, store=tmp_path)
    other = [(np.arange(10, N), np.arange(8))]
    with pytest.raises(StoreError, match="splits differ, the first is fold 0 of repeat 0"):
        evaluate(clf, BAGS, Y, omics=RNA, cv=other, n_bootstrap=20, store=tmp_path)
    changed = RNA.copy()
    changed.iloc[4, 0] += 1
    with pytest.raises(StoreError, match="omics of 1 patients differs: 'P04'"):
        evaluate(clf, BAGS, Y, omics=changed, **given, store=tmp_path)
    renamed = RNA.rename(columns={RNA.columns[0]: "other"})
    with pytest.raises(StoreError, match="the genes differ"):
        evaluate(clf, BAGS, Y, omics=renamed, **given, store=tmp_path)
    with pytest.raises(StoreError, match="rows of omics of it are missing"):
        evaluate(clf, BAGS, Y, **given, store=tmp_path)
    monkeypatch.setattr("sk_momkd.versions.__version__", "99")
    with pytest.raises(StoreError, match=r"sk_momkd was .* and is 99"):
        evaluate(clf, BAGS, Y, omics=RNA, **given, store=tmp_path)


def test_changed_function_in_a_pipeline_is_known_and_an_equal_one_too(tmp_path):
    def mean(bags):
        return np.array([bag.features.mean(axis=0) for bag in bags])

    def largest(bags):
        return np.array([bag.features.max(axis=0) for bag in bags])

    def clf(function):
        return make_pipeline(FunctionTransformer(function), LogisticRegression())

    largest.__qualname__ = mean.__qualname__
    evaluate(clf(mean), BAGS, Y, **FEW, store=tmp_path)
    evaluate(clf(mean), BAGS, Y, **FEW, store=tmp_path)
    with pytest.raises(StoreError, match=r"functiontransformer__func was .* and is"):
        evaluate(clf(largest), BAGS, Y, **FEW, store=tmp_path)


def test_files_of_slides_may_move_but_not_change(tmp_path):
    def saved(folder, features):
        folder.mkdir()
        for i, x in enumerate(features):
            np.save(folder / f"S{i:02d}.npy", x.astype(np.float32))
        return read_bags(folder)

    here = saved(tmp_path / "here", FEATURES)
    there, other = saved(tmp_path / "there", FEATURES), saved(tmp_path / "other", OTHER)
    y = pd.Series(Y, [f"S{i:02d}" for i in range(N)])
    first = evaluate(pooled(), here, y, **FEW, store=tmp_path / "store")
    assert_same(evaluate(pooled(), there, y, **FEW, store=tmp_path / "store"), first)
    with pytest.raises(StoreError, match="content of 1 bags differs: 'S23'"):
        evaluate(pooled(), other, y, **FEW, store=tmp_path / "store")


def test_failed_fits_are_kept_and_tried_again_when_asked(tmp_path):
    Counting.limit, Counting.error = 2, TrainingError
    for is_stored in (False, True):
        with pytest.warns(FitFailedWarning, match="TrainingError: enough") as caught:
            result = evaluate(Counting(), BAGS, Y, **FEW, store=tmp_path)
        assert "This was the fit of fold 2" in str(caught[0].message)
        assert result.failed["error"].tolist() == ["TrainingError: enough"]
        assert result.failed["fold"].tolist() == [2]
        assert ("retry_failed=True" in str(caught[0].message)) == is_stored
    assert StudyStore(tmp_path).fits()["error"].tolist() == [None, None, "TrainingError: enough"]
    Counting.limit = None
    with pytest.raises(TrainingError, match="enough") as caught:
        evaluate(Counting(), BAGS, Y, **FEW, store=tmp_path, error_score="raise")
    assert "retry_failed=True" in caught.value.__notes__[-1]
    assert Counting.fits == 2
    result = evaluate(Counting(), BAGS, Y, **FEW, store=StudyStore(tmp_path, retry_failed=True))
    assert Counting.fits == 3
    assert_same(result, evaluate(Counting(), BAGS, Y, **FEW))


class Unlucky(Counting):
    """Fails as where the machine is at fault."""

    def fit(self, X, y, omics=None, groups=None):
        try:
            return super().fit(X, y)
        except OSError as error:
            raise TrainingError("the slide was lost") from error


@pytest.mark.parametrize(
    ("clf", "error"),
    [
        (Counting(), OSError),
        (Counting(), MemoryError),
        (Counting(), torch.OutOfMemoryError),
        (Counting(), torch.AcceleratorError),
        (Unlucky(), OSError),
    ],
)
def test_failure_of_the_machine_is_not_kept(clf, error, tmp_path):
    Counting.limit, Counting.error = 2, error
    with pytest.warns(FitFailedWarning, match="the same call tries the fit again"):
        evaluate(clf, BAGS, Y, **FEW, store=tmp_path)
    assert len(StudyStore(tmp_path).fits()) == 2
    Counting.limit = None
    result = evaluate(clf, BAGS, Y, **FEW, store=tmp_path)
    assert Counting.fits == 3
    assert result.failed is None


def test_ids_and_labels_with_line_separators_are_read_as_they_were_written(tmp_path):
    separators = "\x85\u2028\u2029"
    names = [f"P{i:02d}{separators[i % 3]}\n\r\x0b\x1c." for i in range(N)]
    bags = BagSequence(Bag(x, patient_id=name) for x, name in zip(FEATURES, names, strict=True))
    y = np.where(np.arange(N) % 2, "a\u2028b", "a\x85")
    for _ in range(2):
        evaluate(Counting(), bags, y, **FEW, store=tmp_path)
    assert Counting.fits == 3
    assert sorted(StudyStore(tmp_path).predictions()["patient_id"]) == sorted(names)


def test_fit_that_cannot_be_read_back_ends_the_call(tmp_path, monkeypatch):
    def damaged(self, text, *args, **kwargs):
        return self.write_bytes(text.replace('"n_bags": 1', '"n_bags": 2').encode())

    monkeypatch.setattr(Path, "write_text", damaged)
    with pytest.raises(StoreError, match="was written just now and cannot be read"):
        evaluate(Counting(), BAGS, Y, **FEW, store=tmp_path)
    assert Counting.fits == 1


def test_task_of_a_worker_holds_the_omics_of_its_repeat_alone():
    table = as_study(BAGS, Y, omics=RNA).omics
    large = OmicsTable(np.ones((N, 500)), table.ids, [f"G{i}" for i in range(500)])
    sizes = []
    for n_repeats in (1, 10):
        study = as_study(BAGS, Y, omics=RNA)
        plan = make_plan(study, 3, n_repeats, 0)
        tables = [table, *(copy.deepcopy(large) for _ in range(n_repeats - 1))]
        planned = PlannedFits("a", study, Counting(), plan, tables, "note")
        sizes.append(len(pickle.dumps(planned.one(planned.folds[0]))))
    assert sizes[1] < sizes[0] * 1.01


def test_bags_are_read_once_when_a_store_is_made(tmp_path, monkeypatch):
    read, plain = [], study_store.bag_digest
    monkeypatch.setattr(study_store, "bag_digest", lambda bag: [read.append(1), plain(bag)][1])
    study = as_study(BAGS, Y)
    planned = [PlannedFits("evaluate", study, pooled(), make_plan(study, 3, 1, 0))]
    for expected in (N, 2 * N):
        study_store.open_store(tmp_path, "evaluate", planned, keep_models=False)
        assert len(read) == expected


def test_omics_is_read_once_when_a_store_is_made(tmp_path, monkeypatch):
    read, plain = [], study_store.omics_digests
    monkeypatch.setattr(study_store, "omics_digests", lambda t: [read.append(1), plain(t)][1])
    study = as_study(BAGS, Y, omics=RNA)
    planned = [PlannedFits(name, study, pooled(), make_plan(study, 3, 2, 0)) for name in "ab"]
    for expected in (1, 2):
        study_store.open_store(tmp_path, "compare", planned, keep_models=False)
        assert len(read) == expected
    other = planned[0]._replace(
        omics=[study.omics, study.omics.take(np.arange(len(study.omics.ids))[::-1])]
    )
    study_store.open_store(tmp_path, "compare", [other._replace(name="c")], keep_models=False)
    assert len(read) == 4


@pytest.mark.parametrize("expires", [0, -1, np.nan, "2"])
def test_time_after_which_every_claim_has_expired_is_refused(expires, tmp_path):
    with pytest.raises(ValueError, match="expires must be a number of seconds above 0"):
        StudyStore(tmp_path, expires=expires)


def test_reading_before_the_first_fit(tmp_path):
    store = StudyStore(tmp_path / "store")
    for read in (store.fits, store.predictions):
        with pytest.raises(StoreError, match="holds no store"):
            read()
    Counting.limit = 0
    with pytest.raises(KeyboardInterrupt):
        evaluate(Counting(), BAGS, Y, **FEW, store=store)
    expected = ["name", "repeat", "fold", "patient_id", "n_bags", "y", "predicted"]
    expected += ["p_basal", "p_luminal"]
    assert store.predictions().columns.tolist() == expected
    assert len(store.predictions()) == len(store.fits()) == 0


def test_error_of_an_unusable_method_names_it():
    with pytest.raises(TypeError, match="has no predict_proba") as caught:
        compare({"good": pooled(), "bad": LinearSVC()}, BAGS, Y, **FEW)
    assert "This was method 'bad'." in caught.value.__notes__


def test_error_of_a_method_that_cannot_be_stored_names_it(tmp_path):
    class Handle:
        def __reduce__(self):
            raise TypeError("cannot pickle a handle")

    handled = FunctionTransformer(kw_args={"handle": Handle()})
    methods = {"good": pooled(), "bad": make_pipeline(handled, Counting())}
    with pytest.raises(TypeError, match="cannot be known again") as caught:
        compare(methods, BAGS, Y, **FEW, store=tmp_path / "a")
    assert "This was method 'bad'." in caught.value.__notes__
    methods["bad"] = Counting()
    with pytest.raises(ModelFileError, match="cannot be saved") as caught:
        compare(methods, BAGS, Y, **FEW, store=tmp_path / "b", keep_models=True)
    assert "This was method 'bad'." in caught.value.__notes__


def test_error_of_a_leak_names_the_method():
    frozen = FrozenEstimator(pooled().fit(BAGS, Y))
    with pytest.raises(LeakageError) as caught:
        compare({"good": pooled(), "bad": frozen}, BAGS, Y, **FEW)
    assert "This was method 'bad'." in caught.value.__notes__


def test_error_of_a_stored_fit_is_caught_as_the_first_one(tmp_path):
    Counting.limit, Counting.error = 0, UnicodeError
    for _ in range(2):
        with pytest.raises(ValueError, match="enough") as caught:
            evaluate(Counting(), BAGS, Y, **FEW, store=tmp_path)
        assert type(caught.value).__name__ == "UnicodeError"


@pytest.mark.parametrize("damage", ["truncated", "empty", "changed", "other patients"])
def test_damaged_fit_is_fitted_again_with_a_warning(damage, tmp_path):
    expected = evaluate(Counting(), BAGS, Y, **FEW, store=tmp_path)
    first, second, _ = sorted(tmp_path.rglob("repeat-0-fold-*.jsonl"))
    text = first.read_text()
    first.write_text(
        {
            "truncated": text[:-10],
            "empty": "",
            "changed": text.replace('"n_bags": 1', '"n_bags": 2'),
            "other patients": second.read_text(),
        }[damage]
    )
    with pytest.warns(UserWarning, match="is damaged"):
        result = evaluate(Counting(), BAGS, Y, **FEW, store=tmp_path)
    assert Counting.fits == 4
    assert_same(result, expected)


@pytest.mark.parametrize("name", ["study.json", "fits.json"])
def test_foreign_descriptions_are_refused(name, tmp_path):
    study = as_study(BAGS[4:12], Y[4:12], omics=RNA)
    planned = [PlannedFits("evaluate", study, pooled(), make_plan(study, 2, 1, 0))]
    study_store.open_store(tmp_path, "evaluate", planned, keep_models=False)
    (path,) = tmp_path.rglob(name)
    own = json.loads(path.read_text())
    foreign = ["", "[]", "{}", "5", "null", '{"key": "00"}', '{"format": "1"}', '{"format": 2}']
    foreign += ["[" * 100_000, "\udcff"]
    for key in own:
        others = [None, {"a": None}, "text", [["a"], None]]
        others = [value for value in others if type(value) is not type(own[key])]
        others = [value for value in others if (key, value) != ("genes", None)]  # as without omics
        foreign += [json.dumps(own | {key: value}) for value in others]
        foreign.append(json.dumps({k: v for k, v in own.items() if k != key}))
    for text in foreign:
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(StoreError):
            study_store.open_store(tmp_path, "evaluate", planned, keep_models=False)


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(TypeError, match="expected the path of a folder"):
        evaluate(pooled(), BAGS, Y, **FEW, store=5)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        evaluate(pooled(), BAGS, Y, **FEW, store=tmp_path / "file")


def test_full_disk_ends_the_call_and_keeps_what_ended(tmp_path, monkeypatch):
    plain, n_written = Path.write_text, [0]

    def full_after_two(self, text, *args, **kwargs):
        n_written[0] += "n_train" in text
        if n_written[0] > 2:
            plain(self, text[:10])
            raise OSError(28, "No space left on device")
        return plain(self, text, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", full_after_two)
    with pytest.raises(OSError, match="No space left") as caught:
        evaluate(Counting(), BAGS, Y, **FEW, store=tmp_path)
    assert "the same call goes on" in caught.value.__notes__[0]
    monkeypatch.undo()
    result = evaluate(Counting(), BAGS, Y, **FEW, store=tmp_path)
    assert Counting.fits == 4  # the third fit ran twice
    assert_same(result, evaluate(Counting(), BAGS, Y, **FEW))


def test_threads_share_a_store_and_each_fit_is_run_once(tmp_path):
    expected = evaluate(Counting(), BAGS, Y, n_repeats=4, **FEW)
    Counting.fits, results = 0, {}

    def run(number):
        results[number] = evaluate(Counting(), BAGS, Y, n_repeats=4, **FEW, store=tmp_path)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counting.fits == 12
    for result in results.values():
        assert_same(result, expected)


def test_fit_of_another_process_is_waited_for(tmp_path, monkeypatch):
    evaluate(Counting(), BAGS, Y, **FEW, store=tmp_path)
    last = sorted(tmp_path.rglob("repeat-0-fold-*.jsonl"))[-1]
    content, claim = last.read_text(), last.with_name(f"{last.name}.claim1")
    last.unlink()
    claim.write_text("{}")  # of a process of another machine, which ends soon

    def end(seconds):
        last.write_text(content)
        claim.unlink()

    monkeypatch.setattr("sk_momkd.evaluation.study_fits.time", SimpleNamespace(sleep=end))
    evaluate(Counting(), BAGS, Y, **FEW, store=tmp_path)
    assert not claim.exists()
    assert Counting.fits == 3


@pytest.mark.parametrize("n_jobs", [2, 3])
def test_results_are_the_same_with_several_workers(n_jobs, tmp_path):
    expected = compare({"a": pooled(), "b": pooled(C=0.1)}, BAGS, Y, **FEW)
    with parallel_config(backend="threading"):
        options = {"n_jobs": n_jobs, "store": tmp_path}
        result = compare({"a": pooled(), "b": pooled(C=0.1)}, BAGS, Y, **FEW, **options)
    assert_same(result, expected)


@pytest.mark.slow
def test_models_are_kept_as_files_and_loaded(tmp_path):
    plain = evaluate(pooled(), BAGS, Y, **FEW, keep_models=True)
    result = evaluate(pooled(), BAGS, Y, **FEW, keep_models=True, store=tmp_path)
    again = evaluate(pooled(), BAGS, Y, **FEW, keep_models=True, store=tmp_path)
    assert len(list(tmp_path.rglob("*.zip"))) == 3
    assert_same(result, plain)
    for one, two, three in zip(plain.models, result.models, again.models, strict=True):
        expected = one.predict_proba(BAGS)
        assert (two.predict_proba(BAGS) == expected).all()
        assert (three.predict_proba(BAGS) == expected).all()
    first, second, _ = sorted(tmp_path.rglob("*.zip"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:100])
    with pytest.warns(UserWarning, match="its model cannot be loaded"):
        fitted_again = evaluate(pooled(), BAGS, Y, **FEW, keep_models=True, store=tmp_path)
    assert_same(fitted_again, plain)
    assert all(model is not None for model in fitted_again.models)
    with pytest.raises(StoreError, match="keep_models was True and is False"):
        evaluate(pooled(), BAGS, Y, **FEW, store=tmp_path)
    with pytest.raises(ModelFileError, match="cannot be saved"):
        evaluate(Counting(), BAGS, Y, **FEW, keep_models=True, store=tmp_path / "other")
    assert Counting.fits == 0


def test_ids_are_in_predictions_alone(tmp_path):
    evaluate(Counting(), BAGS, Y, omics=RNA, **FEW, store=tmp_path)
    for path in tmp_path.rglob("*.json"):
        text = path.read_text()
        assert not any(f"{kind}{i:02d}" in text for kind in "PS" for i in range(N))
    predictions = StudyStore(tmp_path).predictions()
    assert sorted(predictions["patient_id"].unique()) == sorted(set(BAGS.patient_ids))
    assert np.allclose(predictions[["p_basal", "p_luminal"]].sum(axis=1), 1)
    first = json.loads(next(iter(tmp_path.rglob("repeat-*.jsonl"))).read_text().splitlines()[0])
    assert first["n_test"] + first["n_train"] == len(set(BAGS.patient_ids))


STUDY = """
import sys, time
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sk_momkd import Bag, BagSequence, evaluate

class Slow(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        time.sleep({seconds})
        self.classes_ = np.unique(y)
        return self
    def predict_proba(self, X):
        p = np.array([bag.features.mean() % 1 for bag in X])
        return np.column_stack([1 - p, p])
    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

random = np.random.default_rng(0)
bags = BagSequence(Bag(random.normal(size=(2, 2)), patient_id=f"P{{i:02d}}") for i in range(20))
result = evaluate(Slow(), bags, np.arange(20) % 2, cv=4, n_bootstrap=20, store={store!r})
result.predictions.to_csv({out!r}, index=False)
"""


def start(tmp_path, name, seconds):
    script = STUDY.format(seconds=seconds, store=str(tmp_path / "store"), out=str(tmp_path / name))
    return subprocess.Popen([sys.executable, "-c", script], env=os.environ)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_killed_process_leaves_its_fit_to_the_next(tmp_path):
    first = start(tmp_path, "first.csv", 1.0)
    deadline = time.time() + 60
    while time.time() < deadline:
        first.send_signal(signal.SIGSTOP)  # so that nothing ends between this look and the kill
        done = {p.name for p in tmp_path.rglob("*.jsonl")}
        claimed = {p.name.rpartition(".claim")[0] for p in tmp_path.rglob("*.claim*")}
        if len(done) >= 2 and claimed and not claimed & done:
            break
        first.send_signal(signal.SIGCONT)
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    n_done = len(list(tmp_path.rglob("*.jsonl")))
    assert 2 <= n_done < 4
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.jsonl")}
    others = [start(tmp_path, f"{name}.csv", 1.0) for name in ("second", "third")]
    assert [process.wait() for process in others] == [0, 0]
    assert (tmp_path / "second.csv").read_text() == (tmp_path / "third.csv").read_text()
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    assert not list(tmp_path.rglob("*.claim*"))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_studies_killed_at_random_moments_end_as_those_never_stopped():
    sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
    import study_faults

    table = study_faults.kill_studies(6)
    assert set(table["outcome"]) == {"identical"}
