"""Saved and loaded estimators predict the same, and hold what they held but patients."""

import copy
import json
import pickle
import subprocess
import sys
import warnings
import zipfile

import joblib
import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import sklearn
import torch
from conftest import make_bags
from estimators.test_official_checkpoint import network, slides, their_state
from persistence.fitted import (
    BAGS,
    CLASSIFIERS,
    ESTIMATORS,
    NUMBERS,
    OMICS,
    PATIENTS,
    TRANSFORMERS,
    Y,
    fitted,
    trident,
)
from quick import quick
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    StratifiedKFold,
    TunedThresholdClassifierCV,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import sk_momkd
from sk_momkd import (
    ABMILClassifier,
    BackgroundDetector,
    BagPooling,
    InstanceFilter,
    InstanceStandardizer,
    InstanceTransformer,
    MoMKDClassifier,
    OmicsError,
    PatientStratifiedKFold,
    PrivilegedClassifier,
    gene_attributions,
    load_model,
    read_bags,
    save_model,
)
from sk_momkd.estimators.network_state import weights_of, without_omics
from sk_momkd.inspection.model_identity import model_digest

POOLED = BagPooling("mean").fit_transform(BAGS)


def result_of(estimator, X):
    """What the estimator computes, as one array; of bags their features."""
    for method in ("predict_proba", "transform", "predict"):
        if hasattr(estimator, method):
            found = getattr(estimator, method)(X)
            return np.concatenate([b.features for b in found]) if _is_bags(found) else found
    raise TypeError(type(estimator))


def _is_bags(found):
    return isinstance(found, sk_momkd.BagSequence)


def again(estimator, tmp_path, suffix=".zip", **options):
    return load_model(save_model(estimator, tmp_path / f"model{suffix}", **options))


def assert_same(estimator, loaded, X):
    np.testing.assert_array_equal(result_of(loaded, X), result_of(estimator, X))
    assert repr(loaded.get_params()) == repr(estimator.get_params())
    assert type(loaded) is type(estimator)
    assert model_digest(loaded) == model_digest(estimator)


LEFT_OUT = {"omics_transformer_", "_input_genes", "callbacks_", "_left_out"}


def test_estimators_of_the_tests_are_all_of_the_library():
    meta = {name for name, _ in sk_momkd.all_estimators("meta")}  # tests/estimators has their trip
    assert {*CLASSIFIERS, *TRANSFORMERS, *meta} == set(ESTIMATORS)


@pytest.mark.parametrize("suffix", ["", ".zip"])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifier_predicts_the_same_after_loading(tmp_path, name, suffix):
    clf = fitted(name)
    loaded = again(clf, tmp_path, suffix)
    assert_same(clf, loaded, BAGS)
    assert vars(clf).keys() ^ vars(loaded).keys() <= LEFT_OUT
    pd.testing.assert_frame_equal(clf.history_, loaded.history_)
    assert loaded.classes_.dtype == clf.classes_.dtype


@pytest.mark.parametrize("name", [name for name in TRANSFORMERS if name != "TissueMaskFilter"])
def test_transformer_transforms_the_same_after_loading(tmp_path, name):
    transformer, X = fitted(name), TRANSFORMERS[name][1]
    loaded = again(transformer, tmp_path, include_validation=True)
    assert_same(transformer, loaded, X)
    assert vars(transformer).keys() == vars(loaded).keys()


def test_transformer_without_fitted_parts_keeps_its_parameters(tmp_path):
    loaded = again(fitted("TissueMaskFilter"), tmp_path)
    assert loaded.get_params() == fitted("TissueMaskFilter").get_params()


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_unfitted_classifier_keeps_its_parameters(tmp_path, name):
    clf = CLASSIFIERS[name]()
    assert repr(again(clf, tmp_path).get_params()) == repr(clf.get_params())


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_pickle_and_joblib_hold_arrays_and_predict_the_same(tmp_path, name):
    clf = fitted(name)
    stored = pickle.dumps(clf)
    assert b"torch" not in stored
    joblib.dump(clf, tmp_path / "model.joblib")
    for other in (pickle.loads(stored), joblib.load(tmp_path / "model.joblib")):
        np.testing.assert_array_equal(other.predict_proba(BAGS), clf.predict_proba(BAGS))
        assert vars(other).keys() == vars(clf).keys()


