"""Callbacks of scikit-learn in `fit`."""

import pickle

import numpy as np
import pytest
from quick import CLASSIFIERS, PRIVILEGED, quick
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sk_momkd import ABMILClassifier, BagPooling, TDCClassifier, load_model, save_model
from sk_momkd.estimators.fit_tasks import OF_CALLBACKS, OF_RUNNING_FIT
from sk_momkd.training.checkpoints import RunState

pytest.importorskip("sklearn.callback", reason="scikit-learn has callbacks from 1.9 on")

Y = np.arange(16) % 2
X = [np.random.default_rng(i).normal(size=(3, 4)) + y for i, y in enumerate(Y)]


class Stopped(Exception):
    """The process ends here."""


class Recorder:
    """Notes tasks, and what the networks would predict; stops after an epoch."""

    def __init__(self, last_epoch=None):
        self.last_epoch, self.begun, self.ended, self.predicted = last_epoch, [], [], []
        self.set_up, self.torn_down = 0, 0

    def setup(self, estimator, context):
        self.set_up += 1

    def teardown(self, estimator, context):
        self.torn_down += 1

    def on_fit_task_begin(self, estimator, context):
        self.begun.append(context.task_name)

    def on_fit_task_end(self, estimator, context, *, y, fitted_estimator):
        self.ended.append(context.task_name)
        self.predicted.append(fitted_estimator.predict_proba(X))
        assert y is Y
        return context.task_name == "epoch" and context.task_id == self.last_epoch


def test_tasks_are_the_fit_its_networks_and_their_epochs():
    recorder = Recorder()
    clf = ABMILClassifier(max_epochs=2, n_models=2, early_stopping=False, random_state=0)
    clf.set_callbacks(recorder).fit(X, Y)
    epochs = ["network", "epoch", "epoch"]
    assert recorder.begun == ["fit", *epochs, *epochs]
    assert recorder.ended == [*reversed(epochs), *reversed(epochs), "fit"]
    assert recorder.set_up == recorder.torn_down == 1


def test_fitted_estimator_is_the_network_at_the_end_of_its_epoch():
    recorder = Recorder()
    clf = ABMILClassifier(max_epochs=2, early_stopping=False, random_state=0)
    clf.set_callbacks(recorder).fit(X, Y)
    first, second, network, fitted = recorder.predicted
    assert (first != second).any()
    for proba in (second, network, fitted):
        np.testing.assert_array_equal(proba, clf.predict_proba(X))


def test_callbacks_change_nothing_but_when_training_stops():
    plain = ABMILClassifier(max_epochs=2, early_stopping=False, random_state=0).fit(X, Y)
    stopped = ABMILClassifier(max_epochs=9, early_stopping=False, random_state=0)
    stopped.set_callbacks(Recorder(last_epoch=1)).fit(X, Y)
    assert stopped.n_iter_ == 2
    np.testing.assert_array_equal(stopped.predict_proba(X), plain.predict_proba(X))


def test_teacher_networks_are_no_tasks():
    recorder = Recorder()
    omics = np.random.default_rng(0).normal(size=(16, 5))
    clf = TDCClassifier(max_epochs=1, early_stopping=False, random_state=0, batch_size=8)
    clf.set_callbacks(recorder).fit(X, Y, omics=omics)
    assert recorder.begun == ["fit", "network", "epoch"]


def raises(error):
    def train_models(*args):
        raise error

    return train_models


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_callbacks_of_every_method_are_torn_down_however_its_training_ends(
    name, error, monkeypatch
):
    recorder = Recorder()
    clf = CLASSIFIERS[name](early_stopping=False).set_callbacks(recorder)
    monkeypatch.setattr(CLASSIFIERS[name], "_train_models", raises(error))
    with pytest.raises(error):
        clf.fit(X, Y)
    assert recorder.begun == ["fit"]
    assert recorder.set_up == recorder.torn_down == 1
    monkeypatch.setattr(CLASSIFIERS[name], "_train_models", lambda *args: None)
    monkeypatch.setattr(CLASSIFIERS[name], "_keep", lambda *args: None)
    recorder.on_fit_task_end = lambda estimator, context: None
    clf.fit(X, Y)
    assert recorder.set_up == recorder.torn_down == 2


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_callbacks_of_a_warm_start_that_fails_are_torn_down_and_the_model_stays(error, monkeypatch):
    recorder = Recorder()
    clf = ABMILClassifier(max_epochs=1, early_stopping=False, warm_start=True, random_state=0)
    before = clf.set_callbacks(recorder).fit(X, Y).predict_proba(X)
    monkeypatch.setattr(ABMILClassifier, "_train_models", raises(error))
    with pytest.raises(error):
        clf.fit(X, Y)
    assert recorder.set_up == recorder.torn_down == 2
    np.testing.assert_array_equal(clf.predict_proba(X), before)
    assert "_callback_fit_ctx" not in vars(clf)


