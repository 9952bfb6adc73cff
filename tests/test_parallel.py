"""Workers: they warn as one process does, with the filters and the line of the caller."""

import multiprocessing
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from joblib import parallel_config
from sklearn import config_context, get_config
from sklearn.exceptions import ConvergenceWarning

from sk_momkd import parallel
from sk_momkd.bag_warnings import warn_of_bag
from sk_momkd.messages import warn
from sk_momkd.parallel import WorkerCall, one_by_one

IN_PLACE = ("sequential", 1)
FORKED = ("multiprocessing", 2)
LOKY = pytest.param(("loky", 2), marks=pytest.mark.slow)
FORKING = pytest.mark.skipif(
    multiprocessing.get_start_method() != "fork", reason="processes start slowly where none forks"
)
FIT = """
import warnings
from sklearn.exceptions import ConvergenceWarning, InconsistentVersionWarning
from sk_momkd.messages import warn

versions = {{"current_sklearn_version": "2", "original_sklearn_version": "1"}}
warn("of every fit")
warn("of fit {i}", ConvergenceWarning)
warnings.warn("of its own line", RuntimeWarning, stacklevel=1)
warnings.warn(InconsistentVersionWarning(estimator_name="A", **versions), stacklevel=1)
if {fails}:
    raise KeyError("it failed")
"""


def fit(i, fails=False):
    """A call that warns as a module of the package does."""
    return partial(exec, FIT.format(i=i, fails=fails), {"__name__": "sk_momkd.fit"})


def run(how, calls):
    backend, n_jobs = how
    with parallel_config(backend=backend):
        return list(one_by_one(calls, n_jobs))


def seen(how, *filters, fails=False):
    """Text, class, file and line of each warning that is shown."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        for one in filters:
            warnings.filterwarnings(**one)
        calls = [fit(i, fails=fails and i == 1) for i in range(2)]
        if fails:
            with pytest.raises(KeyError, match="it failed"):
                run(how, calls)
        else:
            run(how, calls)
    return [(str(w.message), w.category, w.filename, w.lineno) for w in caught]


FILTERS = [
    [],
    [{"action": "always"}],
    [{"action": "ignore", "category": ConvergenceWarning, "message": "OF FIT"}],
    [{"action": "ignore", "module": r"(.*\.)?test_parallel"}],
]


@pytest.mark.parametrize("how", [pytest.param(FORKED, marks=FORKING), LOKY])
def test_processes_warn_of_what_one_process_warns_of(how):
    for filters in FILTERS:
        expected, found = seen(IN_PLACE, *filters), seen(how, *filters)
        assert len(expected) > 2
        # A class that is not made of a text alone arrives as its base.
        assert all(issubclass(a[1], b[1]) for a, b in zip(expected, found, strict=True))
        assert [one[::2] for one in found] == [one[::2] for one in expected]


@FORKING
def test_call_that_fails_has_warned_before():
    texts = {one[0] for one in seen(FORKED, fails=True)}
    assert {"of every fit", "of fit 1", "of its own line"} < texts


@pytest.mark.parametrize("how", [IN_PLACE, ("threading", 2), pytest.param(FORKED, marks=FORKING)])
def test_warning_that_is_an_error_ends_the_call(how):
    with pytest.raises(ConvergenceWarning, match="of fit"):
        seen(how, {"action": "error", "category": ConvergenceWarning})


@FORKING
def test_warning_of_the_callers_line_that_is_an_error_is_raised_there():
    with pytest.raises(UserWarning, match="of every fit"):
        seen(FORKED, {"action": "error", "module": r"(.*\.)?test_parallel"})


def finds(names, fails=False):
    for name in names:
        warn_of_bag(name, "it is odd.", RuntimeWarning)
    if fails:
        raise KeyError("it failed")


@pytest.mark.parametrize("how", [IN_PLACE, ("threading", 2), pytest.param(FORKED, marks=FORKING)])
def test_what_several_calls_find_of_a_bag_is_said_once(how, recwarn):
    warnings.simplefilter("always")
    run(how, [partial(finds, names) for names in (["S1", "S2"], ["S2", "S3"], ["S3"], [])])
    said = [str(w.message) for w in recwarn if w.category is RuntimeWarning]
    assert said == ["S1: it is odd. Likewise 1 more: S2.", "S3: it is odd."]
    recwarn.clear()
    with pytest.raises(KeyError, match="it failed"):
        run(how, [partial(finds, ["S1"], fails=True)])
    assert [str(w.message) for w in recwarn if w.category is RuntimeWarning] == ["S1: it is odd."]


def test_configuration_of_scikit_learn_is_that_of_the_caller():
    with config_context(assume_finite=True):
        for how in (IN_PLACE, ("threading", 2)):
            assert all(one["assume_finite"] for one in run(how, [get_config] * 2))


def test_threads_of_one_worker_keep_their_warnings_apart(monkeypatch):
    barrier = threading.Barrier(2)

    def work(i):
        barrier.wait(10)
        fit(i)()
        barrier.wait(10)
        warn(f"last of {i}")

    calls = [WorkerCall(partial(work, i)) for i in range(2)]
    monkeypatch.setattr(parallel, "_this_process", lambda: "worker")
    shown = warnings.showwarning
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda call: call(), calls))
    assert warnings.showwarning is shown
    for i, outcome in enumerate(outcomes):
        texts = {one.text for one in outcome.warned}
        assert {f"of fit {i}", f"last of {i}"} < texts
        assert f"of fit {1 - i}" not in texts
