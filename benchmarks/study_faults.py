"""Kill studies at random moments, go on, and compare the end with that of a study never stopped.

    python benchmarks/study_faults.py [--kills 50] [--write docs/results/study_faults.csv]

Each of the functions that take `store=` runs in a forked process, or in two that share the folder,
which are killed with SIGKILL after a random time, several times one after the other. After each
kill every file of a fit must be whole, and those that were there before unchanged. Then the call
runs to its end, with the fits of the dead processes, and its tables must be those of a call without
a store, bit for bit. Fits are of a classifier that waits for some milliseconds.

A row per kill: function, processes, seconds until the kill, fits in the store before and after it,
claims and unfinished files that were left, and the outcome of the call that went on: "identical",
"different", "damaged", "lost", or the error.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin

from sk_momkd import (
    Bag,
    BagSequence,
    StudyStore,
    compare,
    compare_omics,
    evaluate,
    learning_curve,
    permutation_check,
    seed_spread,
)

N = 24
Y = np.arange(N) % 2
SECONDS = ["fit_seconds", "predict_seconds"]
KILLS_IN_A_ROW = 3


class Waiting(ClassifierMixin, BaseEstimator):
    """Says something of the mean patch that depends on the seed and on omics, after some time."""

    def __init__(self, random_state: int | None = None) -> None:
        self.random_state = random_state

    def fit(self, X: Any, y: Any, omics: Any = None) -> Waiting:
        """Wait, and draw a direction."""
        time.sleep(0.02)
        self.classes_ = np.unique(y)
        mean = 0.0 if omics is None else omics.rows(np.arange(2)).to_numpy().mean()
        self.direction_ = np.random.default_rng(self.random_state).normal(size=2) + mean
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Logistic function of the mean patch along the direction."""
        score = np.array([bag.features.mean(axis=0) @ self.direction_ for bag in X])
        positive = 1 / (1 + np.exp(-score))
        return np.column_stack([1 - positive, positive])

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


def calls() -> dict[str, Callable[..., Any]]:
    """The functions that take a store, on one small cohort."""
    random = np.random.default_rng(0)
    bags = BagSequence(
        Bag(random.normal(y, 2, size=(3, 2)), patient_id=f"P{i:02d}") for i, y in enumerate(Y)
    )
    rna = pd.DataFrame(random.normal(size=(N, 4)), index=bags.patient_ids, columns=list("abcd"))
    clf, few = Waiting(), {"cv": 3, "n_bootstrap": 20}
    return {
        "evaluate": lambda **o: evaluate(clf, bags, Y, n_repeats=3, **few, **o),
        "compare": lambda **o: compare({"a": clf, "b": clf, "c": clf}, bags, Y, **few, **o),
        "compare_omics": lambda **o: compare_omics(clf, bags, Y, rna, **few, **o),
        "permutation_check": lambda **o: permutation_check(
            clf, bags, Y, cv=3, n_permutations=3, **o
        ),
        "learning_curve": lambda **o: learning_curve(clf, bags, Y, **few, **o),
        "seed_spread": lambda **o: seed_spread(clf, bags, Y, cv=3, n_seeds=4, **o),
    }


def as_text(result: Any) -> str:
    """All tables with all digits, without times."""
    tables = result.tables().items()
    return "".join(f"{k}\n{t.drop(columns=SECONDS, errors='ignore').to_csv()}" for k, t in tables)


def forked(call: Callable[..., Any], store: Path, out: Path) -> int:
    """Number of a process that makes the call and writes its result."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        warnings.simplefilter("ignore")
        out.write_text(as_text(call(store=store)))
        code = 0
    except BaseException:  # noqa: BLE001
        out.with_suffix(".error").write_text(traceback.format_exc())
    os._exit(code)


def state(store: Path) -> dict[str, str]:
    """Content of the files of fits."""
    return {str(p): p.read_text() for p in store.glob("*/*.jsonl")}


def kill_once(
    call: Callable[..., Any], folder: Path, n_processes: int, seconds: float
) -> dict[str, Any]:
    """Start the call in some processes, kill them, and look at what is there."""
    store = folder / "store"
    before = state(store)
    pids = [forked(call, store, folder / f"killed{i}") for i in range(n_processes)]
    time.sleep(seconds)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    after, outcome = state(store), ""
    if any(after.get(path) != content for path, content in before.items()):
        outcome = "lost"
    try:
        if (store / "study.json").exists():
            StudyStore(store).fits()
    except ValueError:
        outcome = "damaged"
    left = [path.name for path in store.rglob("*")]
    return {
        "processes": n_processes,
        "seconds": round(seconds, 4),
        "fits_before": len(before),
        "fits_after": len(after),
        "claims": sum(".claim" in name for name in left),
        "parts": sum(name.endswith(".part") for name in left),
        "outcome": outcome,
    }


def killed_and_resumed(
    call: Callable[..., Any], expected: str, duration: float, n_kills: int, random: Any
) -> list[dict[str, Any]]:
    """Kill a call some times, let it end, and compare its result."""
    with tempfile.TemporaryDirectory() as name:
        folder, n_processes = Path(name), int(random.integers(1, 3))
        span = duration / n_processes
        rows = [
            kill_once(call, folder, n_processes, random.uniform(0, 0.8 * span))
            for _ in range(n_kills)
        ]
        out = folder / "ended"
        _, status = os.waitpid(forked(call, folder / "store", out), 0)
        outcome = "identical" if status == 0 and out.read_text() == expected else "different"
        if status:
            outcome = out.with_suffix(".error").read_text().strip().splitlines()[-1]
        return [row | {"outcome": row["outcome"] or outcome} for row in rows]


def kill_studies(n_kills: int, seed: int = 0) -> pd.DataFrame:
    """Kill calls of all functions in turn until there were `n_kills`."""
    random, rows = np.random.default_rng(seed), []
    known = {}
    for name, call in calls().items():
        expected = as_text(call())
        with tempfile.TemporaryDirectory() as store:
            call(store=Path(store) / "imports")  # which are no part of the duration
            start = time.perf_counter()
            call(store=Path(store) / "store")
            known[name] = (call, expected, time.perf_counter() - start)
    while len(rows) < n_kills:
        for name, (call, expected, duration) in known.items():
            n = min(KILLS_IN_A_ROW, n_kills - len(rows))
            made = killed_and_resumed(call, expected, duration, n, random) if n else []
            rows += [{"function": name} | row for row in made]
    return pd.DataFrame(rows)


def main() -> None:
    """Kill, and print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, default=None)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    table = kill_studies(options.kills, options.seed)
    sys.stdout.write(f"{table.to_string()}\n{table['outcome'].value_counts().to_dict()}\n")
    if options.write is not None:
        table.to_csv(options.write, index=False)
    if set(table["outcome"]) != {"identical"}:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
