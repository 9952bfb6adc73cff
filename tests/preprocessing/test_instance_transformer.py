"""A transformer of patches: fitted on training bags, applied to a bag when it is read."""

import pickle

import numpy as np
import pytest
from conftest import quick_classifier
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, IncrementalPCA
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import SelectKBest
from sklearn.model_selection import cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from sk_momkd import Bag, BagSequence, InstanceTransformer
from sk_momkd.exceptions import BagError


def patches(bags):
    return np.concatenate([bag.features for bag in bags])


def test_fit_stacks_the_patches_of_all_bags(cohort):
    bags, _, _ = cohort
    transformer = InstanceTransformer(StandardScaler()).fit(bags)
    np.testing.assert_allclose(transformer.transformer_.mean_, patches(bags).mean(axis=0), 1e-4)
    assert transformer.transformer_.n_samples_seen_ == sum(bag.n_instances for bag in bags)
    assert transformer.n_features_in_ == 6


def test_transform_gives_each_bag_as_the_transformer_would(cohort):
    bags, _, _ = cohort
    transformer = InstanceTransformer(PCA(2, random_state=0)).fit(bags)
    for bag, mapped in zip(bags, transformer.transform(bags), strict=True):
        expected = transformer.transformer_.transform(bag.features)
        np.testing.assert_allclose(mapped.features, expected, rtol=1e-6)
        assert mapped.features.dtype == np.float32


def test_columns_of_patches_are_transformed_by_a_column_transformer_inside(cohort):
    bags, _, _ = cohort
    columns = ColumnTransformer([("a", StandardScaler(), slice(0, 2))], remainder="passthrough")
    mapped = InstanceTransformer(columns).fit_transform(bags)
    scaled = StandardScaler().fit_transform(patches(bags)[:, :2])
    np.testing.assert_allclose(patches(mapped)[:, :2], scaled, atol=1e-5)
    np.testing.assert_array_equal(patches(mapped)[:, 2:], patches(bags)[:, 2:])


def test_transform_keeps_coords_edges_and_ids(cohort):
    bags, _, _ = cohort
    graph = Bag(np.ones((2, 6)), edge_index=[[0], [1]], bag_id="G")
    bags = BagSequence([*bags, graph])
    mapped = InstanceTransformer(StandardScaler()).fit_transform(bags)
    assert isinstance(mapped, BagSequence)
    assert mapped.ids.tolist() == bags.ids.tolist()
    assert mapped.patient_ids.tolist() == bags.patient_ids.tolist()
    np.testing.assert_array_equal(mapped[3].coords, bags[3].coords)
    np.testing.assert_array_equal(mapped[-1].edge_index, [[0], [1]])


def test_transform_leaves_the_bags_as_they_are(cohort):
    bags, _, _ = cohort
    before = patches(bags)
    InstanceTransformer(StandardScaler()).fit_transform(bags)
    np.testing.assert_array_equal(patches(bags), before)


def test_transform_of_a_bootstrap_keeps_the_repeats(cohort):
    bags, _, _ = cohort
    transformer = InstanceTransformer(StandardScaler()).fit(bags)
    assert transformer.transform(bags[[2, 2]]).ids.tolist() == ["S02", "S02"]


def test_transform_reads_no_bag(cohort, monkeypatch):
    bags, _, _ = cohort
    transformer = InstanceTransformer(StandardScaler()).fit(bags)
    monkeypatch.setattr(Bag, "load", lambda *args: pytest.fail("a bag was read"))
    assert len(transformer.transform(bags)[1:4]) == 3


@pytest.mark.parametrize("step", ["fit", "fit_transform"])
def test_fit_arrays_are_accepted(step):
    arrays = [np.array([[0.0], [2.0]]), np.array([[4.0]])]
    transformer = InstanceTransformer(StandardScaler())
    getattr(transformer, step)(arrays)
    np.testing.assert_allclose(transformer.transform(arrays)[0].features, [[-1.22474], [0]], 1e-4)


@pytest.mark.parametrize(
    ("bag_id", "name"), [("S9", "bag 'S9'"), (None, "bag 2")], ids=["id", "no_id"]
)
def test_fit_bags_of_other_width_raise_naming_the_bag(bag_id, name):
    bags = [Bag(np.ones((2, 6)), bag_id="S0"), np.ones((3, 6)), Bag(np.ones((2, 5)), bag_id=bag_id)]
    said = rf"5 features in {name}, but the bags before it have 6 features\. Extract all"
    with pytest.raises(BagError, match=said):
        InstanceTransformer(StandardScaler()).fit(bags)


@pytest.mark.parametrize("features", [np.full((2, 6), np.nan), np.empty((0, 6))])
def test_fit_unusable_bag_raises_naming_it(features):
    with pytest.raises(BagError, match=r"^bag 1"):
        InstanceTransformer(StandardScaler()).fit([np.ones((2, 6)), features])


def test_transform_to_nan_raises_naming_the_bag(cohort):
    bags, _, _ = cohort
    transformer = InstanceTransformer(FunctionTransformer(lambda x: x * np.nan)).fit(bags)
    with pytest.raises(BagError, match=r"^bag 'S03' after its transformer"):
        transformer.transform(bags)[3].load()


def test_transform_before_fit_raises():
    with pytest.raises(NotFittedError):
        InstanceTransformer(StandardScaler()).transform([np.ones((2, 6))])