def test_copies_share_networks_and_deep_copies_do_not():
    clf = fitted("ABMILClassifier")
    assert copy.copy(clf).module_ is clf.module_
    deep = copy.deepcopy(clf)
    with torch.no_grad():
        for weight in deep.module_.parameters():
            weight.zero_()
    assert len(np.unique(clf.predict_proba(BAGS).round(9), axis=0)) > 1
    # FrozenEstimator hands on every attribute, so a method of ours would copy the model alone.
    assert type(copy.deepcopy(FrozenEstimator(clf))) is FrozenEstimator


def test_ensemble_of_networks_and_another_prior(tmp_path):
    clf = copy.deepcopy(fitted("ABMILClassifier", n_models=2))
    clf.prior = {"neg": 0.9, "pos": 0.1}
    assert_same(clf, again(clf, tmp_path), BAGS)


def test_parameters_that_were_changed_after_fit_do_not_change_the_networks(tmp_path):
    clf = copy.deepcopy(fitted("MoMKDClassifier"))
    clf.set_params(hidden_dim=32, network__head="linear", prior="sampler")
    assert_same(clf, again(clf, tmp_path), BAGS)
    assert_same(clf, pickle.loads(pickle.dumps(clf)), BAGS)


def test_official_checkpoint_predicts_the_same_after_loading(tmp_path):
    torch.save(their_state(network()), tmp_path / "s_0.pt")
    clf = MoMKDClassifier.from_official_checkpoint(tmp_path / "s_0.pt", ["wt", "mut"])
    loaded = again(clf, tmp_path)
    assert_same(clf, loaded, slides())
    assert loaded.module_.omics_branch is None
    with_omics = again(clf, tmp_path, "", include_omics=True)
    assert with_omics.module_.omics_branch is not None
    with pytest.raises(AttributeError, match="history_ is not known: the model comes from"):
        loaded.history_  # noqa: B018


def pipelines():
    """Name and pipeline, fitted."""
    warnings.simplefilter("ignore")
    clf = fitted("MoMKDClassifier")

    def small(**overrides):
        return ABMILClassifier(dim=4, attention_dim=2, max_epochs=1, random_state=0, **overrides)

    pooled = make_pipeline(BagPooling("mean+std"), StandardScaler(), PCA(2), LogisticRegression())
    yield "pooled", pooled.fit(BAGS, Y)
    scaled = make_pipeline(
        InstanceFilter(BackgroundDetector(), random_state=0),
        InstanceTransformer(StandardScaler()),
        small(),
    )
    yield "scaled", scaled.fit(BAGS, Y)
    yield "calibrated", CalibratedClassifierCV(small(early_stopping=False), cv=2).fit(BAGS, Y)
    isotonic = CalibratedClassifierCV(FrozenEstimator(clf), method="isotonic")
    yield "isotonic", isotonic.fit(BAGS, Y)
    fixed = FixedThresholdClassifier(FrozenEstimator(clf), threshold=0.3, pos_label="pos")
    yield "fixed", fixed.fit(BAGS, Y)
    tuned = TunedThresholdClassifierCV(small(early_stopping=False), cv=2)
    yield "tuned", tuned.fit(BAGS, Y)
    standardised = make_pipeline(InstanceStandardizer(), small())
    search = GridSearchCV(standardised, {"abmilclassifier__dim": [2, 4]}, cv=2).fit(BAGS, Y)
    yield "searched", search.best_estimator_
    settings = {"training__validation_split": StratifiedKFold(2), "random_state": 0}
    frozen = make_pipeline(FunctionTransformer(np.log1p), StandardScaler())
    other = MoMKDClassifier(omics_transformer=frozen, teacher=LogisticRegression(C=0.1))
    yield "unfitted", other.set_params(**settings)


