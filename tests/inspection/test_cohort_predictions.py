"""Predictions of many files: the same as of bags, resumed, one bad file at a time."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from sk_momkd import ABMILClassifier, predict_cohort, read_bags, simulate_cohort
from sk_momkd.bag_warnings import warn_of_bag
from sk_momkd.exceptions import EmptyInstancesWarning, FeatureShiftWarning
from sk_momkd.inspection import cohort_predictions
from sk_momkd.training.feature_scale import UnlikeTraining
from sk_momkd.training.feature_summary import FeatureSummary


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    paths = simulate_cohort(folder, n_patients=8, n_patches=6, n_features=5, random_state=0)
    bags = read_bags(paths.features)
    labels = np.where(np.arange(8) % 2, "yes", "no")
    clf = ABMILClassifier(dim=4, max_epochs=1, early_stopping=False, random_state=0)
    return clf.fit(bags, labels), paths.features, clf.predict_proba(bags)


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_rows_are_the_predictions_of_the_bags_in_the_order_of_the_files(cohort, format, tmp_path):
    clf, features, proba = cohort
    files = sorted(Path(features).glob("*.h5"))[::-1]
    table = predict_cohort(clf, files, tmp_path, format=format, files_per_part=3)
    assert table["file"].tolist() == [str(file) for file in files]
    np.testing.assert_allclose(table[["p_no", "p_yes"]], proba[::-1], rtol=1e-12)
    assert table["predicted"].tolist() == clf.classes_[proba[::-1].argmax(axis=1)].tolist()
    assert len(list(tmp_path.glob(f"part-*.{format}"))) == 3


def test_second_call_predicts_only_what_no_part_has(cohort, tmp_path, monkeypatch):
    clf, features, proba = cohort
    files = sorted(Path(features).glob("*.h5"))
    out = tmp_path / "out"
    predict_cohort(clf, files[:3], out, format="csv")
    seen, whole = [], cohort_predictions._predict_file

    def noted(model, file, reading):
        seen.append(file)
        return whole(model, file, reading)

    monkeypatch.setattr(cohort_predictions, "_predict_file", noted)
    table = predict_cohort(clf, features, out, format="csv", files_per_part=2)
    assert seen == [str(file) for file in files[3:]]
    np.testing.assert_allclose(table[["p_no", "p_yes"]], proba)


def test_stopped_in_the_middle_leaves_whole_parts_and_goes_on(cohort, tmp_path, monkeypatch):
    clf, features, proba = cohort
    files = sorted(Path(features).glob("*.h5"))
    whole = cohort_predictions._predict_file

    def stops(model, file, reading):
        if file == str(files[5]):
            raise KeyboardInterrupt
        return whole(model, file, reading)

    monkeypatch.setattr(cohort_predictions, "_predict_file", stops)
    with pytest.raises(KeyboardInterrupt):
        predict_cohort(clf, features, tmp_path, format="csv", files_per_part=2)
    parts = sorted(tmp_path.glob("part-*"))
    assert [len(pd.read_csv(part)) for part in parts] == [2, 2]
    monkeypatch.undo()
    table = predict_cohort(clf, features, tmp_path, format="csv", files_per_part=2)
    np.testing.assert_allclose(table[["p_no", "p_yes"]], proba)
    assert set(parts) < set(tmp_path.glob("part-*"))


def test_bad_file_is_a_row_with_an_error_and_can_be_tried_again(cohort, tmp_path):
    clf, features, proba = cohort
    slides = tmp_path / "slides"
    shutil.copytree(features, slides)
    files = sorted(slides.glob("*.h5"))
    good = files[1].read_bytes()
    files[1].write_bytes(good[:100])
    names = [*files, slides / "absent.h5"]
    with pytest.warns(UserWarning, match="2 of 9 files have no prediction; the first is"):
        table = predict_cohort(clf, names, tmp_path / "out", format="csv", files_per_part=2)
    assert table["error"].notna().tolist() == [False, True, *[False] * 6, True]
    assert "absent.h5" in table["error"].iloc[-1]
    files[1].write_bytes(good)
    with pytest.warns(UserWarning, match="1 of 9"):
        table = predict_cohort(clf, names, tmp_path / "out", format="csv", retry_errors=True)
    np.testing.assert_allclose(table[["p_no", "p_yes"]].iloc[:8], proba)


def copied(features, folder):
    shutil.copytree(features, folder)
    return sorted(folder.glob("*.h5"))


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_file_that_was_replaced_is_predicted_again_and_only_it(cohort, format, tmp_path):
    clf, features, proba = cohort
    files = copied(features, tmp_path / "slides")
    out = tmp_path / "out"
    predict_cohort(clf, files, out, format=format, files_per_part=2)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    shutil.copy(files[0], files[3])
    changed = proba.copy()
    changed[3] = proba[0]
    for _ in range(2):
        table = predict_cohort(clf, files, out, format=format, files_per_part=2)
        np.testing.assert_allclose(table[["p_no", "p_yes"]], changed, rtol=1e-12)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list(out.glob("part-*"))) == 5
    files[5].write_bytes(b"")  # what it was is no longer what is there
    with pytest.warns(UserWarning, match="1 of 8 files have no prediction"):
        table = predict_cohort(clf, files, out, format=format)
    assert table["p_yes"].isna().tolist() == [i == 5 for i in range(8)]


def test_mended_file_is_tried_again_and_the_newer_error_is_shown(cohort, tmp_path):
    clf, features, proba = cohort
    good, bad = copied(features, tmp_path / "slides")[:2]
    content = bad.read_bytes()
    out, options = tmp_path / "out", {"format": "csv", "retry_errors": True}
    for kept in (100, 0):
        bad.write_bytes(content[:kept])
        with pytest.warns(UserWarning, match="1 of 1 files have no prediction"):
            table = predict_cohort(clf, bad, out, **options)
        columns = ["file", "bag_id", "p_no", "p_yes", "predicted", "warning", "error"]
        assert table.columns.tolist() == columns
        assert ("empty" in table["error"][0]) == (kept == 0)
    bad.write_bytes(content)
    table = predict_cohort(clf, [bad, good], out, format="csv")
    np.testing.assert_allclose(table[["p_no", "p_yes"]], proba[[1, 0]])


class Named:
    """A classifier whose labels read as missing values."""

    classes_ = np.array(["NA", "None", "", "null"])

    def predict_proba(self, X):
        return np.array([np.roll([0.7, 0.1, 0.1, 0.1], int(bag.bag_id == "null")) for bag in X])

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_text_that_reads_as_missing_stays_as_it_is(cohort, format, tmp_path):
    source = sorted(Path(cohort[1]).glob("*.h5"))[0]
    files = [tmp_path / f"{name}.h5" for name in ("NA", "null", "nan", "absent", "1e5")]
    for file in files:
        if file.stem != "absent":
            shutil.copy(source, file)
    for _ in range(2):
        with pytest.warns(UserWarning, match="1 of 5 files"):
            table = predict_cohort(Named(), files, tmp_path / "out", format=format)
        assert table["bag_id"].tolist() == [file.stem for file in files]
        assert table["predicted"][[0, 1, 2, 4]].tolist() == ["NA", "None", "NA", "NA"]
        assert table["error"].isna().tolist() == [True, True, True, False, True]
        assert pd.isna(table["predicted"][3])
        assert table["p_"].dtype == float


class Doubtful:
    """A classifier that finds slides unlike those that it was trained on."""

    classes_ = np.array(["no", "yes"])

    def predict_proba(self, X):
        summary = FeatureSummary(np.zeros(5), np.ones(5), np.zeros(5), 1.0, usual=1.0)
        unlike = UnlikeTraining(10.0, summary)
        for bag in X:
            number = int(bag.bag_id.split("-")[1])
            unlike.look_at(torch.full((3, 5), (0.5, 4.5, 5.5, 6.5, 1e6)[number]), bag.name)
            if number in (2, 4):
                warn_of_bag(bag.name, "a third is empty.", EmptyInstancesWarning)
        unlike.warn()
        return np.tile([0.7, 0.3], (len(X), 1))

    def predict(self, X):
        return np.array(["no"] * len(X))


@pytest.mark.parametrize("format", ["csv", "parquet"])
@pytest.mark.parametrize("n_first", [0, 2, 5])
def test_warnings_of_slides_are_a_column_and_one_of_each_kind_also_in_resumed_runs(
    cohort, format, n_first, tmp_path
):
    files = sorted(Path(cohort[1]).glob("*.h5"))[:5]
    with warnings.catch_warnings(record=True):
        predict_cohort(Doubtful(), files[:n_first], tmp_path, format=format)
    with warnings.catch_warnings(record=True, action="always") as caught:
        table = predict_cohort(Doubtful(), files, tmp_path, format=format, files_per_part=2)
    assert table["warning"].isna().tolist() == [True, False, False, False, False]
    shift = "FeatureShiftWarning: its features "
    assert table["warning"][3] == (
        f"{shift}lie 6.5 times as far from those of training as 90 % of the training slides."
    )
    assert table["warning"][4].startswith(f"EmptyInstancesWarning: a third is empty. {shift}are")
    empty, shifted = sorted(map(str, [warning.message for warning in caught]))
    ids = table["bag_id"].map(repr)
    assert empty.startswith("2 of 5 files have the warning EmptyInstancesWarning")
    assert shifted.startswith("4 of 5 files have the warning FeatureShiftWarning")
    assert f"The worst: {ids[4]}, {ids[3]}, {ids[2]} and 1 more. {ids[4]}: its" in shifted
    assert {warning.category for warning in caught} == {EmptyInstancesWarning, FeatureShiftWarning}


def test_bar_moves_with_each_part(cohort, tmp_path):
    clf, features, _ = cohort
    files = [str(file) for file in sorted(Path(features).glob("*.h5"))]
    parts = [cohort_predictions._part(files[i : i + 2], tmp_path, "csv", {}) for i in (0, 2, 4)]
    steps = cohort_predictions._run(clf, parts, None, None)
    for n_done, n_files in enumerate(steps, 1):
        assert n_files == 2
        assert len(list(tmp_path.glob("part-*"))) == n_done


@pytest.mark.parametrize("as_list", [False, True])
def test_folder_of_the_features_is_refused(cohort, as_list):
    clf, features, _ = cohort
    files = sorted(Path(features).glob("*.h5"))
    out = Path(features) / ".." / Path(features).name
    with pytest.raises(ValueError, match="is the folder of the feature files"):
        predict_cohort(clf, files if as_list else features, out, format="csv")
    assert sorted(Path(features).iterdir()) == files


def test_folder_is_of_the_run_that_came_first(cohort, tmp_path):
    clf = cohort[0]
    for reading in ({}, {}):
        cohort_predictions._require_same_run(tmp_path, clf, reading)
    with pytest.raises(ValueError, match="another reading"):
        cohort_predictions._require_same_run(tmp_path, clf, {"allow_mixed": True})
    for foreign in ("", "{", "[]", "{}"):
        (tmp_path / "predictions.json").write_text(foreign)
        with pytest.raises(ValueError, match="Use another folder"):
            cohort_predictions._require_same_run(tmp_path, clf, {})


def test_folder_of_another_model_raises(cohort, tmp_path):
    clf, features, _ = cohort
    predict_cohort(clf, features, tmp_path, format="csv")
    other = ABMILClassifier(dim=4, max_epochs=1, early_stopping=False, random_state=1)
    other.fit(read_bags(features), np.where(np.arange(8) % 2, "yes", "no"))
    with pytest.raises(ValueError, match="predictions of another model"):
        predict_cohort(other, features, tmp_path, format="csv")
    with pytest.raises(ValueError, match="another reading"):
        predict_cohort(clf, features, tmp_path, format="csv", reading={"allow_mixed": True})


def test_saved_and_loaded_model_goes_on_in_the_folder_of_an_earlier_session(cohort, tmp_path):
    from sk_momkd import load_model, save_model

    clf, features, _ = cohort
    save_model(clf, tmp_path / "model.zip")
    files = sorted(Path(features).glob("*.h5"))
    loaded = [load_model(tmp_path / "model.zip") for _ in range(2)]
    for n, model in zip((3, 5, 8), [clf, *loaded], strict=True):
        table = predict_cohort(model, files[:n], tmp_path / "out", format="csv")
    assert len(table) == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "xlsx"}, "format must be"),
        ({"files_per_part": 0}, "at least 1"),
        ({"resources": {"GPU": 1}}, "no client is in use"),
    ],
)
def test_unusable_options_raise(cohort, tmp_path, options, message):
    clf, features, _ = cohort
    with pytest.raises(ValueError, match=message):
        predict_cohort(clf, features, tmp_path, **({"format": "csv"} | options))
