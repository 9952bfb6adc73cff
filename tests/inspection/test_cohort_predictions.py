"""Predictions of many files: the same as of bags, resumed, one bad file at a time."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sk_momkd import ABMILClassifier, predict_cohort, read_bags, simulate_cohort
from sk_momkd.inspection import cohort_predictions


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
    for n in (3, 8):
        model = load_model(tmp_path / "model.zip")
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
