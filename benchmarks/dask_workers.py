"""Seconds of the folds of a cross-validation on one and on two workers of Dask, in turn.

python benchmarks/dask_workers.py [--patients 40] [--patches 300] [--rounds 3]

Both run on one LocalCluster of two processes of one thread each, of which the first run is not
counted; the results of all runs must be equal.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time

import joblib
import numpy as np

from sk_momkd import ABMILClassifier, evaluate, load_cohort, simulate_cohort


def seconds(client, workers: list[str], bags, y, n_splits: int) -> tuple[float, np.ndarray]:
    """Wall time of an evaluation on these workers, and its probabilities."""
    clf = ABMILClassifier(dim=64, max_epochs=4, early_stopping=False, random_state=0)
    start = time.perf_counter()
    with joblib.parallel_config("dask", client=client, workers=workers):
        result = evaluate(clf, bags, y, cv=n_splits, n_jobs=len(workers))
    proba = result.predictions.filter(like="p_").to_numpy()
    return time.perf_counter() - start, proba


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=40)
    parser.add_argument("--patches", type=int, default=300)
    parser.add_argument("--splits", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    from distributed import Client, LocalCluster

    folder = tempfile.mkdtemp()
    paths = simulate_cohort(
        folder, n_patients=options.patients, n_patches=options.patches, random_state=0
    )
    bags, y, _, _ = load_cohort(paths.table, paths.features, label="subtype")
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster) as client:
        both = list(client.scheduler_info()["workers"])
        _, expected = seconds(client, both, bags, y, options.splits)
        times: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(options.rounds):
            for n in times:
                taken, proba = seconds(client, both[:n], bags, y, options.splits)
                if not np.array_equal(proba, expected):
                    raise SystemExit("The results differ.")
                times[n].append(taken)
    one, two = (statistics.median(times[n]) for n in (1, 2))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}: {times}")
    print(f"one worker {one:.1f} s, two {two:.1f} s: {one / two:.2f}x, results equal")


if __name__ == "__main__":
    main()
