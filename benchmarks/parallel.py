"""How much faster `evaluate` is with two workers than with one, and whether the results are equal.

    python benchmarks/parallel.py [--rounds 3] [--slides 120] [--patches 200] [--features 40]
        [--write docs/results/parallel.csv]

Rounds alternate: `n_jobs=1`, then `n_jobs=2`. Workers are started before, as they stay for the next
call. Seconds are those of the clock and those of the processor, of the process and its workers, and
the load of the machine before the round is noted: with others at work, the clock says little. The
seconds of the processor say what an idle machine would do. By default a step takes one thread
whatever the process has set, as that of every small fit does; larger steps use the threads of the
process (more than 2^18 values: `--patches 300 --features 64`), so that `n_jobs=1` has all cores
already. Without any loss, two workers take as many seconds as one; `efficiency` is what one takes
divided by what two take together, and `bound` is what one takes divided by the share of the busier
of two.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
from speed import machine

from sk_momkd import Bag, BagSequence, MoMKDClassifier, evaluate

SECONDS = ["fit_seconds", "predict_seconds"]


def cohort(n_slides: int, most: int, n_features: int) -> tuple[BagSequence, np.ndarray]:
    """Slides of 100 to `most` patches, in memory."""
    random, y = np.random.default_rng(0), np.arange(n_slides) % 2
    sizes = random.integers(100, most, n_slides)
    return BagSequence(
        Bag(
            random.normal(0.1 * label, 1, (n, n_features)).astype(np.float32),
            coords=np.stack(np.divmod(np.arange(n), 20), axis=1) * 256,
            patient_id=f"P{i:04d}",
        )
        for i, (label, n) in enumerate(zip(y, sizes, strict=True))
    ), y


def processor_seconds() -> list[float]:
    """Seconds of the processor of this process, and of each of its workers."""
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return [sum(process.cpu_times()[:2]) for process in family]


def measured(clf: MoMKDClassifier, bags: BagSequence, y: np.ndarray, n_jobs: int) -> dict:
    """Seconds of one evaluation, and its result as text."""
    load, before, start = os.getloadavg()[0], processor_seconds(), time.perf_counter()
    result = evaluate(clf, bags, y, cv=4, n_repeats=2, n_jobs=n_jobs, n_bootstrap=50)
    seconds = time.perf_counter() - start
    spent = np.subtract(processor_seconds(), before)
    said = result.folds.drop(columns=SECONDS).to_csv() + result.predictions.to_csv()
    return {
        "n_jobs": n_jobs,
        "seconds": seconds,
        "cpu_seconds": spent.sum(),
        "busiest_cpu_seconds": spent.max(),
        "load": load,
        "result": said,
    }


def main() -> None:
    """Measure in alternation, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slides", type=int, default=120)
    parser.add_argument("--patches", type=int, default=200, help="of a slide, at most")
    parser.add_argument("--features", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--write", type=Path, default=None)
    arguments = parser.parse_args()
    bags, y = cohort(arguments.slides, arguments.patches, arguments.features)
    clf = MoMKDClassifier.preset("small").set_params(max_epochs=arguments.epochs)
    warm = clf.set_params(max_epochs=1)
    for n_jobs in (1, 2):
        evaluate(warm, bags[:40], y[:40], cv=2, n_repeats=2, n_jobs=n_jobs, n_bootstrap=50)
    clf.set_params(max_epochs=arguments.epochs)
    rows = [
        {"round": number} | measured(clf, bags, y, n_jobs)
        for number in range(arguments.rounds)
        for n_jobs in (1, 2)
    ]
    table = pd.DataFrame(rows)
    same = table.pop("result").nunique() == 1
    one, two = (table[table["n_jobs"] == n].median(numeric_only=True) for n in (1, 2))
    figures = {
        "faster": one["seconds"] / two["seconds"],
        "efficiency": one["cpu_seconds"] / two["cpu_seconds"],
        "bound": one["cpu_seconds"] / two["busiest_cpu_seconds"],
    }
    about = {"slides": arguments.slides, "fits": 8, "epochs": arguments.epochs}
    about |= {"machine": machine("cpu"), "date": str(datetime.date.today()), "same_result": same}
    table = table.assign(**{k: round(float(v), 3) for k, v in figures.items()}, **about)
    sys.stdout.write(f"{table.round(2).to_string()}\n{figures}\nthe same bits: {same}\n")
    if arguments.write is not None:
        table.round(3).to_csv(arguments.write, index=False)


if __name__ == "__main__":
    main()
