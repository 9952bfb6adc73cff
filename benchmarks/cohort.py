"""Time of an epoch and of a cross-validation on a simulated cohort on disk.

python benchmarks/cohort.py [--scale 0.05] [--folds 5] [--epochs 3] [--precision float32 bfloat16]
    [--cache] [--device cpu] [--write docs/results/cohort_speed.csv]

At scale 1: 1,000 slides of 2,000 patches of 1,536 features, 768 genes, sizes of the published
script. Peak memory is of the whole process; bytes read are what the process asked the system for.
"""

from __future__ import annotations

import argparse
import datetime
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
from speed import machine, resident

from sk_momkd import (
    MoMKDClassifier,
    PatientStratifiedKFold,
    cache_bags,
    load_cohort,
    simulate_cohort,
)
from sk_momkd.data.datasets import CohortPaths
from sk_momkd.evaluation.peak_memory import PeakMemory

N_SLIDES, N_PATCHES, N_FEATURES = 1000, 2000, 1536


def bytes_read() -> int:
    """By this process so far, also from the page cache."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("rchar")))


def measure(options: argparse.Namespace, paths: CohortPaths, precision: str) -> dict[str, object]:
    """One cross-validation; an epoch is the median over folds and epochs."""
    bags, y, omics, _ = load_cohort(*paths, label="subtype")
    if options.cache:
        bags = cache_bags(bags, paths.features.parent / "cache", dtype=precision)
    clf = MoMKDClassifier.preset(
        "release",
        precision=precision,
        max_epochs=options.epochs,
        patience=options.epochs,
        device=options.device,
        random_state=0,
    )
    epochs, seconds, before = [], time.perf_counter(), bytes_read()
    with PeakMemory() as peak:
        held = resident("VmRSS")
        for train, test in PatientStratifiedKFold(options.folds).split(bags, y):
            clf.fit(bags[train], y[train], omics=omics)
            epochs += clf.history_["dur"].tolist()
            clf.predict_proba(bags[test])
    return {
        "slides": len(bags),
        "patches": options.patches,
        "precision": precision,
        "cache": options.cache,
        "epoch_s": pd.Series(epochs).median(),
        "cross_validation_s": time.perf_counter() - seconds,
        "folds": options.folds,
        "epochs": options.epochs,
        "peak_memory_mib": held + peak.mib,
        "gib_read": (bytes_read() - before) / 2**30,
        "machine": machine(options.device),
        "date": datetime.date.today().isoformat(),
    }


def main() -> None:
    """Simulate, measure, print and, if asked, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=0.05)
    parser.add_argument("--patches", type=int, default=N_PATCHES)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--cache", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        n_slides = max(10, round(N_SLIDES * options.scale))
        paths = simulate_cohort(
            folder,
            n_patients=n_slides,
            n_patches=options.patches,
            n_features=N_FEATURES,
            random_state=0,
        )
        rows = pd.DataFrame([measure(options, paths, p) for p in options.precision])
    print(rows.drop(columns=["machine"]).to_string(index=False, float_format="%.2f"))
    print(f"{machine(options.device)}, torch {torch.__version__}")
    if options.write:
        rows.to_csv(options.write, index=False)


if __name__ == "__main__":
    main()
