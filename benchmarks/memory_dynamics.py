"""Usage of the memory over the epochs of training on a real cohort (the paper's Figure 3).

    python benchmarks/memory_dynamics.py --data DATA [--labels her2 pr ror_high] [--epochs 15]

`DATA` (or the environment variable SK_MOMKD_DATA) holds the folder `tcga_brca`. One fit of
``MoMKDClassifier.preset("default")`` for each label, on all its patients but a validation part of
whole sites, and to the last epoch whatever the validation says. Rows of
`docs/results/memory_dynamics.csv` are the epochs of ``history_``;
`docs/results/memory_usage.csv` is ``memory_usage`` of the fitted model (weights of the best epoch)
on the training and on the validation part.
"""

from __future__ import annotations

import argparse
import os
import platform
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from real_cohorts import RESULTS, read_task, scale_patches
from sklearn.pipeline import make_pipeline

from sk_momkd import MoMKDClassifier, memory_usage

COHORT = "tcga_brca"
KEPT = ("memory_", "valid_memory_", "train_loss", "valid_loss", "valid_auc")


def fit(data: Path, label: str, epochs: int, seed: int):
    """History of one fit, and usage of the fitted memory by part and variant."""
    bags, y, omics, groups, report = read_task(data, COHORT, label)
    print(f"{COHORT} {label}\n{report}", flush=True)
    momkd = MoMKDClassifier.preset(
        "default",
        max_epochs=epochs,
        patience=epochs,
        training__min_epochs=epochs,
        random_state=seed,
    )
    model = make_pipeline(scale_patches(), momkd)
    model.fit(bags, y, momkdclassifier__omics=omics, momkdclassifier__groups=groups)
    key = {"cohort": COHORT, "label": label, "seed": seed}
    history = model[-1].history_
    kept = history[[c for c in history if c.startswith(KEPT)]]
    kept.insert(0, "epoch", np.arange(1, len(kept) + 1))
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    rows = kept.assign(**key, machine=machine)
    held_out = np.isin(bags.ids.astype(str), model[-1].validation_["bag_id"].astype(str))
    usage = []
    for part, chosen in (("training", ~held_out), ("validation", held_out)):
        found = memory_usage(model, bags[chosen], y[chosen])
        entropy = found.bags["attention_entropy"].mean()
        known = {"part": part, "attention_entropy": entropy, **key}
        usage.append(found.summary.reset_index().assign(**known))
    return rows, pd.concat(usage)


def run(options: argparse.Namespace) -> None:
    """Fit what is missing and write both tables after each label."""
    torch.set_num_threads(1)
    options.write.mkdir(parents=True, exist_ok=True)
    paths = [options.write / f"{name}.csv" for name in ("memory_dynamics", "memory_usage")]
    tables = [pd.read_csv(path) if path.exists() else pd.DataFrame() for path in paths]
    for label in options.labels:
        if len(tables[0]) and (tables[0]["label"] == label).any():
            continue
        tables = [
            pd.concat([table, new.round(4)], ignore_index=True)
            for table, new in zip(tables, fit(options.data, label, options.epochs, 0), strict=True)
        ]
        for table, path in zip(tables, paths, strict=True):
            first = ["cohort", "label", "seed"]
            table[[*first, *table.columns.drop(first)]].to_csv(path, index=False)
        print(tables[1][tables[1]["label"] == label].to_string(), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("SK_MOMKD_DATA", ""))
    parser.add_argument("--labels", nargs="+", default=["her2", "pr", "ror_high"])
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--write", type=Path, default=RESULTS)
    options = parser.parse_args()
    if not options.data.is_dir():
        parser.error("give --data or set SK_MOMKD_DATA")
    run(options)
