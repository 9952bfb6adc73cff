"""Model files that are damaged or made up: refused with our error, nothing run, no memory taken."""

import io
import json
import os
import pickle
import resource
import stat
import zipfile

import numpy as np
import pytest
import torch
from persistence.fitted import BAGS, Y, fitted
from persistence.tampered import (
    mutated,
    parts_of,
    safetensors,
    same,
    with_sums,
    written,
)
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sk_momkd import (
    ABMILClassifier,
    BagPooling,
    InstanceFilter,
    ModelFileError,
    TrainingOptions,
    load_model,
    save_model,
)

MARK = "executed"


@pytest.fixture
def model(tmp_path):
    return save_model(fitted("ABMILClassifier"), tmp_path / "model.zip")


@pytest.fixture
def pooled(tmp_path):
    clf = make_pipeline(BagPooling(), LogisticRegression()).fit(BAGS, Y)
    return save_model(clf, tmp_path / "pooled.zip")


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def refused(path, message):
    with pytest.raises(ModelFileError, match=message) as raised:
        load_model(path)
    assert str(path.name.partition(".")[0]) in str(raised.value)


@pytest.mark.parametrize("suffix", [".pkl", ".pickle", ".joblib", ".pt", ".PTH", ".bin", ".ckpt"])
def test_pickle_is_refused_by_name_and_never_opened(tmp_path, suffix):
    os.mkfifo(tmp_path / f"model{suffix}")  # opening it would wait for a writer
    refused(tmp_path / f"model{suffix}", "is a pickle by its name.*was not opened")
    with pytest.raises(ModelFileError, match=r"suffix of a pickle.*other\.zip"):
        save_model(BagPooling(), tmp_path / f"other{suffix}")
    assert len(list(tmp_path.iterdir())) == 1


def test_pickles_under_other_names_are_not_unpickled(tmp_path):
    for name in ("a.zip", "b"):
        (tmp_path / name).write_bytes(pickle.dumps(Payload(tmp_path / MARK)))
        refused(tmp_path / name, r"is not a model of save_model.*it is a pickle")
    torch.save(Payload(tmp_path / MARK), tmp_path / "c.zip")
    refused(tmp_path / "c.zip", "has an entry 'c/|holds no model")
    assert not (tmp_path / MARK).exists()


@pytest.mark.parametrize("name", ["missing.zip", "missing"])
def test_missing_model_says_so(tmp_path, name):
    refused(tmp_path / name, "does not exist")


def test_folder_without_a_model_or_with_a_missing_part_says_so(tmp_path, model):
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "a folder without a model: it has no sk_momkd.json, but nothing")
    for name, content in parts_of(model).items():
        (tmp_path / "empty" / name).write_bytes(content)
    assert same(load_model(tmp_path / "empty"), load_model(model))
    (tmp_path / "empty" / "model.safetensors").unlink()
    refused(tmp_path / "empty", "incomplete: its part model.safetensors is missing")
    os.mkfifo(tmp_path / "empty" / "model.safetensors")
    refused(tmp_path / "empty", "a pipe or a device")


def test_mutated_files_are_refused_or_load_as_the_same(tmp_path, model):
    sound, content = load_model(model), model.read_bytes()
    path, n_refused = tmp_path / "mutated.zip", 0
    for seed in range(200):
        path.write_bytes(mutated(content, np.random.default_rng(seed)))
        try:
            assert same(load_model(path), sound), seed
        except ModelFileError:
            n_refused += 1
    assert n_refused > 150


def test_mutated_parts_whose_sums_fit_raise_our_error_or_load(tmp_path, pooled, model):
    path, n_refused = tmp_path / "mutated.zip", 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        parts = parts_of(pooled if seed % 2 else model)
        name = random.choice(sorted(parts.keys() - {"README.md", "sk_momkd.json"}))
        written(path, with_sums(parts | {name: mutated(parts[name], random)}))
        try:
            load_model(path)
        except ModelFileError:
            n_refused += 1
    assert n_refused > 20


def test_parts_of_another_model_are_refused(tmp_path, model):
    other = parts_of(save_model(fitted("DSMILClassifier"), tmp_path / "other.zip"))
    for name in ("model.json", "model.safetensors"):
        parts = parts_of(model) | {name: other[name]}
        path = written(tmp_path / "mixed.zip", parts)
        refused(path, f"{name}.* bytes, expected|SHA-256 of {name}")
        refused(written(path, with_sums(parts)), "is missing, or is used twice")


def document(change):
    """A model whose model.json was changed, with sums that fit."""

    def make(path, parts):
        content = json.loads(parts["model.json"])
        change(content)
        return written(path, with_sums(parts | {"model.json": json.dumps(content).encode()}))

    return make