def test_pipelines_predict_the_same_after_loading(tmp_path):
    for name, model in pipelines():
        loaded = again(model, tmp_path, f"-{name}.zip")
        assert repr(loaded.get_params()) == repr(model.get_params()), name
        if name != "unfitted":
            for method in ("predict_proba", "predict"):
                found, expected = (getattr(m, method)(BAGS) for m in (loaded, model))
                np.testing.assert_array_equal(found, expected, err_msg=name)


CODE = """
import pickle, sys
import numpy as np
from sk_momkd import BagSequence, load_model

with open("inputs.pkl", "rb") as file:
    inputs = pickle.load(file)
print(sorted({name for name in HEAVY if name in sys.modules}))
results = {}
for name, (X, methods) in inputs.items():
    model = load_model(f"{name}.zip")
    for method in methods:
        found = getattr(model, method)(X)
        bags = isinstance(found, BagSequence)
        results[name, method] = np.concatenate([bag.features for bag in found]) if bags else found
    if name == "MoMKDClassifier":
        print(sorted({name for name in HEAVY if name in sys.modules}))
with open("results.pkl", "wb") as file:
    pickle.dump(results, file)
"""
HEAVY = [
    *("anndata", "skorch", "matplotlib", "torch_geometric", "skops", "jinja2", "shapely", "h5py"),
    *("sklearn.linear_model", "sklearn.model_selection", "sklearn.ensemble", "sklearn.pipeline"),
    *("sklearn.preprocessing", "sklearn.metrics", "sklearn.neighbors", "sklearn.cluster"),
]


