"""A fit that was stopped goes on and ends as one that was not; any other fit is refused."""

import itertools
import json
import threading
import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_bags, make_omics
from quick import CLASSIFIERS, PRIVILEGED, quick
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import FunctionTransformer
from skorch.callbacks import Callback, EarlyStopping

from sk_momkd import Bag, CheckpointError, TrainingError
from sk_momkd.estimators.checkpoint import _parameters
from sk_momkd.exceptions import ModelFileError
from sk_momkd.io.checkpoint_files import StateWriter, can_be_stored, open_checkpoints
from sk_momkd.training.checkpoints import RunState
from sk_momkd.training.loop import MILNet

PATIENTS = [f"TCGA-A{i % 8}-X{i:03d}" for i in range(16)]
BAGS, NUMBERS = make_bags(16, patients=PATIENTS)
Y = np.array(["luminal", "basal"])[NUMBERS]
OMICS = make_omics(NUMBERS).set_axis(PATIENTS)


class Stopped(Exception):
    """The process ends here, as far as the folder shows."""


def fit(clf, **known):
    if type(clf).__name__ in PRIVILEGED:
        known.setdefault("omics", OMICS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return clf.fit(BAGS, Y, **known)


def end(clf):
    """Everything that training decides."""
    arrays = [p for module in clf.modules_ for p in module.state_dict().values()]
    return [*arrays, torch.tensor(clf.predict_proba(BAGS))], clf.history_.drop(columns="dur")


def assert_same_end(a, b):
    for first, second in zip(end(a)[0], end(b)[0], strict=True):
        assert torch.equal(first, second)
    pd.testing.assert_frame_equal(end(a)[1], end(b)[1], check_exact=True)


def fit_with_stops(clf, monkeypatch, every, **known):
    """Fit clones of `clf`, each of which is stopped after `every` checkpoints, until one ends."""
    save, count = RunState.save, itertools.count(1)

    def save_and_stop(state):
        save(state)
        if next(count) % every == 0:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(RunState, "save", save_and_stop)
        for n_stops in itertools.count():
            try:
                return fit(clone(clf), **known), n_stops
            except Stopped:
                continue


@pytest.fixture
def small(tmp_path):
    """A fit that takes a moment."""
    return quick("ABMILClassifier", max_epochs=2, training__checkpoint_dir=tmp_path / "run")


VARIANTS = {
    "lookahead": {
        "training__optimizer": "lookahead_radam",
        "training__average_after": 0.3,
        "training__lr_schedule": "linear",
    },
    "sgd": {"training__optimizer": "sgd", "training__lr_schedule": "plateau"},
    "cosine": {"training__lr_schedule": "cosine", "training__accumulation_steps": 2},
    "dropout": {"input_dropout": 0.2, "instance_dropout": 0.2, "sampler": "shuffle"},
    "stops early": {"early_stopping": True, "patience": 1, "training__min_epochs": 1},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_stopped_fit_ends_as_one_that_was_not_stopped(variant, tmp_path, monkeypatch):
    clf = quick("ABMILClassifier", max_epochs=5, **VARIANTS[variant])
    whole = fit(clone(clf))
    clf.set_params(training__checkpoint_dir=tmp_path / "run")
    again, n_stops = fit_with_stops(clf, monkeypatch, 2)
    assert n_stops or variant == "stops early"
    assert_same_end(again, whole)


@pytest.mark.long
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_stopped_fit_of_every_method_and_several_networks_ends_the_same(
    name, tmp_path, monkeypatch
):
    clf = quick(name, max_epochs=4, n_models=2, early_stopping=True)
    whole = fit(clone(clf))
    clf.set_params(training__checkpoint_dir=tmp_path)
    again, n_stops = fit_with_stops(clf, monkeypatch, 3)
    assert n_stops >= 2
    assert_same_end(again, whole)


def test_fit_that_has_ended_is_not_trained_again(small, monkeypatch):
    whole = fit(clone(small))

    def refuse(*_):
        raise AssertionError("it trains")

    monkeypatch.setattr(MILNet, "fit_dataset", refuse)
    assert_same_end(fit(clone(small)), whole)


CHANGES = {
    "learning_rate is 0.01 there and 0.02 here": {"learning_rate": 0.02},
    "max_epochs is 2 there and 3 here": {"max_epochs": 3},
    "random_state is 0 there and 1 here": {"random_state": 1},
    "another class_weight": {"class_weight": {"basal": 2.0}},
    "another training__callbacks": {"training__callbacks": [EarlyStopping()]},
}


@pytest.mark.parametrize("message", CHANGES)
def test_fit_of_another_configuration_is_refused_by_name(message, small):
    fit(clone(small))
    with pytest.raises(CheckpointError, match=message):
        fit(clone(small).set_params(**CHANGES[message]))


def test_fit_with_what_does_not_change_the_training_is_the_same(small):
    fit(clone(small))
    clf = clone(small).set_params(prior="sampler", verbose=0, decision_threshold=0.5, device="cpu")
    assert fit(clf).decision_threshold_ == 0.5


def test_fit_with_another_pooled_share_goes_on_with_the_same_networks(small):
    fit(clone(small))
    both = clone(small).set_params(pooled_share=0.75)
    found = fit(clone(both))
    expected = fit(both.set_params(training__checkpoint_dir=None))
    np.testing.assert_array_equal(found.predict_proba(BAGS), expected.predict_proba(BAGS))


def test_fit_on_other_data_is_refused_by_name(small):
    fit(clone(small))
    other = Bag(BAGS[3].features * 1.001, BAGS[3].coords, bag_id="S03", patient_id=PATIENTS[3])
    changed = BAGS.replace([*BAGS[:3], other, *BAGS[4:]])
    renamed = make_bags(16, patients=[f"{name}x" for name in PATIENTS])[0]
    cases = {
        "the content of bag 'S03'": (changed, Y, {}),
        "the ids of bags or patients": (renamed, Y, {}),
        "16 bags there, 14 here": (BAGS[:14], Y[:14], {}),
        "y": (BAGS, Y[::-1].copy(), {}),
        "sample_weight": (BAGS, Y, {"sample_weight": np.arange(1, 17)}),
    }
    for message, (bags, y, known) in cases.items():
        with pytest.raises(CheckpointError, match=f"another fit: .*{message}"):
            clone(small).fit(bags, y, **known)


@pytest.mark.slow
def test_fit_with_other_omics_or_groups_is_refused_by_name(tmp_path):
    clf = quick("MKDClassifier", max_epochs=1, training__checkpoint_dir=tmp_path / "run")
    fit(clone(clf))
    with pytest.raises(CheckpointError, match="another fit: omics, as the omics transformer"):
        fit(clone(clf), omics=OMICS + np.arange(16)[:, None] ** 2 * 1e-3)
    with pytest.raises(CheckpointError, match="genes"):
        fit(clone(clf), omics=OMICS.rename(columns={"G0": "H0"}))
    with pytest.raises(CheckpointError, match="which bags form the validation part"):
        fit(clone(clf), groups=np.arange(16) // 4)


def test_fit_with_another_version_is_refused_by_name(small):
    fit(clone(small))
    path = small.training.checkpoint_dir / "fit.json"
    with open_checkpoints(path.parent, {}) as (_, known):
        path.unlink()
        known["versions"]["torch"] = "1.0"
    with open_checkpoints(path.parent / "other", known):
        (path.parent / "other" / "fit.json").rename(path)
    with pytest.raises(CheckpointError, match=r"torch is '1\.0' there"):
        fit(clone(small))


def test_fits_that_share_a_path_with_placeholder_have_folders_of_their_own(small, tmp_path):
    small.set_params(training__checkpoint_dir=f"{tmp_path}/runs/{{fit}}", early_stopping=False)
    search = GridSearchCV(small, {"learning_rate": [0.01, 0.02]}, cv=2, error_score="raise")
    search.fit(BAGS, Y)
    assert len(list((tmp_path / "runs").iterdir())) == 5  # and the refit
    fit(clone(small))
    fit(clone(small))
    assert len(list((tmp_path / "runs").iterdir())) <= 6


def stopped_after(clf, n, monkeypatch):
    """Folder of a fit that was stopped after `n` checkpoints."""
    save, count = RunState.save, itertools.count(1)

    def save_and_stop(state):
        save(state)
        if next(count) == n:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(RunState, "save", save_and_stop)
        with pytest.raises(Stopped):
            fit(clone(clf))
    return clf.training.checkpoint_dir


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_damaged_checkpoint_is_passed_over_with_a_warning(small, monkeypatch):
    small.set_params(max_epochs=5)
    whole = fit(clone(small).set_params(training__checkpoint_dir=None))
    folder = stopped_after(small, 3, monkeypatch)
    before, newest = sorted(folder.glob("*.safetensors"))
    flip_a_bit(newest)
    with pytest.warns(UserWarning, match=r"epoch000003.*is damaged.*The checkpoint before it"):
        again = clone(small).fit(BAGS, Y)
    assert_same_end(again, whole)
    assert before.name.startswith("network0.epoch000002")


def test_checkpoints_that_are_all_damaged_are_an_error(small, monkeypatch):
    folder = stopped_after(small.set_params(max_epochs=5), 3, monkeypatch)
    for path in folder.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(CheckpointError, match="All 2 checkpoints of network0"), pytest.warns():
        clone(small).fit(BAGS, Y)


@pytest.mark.parametrize("name", ["network0.finished", "fit.json"])
def test_damaged_end_or_description_is_an_error(name, small):
    fit(clone(small))
    (path,) = small.training.checkpoint_dir.glob(f"{name}*")
    flip_a_bit(path)
    with pytest.raises(CheckpointError, match=f"{path} is damaged"):
        fit(clone(small))


def test_half_written_file_is_removed_and_the_fit_goes_on(small, monkeypatch):
    folder = stopped_after(small.set_params(max_epochs=4), 2, monkeypatch)
    (folder / ".sk_momkd-x.part").write_bytes(b"half")
    fit(clone(small))
    assert sorted(path.name.split(".")[0] for path in folder.iterdir()) == [
        *("fit", "lock", "network0")
    ]


def test_second_fit_in_the_same_folder_is_refused_while_the_first_runs(small, tmp_path):
    fit(clone(small))
    with open_checkpoints(tmp_path / "run", {}), pytest.raises(CheckpointError, match="locked it"):
        fit(clone(small))
    fit(clone(small))


def test_folder_of_other_files_is_refused(small, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"other files: 'notes\.txt'"):
        fit(clone(small))
    (tmp_path / "run" / "fit.json").write_text("{}")
    with pytest.raises(CheckpointError, match="damaged"):
        fit(clone(small))


def test_full_disk_ends_the_fit_with_what_to_do_and_the_same_call_goes_on(small, monkeypatch):
    small.set_params(max_epochs=4)
    whole = fit(clone(small).set_params(training__checkpoint_dir=None))
    folder = stopped_after(small, 2, monkeypatch)
    kept = sorted(folder.iterdir())

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match=r"No space left on device\. Free some space"):
            fit(clone(small))
    assert sorted(folder.iterdir()) == kept
    assert_same_end(fit(clone(small)), whole)


def test_interrupt_leaves_the_earlier_model_and_the_same_call_goes_on(small, monkeypatch):
    clf = fit(clone(small).set_params(training__checkpoint_dir=None))
    before = clf.predict_proba(BAGS)
    clf.set_params(training__checkpoint_dir=small.training.checkpoint_dir, max_epochs=5)
    save, count = RunState.save, itertools.count(1)

    def save_and_interrupt(state):
        save(state)
        if next(count) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunState, "save", save_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit(clf)
    assert (clf.predict_proba(BAGS) == before).all()
    whole = fit(clone(small).set_params(training__checkpoint_dir=None, max_epochs=5))
    assert_same_end(fit(clf), whole)


class Counts(Callback):
    """Has a state of plain values."""

    def initialize(self):
        self.seen_ = []
        return self

    def on_epoch_end(self, net, **kwargs):
        self.seen_.append(len(net.history))


class Keeps(Callback):
    """Has a state that a checkpoint cannot hold."""

    def on_epoch_end(self, net, **kwargs):
        self.object_ = object()


class Decides(Keeps):
    """Decides what is kept of it."""

    def state_dict(self):
        return {"n": 3}

    def load_state_dict(self, state):
        self.n_ = state["n"]


def test_callbacks_of_the_user_go_on_with_their_state(small, monkeypatch):
    small.set_params(max_epochs=4, training__callbacks=[Counts(), ("decides", Decides())])
    clf, n_stops = fit_with_stops(small, monkeypatch, 2)
    assert n_stops == 1
    assert clf.callbacks_[0].seen_ == [1, 2, 3, 4]
    assert clf.callbacks_[1][1].n_ == 3
    assert fit(clone(small)).callbacks_[0].seen_ == [1, 2, 3, 4]


def described(**parameters):
    """Parameters as a checkpoint describes them."""
    clf = quick("MKDClassifier", **parameters)
    clf.device_, clf.precision_ = "cpu", "float32"
    return _parameters(clf, {})


def shifted(by):
    return FunctionTransformer(lambda values: values + by)


DIFFERENT = {
    "lambdas": ({"omics_transformer": shifted(1)}, {"omics_transformer": shifted(2)}),
    "partials": (
        {"omics_transformer": FunctionTransformer(partial(np.clip, a_min=0, a_max=1))},
        {"omics_transformer": FunctionTransformer(partial(np.clip, a_min=0, a_max=2))},
    ),
    "weights": ({"class_weight": {0: 1.0}}, {"class_weight": {0: 2.0}}),
    "callbacks": (
        {"training__callbacks": [EarlyStopping(patience=2)]},
        {"training__callbacks": [EarlyStopping(patience=3)]},
    ),
    "seeds": (
        {"teacher": LogisticRegression(random_state=0)},
        {"teacher": LogisticRegression(random_state=1)},
    ),
}
SAME = {
    "numbers of numpy": (
        {"training__betas": (np.float64(0.9), np.float64(0.99))},
        {"training__betas": [0.9, 0.99]},
    ),
    "memory": ({"training__cache_bytes": 0}, {"training__cache_bytes": 2**20, "verbose": 1}),
    "threads": (
        {"teacher": LogisticRegression(n_jobs=1)},
        {"teacher": LogisticRegression(n_jobs=2)},
    ),
}


@pytest.mark.parametrize("case", [*DIFFERENT, *SAME])
def test_parameters_are_told_apart_where_networks_depend_on_them(case):
    first, second = (DIFFERENT | SAME)[case]
    assert (described(**first) == described(**second)) == (case in SAME)
    assert described(**first) == described(**first)


def test_results_of_a_callback_are_not_what_it_is():
    used = Counts().initialize()
    used.seen_.append(3)
    assert described(training__callbacks=[used]) == described(training__callbacks=[Counts()])


def test_parameter_that_no_other_process_could_know_again_is_refused_by_name():
    callback = Counts()
    callback.lock = threading.Lock()
    with pytest.raises(CheckpointError, match=r"training__callbacks=.*cannot be known again"):
        described(training__callbacks=[callback])


@pytest.mark.parametrize(
    "value",
    [
        torch.ones(3, dtype=torch.bfloat16),
        {"a": [np.ones((2, 3)), np.array(1.5), ("x", None)]},
        np.array(["a", None], dtype=object),
        torch.ones(2, dtype=torch.complex64),
        torch.eye(2).to_sparse(),
        np.array([object()]),
        np.ones(2, dtype=complex),
        [object()],
    ],
)
def test_whether_a_value_can_be_stored_is_known_without_storing_it(value):
    try:
        StateWriter().encode(value, "value")
        expected = True
    except (ModelFileError, TypeError):
        expected = False
    assert can_be_stored(value) == expected


def test_no_tensor_is_copied_to_see_whether_it_can_be_stored():
    assert can_be_stored({"weights": torch.empty(3, device="meta")})  # it has no values


def test_callback_that_cannot_be_kept_is_refused_by_name(small):
    small.set_params(training__callbacks=[("mine", Keeps())])
    with pytest.raises(
        CheckpointError, match="callback 'mine', a Keeps, has an attribute 'object_'"
    ):
        fit(small)


def test_seed_is_needed_and_may_be_a_random_state(small):
    with pytest.raises(ValueError, match="checkpoint_dir needs a random_state"):
        fit(clone(small).set_params(random_state=None))
    small.set_params(random_state=np.random.RandomState(3))
    assert_same_end(fit(clone(small)), fit(clone(small)))
    with pytest.raises(CheckpointError, match="another random_state"):
        fit(clone(small).set_params(random_state=np.random.RandomState(4)))


def test_fit_goes_on_with_the_threads_that_it_began_with(small, monkeypatch):
    monkeypatch.setattr("sk_momkd.nn.thread_budget.SMALL", 0)
    folder = stopped_after(small.set_params(max_epochs=3), 1, monkeypatch)
    assert json.loads((folder / "fit.json").read_text())["fit"]["threads"] == 1
    seen = []
    before = torch.get_num_threads()
    save = RunState.save
    monkeypatch.setattr(
        RunState, "save", lambda state: (seen.append(torch.get_num_threads()), save(state))
    )
    torch.set_num_threads(2)
    try:
        fit(clone(small))
        assert set(seen) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_findings_of_a_training_that_had_ended_are_counted_without_names(small, monkeypatch):
    monkeypatch.setattr("sk_momkd.training.numerical_watch._LARGE_LOSS", 1e-9)
    with pytest.warns(ConvergenceWarning, match="The training loss is"):
        clone(small).fit(BAGS, Y)
    with pytest.warns(ConvergenceWarning, match="had ended before with 1 warnings"):
        clone(small).fit(BAGS, Y)
    strict = clone(small).set_params(training__strict=True)
    with pytest.raises(TrainingError, match="had ended before"):
        strict.fit(BAGS, Y)
    strict.set_params(training__checkpoint_dir=small.training.checkpoint_dir / "other")
    for _ in range(2):  # it has not ended
        with pytest.raises(TrainingError, match="The training loss is"):
            clone(strict).fit(BAGS, Y)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ABMILClassifier", "TDCClassifier", "MoMKDClassifier"])
def test_checkpoints_name_no_patient_and_no_slide(name, tmp_path, monkeypatch):
    clf = quick(name, max_epochs=3, n_models=2, training__checkpoint_dir=tmp_path / "run")
    folder = stopped_after(clf, 4, monkeypatch)
    contents = [str(folder).encode(), *(path.read_bytes() for path in folder.iterdir())]
    assert len(contents) > 3
    ids = [*PATIENTS, *(bag.bag_id for bag in BAGS if len(bag.bag_id) > 3)]
    for content in contents[1:]:
        assert not [name for name in ids if name.encode() in content]
