"""Real cohorts: joins, leakage, and that a cross-validation runs to its end."""

import numpy as np
import pandas as pd
import pytest
from conftest import quick_classifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_momkd import InstanceTransformer, align_omics, load_cohort
from sk_momkd.exceptions import CohortWarning


def read(data_folder, cohort, label, positive=1):
    folder = data_folder / cohort
    omics = folder / "omics.h5ad"
    return load_cohort(
        folder / "labels.csv",
        folder / "features",
        omics if omics.exists() else None,
        label=label,
        positive=positive,
    )


@pytest.fixture(scope="session")
def her2(data_folder):
    with pytest.warns(CohortWarning, match="109 slides.*no label in 'her2'"):
        return read(data_folder, "tcga_brca", "her2")


def sites(cohort):
    return np.array([str(p).split("-")[1] for p in cohort.bags.patient_ids])


def model(**overrides):
    settings = {"max_epochs": 2, "validation_fraction": 0.2, "batch_size": 32}
    return make_pipeline(
        InstanceTransformer(StandardScaler()), quick_classifier(**(settings | overrides))
    )


def test_tcga_join_counts_slides_labels_and_omics(her2):
    bags, y, omics, report = her2
    assert len(bags) == len(y) == 569
    assert y.sum() == 120
    assert list(omics.obs_names) == list(bags.patient_ids)
    assert (report.left_out["status"] == "no label in 'her2'").sum() == 109
    assert bags[0].shape == (4, 113)


def test_tcga_omics_of_test_patients_change_nothing(her2):
    bags, y, omics, _ = her2
    train, test = next(StratifiedGroupKFold(5).split(y, y, sites(her2)))
    frame = pd.DataFrame(omics.X.astype(float), index=omics.obs_names, columns=omics.var_names)
    mutated = frame.copy()
    mutated.iloc[test] = np.random.default_rng(0).normal(1e3, 1e3, size=(len(test), 1558))
    probabilities = []
    for table in (frame, mutated, frame.sample(frac=1, random_state=0)):
        fitted = model().fit(bags[train], y[train], momkdclassifier__omics=table)
        probabilities.append(fitted.predict_proba(bags[test]))
    np.testing.assert_array_equal(probabilities[1], probabilities[0])
    np.testing.assert_array_equal(probabilities[2], probabilities[0])
    mutated.iloc[train] += 1e3 * np.random.default_rng(1).normal(size=(len(train), 1558))
    other = model().fit(bags[train], y[train], momkdclassifier__omics=mutated)
    assert not np.array_equal(other.predict_proba(bags[test]), probabilities[0])


def test_tcga_site_grouped_cross_validation_learns_receptor_status(data_folder):
    with pytest.warns(CohortWarning):
        cohort = read(data_folder, "tcga_brca", "er")
    bags, y, omics, _ = cohort
    folds = list(StratifiedGroupKFold(3).split(y, y, sites(cohort)))
    scores = cross_val_predict(
        model(max_epochs=10, hidden_dim=32, learning_rate=2e-3),
        bags,
        y,
        cv=folds,
        method="decision_function",
        params={
            "momkdclassifier__omics": align_omics(omics, bags),
            "momkdclassifier__groups": sites(cohort),
        },
    )
    # Pooled logistic regression reaches about .73 and permuted labels spread up to .575.
    assert np.mean([roc_auc_score(y[test], scores[test]) for _, test in folds]) > 0.62


def test_her2st_counts_join_by_slide_and_run_patient_by_patient(data_folder):
    bags, y, omics, report = read(data_folder, "her2st", "label")
    assert "126 of 126 slides in use, 3 patients" in str(report)
    folds = StratifiedGroupKFold(3)
    clf = model(early_stopping=False)
    proba = cross_val_predict(
        clf,
        bags,
        y,
        groups=bags.patient_ids,
        cv=folds,
        method="predict_proba",
        params={"momkdclassifier__omics": align_omics(omics, bags)},
    )
    assert np.isfinite(proba).all()
    clf.fit(bags, y, momkdclassifier__omics=omics)
    assert clf[-1].omics_transformer_[0].is_counts_
    assert len(clf[-1].genes_) == 768
    assert set(clf[-1].genes_) <= set(omics.var_names)


def test_ucsb_without_omics_separates_malignant_images(data_folder):
    bags, y, omics, _ = read(data_folder, "ucsb_breast", "label")
    assert omics is None
    folds = list(StratifiedGroupKFold(3).split(y, y, bags.patient_ids))
    clf = model(max_epochs=12, early_stopping=False, batch_size=4, learning_rate=2e-3)
    scores = cross_val_predict(clf, bags, y, cv=folds, method="decision_function")
    assert roc_auc_score(y, scores) > 0.75
