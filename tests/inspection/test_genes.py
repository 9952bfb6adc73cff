import sys

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_bags, make_omics, quick_classifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_momkd import InstanceTransformer, gene_attributions
from sk_momkd.exceptions import OmicsError
from sk_momkd.losses.momkd import alignment_margin


@pytest.fixture(scope="module")
def found(momkd, training):
    return gene_attributions(momkd, training.omics, n_samples=100, random_state=0)


@pytest.fixture(scope="module")
def small():
    """A classifier on 24 patients with 12 genes, of which three follow the label."""
    bags, y = make_bags()
    omics = make_omics(y)
    clf = quick_classifier(max_epochs=3, early_stopping=False).fit(bags, y, omics=omics)
    return clf, omics


def recall(genes, omics, k=20):
    """Share of the planted genes among the first k; there are 20 of 200, so chance is 0.1."""
    return omics.var["signature"].reindex(genes["gene"].iloc[:k]).mean()


def test_planted_genes_are_among_the_first(found, training):
    assert len(found.genes) == 200
    assert recall(found.genes, training.omics) >= 0.6


def test_omics_of_other_patients_are_not_credited(misled):
    clf, omics = misled
    wrong = gene_attributions(clf, omics, n_samples=50, random_state=0)
    assert recall(wrong.genes, omics) <= 0.4  # 20 random genes exceed it once in 100,000


def test_direction_of_planted_genes_is_that_of_their_correlation_with_the_label(found, training):
    genes = found.genes.set_index("gene")
    counts = np.log2(training.omics.to_df() + 1)
    counts = counts.loc[training.bags.patient_ids]
    truth = counts.corrwith(pd.Series(np.asarray(training.y), counts.index))
    planted = training.omics.var_names[training.omics.var["signature"]]
    planted = [gene for gene in genes.index[:20] if gene in planted]
    assert (np.sign(genes.loc[planted, "direction_1"]) == np.sign(truth[planted])).mean() >= 0.8
    np.testing.assert_allclose(genes["direction_0"], genes["direction_1"].mul(-1))


def test_attributions_sum_to_the_margin_of_equation_4_over_its_background(small):
    clf, omics = small
    result = gene_attributions(clf, omics, n_background=24, n_samples=400, random_state=0)
    inputs = clf.omics_transformer_.transform(omics).astype(np.float32)
    with torch.no_grad():
        f, _ = clf.module_.omics_branch(torch.from_numpy(inputs))
        y = torch.ones(len(f), dtype=torch.int64)
        delta = alignment_margin(f, clf.module_.memory.rows, y, tau_agg=5.0).numpy()
    np.testing.assert_allclose(result.values.obs["value_toward_1"], delta, atol=1e-5)
    np.testing.assert_allclose(result.values.X, inputs, atol=1e-5)
    summed = result.values.layers["toward_1"].sum(axis=1)
    assert np.corrcoef(summed, delta - delta.mean())[0, 1] > 0.95
    assert result.completeness > 0.85
    assert result.values.var_names.to_list() == list(clf.genes_)


def test_components_have_attributions_of_their_own(small):
    clf, omics = small
    result = gene_attributions(clf, omics, by="component", n_samples=20, random_state=0)
    assert list(result.values.layers) == clf.get_feature_names_out().tolist()
    assert len(result.genes) == 8 * len(clf.genes_)
    first = result.genes.iloc[: len(clf.genes_)]
    assert set(first["class"]) == {0}
    assert set(first["component"]) == {0}
    assert first["mean_abs"].is_monotonic_decreasing
    layer = result.values.layers["memory_0_0"]
    by_name = first.set_index("gene").loc[clf.genes_, "mean_abs"]
    np.testing.assert_allclose(by_name, np.abs(layer).mean(axis=0), rtol=1e-5)


def test_attributions_leave_numpys_global_random_state(small):
    clf, omics = small
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    gene_attributions(clf, omics, n_samples=5, random_state=0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_genes_are_taken_by_name_and_others_left_out(small):
    clf, omics = small
    moved = omics[omics.columns[::-1]].assign(UNKNOWN=1.0)
    first, second = (
        gene_attributions(clf, table, n_samples=10, random_state=0) for table in (omics, moved)
    )
    pd.testing.assert_frame_equal(first.genes, second.genes)


def test_pipeline_has_the_attributions_of_its_classifier(small):
    clf, omics = small
    scale = InstanceTransformer(StandardScaler()).fit(make_bags()[0])
    direct, through = (
        gene_attributions(model, omics, n_samples=10, random_state=0)
        for model in (clf, make_pipeline(scale, clf))
    )
    pd.testing.assert_frame_equal(direct.genes, through.genes)


def test_missing_genes_are_named(small):
    clf, omics = small
    with pytest.raises(OmicsError, match="1 genes of the fit are not in omics: 'G4'"):
        gene_attributions(clf, omics.drop(columns="G4"))


def test_classifier_without_omics_branch_is_refused():
    bags, y = make_bags()
    clf = quick_classifier(max_epochs=1, early_stopping=False).fit(bags, y)
    with pytest.raises(OmicsError, match="no omics branch"):
        gene_attributions(clf, make_omics(y))


def test_unknown_target_is_refused(small):
    with pytest.raises(ValueError, match="by must be one of"):
        gene_attributions(*small, by="patient")


@pytest.mark.parametrize("count", ["n_background", "n_samples"])
def test_counts_below_one_are_refused(small, count):
    with pytest.raises(ValueError, match=f"{count} must be at least 1, got 0"):
        gene_attributions(*small, **{count: 0})


def test_one_patient_alone_has_nobody_to_be_compared_with(small):
    clf, omics = small
    with pytest.raises(OmicsError, match=r"at least two patients to compare, but omics holds 1\."):
        gene_attributions(clf, omics[:1])


def test_without_shap_the_error_says_how_to_install_it(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "shap", None)
    with pytest.raises(ImportError, match=r"pip install 'shap"):
        gene_attributions(*small)


def test_result_shows_its_first_genes(found):
    assert found.genes["gene"].iloc[0] in str(found)
    assert "completeness" in str(found)