def manifest(**entries):
    def make(path, parts):
        content = json.loads(parts["sk_momkd.json"]) | entries
        return written(path, parts | {"sk_momkd.json": json.dumps(content).encode()})

    return make


def last(content, key):
    return content["objects"][-1][key]


def part(name, content):
    return lambda path, parts: written(path, with_sums(parts | {name: content}))


HUGE = safetensors({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}})
WRONG = {
    "newer": (manifest(format_version=2), r"format version 2, but this sk_momkd reads up to 1"),
    "version": (manifest(format_version="1"), "format version '1'"),
    "format": (manifest(format="other"), "holds no model"),
    "climbs": (
        manifest(parts={"../model.json": {"bytes": 1, "sha256": "0"}}),
        "lists no parts of a model",
    ),
    "no sums": (
        manifest(parts={key: {} for key in ("model.json", "model.safetensors")}),
        "states no bytes and SHA-256",
    ),
    "parameter": (
        document(lambda d: last(d, "parameters").update(depth=3)),
        r"parameters 'depth', which this version .* does not have.*Upgrade",
    ),
    "range": (document(lambda d: last(d, "parameters").update(dim=-1)), "'dim' parameter"),
    "large layer": (
        document(lambda d: _network(d).update(dim=10**12)),
        r"expected float32\(1000000000000|cannot be made",
    ),
    "class": (document(lambda d: d["objects"][-1].update({"class": "os.system"})), "'os.system'"),
    "function": (document(lambda d: d["objects"][-1].update({"class": "save_model"})), "does not"),
    "attribute": (
        document(lambda d: last(d, "fitted").update(predict=1)),
        "fitted attributes 'predict'",
    ),
    "later object": (
        document(lambda d: last(d, "parameters").update(training={"object": 99})),
        "refers to 'object' 99",
    ),
    "kind": (
        document(lambda d: last(d, "parameters").update(training={"eval": "1"})),
        "refers to 'eval'",
    ),
    "keys": (document(lambda d: last(d, "parameters").update(device={"a": 1, "b": 2})), "one key"),
    "networks": (document(lambda d: d["objects"][-1].update(networks=10**9)), "missing"),
    "no objects": (document(lambda d: d.pop("objects")), "describes no model"),
    "no estimator": (document(lambda d: d.update(model=3)), "expected an estimator|not used"),
    "classes": (
        document(lambda d: last(d, "fitted").update(classes_={"text": ["<U1", [2], ["a", "a"]]})),
        "classes_ are not different labels",
    ),
    "shares": (
        document(lambda d: last(d, "fitted").update(class_prior_=[0.1, 0.2, 0.7])),
        r"class_prior_ is \(3,\), expected \(2,\)",
    ),
    "text width": (
        document(lambda d: last(d, "fitted").update(classes_={"text": ["<U99999", [999], ["a"]]})),
        "1 values and another shape",
    ),
    "much text": (
        document(
            lambda d: last(d, "fitted").update(classes_={"text": ["<U99999", [999], ["a"] * 999]})
        ),
        "an array of 999 texts has the type '<U99999'",
    ),
    "not JSON": (part("model.json", b"{"), "not readable JSON"),
    "constant": (part("model.json", b'{"objects": [NaN]}'), "NaN is no number of JSON"),
    "deep": (part("model.json", b"[" * 200_000), "not readable JSON"),
    "weights": (part("model.safetensors", safetensors({})), "missing"),
    "huge shape": (part("model.safetensors", HUGE), "model.safetensors is damaged"),
    "extra part": (part("extra.skops", b"1"), "parts are not used"),
    "extra entry": (
        lambda path, parts: written(path, parts | {"evil.py": b"1"}),
        "entries that are no part of its model: 'evil.py'",
    ),
    "climbing entry": (
        lambda path, parts: written(path, parts | {"../../evil.py": b"1"}),
        "has an entry '../../evil.py'",
    ),
    "absolute entry": (
        lambda path, parts: written(path, parts | {"/etc/passwd": b"1"}),
        "has an entry '/etc/passwd'",
    ),
}


def _network(content):
    found = dict(map(tuple, last(content, "fitted")["_network"]["dict"]))
    made_with = dict(found["made_with"]["dict"])

    class Pairs:
        def update(self, **new):
            found["made_with"]["dict"][:] = [[k, v] for k, v in (made_with | new).items()]

    return Pairs()


@pytest.mark.parametrize("what", WRONG)
def test_made_up_file_is_refused(tmp_path, model, what):
    make, message = WRONG[what]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(make(tmp_path / "made_up.zip", parts_of(model)), message)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