def everything():
    """Name, fitted estimator and input of each estimator of the package, and of the pipelines."""
    yield "MoMKDClassifier", fitted("MoMKDClassifier"), BAGS
    for name in ESTIMATORS:
        if name in CLASSIFIERS and name != "MoMKDClassifier":
            yield name, fitted(name), BAGS
        if name in TRANSFORMERS:
            yield name, fitted(name), TRANSFORMERS[name][1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        student = PrivilegedClassifier(LogisticRegression(), random_state=0)
        yield "PrivilegedClassifier", student.fit(POOLED, Y, omics=OMICS.to_numpy()), POOLED
        yield from ((name, model, BAGS) for name, model in pipelines() if name != "unfitted")


METHODS = ("predict_proba", "predict", "decision_function", "transform")


@pytest.mark.long
def test_models_predict_the_same_in_a_fresh_process_and_load_what_they_need(tmp_path):
    models, inputs = {}, {}
    for name, model, X in everything():
        if name != "TissueMaskFilter":  # its masks are files
            models[name] = model
            save_model(model, tmp_path / f"{name}.zip", include_validation=True)
            inputs[name] = X, [method for method in METHODS if hasattr(model, method)]
    assert models.keys() >= set(ESTIMATORS) - {"TissueMaskFilter"}
    assert len(models.keys() - set(ESTIMATORS)) >= 6
    with open(tmp_path / "inputs.pkl", "wb") as file:
        pickle.dump(inputs, file)
    code = [sys.executable, "-W", "ignore", "-c", CODE.replace("HEAVY", repr(HEAVY))]
    run = subprocess.run(code, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[:2] == ["[]", "[]"]
    with open(tmp_path / "results.pkl", "rb") as file:
        results = pickle.load(file)
    for name, (X, methods) in inputs.items():
        for method in methods:
            found = getattr(models[name], method)(X)
            expected = np.concatenate([b.features for b in found]) if _is_bags(found) else found
            np.testing.assert_array_equal(results[name, method], expected, err_msg=name)


@pytest.mark.parametrize("name", ["MoMKDClassifier", "TDCClassifier"])
def test_file_holds_no_object_of_torch(tmp_path, name):
    """Arrays and text alone, so that a file does not depend on the version of torch."""
    with zipfile.ZipFile(save_model(fitted(name), tmp_path / "m.zip")) as file:
        parts = {part: file.read(part) for part in file.namelist()}
    written_by = {"sk_momkd.json", "README.md"}
    assert [part for part, content in parts.items() if b"torch" in content] == ["sk_momkd.json"]
    assert parts.keys() == written_by | {"model.json", "model.safetensors"}
    json.loads(parts["model.json"])
    arrays = safetensors.numpy.load(parts["model.safetensors"])
    weights = {key: value for key, value in arrays.items() if ".network0." in key}
    assert weights.keys() >= {
        f"{name}1.network0.{k}" for k in without_omics(weights_of(fitted(name).module_))
    }
    assert all(type(value) is np.ndarray for value in weights.values())


def contents(path):
    return [path.read_bytes()] if path.is_file() else [p.read_bytes() for p in path.iterdir()]


def named_in(path):
    """Which patients, slides and validation logits are in the files of a model."""
    clf = fitted("MoMKDClassifier")
    rows, logits = clf._validation
    ids = [*PATIENTS, *rows["bag_id"]]
    values = [row.tobytes() for row in logits] + [np.float64(row[0]).tobytes() for row in logits]
    found = contents(path)
    known = [i for i in ids if any(i.encode() in content for content in found)]
    return known, [v for v in values if any(v in content for content in found)]


def test_text_of_labels_is_in_a_file_as_often_as_classes_have_names(tmp_path):
    """Not once per patient: the file of twice as many patients has the same number of them."""
    counts = []
    for n in (8, 16):
        labels = np.array(["zzbenign", "zzmalignant"])[NUMBERS[:n]]
        clf = quick("ABMILClassifier", max_epochs=1, early_stopping=True, validation_fraction=0.3)
        clf.fit(BAGS[:n], labels)
        content = b"".join(contents(save_model(clf, tmp_path / str(n))))
        ids = [*PATIENTS, *BAGS.ids]
        assert [name for name in ids if name.encode() in content] == []
        counts.append([content.count(text) for text in (b"zzbenign", b"zzmalignant")])
    assert counts[0] == counts[1]


@pytest.mark.parametrize("suffix", ["", ".zip"])
def test_file_names_no_patient_unless_asked(tmp_path, suffix):
    clf = fitted("MoMKDClassifier")
    for i, options in enumerate(({}, {"include_omics": True})):
        path = save_model(clf, tmp_path / f"m{i}{suffix}", **options)
        assert named_in(path) == ([], [])
    path = save_model(clf, tmp_path / f"all{suffix}", include_validation=True)
    ids, values = named_in(path)
    assert len(ids) >= 2 * len(clf.validation_)
    assert values
    pd.testing.assert_frame_equal(load_model(path).validation_, clf.validation_)


def test_pipelines_and_site_tables_name_no_patient(tmp_path):
    for name, model in pipelines():
        assert named_in(save_model(model, tmp_path / name))[0] == []
    sites = fitted("InstanceStandardizer")
    path = save_model(sites, tmp_path / "sites")
    assert named_in(path)[0] == []
    with pytest.raises(ValueError, match="have no site"):
        load_model(path).transform(BAGS)
    assert again(sites, tmp_path, include_validation=True).sites == sites.sites


def test_histology_alone_says_what_is_left_out(tmp_path):
    clf = fitted("MoMKDClassifier")
    loaded = again(clf, tmp_path)
    with pytest.raises(OmicsError, match="include_omics=True"):
        gene_attributions(loaded, OMICS)
    with pytest.raises(AttributeError, match="include_omics=True"):
        loaded.omics_transformer_  # noqa: B018
    with pytest.raises(AttributeError, match="include_validation=True"):
        loaded.validation_  # noqa: B018
    loaded = again(loaded, tmp_path, "")
    with pytest.raises(AttributeError, match="omics_transformer_ is not in the file"):
        loaded.omics_transformer_  # noqa: B018
    loaded.set_params(max_epochs=1).fit(BAGS, Y, omics=OMICS)
    assert hasattr(loaded, "omics_transformer_")
    assert len(loaded.validation_)


def test_omics_branch_is_kept_on_request(tmp_path):
    clf = fitted("MoMKDClassifier")
    loaded = again(clf, tmp_path, include_omics=True)
    expected = clf.omics_transformer_.transform(OMICS)
    np.testing.assert_array_equal(loaded.omics_transformer_.transform(OMICS), expected)
    for own, other in zip(
        clf.module_.omics_branch.parameters(), loaded.module_.omics_branch.parameters(), strict=True
    ):
        assert torch.equal(own, other)


def test_bags_unlike_those_of_training_are_refused_after_loading(tmp_path):
    folders = [tmp_path / name for name in ("uni", "other", "wide")]
    for folder in folders:
        folder.mkdir()
    for i in range(8):
        trident(folders[0], f"S{i}")
    trident(folders[1], "S1", encoder="conch")
    trident(folders[2], "S1", n_features=7)
    clf = ABMILClassifier(dim=4, attention_dim=2, max_epochs=1, early_stopping=False)
    clf.fit(read_bags(folders[0]), np.arange(8) % 2)
    loaded = again(clf, tmp_path)
    assert loaded.bag_info_ == clf.bag_info_ != {}
    for folder in folders[1:]:
        messages = []
        for model in (clf, loaded):
            with pytest.raises(ValueError, match=r"S1|7") as raised:
                model.predict_proba(read_bags(folder))
            messages.append(str(raised.value))
        assert messages[0] == messages[1]


def test_far_features_warn_after_loading_as_before(tmp_path):
    clf = fitted("ABMILClassifier")
    far = make_bags(2)[0].map(lambda features: features * 1e6)
    for model in (clf, again(clf, tmp_path)):
        with pytest.warns(UserWarning, match="features"):
            model.predict_proba(far)


def test_model_of_another_device_loads_on_the_cpu(tmp_path):
    clf = copy.deepcopy(fitted("ABMILClassifier"))
    clf.device, clf.device_ = "xpu", "xpu"
    path = save_model(clf, tmp_path / "model.zip")
    with pytest.warns(UserWarning, match="device='xpu', which is absent here") as caught:
        loaded = load_model(path)
    assert caught[0].filename == __file__
    assert loaded.device == "auto"
    expected = fitted("ABMILClassifier").predict_proba(BAGS)
    np.testing.assert_array_equal(loaded.predict_proba(BAGS), expected)
    assert load_model(path, device="cpu").device == "cpu"
    with pytest.raises(ValueError, match="device='xpu' cannot be used here"):
        load_model(path, device="xpu")


def test_the_same_model_gives_the_same_file(tmp_path):
    clf = fitted("MoMKDClassifier")
    first, second = (save_model(clf, tmp_path / f"{i}.zip").read_bytes() for i in range(2))
    loaded = load_model(tmp_path / "0.zip")
    assert first == second == save_model(loaded, tmp_path / "2.zip").read_bytes()


def test_requests_and_output_settings_are_kept(tmp_path):
    with sklearn.config_context(enable_metadata_routing=True):
        clf = copy.deepcopy(fitted("MoMKDClassifier")).set_fit_request(omics=True, groups=True)
        pooling = BagPooling().fit(BAGS).set_output(transform="pandas")
        loaded = again(clf, tmp_path)
        asked = loaded.get_metadata_routing().fit.requests
        assert asked["omics"] is asked["groups"] is True
    assert isinstance(again(pooling, tmp_path, "").transform(BAGS), pd.DataFrame)


def test_splitter_of_this_package_is_a_parameter_like_others(tmp_path):
    split = PatientStratifiedKFold(3, shuffle=True, random_state=np.random.RandomState(0))
    loaded = again(
        ABMILClassifier(training=None).set_params(training__validation_split=split), tmp_path
    )
    found = loaded.training.validation_split
    assert (found.n_splits, found.shuffle) == (3, True)
    expected = split.random_state.get_state()[1]
    np.testing.assert_array_equal(found.random_state.get_state()[1], expected)
