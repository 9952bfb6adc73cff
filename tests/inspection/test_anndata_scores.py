import numpy as np
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
    MoMKDClassifier,
    cohort_scores,
    memory_prototypes,
    patch_attention,
    slide_scores,
)


@pytest.fixture(scope="module")
def abmil():
    bags, y = make_bags()
    labels = np.array(["wt", "mut"])[y]
    clf = quick("ABMILClassifier", max_epochs=2, early_stopping=False).fit(bags, labels)
    return clf, bags, labels


def test_slide_as_anndata_has_attention_and_affinities_and_survives_a_file(momkd, unseen, tmp_path):
    slide = slide_scores(momkd, unseen.bags[0])
    attention = patch_attention(momkd, unseen.bags[:1])
    np.testing.assert_array_equal(slide.obs["attention"], attention["attention"])
    np.testing.assert_array_equal(slide.obs["raw_attention"], attention["raw_attention"])
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


def test_class_names_with_slashes_are_written_and_read(tmp_path):
    random = np.random.default_rng(0)
    bags = [Bag(random.normal(2 * (i % 2), size=(5, 4)), bag_id=f"S{i}") for i in range(20)]
    y = np.array(["HER2+/ER-", "HER2-</b>"])[np.arange(20) % 2]
    clf = MoMKDClassifier(
        hidden_dim=8, n_components=3, max_epochs=1, random_state=0, pos_label="HER2+/ER-"
    ).fit(bags, y)
    for scores in (cohort_scores(clf, bags), slide_scores(clf, bags[0]), memory_prototypes(clf)):
        scores.write_h5ad(tmp_path / "scores.h5ad")
        read = read_h5ad(tmp_path / "scores.h5ad")
        assert read.obs.columns.tolist() == scores.obs.columns.tolist()
        assert set(read.uns) == set(scores.uns)
        np.testing.assert_array_equal(read.X, scores.X)
    assert {"p_HER2+_ER-", "p_HER2-<_b>"} <= set(cohort_scores(clf, bags).obs)