def entry(name, content, **attributes):
    info = zipfile.ZipInfo(name)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, content


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([entry("model.json", b"1")], "twice"),
        ([entry("a.txt", b"/etc/passwd", external_attr=stat.S_IFLNK << 16)], "is a link"),
        ([entry("a.txt", bytes(10**7), compress_type=zipfile.ZIP_DEFLATED)], "is compressed"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_entries_that_no_model_has_are_refused(tmp_path, model, entries, message):
    with zipfile.ZipFile(model, "a") as archive:
        for info, content in entries:
            archive.writestr(info, content)
    refused(model, message)


def test_declared_sizes_that_the_bytes_cannot_hold_are_refused(tmp_path, model):
    content = model.read_bytes()
    start = content.rindex(b"PK\x01\x02")  # the last entry of the directory
    large = (2**31).to_bytes(4, "little")
    model.write_bytes(content[: start + 20] + large * 2 + content[start + 28 :])
    refused(model, "more than its bytes can hold|incomplete|damaged")


def skops_of(path, change):
    """The pooled model with another schema of its scikit-learn step."""
    parts = parts_of(path)
    with zipfile.ZipFile(io.BytesIO(parts["sklearn_0.skops"])) as archive:
        inner = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(inner["schema.json"])
    change(schema, inner)
    inner["schema.json"] = json.dumps(schema).encode()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, value in inner.items():
            archive.writestr(name, value)
    return written(path, with_sums(parts | {"sklearn_0.skops": content.getvalue()}))


def node(loader, module, name, **more):
    return {"__loader__": loader, "__module__": module, "__class__": name, **more}


def listed(*items):
    return node("ListNode", "builtins", "list", content=list(items))


def put(value):
    return lambda schema, inner: schema["content"]["content"].update(memory=value)


def npy(shape, kind):
    file = io.BytesIO()
    header = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


SYSTEM = node("FunctionNode", "os", "system")
NUMBER = node(
    "DictNode",
    "builtins",
    "dict",
    key_types=listed(node("TypeNode", "builtins", "str")),
    content={"number": node("JsonNode", "builtins", "str", content="99")},
)
PLACEHOLDER = ("ObjectNode", "sk_momkd.persistence.sklearn_steps", "Placeholder")
EVIL = {
    "function": put(SYSTEM),
    "builtin": put(node("TypeNode", "builtins", "eval")),
    "constructor": put(node("ConstructorFromReduceNode", "subprocess", "Popen", content=listed())),
    "method": put(node("MethodNode", "builtins", "str", content={})),
    "operator": put(node("OperatorFuncNode", "operator", "methodcaller", attrs={})),
    "partial": put(node("PartialNode", "functools", "partial", content={})),
    "loader": put(node("NoNode", "builtins", "dict")),
    "trees": put(node("TreeNode", "sklearn.tree._tree", "Tree")),
    "class": put(node("ObjectNode", "sklearn.ensemble._gb", "GradientBoostingClassifier")),
    "hidden": put(node("JsonNode", "builtins", "str", content="1", more=[SYSTEM])),
    "no loader": put({"__class__": "system", "__module__": "os"}),
    "huge array": lambda schema, inner: inner.update({"1.npy": npy((2**40,), "<f8")}),
    "object array": lambda schema, inner: inner.update({"1.npy": npy((1,), "|O")}),
    "number": put(node(*PLACEHOLDER, content=NUMBER)),
}


@pytest.mark.parametrize("what", EVIL)
def test_step_of_scikit_learn_with_other_content_is_refused(pooled, what):
    refused(
        skops_of(pooled, EVIL[what]),
        "load_model does not make from a file|declares|needs the estimator 99",
    )


def test_parameter_that_the_writing_version_did_not_have_gets_its_default(pooled):
    def without(schema, inner):
        del schema["content"]["content"]["transform_input"]

    expected = load_model(pooled).predict_proba(BAGS)
    loaded = load_model(skops_of(pooled, without))
    assert loaded.transform_input is None
    np.testing.assert_array_equal(loaded.predict_proba(BAGS), expected)


def test_steps_that_cannot_be_checked_are_refused_when_they_are_saved(tmp_path):
    trees = InstanceFilter(IsolationForest(n_estimators=3, random_state=0), random_state=0)
    save_model(trees, tmp_path / "unfitted")
    with pytest.raises(
        ModelFileError, match=r"detector_ holds .*tree.*uses the content of.*joblib"
    ):
        save_model(trees.fit(BAGS), tmp_path / "trees")
    search = GridSearchCV(LogisticRegression(), {"C": [1, 2]})
    with pytest.raises(ModelFileError, match="Of a search, save its best_estimator_"):
        save_model(search, tmp_path / "search")
    assert not (tmp_path / "trees").exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "int is no estimator"),
        (
            ABMILClassifier(random_state=np.random.default_rng(0)),
            "random_state is a numpy.*set_params",
        ),
        (
            ABMILClassifier(training=TrainingOptions(callbacks=[print])),
            r"callbacks\.0 is a builtins",
        ),
        (print, "cannot be saved"),
    ],
)
def test_what_a_file_cannot_hold_is_refused_by_name(tmp_path, value, message):
    with pytest.raises(ModelFileError, match=message):
        save_model(value, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_foreign_attributes_are_refused_when_saved(tmp_path):
    clf = ABMILClassifier()
    clf.note_ = "mine"
    with pytest.raises(ModelFileError, match="attributes that do not belong to it: 'note_'"):
        save_model(clf, tmp_path / "model")


@pytest.mark.parametrize("suffix", ["", ".zip"])
def test_existing_models_are_replaced_on_request_alone(tmp_path, suffix):
    path = save_model(BagPooling("max"), tmp_path / f"model{suffix}")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        save_model(BagPooling("mean"), path)
    assert load_model(path).statistics == "max"
    save_model(BagPooling("mean"), path, overwrite=True)
    assert load_model(path).statistics == "mean"
    assert list(tmp_path.iterdir()) == [path]


def test_write_that_fails_leaves_the_old_model(tmp_path, monkeypatch):
    paths = [save_model(BagPooling("max"), tmp_path / name) for name in ("a", "b.zip")]

    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr("os.fsync", fail)
    for path in paths:
        with pytest.raises(OSError, match="disk is full"):
            save_model(BagPooling("mean"), path, overwrite=True)
        assert load_model(path).statistics == "max"
    assert sorted(tmp_path.iterdir()) == paths


def test_model_that_a_killed_process_moved_aside_is_named(tmp_path, monkeypatch):
    path = save_model(BagPooling("max"), tmp_path / "model")
    rename, calls = os.rename, []

    def kill(*names):
        calls.append(names)
        if len(calls) == 2:  # the new model was to take the place of the old one
            raise SystemExit
        rename(*names)

    monkeypatch.setattr("os.rename", kill)
    with pytest.raises(SystemExit):
        save_model(BagPooling("mean"), path, overwrite=True)
    with pytest.raises(ModelFileError, match="was killed while it replaced a model") as raised:
        load_model(path)
    (aside,) = tmp_path.glob(".*-old")
    assert repr(str(aside)) in str(raised.value)
    rename(aside, path)
    assert load_model(path).statistics == "max"


def test_other_files_and_folders_are_never_replaced(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "slides.csv").write_text("id")
    with pytest.raises(FileExistsError, match="holds no model"):
        save_model(BagPooling(), tmp_path / "data", overwrite=True)
    path = save_model(BagPooling(), tmp_path / "model")
    (path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"files beside its model.*'notes.txt'"):
        save_model(BagPooling(), path, overwrite=True)
    (tmp_path / "folder.zip").mkdir()
    with pytest.raises(FileExistsError, match="is a folder"):
        save_model(BagPooling(), tmp_path / "folder.zip", overwrite=True)
    with pytest.raises(FileNotFoundError, match="no folder"):
        save_model(BagPooling(), tmp_path / "nowhere" / "model")
    (tmp_path / "text.zip").write_text("mine")
    os.mkfifo(tmp_path / "pipe.zip")
    (tmp_path / "link.zip").symlink_to(tmp_path / "nowhere.zip")
    for name, part in (("slides.zip", "slides.csv"), ("empty.zip", None)):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(part, "id") if part else None
    for name in ("text.zip", "pipe.zip", "link.zip", "slides.zip", "empty.zip"):
        with pytest.raises(FileExistsError, match=rf"{name} is a file that holds no model"):
            save_model(BagPooling(), tmp_path / name, overwrite=True)
    assert zipfile.ZipFile(tmp_path / "slides.zip").namelist() == ["slides.csv"]
    assert (tmp_path / "text.zip").read_text() == "mine"
    path = save_model(BagPooling(), tmp_path / "model.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("notes.txt", "mine")
    with pytest.raises(FileExistsError, match=r"files beside its model.*'notes.txt'"):
        save_model(BagPooling(), path, overwrite=True)
    assert (tmp_path / "data" / "slides.csv").read_text() == "id"


def test_card_may_be_edited_and_a_licence_added(model):
    sound, parts = load_model(model), parts_of(model)
    path = written(model, parts | {"README.md": b"mine", "LICENSE": b"text"})
    assert same(load_model(path), sound)
