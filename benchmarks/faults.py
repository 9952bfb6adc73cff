"""Kill fits at random moments, go on, and compare the end with that of a fit never stopped.

Each case is a call, such as the fit of one classifier. A child process runs it with a folder for
its checkpoints and is killed with SIGKILL after a random time; the next child makes the same call
with the same folder, until one ends by itself. What it ends with (weights, history without times,
probabilities, thresholds) is compared bit by bit with that of a child that was not killed. Further
rows of the table hold what a full disk, a read-only folder, damaged and half-written files, and a
second process in the same folder lead to.

    python benchmarks/faults.py --fits 200 --write docs/results/faults.csv

A row per kill or fault: kind, case, number, seconds until the kill, checkpoints in the folder after
it, parts of files left there, outcome. Outcomes of kills are "identical", of the call that ended
after them, and "different", "lost" (a file that was whole before is damaged or gone) or the error.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

COLUMNS = ("kind", "case", "number", "seconds", "checkpoints", "parts", "outcome")


class Case(NamedTuple):
    """A call that can be stopped.

    Attributes
    ----------
    kind : str
        "fit", or another kind of call.
    name : str
    call : callable
        Takes the folder, and returns what is compared, as a dict of arrays.
    """

    kind: str
    name: str
    call: Callable[[Path], dict[str, np.ndarray]]


class Kill(NamedTuple):
    """A child that was killed, or that ended by itself (`seconds` is None)."""

    seconds: float | None
    checkpoints: int
    parts: int
    outcome: str


def run_child(case: Case, folder: Path, result: Path, kill_after: float | None) -> int:
    """Run a case in a forked child; return its exit status, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        _be_child(case, folder, result)
    if kill_after is not None:
        _wait(pid, kill_after)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def _be_child(case: Case, folder: Path, result: Path) -> None:
    """Make the call, write what it ends with, and leave without the parent's clean-up."""
    code = 1
    try:
        warnings.simplefilter("ignore")
        ended = case.call(folder)
        part = result.with_suffix(".part.npz")
        np.savez(part, **ended)
        os.replace(part, result)
        code = 0
    except BaseException:  # noqa: BLE001
        result.with_suffix(".error").write_text(traceback.format_exc())
    finally:
        os._exit(code)


def _wait(pid: int, seconds: float) -> None:
    """Wait some time, or until the child has ended, which stays to be waited for."""
    until = time.perf_counter() + seconds
    while (left := until - time.perf_counter()) > 0:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return
        time.sleep(min(left, 0.002))


def whole_files(folder: Path) -> dict[Path, str]:
    """SHA-256 of every file that is in place, parts left out."""
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".sk_momkd-") and path.name != "lock"
    }


def damaged(folder: Path) -> list[Path]:
    """Files whose content is not that of the SHA-256 in their name."""
    return [
        p
        for p, content in whole_files(folder).items()
        if p.name.count(".") > 2 and content not in p.name
    ]


def killed_until_it_ends(
    case: Case, random: np.random.Generator, most: int, *, grace: float
) -> Iterator[Kill]:
    """Kill a case at random moments, at most `most` times, then let it end, and compare it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reference, result = folder / "reference.npz", folder / "result.npz"
        start = time.perf_counter()
        if run_child(case, folder / "reference", reference, None):
            raise SystemExit(reference.with_suffix(".error").read_text())
        duration, code, kills = time.perf_counter() - start, -signal.SIGKILL, []
        while code:
            delay = random.uniform(0, grace * duration) if len(kills) < most else None
            code = run_child(case, folder / "run", result, delay)
            found = list((folder / "run").rglob("*")) if (folder / "run").exists() else []
            parts = sum(path.name.startswith(".sk_momkd-") for path in found)
            kept = sum(path.suffix == ".safetensors" for path in found)
            broken = damaged(folder / "run")
            if code == -signal.SIGKILL:
                kills.append((delay, kept, parts, "lost" if broken else "killed"))
            elif code:
                error = result.with_suffix(".error").read_text().strip().splitlines()[-1]
                yield Kill(delay, kept, parts, error)
                return
        outcome = "identical" if _same(reference, result) else "different"
        for delay, kept, parts, state in kills:
            yield Kill(delay, kept, parts, outcome if state == "killed" else state)


def _same(reference: Path, result: Path) -> bool:
    """Whether two files of arrays hold the same, bit by bit."""
    with np.load(reference, allow_pickle=False) as a, np.load(result, allow_pickle=False) as b:
        return a.files == b.files and all(
            a[key].dtype == b[key].dtype and a[key].tobytes() == b[key].tobytes() for key in a.files
        )


def fit_cases(max_epochs: int = 6) -> list[Case]:
    """Fits of every classifier, with one network and with two, and with every schedule."""
    from conftest import make_bags, make_omics
    from quick import CLASSIFIERS, PRIVILEGED, quick

    bags, y = make_bags()
    omics = make_omics(y)
    variants: dict[str, dict[str, Any]] = {
        "two networks": {"n_models": 2},
        "lookahead": {
            "training__optimizer": "lookahead_radam",
            "training__average_after": 0.3,
            "training__lr_schedule": "cosine",
        },
        "plateau": {"training__lr_schedule": "plateau", "instance_dropout": 0.2},
    }

    def call_of(name: str, settings: dict[str, Any]) -> Callable[[Path], dict[str, np.ndarray]]:
        def call(folder: Path) -> dict[str, np.ndarray]:
            known = {"omics": omics} if name in PRIVILEGED else {}
            options = {"max_epochs": max_epochs, **settings}
            clf = quick(name, **options, training__checkpoint_dir=folder)
            return ended_with(clf.fit(bags, y, **known), bags)

        return call

    return [
        Case("fit", f"{name}, {title}", call_of(name, settings))
        for name in CLASSIFIERS
        for title, settings in variants.items()
    ]


def load_everything() -> None:
    """Import and compile in this process what its forked children then have at once."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        for case in fit_cases(max_epochs=1)[::3]:
            case.call(Path(folder) / case.name)


