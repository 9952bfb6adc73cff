import numpy as np
import pandas as pd
import pytest
from anndata import read_h5ad
from conftest import make_bags
from quick import quick
from sklearn.pipeline import make_pipeline

from sk_momkd import (
    BackgroundDetector,
    Bag,
    BagSequence,
    InstanceFilter,
    cohort_scores,
    evaluate,
    patch_attention,
    prediction_table,
    slide_scores,
    to_stamp,
)


@pytest.fixture(scope="module")
def abmil():
    bags, y = make_bags()
    labels = np.array(["wt", "mut"])[y]
    clf = quick("ABMILClassifier", max_epochs=2, early_stopping=False).fit(bags, labels)
    return clf, bags, labels


def test_prediction_table_has_ids_labels_and_probabilities(abmil):
    clf, bags, labels = abmil
    table = prediction_table(clf, bags, labels)
    assert list(table) == ["bag_id", "patient_id", "y", "p_mut", "p_wt", "predicted"]
    np.testing.assert_array_equal(table[["p_mut", "p_wt"]], clf.predict_proba(bags))
    assert table["predicted"].to_list() == clf.predict(bags).tolist()
    assert table["bag_id"].to_list() == list(bags.ids)


def test_stamp_table_averages_slides_and_orders_patients_by_loss(tmp_path):
    table = pd.DataFrame(
        {
            "patient_id": ["A", "B", "B", None],
            "bag_id": ["s1", "s2", "s3", "s4"],
            "y": ["mut", "wt", "wt", None],
            "p_mut": [0.1, 0.2, 0.4, 0.6],
            "p_wt": [0.9, 0.8, 0.6, 0.4],
        }
    )
    written = to_stamp(table, tmp_path / "patient-preds.csv", label="KRAS")
    expected = pd.DataFrame(
        {
            "PATIENT": ["B", "A", "s4"],
            "KRAS": ["wt", "mut", None],
            "pred": ["wt", "wt", "mut"],
            "KRAS_mut": [0.3, 0.1, 0.6],
            "KRAS_wt": [0.7, 0.9, 0.4],
            "loss": [-np.log(0.7), -np.log(0.1), np.nan],
        }
    )
    pd.testing.assert_frame_equal(written, expected, check_dtype=False)
    read = pd.read_csv(tmp_path / "patient-preds.csv")
    assert list(read) == list(expected)
    assert read["PATIENT"].to_list() == ["B", "A", "s4"]


def test_stamp_table_takes_numbers_as_labels_and_no_labels(tmp_path):
    table = pd.DataFrame({"patient_id": ["A", "B"], "p_0": [0.2, 0.9], "p_1": [0.8, 0.1]})
    written = to_stamp(table.assign(y=[1, 0]), tmp_path / "a.csv", label="HER2")
    assert written["HER2"].to_list() == ["0", "1"]
    written = to_stamp(table, tmp_path / "b.csv", label="HER2")
    assert written[["HER2", "loss"]].isna().all(axis=None)
    assert written["pred"].to_list() == ["1", "0"]


def test_stamp_table_takes_the_predictions_of_an_evaluation(abmil, tmp_path):
    clf, bags, labels = abmil
    predictions = evaluate(clf, bags, labels, cv=2, n_bootstrap=10).predictions
    written = to_stamp(predictions, tmp_path / "patient-preds.csv", label="KRAS")
    assert sorted(written["PATIENT"]) == sorted(bags.patient_ids)
    assert written["loss"].is_monotonic_increasing


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"patient_id": ["A"], "y": ["a"]}, "need columns patient_id and p_<class>"),
        ({"patient_id": ["A", "A"], "y": ["a", "b"], "p_a": 1, "p_b": 0}, "1 patients.*'A'"),
        ({"patient_id": ["A"], "y": ["c"], "p_a": 1, "p_b": 0}, "y holds 'c'"),
        ({"patient_id": [None], "p_a": 1, "p_b": 0}, "neither a patient id nor a bag id"),
    ],
)
def test_stamp_table_that_cannot_be_made_says_why(tmp_path, table, said):
    with pytest.raises(ValueError, match=said):
        to_stamp(pd.DataFrame(table), tmp_path / "preds.csv", label="x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("label", ["PATIENT", "pred", "loss"])
def test_stamp_table_refuses_a_label_that_would_overwrite_a_column(tmp_path, label):
    table = pd.DataFrame({"patient_id": ["A"], "y": ["a"], "p_a": 1, "p_b": 0})
    with pytest.raises(ValueError, match=f"label '{label}' is a column of its own"):
        to_stamp(table, tmp_path / "preds.csv", label=label)


def test_slide_as_anndata_has_attention_and_affinities_and_survives_a_file(momkd, unseen, tmp_path):
    slide = slide_scores(momkd, unseen.bags[0])
    attention = patch_attention(momkd, unseen.bags[:1])
    np.testing.assert_array_equal(slide.obs["attention"], attention["attention"])
    np.testing.assert_array_equal(slide.obs["score"], attention["score"])
    assert slide.obsm["memory"].shape == (unseen.bags[0].n_instances, 8)
    slide.write_h5ad(tmp_path / "slide.h5ad")
    again = read_h5ad(tmp_path / "slide.h5ad")
    np.testing.assert_array_equal(again.obsm["memory"], slide.obsm["memory"])
    assert list(again.uns["memory"]) == momkd.get_feature_names_out().tolist()


def test_slide_as_anndata_has_nan_for_patches_that_a_filter_drops():
    random = np.random.default_rng(0)
    bags = []
    for i in range(12):
        glass = 5 + 0.01 * random.normal(size=(20, 8))
        features = np.concatenate([random.normal(i % 2, size=(40, 8)), glass])
        coords = np.stack([np.arange(60), np.zeros(60)], axis=1)
        bags.append(Bag(features, coords, bag_id=f"S{i}"))
    bags = BagSequence(bags)
    clf = quick("ABMILClassifier", max_epochs=1, early_stopping=False)
    model = make_pipeline(InstanceFilter(BackgroundDetector(), random_state=0), clf)
    slide = slide_scores(model.fit(bags, np.arange(12) % 2), bags[0])
    assert slide.obs["attention"].isna().to_list() == [False] * 40 + [True] * 20
    bare = Bag(bags[0].features, bag_id="S0")
    with pytest.raises(ValueError, match="'S0': a filter of the pipeline drops patches"):
        slide_scores(model, bare)


def test_cohort_as_anndata_is_what_transform_gives(momkd, unseen, tmp_path):
    cohort = cohort_scores(momkd, unseen.bags, unseen.y)
    np.testing.assert_allclose(cohort.X, momkd.transform(unseen.bags), atol=1e-6)
    assert cohort.obs_names.to_list() == list(unseen.bags.ids)
    assert cohort.var["class"].to_list() == ["0"] * 4 + ["1"] * 4
    cohort.write_h5ad(tmp_path / "cohort.h5ad")
    again = read_h5ad(tmp_path / "cohort.h5ad")
    np.testing.assert_array_equal(again.obs["p_1"], momkd.predict_proba(unseen.bags)[:, 1])


def test_cohort_as_anndata_without_a_memory_has_probabilities(abmil):
    clf, bags, _ = abmil
    cohort = cohort_scores(clf, bags)
    np.testing.assert_array_equal(cohort.X, clf.predict_proba(bags))
    assert cohort.var_names.to_list() == ["p_mut", "p_wt"]
