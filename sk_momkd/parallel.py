"""Calls in worker processes, whose warnings reach the caller as if there were one process."""

from __future__ import annotations

import os
import re
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from typing import Any, NamedTuple, TextIO
from uuid import uuid4

from .bag_warnings import BagWarnings
from .messages import warn

_ON_ERRORS = "_warned_in_worker"  # attribute of an error that a worker raises
_IMPORTED = uuid4().hex  # two machines may have processes of the same number


class _Warned(NamedTuple):
    text: str
    category: type[Warning]
    file: str
    line: int
    of_caller: bool  # the line is outside the call: with one process it would be the caller's


class Outcome(NamedTuple):
    """What a `WorkerCall` returns, how often it warned of what, and what it found of bags."""

    result: Any
    warned: Mapping[_Warned, int]
    of_bags: BagWarnings


class WorkerCall:
    """A function for a worker, with the configuration of scikit-learn and the filters of here.

    In another process it returns its warnings, or adds them to its error, for `received` and
    `errors_with_warnings` to give them out. In this one it warns itself, also in other threads.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        from sklearn import get_config

        self._function = function
        self._config = get_config()
        self._filters = list(getattr(warnings, "_get_filters", lambda: warnings.filters)())
        self._process, self._thread = _this_process(), threading.get_ident()

    def __call__(self, *args: Any, **kwargs: Any) -> Outcome:
        from sklearn import config_context

        of_bags = BagWarnings()
        with config_context(**self._config), self._recorded() as warned, ExitStack() as on_error:
            on_error.callback(of_bags.warn)
            with of_bags.held():
                result = self._function(*args, **kwargs)
            on_error.pop_all()
        return Outcome(result, warned, of_bags)

    def _recorded(self) -> AbstractContextManager[Mapping[_Warned, int]]:
        if self._process != _this_process():
            return _RECORDER.recording(self._filters)
        if self._thread != threading.get_ident():  # filters belong to all threads
            return nullcontext({})
        return _each_warns()


def one_by_one(calls: Iterable[Callable[[], Any]], n_jobs: int | None) -> Generator[Any]:
    """Results of calls by joblib in their order, each as soon as it is there.

    A backend that gives out nothing before all calls have ended is waited for. What a call warns of
    in another process is warned of here, before its result is given out or its error raised. An
    error is raised as soon as it occurs; warnings of calls whose turn had not come are then lost.
    What several calls find of the same bag is said once.
    """
    from joblib import Parallel, delayed
    from joblib.parallel import get_active_backend

    streams = getattr(get_active_backend()[0], "supports_return_generator", False)
    parallel = Parallel(n_jobs=n_jobs, return_as="generator" if streams else "list")
    said = BagWarnings()
    with errors_with_warnings():
        outcomes = parallel(delayed(WorkerCall(call))() for call in calls)
        with closing(outcomes) if streams else nullcontext():
            for outcome in outcomes:
                yield received(outcome, said)


def received(outcome: Outcome, said: BagWarnings | None = None) -> Any:
    """The result of a `WorkerCall`, after its warnings; those of bags that were `said` are not."""
    _warn_again(outcome.warned)
    (BagWarnings() if said is None else said).take(outcome.of_bags).warn()
    return outcome.result


@contextmanager
def errors_with_warnings() -> Iterator[None]:
    """Give out the warnings of a `WorkerCall` that failed, before its error goes on."""
    with ExitStack() as at_end:
        at_end.push(_warn_of_error)
        yield


def _warn_of_error(_: Any, error: BaseException | None, __: Any) -> None:
    _warn_again(getattr(error, _ON_ERRORS, {}))


@contextmanager
def _each_warns() -> Iterator[Mapping[_Warned, int]]:
    """A call may warn of what another one has warned of: Python forgets which lines have warned."""
    with warnings.catch_warnings():
        yield {}


def _warn_again(warned: Mapping[_Warned, int]) -> None:
    """Warn as the call would have here, with the filters and the lines that were seen here."""
    if not warned:
        return
    with _each_warns():
        for one, times in warned.items():
            for _ in range(times):
                if one.of_caller:
                    warn(one.text, one.category)
                else:
                    _warn_of_line(one)


def _warn_of_line(one: _Warned) -> None:
    loaded = (vars(module) for module in list(sys.modules.values()) if hasattr(module, "__dict__"))
    names = next((names for names in loaded if names.get("__file__") == one.file), {})
    registry = names.setdefault("__warningregistry__", {})
    module = names.get("__name__", one.file.removesuffix(".py"))
    warnings.warn_explicit(one.text, one.category, one.file, one.line, module, registry)


class _Record(NamedTuple):
    """Warnings of a call, and the lines from which it was called."""

    warned: Counter[_Warned]
    outside: frozenset[tuple[str, int]]


class _Recorder:
    """Records the warnings of a process whose threads may run several calls at the same time.

    Filters and what shows a warning belong to the process, so that the first call sets them and the
    last one that ends sets them back.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._open: dict[int, _Record] = {}
        self._set = ExitStack()

    @contextmanager
    def recording(self, filters: Iterable[tuple[Any, ...]]) -> Iterator[Counter[_Warned]]:
        """Count the warnings of this thread until the end, and add them to an error."""
        record = _Record(Counter(), frozenset(_lines_above()))
        with self._lock:
            if not self._open:
                self._set.enter_context(warnings.catch_warnings())
                _set_filters(filters)
                warnings.showwarning = self._note
            self._open[threading.get_ident()] = record

        def end(_: Any, error: BaseException | None, __: Any) -> None:
            self._close()
            if error is not None:
                setattr(error, _ON_ERRORS, record.warned)

        with ExitStack() as at_end:
            at_end.push(end)
            yield record.warned

    def _close(self) -> None:
        with self._lock:
            del self._open[threading.get_ident()]
            if not self._open:
                self._set.close()

    def _note(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        text = str(message)
        with self._lock:
            # A thread that a call has started is none of those that have a record.
            record = self._open.get(threading.get_ident()) or [*self._open.values()][-1]
            of_caller = filename == __file__ or (filename, lineno) in record.outside
            made = _Warned(text, _made_of_text(category, text), filename, lineno, of_caller)
            record.warned[made] += 1


_RECORDER = _Recorder()


def _this_process() -> tuple[str, int]:
    return _IMPORTED, os.getpid()


def _lines_above() -> Iterator[tuple[str, int]]:
    frame = sys._getframe(1).f_back
    while frame is not None:
        yield frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back


def _set_filters(filters: Iterable[tuple[Any, ...]]) -> None:
    """Filters of another process; what they would show once is recorded each time."""
    warnings.resetwarnings()
    for asked, message, category, module, line in filters:
        action: Any = asked if asked in ("error", "ignore") else "always"
        if message is None and module is None:  # the category may be several
            warnings.simplefilter(action, category, line, append=True)
        else:
            texts = (_pattern(message), category, _pattern(module))
            warnings.filterwarnings(action, *texts, line, append=True)
    warnings.simplefilter("always", append=True)


def _pattern(of: re.Pattern[str] | str | None) -> str:
    return of.pattern if isinstance(of, re.Pattern) else of or ""


def _made_of_text(category: type[Warning], text: str) -> type[Warning]:
    """The category, or its first base that is made of a text alone, as one is in the caller."""
    for kind in category.__mro__:
        try:
            if str(kind(text)) == text:
                return kind
        except (TypeError, ValueError, AttributeError):
            continue
    return UserWarning
