"""Cross-validate 1,000 slides on disk with two workers, killed and resumed twice.

    python benchmarks/soak.py [--slides 1000] [--repeats 4] [--write docs/results/soak.csv]

The same evaluation runs in processes of its own: once to the end, and once in a store, where it is
killed with all its workers after a third and after two thirds of the fits, and then goes on. Five
times a second the resident memory and the open file handles of the process and of all its workers
are read. A process may not have more than 4 GiB of address space (RLIMIT_AS), and all together no
more than 4 GiB of resident memory. The result must be the same, bit for bit.

A row per run: fits at its start and end, how it ended, seconds, the largest sum of resident memory,
the largest sums of handles in the first and in the last third of the run, and of processes.
"""

from __future__ import annotations

import argparse
import datetime
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from speed import machine

LIMIT = 4 * 2**30  # bytes
N_PATCHES, N_FEATURES = 40, 32
SECONDS = ["fit_seconds", "predict_seconds"]


def write_slides(folder: Path, n_slides: int) -> None:
    """Slides of patients with one or two of them, of two classes."""
    random, rows = np.random.default_rng(0), []
    (folder / "slides").mkdir()
    for i in range(n_slides):
        patient, label = i * 2 // 3, i * 2 // 3 % 2
        features = random.normal(0.1 * label, 1, (N_PATCHES, N_FEATURES)).astype(np.float32)
        np.save(folder / "slides" / f"S{i:05d}.npy", features)
        rows.append((f"S{i:05d}", f"P{patient:05d}", label))
    table = pd.DataFrame(rows, columns=["slide", "patient", "label"])
    table.to_csv(folder / "labels.csv", index=False)


def evaluate_slides(folder: Path, out: Path, store: Path | None, n_repeats: int) -> None:
    """The evaluation, in a process of its own."""
    from sk_momkd import ABMILClassifier, as_bags, evaluate, read_bags

    table = pd.read_csv(folder / "labels.csv").set_index("slide")
    bags = read_bags(folder / "slides")
    bags = as_bags(bags, patient_ids=table["patient"].reindex(bags.ids))
    clf = ABMILClassifier(dim=32, attention_dim=16, max_epochs=3, batch_size=16)
    options: dict[str, Any] = {"n_repeats": n_repeats, "n_jobs": 2, "n_bootstrap": 200}
    result = evaluate(
        clf, bags, table["label"].reindex(bags.ids).to_numpy(), store=store, **options
    )
    folds = result.folds.drop(columns=SECONDS)
    pd.concat([folds, result.predictions, result.summary.reset_index()]).to_csv(out, index=False)


def stored(store: Path | None) -> int:
    """Number of fits in a store."""
    return 0 if store is None else len(list(store.glob("*/*.jsonl")))


def run(arguments: argparse.Namespace, out: Path, store: Path | None, stop_at: float) -> dict:
    """Run the evaluation until so many fits are stored, and watch it."""
    begun, start, readings = stored(store), time.perf_counter(), []
    command = [sys.executable, __file__, "--child", str(out), "--slides", str(arguments.slides)]
    command += ["--repeats", str(arguments.repeats), "--folder", str(arguments.folder)]
    command += [] if store is None else ["--store", str(store)]
    child = subprocess.Popen(command, start_new_session=True)
    ended = None
    while (code := child.poll()) is None:
        readings.append(reading(child.pid))
        if stored(store) >= stop_at or readings[-1][0] > LIMIT:
            os.killpg(child.pid, signal.SIGKILL)
            code, ended = child.wait(), "killed"
            break
        time.sleep(0.2)
    rss, handles, processes = np.array(readings).T
    third = max(1, len(readings) // 3)
    return {
        "ended": ended or ("whole" if code == 0 else f"status {code}"),
        "fits_before": begun,
        "fits_after": stored(store) if store else "",
        "seconds": round(time.perf_counter() - start, 1),
        "rss_mib": round(rss.max() / 2**20),
        "handles_first_third": int(handles[:third].max()),
        "handles_last_third": int(handles[-third:].max()),
        "processes": int(processes.max()),
    }


def reading(pid: int) -> tuple[int, int, int]:
    """Resident memory, file handles and number of a process and all its children."""
    rss = handles = number = 0
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    for process in family:
        try:
            rss, handles = rss + process.memory_info().rss, handles + process.num_fds()
            number += 1
        except psutil.Error:
            continue
    return rss, handles, number


def main() -> None:
    """Run the evaluation whole, then in parts, and compare the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slides", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--write", type=Path, default=None)
    parser.add_argument("--folder", type=Path, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--child", type=Path, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
        evaluate_slides(arguments.folder, arguments.child, arguments.store, arguments.repeats)
        return
    with tempfile.TemporaryDirectory() as name:
        arguments.folder = Path(name)
        write_slides(arguments.folder, arguments.slides)
        n_fits, store = 5 * arguments.repeats, arguments.folder / "store"
        whole, parts = arguments.folder / "whole.csv", arguments.folder / "parts.csv"
        rows = [{"run": "never stopped"} | run(arguments, whole, None, np.inf)]
        for title, stop_at in (("first", n_fits / 3), ("second", 2 * n_fits / 3), ("last", np.inf)):
            rows.append({"run": title} | run(arguments, parts, store, stop_at))
            sys.stdout.write(f"{rows[-1]}\n")
        same = whole.read_bytes() == parts.read_bytes()
    about = {"slides": arguments.slides, "fits": n_fits, "load": round(os.getloadavg()[1], 1)}
    about |= {"machine": machine("cpu"), "date": str(datetime.date.today()), "same_result": same}
    table = pd.DataFrame(rows).assign(**about)
    sys.stdout.write(f"{table.T.to_string()}\nthe same result, bit for bit: {same}\n")
    if arguments.write is not None:
        table.to_csv(arguments.write, index=False)
    if not same or any(row["rss_mib"] * 2**20 > LIMIT for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
