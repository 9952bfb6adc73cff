"""Fit and predict do not depend on the global state of torch and NumPy, and do not change it."""

import signal
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import joblib
import numpy as np
import pytest
import torch
from conftest import make_bags
from quick import CLASSIFIERS, quick
from sklearn.exceptions import NotFittedError
from skorch.callbacks import Callback, EarlyStopping

from sk_momkd import Bag, evaluate
from sk_momkd.exceptions import BagError, TrainingError


@contextmanager
def double_precision():
    torch.set_default_dtype(torch.float64)
    try:
        yield
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def meta_device():
    with torch.device("meta"):
        yield
        assert torch.get_default_device().type == "meta"


STATES = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "float64": double_precision,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "meta": meta_device,
    "errstate": lambda: np.errstate(all="raise"),
}


def fitted(name, **overrides):
    bags, y = make_bags(16)
    return quick(name, **({"max_epochs": 1} | overrides)).fit(bags, y)


@pytest.fixture(scope="module")
def expected():
    bags, _ = make_bags(16)
    return {n: fitted(n).predict_proba(bags) for n in ("TransMILClassifier", "TDCClassifier")}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", ["TransMILClassifier", "TDCClassifier"])
def test_fit_and_predict_are_the_same_under_any_global_state(name, state, expected):
    bags, _ = make_bags(16)
    with STATES[state]():
        grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        autocast, errors = torch.is_autocast_enabled("cpu"), np.geterr()
        found = fitted(name).predict_proba(bags)
        assert (grad, inference) == (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
        assert (autocast, errors) == (torch.is_autocast_enabled("cpu"), np.geterr())
    np.testing.assert_array_equal(found, expected[name])


def test_fits_in_threads_keep_the_callers_random_state_and_equal_those_in_turn():
    bags, _ = make_bags(16)
    before = torch.get_rng_state()
    numpy_before = np.random.get_state()[1].copy()  # noqa: NPY002
    alone = [fitted("ABMILClassifier", random_state=s).predict_proba(bags) for s in range(6)]
    with double_precision(), ThreadPoolExecutor(3) as pool:
        models = list(pool.map(lambda s: fitted("ABMILClassifier", random_state=s), range(6)))
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    for model, proba in zip(models, alone, strict=True):
        np.testing.assert_array_equal(model.predict_proba(bags), proba)


class Interrupted(Callback):
    """The user presses Ctrl-C while this callback runs."""

    def on_epoch_end(self, net, **kwargs):
        signal.raise_signal(signal.SIGINT)


class Stops(Callback):
    def on_epoch_end(self, net, **kwargs):
        raise KeyboardInterrupt


@pytest.fixture
def keyboard():
    """Interrupts arrive, also in a process that was started in the background."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("keyboard")
def test_interrupt_at_the_end_of_an_epoch_ends_fit_and_evaluate():
    bags, y = make_bags(16)
    handler = signal.getsignal(signal.SIGINT)
    clf = quick("ABMILClassifier", max_epochs=3, training__callbacks=[Interrupted()])
    with pytest.raises(KeyboardInterrupt):
        clf.fit(bags, y)
    assert not hasattr(clf, "module_")
    with pytest.raises(KeyboardInterrupt):
        evaluate(clf, bags, y, cv=2)
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize(
    ("callback", "n_iter"),
    [(Stops(), 1), (EarlyStopping("train_loss", patience=2, threshold=1e9, sink=str), 3)],
)
def test_callback_that_stops_training_as_in_skorch_still_does(callback, n_iter):
    clf = fitted("ABMILClassifier", max_epochs=9, training__callbacks=[callback])
    assert clf.n_iter_ == n_iter


class Breaks(Callback):
    def on_batch_end(self, net, **kwargs):
        for weights in net.module_.parameters():
            weights.data.fill_(float("nan"))


def test_divergence_names_the_bag_and_its_scale():
    broken = {"batch_size": 1, "training__callbacks": [Breaks()]}
    with pytest.raises(TrainingError, match=r"the loss of bag 'S\d+' is nan.*features reach \d"):
        fitted("ABMILClassifier", **broken)


@pytest.mark.filterwarnings("ignore:The training loss is")
def test_huge_features_warn_naming_the_bag_and_end_the_training():
    bags, y = make_bags(16)
    features = 1e30 * bags[0].features  # in a bag of each class: for one of them the loss is huge
    huge = {int(np.flatnonzero(y == label)[0]) for label in (0, 1)}
    bags = [Bag(features if i in huge else b.features, bag_id=f"B{i}") for i, b in enumerate(bags)]
    names = "|".join(f"B{i}" for i in sorted(huge))
    clf = quick("ABMILClassifier", early_stopping=False, sampler="shuffle", batch_size=1)
    with (
        pytest.warns(UserWarning, match=rf"bag '({names})': features reach .*e\+3\d.*Scale them"),
        pytest.raises(TrainingError, match=rf"gradient of bag '({names})' overflows.*reach .*e"),
    ):
        clf.fit(bags, y)
    with pytest.raises(BagError, match=rf"bag '({names})': features reach"):
        clf.set_params(training__strict=True).fit(bags, y)


UNSTABLE = {  # by limits of the watch that every training exceeds
    "The training loss is": {"_LARGE_LOSS": -1e9},
    "Probabilities are 0 or 1": {"_SATURATED": -1.0, "_WORSE_THAN_GUESSING": np.inf},
}


@pytest.mark.parametrize("finding", UNSTABLE)
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_unstable_training_of_every_method_warns_with_a_bag_and_the_remedy(
    name, finding, monkeypatch
):
    for limit, value in UNSTABLE[finding].items():
        monkeypatch.setattr(f"sk_momkd.training.numerical_watch.{limit}", value)
    _, message = outcome_of_fit(name, make_bags(16)[0], max_epochs=1)
    assert finding in message
    assert "bag 'S" in message
    assert "unstable" in message
    assert "Lower the learning rate (0.01)" in message


def test_prediction_on_another_scale_or_without_content_warns_naming_the_bag():
    bags, _ = make_bags(16)
    clf = fitted("ABMILClassifier")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf.predict_proba(bags)
    with pytest.warns(UserWarning, match=r"1 slides .*in training.*bag 'A' \(up to .*prepare"):
        clf.predict_proba([Bag(bags[0].features * 1e5, bag_id="A")])
    with pytest.warns(UserWarning, match=r"all zero.*bag 'B' \(up to 0\)"):
        clf.predict_proba([Bag(np.zeros((3, 6)), bag_id="B", allow_constant=True)])


def test_backend_that_forks_threads_is_refused(monkeypatch):
    bags, y = make_bags(16)
    monkeypatch.setattr("multiprocessing.get_start_method", lambda: "fork")
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    clf = quick("ABMILClassifier", max_epochs=1)
    with (
        joblib.parallel_config("multiprocessing"),
        pytest.raises(RuntimeError, match=r"2 threads.*workers would hang.*loky"),
    ):
        evaluate(clf, bags, y, cv=2, n_jobs=2)


@pytest.mark.parametrize("name", ["TransMILClassifier", "DSMILClassifier", "MoMKDClassifier"])
def test_fit_does_not_depend_on_the_number_of_threads(name):
    bags, _ = make_bags(16)
    before, found = torch.get_num_threads(), []
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            found.append(fitted(name, batch_size=4).predict_proba(bags))
            assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(*found)


@pytest.mark.long
def test_evaluation_with_several_workers_is_the_same_bit_for_bit():
    bags, y = make_bags(16)
    before = torch.get_num_threads()
    torch.set_num_threads(2)  # a worker of joblib has one
    try:
        one, two = (
            evaluate(
                quick("TransMILClassifier", max_epochs=1),
                bags,
                y,
                cv=2,
                n_jobs=n_jobs,
                n_bootstrap=20,
            )
            for n_jobs in (1, 2)
        )
    finally:
        torch.set_num_threads(before)
    assert one.predictions.equals(two.predictions)


@pytest.mark.usefixtures("keyboard")
@pytest.mark.parametrize("name", ["ABMILClassifier", "MoMKDClassifier"])
def test_interrupted_refit_leaves_the_earlier_model(name):
    bags, y = make_bags(16)
    clf = quick(name, max_epochs=1, early_stopping=True).fit(bags, y)
    expected, kept = clf.predict_proba(bags), clf.validation_
    clf.set_params(training__callbacks=[Interrupted()], dropout=0.0)
    with pytest.raises(KeyboardInterrupt):
        clf.fit(bags, 1 - y)
    np.testing.assert_array_equal(clf.predict_proba(bags), expected)
    assert clf.validation_.equals(kept)
    fresh = quick(name, max_epochs=1, training__callbacks=[Interrupted()])
    with pytest.raises(KeyboardInterrupt):
        fresh.fit(bags, y)
    assert not [attribute for attribute in vars(fresh) if attribute.endswith("_")]


def outcome_of_fit(name, bags, **settings):
    """Probabilities of training slides, or None where training diverged, and the messages."""
    _, y = make_bags(16)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            proba = quick(name, early_stopping=False, **settings).fit(bags, y).predict_proba(bags)
        except TrainingError as error:
            return None, str(error)
    return proba, " ".join(str(warning.message) for warning in caught)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_features_that_are_far_too_large_are_named_with_their_bag(name):
    bags, _ = make_bags(16)
    huge = bags.map(lambda features: features * np.float32(1e30))
    proba, message = outcome_of_fit(name, huge, max_epochs=2)
    assert "bag 'S" in message
    assert "e+30" in message
    assert "diverged in epoch" in message if proba is None else "Scale them" in message


def test_strict_refuses_a_validation_slide_before_training_and_leaves_no_model(monkeypatch):
    bags, y = make_bags(24)
    split = [(np.arange(20), np.arange(20, 24))]
    features = [bag.features + (30 if i == 22 else 0) for i, bag in enumerate(bags)]
    clf = quick("ABMILClassifier", early_stopping=True, training__validation_split=split)
    monkeypatch.setattr(type(clf), "_train_each", lambda *_: pytest.fail("it trains"))
    with pytest.raises(BagError, match="bag 22"):
        clf.set_params(training__strict=True).fit(features, y)


def test_fit_that_fails_at_its_end_leaves_no_networks(monkeypatch):
    bags, y = make_bags(16)
    clf = quick("ABMILClassifier", max_epochs=1, early_stopping=True)

    def fail(*_):
        raise BagError("of the validation part")

    monkeypatch.setattr(type(clf), "_scores", fail)
    with pytest.raises(BagError, match="of the validation part"):
        clf.fit(bags, y)
    assert not hasattr(clf, "modules_")
    with pytest.raises(NotFittedError):
        clf.predict(bags)
