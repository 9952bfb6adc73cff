"""Processor time and memory of importing the package, beside what it cannot do without.

    python benchmarks/import_cost.py [--repeats 7]

Each statement runs in a process of its own; the statements take turns, so that other work on the
machine slows all of them alike. Prints the median of processor time (user and system) and of the
largest resident memory.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

STATEMENTS = {
    "torch, scikit-learn, anndata and pandas alone": "import torch, sklearn, anndata, pandas",
    "the package": "import sk_momkd",
    "a cohort, without a model": "from sk_momkd import load_cohort, read_bags, simulate_cohort",
    "evaluation and pictures of saved results": (
        "from sk_momkd import Evaluation, compare, evaluate, ROCDisplay, ReliabilityDisplay"
    ),
    "a classifier, a cohort and its evaluation": (
        "from sk_momkd import MoMKDClassifier, load_cohort, evaluate"
    ),
}
MEASURE = """
import resource
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""


def measured(statement: str) -> tuple[float, float]:
    """Seconds of processor time and MiB at the peak of a process that runs `statement`."""
    command = [sys.executable, "-c", f"{statement}\n{MEASURE}"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, memory = run.stdout.split()
    return float(seconds), float(memory)


def main() -> None:
    """Print one line per statement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in STATEMENTS}
    for _ in range(repeats + 1):  # the first round reads the files from the disk
        for name, statement in STATEMENTS.items():
            found[name].append(measured(statement))
    for name, runs in found.items():
        seconds, memory = (statistics.median(values) for values in zip(*runs[1:], strict=True))
        print(f"{seconds:5.2f} s {memory:4.0f} MiB  {name}: {STATEMENTS[name]}")


if __name__ == "__main__":
    main()