def test_fit_leaves_the_given_transformer_unfitted(cohort):
    scaler = StandardScaler()
    transformer = InstanceTransformer(scaler).fit(cohort[0])
    assert not hasattr(scaler, "mean_")
    assert transformer.transformer is scaler


def test_clone_is_unfitted_with_equal_parameters(cohort):
    transformer = InstanceTransformer(PCA(3)).fit(cohort[0])
    copy = clone(transformer).set_params(transformer__whiten=True)
    assert not hasattr(copy, "transformer_")
    assert copy.get_params()["transformer__n_components"] == 3
    assert transformer.transformer.whiten is False


def test_pickle_of_transformed_bags_transforms(cohort):
    mapped = InstanceTransformer(StandardScaler()).fit_transform(cohort[0])
    again = pickle.loads(pickle.dumps(mapped))
    np.testing.assert_array_equal(again[5].features, mapped[5].features)


def test_pipeline_in_folds_is_fitted_on_training_bags_alone(cohort, quick):
    bags, y, _ = cohort
    train, test = np.arange(16), np.arange(16, 24)
    changed = BagSequence([*bags[train], *bags[test].map(lambda x: 100 * x)])
    quick.set_params(max_epochs=1)
    fitted = []
    for X in (bags, changed):
        model = make_pipeline(InstanceTransformer(StandardScaler()), quick)
        folds = cross_validate(
            model, X, y, cv=[(train, test)], return_estimator=True, error_score="raise"
        )
        fitted.append(folds["estimator"][0][0].transformer_)
    np.testing.assert_array_equal(fitted[0].mean_, fitted[1].mean_)
    np.testing.assert_allclose(fitted[0].mean_, patches(bags[train]).mean(axis=0), 1e-4)


def test_pipeline_with_other_width_predicts(cohort, quick):
    bags, y, _ = cohort
    quick.set_params(max_epochs=1)
    model = make_pipeline(InstanceTransformer(PCA(3, random_state=0)), quick)
    probabilities = model.fit(bags, y).predict_proba(bags[:5])
    assert model[-1].n_features_in_ == 3
    assert probabilities.shape == (5, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    by_hand = model[-1].predict_proba(model[0].transform(bags[:5]))
    np.testing.assert_array_equal(probabilities, by_hand)


def test_fit_without_bags_raises_bag_error():
    with pytest.raises(BagError):
        InstanceTransformer(StandardScaler()).fit(BagSequence([]))


def test_transform_of_other_width_raises_naming_the_bag():
    transformer = InstanceTransformer(StandardScaler()).fit([np.ones((3, 2))])
    with pytest.raises(BagError, match="bag 'S9'"):
        transformer.transform([Bag(np.ones((2, 5)), bag_id="S9")])[0].load()


def test_fit_supervised_transformer_sees_the_label_of_each_patch():
    random = np.random.default_rng(0)
    y = np.arange(20) % 2
    bags = [random.normal(size=(4, 3)) + label * np.array([0, 5, 0]) for label in y]
    selected = InstanceTransformer(SelectKBest(k=1)).fit(bags, y)
    assert selected.transformer_.get_support().tolist() == [False, True, False]


def test_transform_sparse_output_becomes_dense():
    bags = [np.array([[0.0], [1.0]]), np.array([[1.0]])]
    encoded = InstanceTransformer(OneHotEncoder()).fit_transform(bags)
    assert encoded[0].features.tolist() == [[1, 0], [0, 1]]


def scaled_pipeline():
    bags, y = [np.ones((2, 3)) * i for i in range(1, 9)], np.arange(8) % 2
    clf = quick_classifier(max_epochs=1, early_stopping=False)
    return make_pipeline(InstanceTransformer(StandardScaler()), clf), bags, y


def test_set_output_in_a_pipeline_leaves_bags_alone():
    pipe, bags, y = scaled_pipeline()
    assert pipe.set_output(transform="pandas").fit(bags, y).transform(bags).shape == (8, 8)


def test_predict_other_width_without_id_names_the_position():
    pipe, bags, y = scaled_pipeline()
    with pytest.raises(BagError, match="bag 1"):
        pipe.fit(bags, y).predict([np.ones((2, 3)), np.ones((2, 4))])


@pytest.mark.parametrize("chunk", [1, 30, 10_000])
def test_fit_in_chunks_equals_fit_at_once(monkeypatch, chunk):
    monkeypatch.setattr("sk_momkd.preprocessing.instance_transformer._CHUNK", chunk)
    random = np.random.default_rng(0)
    bags = [random.normal(3.0, 2.0, size=(n, 4)) for n in (5, 40, 3, 30, 1)]
    scaler = InstanceTransformer(StandardScaler()).fit(bags).transformer_
    assert scaler.n_samples_seen_ == 79
    np.testing.assert_allclose(scaler.mean_, np.concatenate(bags).mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(scaler.scale_, np.concatenate(bags).std(axis=0), rtol=1e-5)


def test_fit_in_chunks_never_leaves_a_remainder_too_small_for_pca(monkeypatch):
    monkeypatch.setattr("sk_momkd.preprocessing.instance_transformer._CHUNK", 10)
    bags = [np.random.default_rng(i).normal(size=(n, 4)) for i, n in enumerate((12, 11, 2))]
    pca = InstanceTransformer(IncrementalPCA(3)).fit(bags).transformer_
    assert pca.n_samples_seen_ == 25