def test_warm_start_reports_its_own_epochs():
    recorder = Recorder()
    clf = ABMILClassifier(max_epochs=1, early_stopping=False, warm_start=True, random_state=0)
    clf.fit(X, Y)
    clf.set_callbacks(recorder).fit(X, Y)
    assert recorder.begun == ["fit", "network", "epoch"]
    np.testing.assert_array_equal(recorder.predicted[-1], clf.predict_proba(X))


def test_fit_that_callbacks_stopped_goes_on_without_them(tmp_path):
    def clf(folder):
        return ABMILClassifier(max_epochs=4, early_stopping=False, random_state=0).set_params(
            training__checkpoint_dir=folder
        )

    whole = clf(None).fit(X, Y)
    stopped = clf(tmp_path / "run").set_callbacks(Recorder(last_epoch=1)).fit(X, Y)
    assert stopped.n_iter_ == 2
    again = clf(tmp_path / "run").fit(X, Y)
    assert again.n_iter_ == 4
    np.testing.assert_array_equal(again.predict_proba(X), whole.predict_proba(X))


def test_fit_goes_on_with_callbacks_that_it_began_without(tmp_path, monkeypatch):
    clf = ABMILClassifier(max_epochs=3, early_stopping=False, random_state=0)
    clf.set_params(training__checkpoint_dir=tmp_path / "run")
    save = RunState.save

    def save_and_stop(state):
        save(state)
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(RunState, "save", save_and_stop)
        with pytest.raises(Stopped):
            clf.fit(X, Y)
    recorder, numbers = Recorder(), []
    begin = recorder.on_fit_task_begin
    recorder.on_fit_task_begin = lambda estimator, context: (
        begin(estimator, context),
        numbers.append(context.task_id),
    )
    clf.set_params(verbose=1).set_callbacks(recorder).fit(X, Y)
    assert recorder.begun == ["fit", "network", "epoch", "epoch"]
    assert numbers[-2:] == [1, 2]  # as in the process that began
    ended = Recorder()
    clf.set_params(verbose=0).set_callbacks(ended).fit(X, Y)
    assert ended.begun == ["fit", "network"]
    assert ended.ended == ["network", "fit"]
    for proba in ended.predicted:
        np.testing.assert_array_equal(proba, clf.predict_proba(X))
    np.testing.assert_array_equal(clf.set_callbacks().fit(X, Y).predict_proba(X), proba)


class Saves(Recorder):
    """Stores what the fitted estimator predicts at the end of a task, and that of its file."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def on_fit_task_end(self, estimator, context, *, fitted_estimator):
        path = save_model(fitted_estimator, self.path, overwrite=True)
        kept = [fitted_estimator, load_model(path), pickle.loads(pickle.dumps(fitted_estimator))]
        self.ended.append([one.predict_proba(X) for one in kept])
        assert not {*OF_RUNNING_FIT, "_earlier"} & vars(kept[2]).keys()


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_fitted_estimator_of_every_task_can_be_saved_and_pickled(name, tmp_path):
    recorder = Saves(tmp_path / "model.zip")
    clf = quick(name, max_epochs=1, early_stopping=False).set_callbacks(recorder)
    omics = np.random.default_rng(0).normal(size=(16, 8)) if name in PRIVILEGED else None
    clf.fit(X, Y, omics=omics)
    assert len(recorder.ended) == 3
    for now, loaded, unpickled in recorder.ended:
        np.testing.assert_array_equal(now, loaded)
        np.testing.assert_array_equal(now, unpickled)


class Idle(Recorder):
    """Does nothing at the end of a task."""

    def on_fit_task_end(self, estimator, context):
        pass


def test_model_files_hold_no_callbacks(tmp_path):
    clf = ABMILClassifier(max_epochs=1, early_stopping=False).set_callbacks(Idle())
    inside = LogisticRegression().set_callbacks(Idle())
    for estimator in (clf.fit(X, Y), make_pipeline(BagPooling("mean"), inside).fit(X, Y)):
        loaded = load_model(save_model(estimator, tmp_path / f"{type(estimator).__name__}.zip"))
        np.testing.assert_array_equal(loaded.predict_proba(X), estimator.predict_proba(X))
        for one in (loaded, *getattr(loaded, "named_steps", {}).values()):
            assert not set(OF_CALLBACKS) & vars(one).keys()


def test_callbacks_are_torn_down_if_the_fit_fails():
    recorder = Recorder()

    def fail(*args, **kwargs):
        raise RuntimeError("of the callback")

    recorder.on_fit_task_end = fail
    with pytest.raises(RuntimeError, match="of the callback"):
        ABMILClassifier(max_epochs=1, early_stopping=False).set_callbacks(recorder).fit(X, Y)
    assert recorder.torn_down == 1