def ended_with(clf: Any, bags: Any) -> dict[str, np.ndarray]:
    """All weights, the history without times, and probabilities of a fitted classifier."""
    ended = {
        f"{number}.{name}": tensor.numpy()
        for number, module in enumerate(clf.modules_)
        for name, tensor in module.state_dict().items()
    }
    history = clf.history_.drop(columns="dur")
    ended |= {f"history.{name}": history[name].to_numpy() for name in history}
    if clf.validation_ is not None:
        ended["validation"] = clf.validation_.filter(like="p_").to_numpy()
    return ended | {"proba": clf.predict_proba(bags), "prior": clf.sampled_prior_}


def full_disk(folder: Path) -> None:
    """In a child: no file can have more than 8 KiB, of which a checkpoint has more."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))


def read_only(folder: Path) -> None:
    """In a child: the folder cannot be written; root gives up its rights for that."""
    if os.geteuid() == 0:
        os.setuid(65534)


def half_written(folder: Path) -> None:
    """In a child: a part is left over, and the newest checkpoint lacks its end."""
    (folder / ".sk_momkd-left.part").write_bytes(b"half")
    newest = max(folder.glob("*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:1000])


def in_use(folder: Path) -> None:
    """In a child: the folder is locked, as by another process."""
    from filelock import FileLock

    _HELD.append(FileLock(folder / "lock"))
    _HELD[-1].acquire()


_HELD: list[Any] = []
FAULTS: dict[str, Callable[[Path], None]] = {
    "full disk": full_disk,
    "read-only folder": read_only,
    "half-written files": half_written,
    "folder in use": in_use,
}


def faults(case: Case) -> Iterator[tuple[str, str]]:
    """Stop a fit, go on under each fault and then without; name and outcome of both."""
    for name, fault in FAULTS.items():
        with tempfile.TemporaryDirectory() as place:
            base, run = Path(place), Path(place) / "run"
            base.chmod(0o777)  # results are written, by whoever the child is
            run_child(case, base / "reference", base / "reference.npz", None)
            while len(list(run.glob("*.epoch*"))) < 2:  # stopped with two checkpoints
                shutil.rmtree(run, ignore_errors=True)
                run_child(case, run, base / "result.npz", np.random.default_rng().uniform(0, 1))
            before = whole_files(run)

            def call(folder: Path, fault: Callable[[Path], None] = fault) -> Any:
                fault(folder)
                return case.call(folder)

            code = run_child(Case("fault", name, call), run, base / "faulty.npz", None)
            said = "went on"
            if code:
                error = base / "faulty.error"
                text = error.read_text().strip().splitlines()[-1] if error.exists() else str(code)
                said = text.split(":")[0] + (
                    ", all files kept" if whole_files(run) == before else ", FILES LOST"
                )
            run_child(case, run, base / "result.npz", None)
            same = _same(base / "reference.npz", base / "result.npz")
            yield name, f"{said}; then {'identical' if same else 'different'}"


def written(table: Path | None) -> Callable[[list[Any]], None]:
    """A function that appends a row to the table, and shows it."""
    if table is not None and not table.exists():
        table.write_text(",".join(COLUMNS) + "\n")

    def write(row: list[Any]) -> None:
        if table is not None:
            with open(table, "a", newline="") as file:
                csv.writer(file).writerow(row)
        sys.stdout.write(" ".join(map(str, row)) + "\n")
        sys.stdout.flush()

    return write


def kill_all(
    cases: list[Case],
    n_kills: int,
    write: Callable[[list[Any]], None],
    *,
    seed: int = 0,
    per_run: int = 6,
    grace: float = 0.7,
) -> dict[str, int]:
    """Kill cases in turn until there were `n_kills`; return how often there was each outcome."""
    random, n, counts = np.random.default_rng(seed), 0, {}
    while n < n_kills:
        for case in cases:
            most = min(per_run, n_kills - n)
            if not most:
                break
            for kill in killed_until_it_ends(case, random, most, grace=grace):
                n += 1
                counts[kill.outcome] = counts.get(kill.outcome, 0) + 1
                seconds = "" if kill.seconds is None else f"{kill.seconds:.3f}"
                row = [case.kind, case.name, n, seconds, kill.checkpoints, kill.parts, kill.outcome]
                write(row)
    return counts


def main() -> None:
    """Run the kills and the faults that are asked for, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fits", type=int, default=200, help="number of kills in fits")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, default=None)
    options = parser.parse_args()
    write = written(options.write)
    load_everything()
    counts = kill_all(fit_cases(), options.fits, write, seed=options.seed)
    for name, outcome in faults(fit_cases(max_epochs=40)[0]):
        write(["fault", name, "", "", "", "", outcome])
    sys.stdout.write(f"kills in fits: {counts}\n")


if __name__ == "__main__":
    main()
