"""Time and size of reports and heat maps.

    python benchmarks/report.py [--slides 100 1000] [--patches 2000] [--write FILE]

A cohort is simulated, MoMKD is cross-validated for one epoch in two folds (not timed), and the
report is written with everything that fits in: heat maps, prototypes, memory, genes. A thousand
slides have a tenth of the patches. The heat map is of one slide of 20,000 patches. Seconds of the
processor are given beside those of the wall, for machines that do other things as well.
"""

from __future__ import annotations

import argparse
import datetime
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from speed import machine, resident

from sk_momkd import (
    AttentionMapDisplay,
    Bag,
    MemoryOptions,
    MoMKDClassifier,
    evaluate,
    load_cohort,
    report,
    simulate_cohort,
)

N_FEATURES, HEAT_MAP = 256, 20_000


def of_cohort(folder: Path, n_slides: int, n_patches: int) -> tuple[dict, MoMKDClassifier]:
    """Row of one report, and a fitted model."""
    paths = simulate_cohort(
        folder, n_patients=n_slides, n_patches=n_patches, n_features=N_FEATURES, random_state=0
    )
    bags, y, omics, join = load_cohort(*paths, label="subtype")
    clf = MoMKDClassifier(
        hidden_dim=64,
        projection_dim=32,
        max_epochs=1,
        batch_size=8,
        memory=MemoryOptions(kmeans_samples=2_000),
    )
    result = evaluate(clf, bags, y, omics=omics, cv=2, n_bootstrap=200, keep_models=True)
    start, cpu = time.perf_counter(), time.process_time()
    path = report(result, folder / "report.html", bags=bags, y=y, omics=omics, join=join, mpp=0.25)
    took = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    row = {"what": "report", "slides": n_slides, "patches per slide": n_patches}
    return row | took | {"MB": path.stat().st_size / 1e6}, result.models[0]


def heat_map(model: MoMKDClassifier, folder: Path) -> dict:
    """Row of one heat map, from features to PNG."""
    import matplotlib

    matplotlib.use("agg")
    side = int(np.ceil(np.sqrt(HEAT_MAP)))
    place = np.arange(HEAT_MAP)
    coords = np.stack([place % side, place // side], axis=1) * 512
    features = np.random.default_rng(0).normal(size=(HEAT_MAP, N_FEATURES)).astype(np.float32)
    bag = Bag(features, coords, bag_id="large")
    start, cpu = time.perf_counter(), time.process_time()
    display = AttentionMapDisplay.from_estimator(model, bag, mpp=0.25)
    display.figure_.savefig(folder / "map.png", dpi=150)
    took = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    row = {"what": "heat map", "slides": 1, "patches per slide": HEAT_MAP}
    return row | took | {"MB": (folder / "map.png").stat().st_size / 1e6}


def main() -> None:
    """Measure, print and, if asked, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slides", nargs="+", type=int, default=[100, 1000])
    parser.add_argument("--patches", type=int, default=2000)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows = []
    for n_slides in options.slides:
        with tempfile.TemporaryDirectory() as name:
            n_patches = options.patches if n_slides < 1000 else options.patches // 10
            row, model = of_cohort(Path(name), n_slides, n_patches)
            rows.append(row | {"peak_mib": resident("VmHWM")})
            print(rows[-1], flush=True)
    with tempfile.TemporaryDirectory() as name:
        rows.append(heat_map(model, Path(name)) | {"peak_mib": resident("VmHWM")})
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format="%.2f"))
    print(f"{machine('cpu')}, torch {torch.__version__}")
    if options.write:
        table = table.assign(machine=machine("cpu"), date=datetime.date.today().isoformat())
        table.round(2).to_csv(options.write, index=False)


if __name__ == "__main__":
    main()
