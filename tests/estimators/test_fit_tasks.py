"""Callbacks of scikit-learn in `fit`."""

import numpy as np
import pytest

from sk_momkd import ABMILClassifier, TDCClassifier

pytest.importorskip("sklearn.callback", reason="scikit-learn has callbacks from 1.9 on")

Y = np.arange(16) % 2
X = [np.random.default_rng(i).normal(size=(3, 4)) + y for i, y in enumerate(Y)]


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


def test_callbacks_are_torn_down_if_the_fit_fails():
    recorder = Recorder()

    def fail(*args, **kwargs):
        raise RuntimeError("of the callback")

    recorder.on_fit_task_end = fail
    with pytest.raises(RuntimeError, match="of the callback"):
        ABMILClassifier(max_epochs=1, early_stopping=False).set_callbacks(recorder).fit(X, Y)
    assert recorder.torn_down == 1
