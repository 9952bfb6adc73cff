"""Genes that the omics branch uses on a real cohort: own omics, and omics of other patients.

    python benchmarks/genes.py --data DATA [--labels her2 pr ror_high] [--epochs 5]

`DATA` (or the environment variable SK_MOMKD_DATA) holds the folder `tcga_brca`. For each label
MoMKD is fitted twice on all patients, once with each patient's omics and once with omics permuted
among patients. `docs/results/genes.csv`: the first 20 genes of both by ``gene_attributions``, with
their rank by Welch's t in the training data and the direction of their pull.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from real_cohorts import RESULTS, read_task, scale_patches
from sklearn.pipeline import make_pipeline

from sk_momkd import MoMKDClassifier, OmicsTable, gene_attributions

N_SHOWN = 20


def first_genes(model, omics: OmicsTable) -> tuple[pd.DataFrame, float]:
    """The first genes, with their rank by Welch's t among all; completeness."""
    found = gene_attributions(model, omics, random_state=0)
    selector = model[-1].omics_transformer_[1]
    order = np.argsort(-selector.scores_, kind="stable")
    rank = pd.Series(np.arange(1, len(order) + 1), omics.genes[order])
    first = found.genes.head(N_SHOWN)
    shown = pd.DataFrame(
        {
            "rank": np.arange(1, len(first) + 1),
            "gene": first["gene"],
            "mean_abs": first["mean_abs"].round(4),
            "direction": first["direction_1"].round(3),
            "rank_by_welch_t": rank.loc[first["gene"]].to_numpy(),
        }
    )
    return shown, found.completeness


def run(options: argparse.Namespace) -> None:
    """Fit, attribute, and write the table after each label."""
    torch.set_num_threads(1)
    tables = []
    for label in options.labels:
        bags, y, omics, _, _ = read_task(options.data, "tcga_brca", label)
        shuffled = np.random.default_rng(0).permutation(len(omics.ids))
        moved = OmicsTable(omics.rows(shuffled).to_numpy(), omics.ids, omics.genes)
        for arm, table in (("own", omics), ("permuted", moved)):
            start = time.perf_counter()
            momkd = MoMKDClassifier(
                max_epochs=options.epochs, batch_size=8, early_stopping=False, random_state=0
            )
            model = make_pipeline(scale_patches(), momkd)
            model.fit(bags, y, momkdclassifier__omics=table)
            shown, completeness = first_genes(model, table)
            tables.append(shown.assign(label=label, omics=arm, completeness=round(completeness, 3)))
            print(label, arm, f"{time.perf_counter() - start:.0f} s", shown["gene"].to_list()[:10])
        columns = ["label", "omics", *shown.columns, "completeness"]
        pd.concat(tables)[columns].to_csv(options.write / "genes.csv", index=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("SK_MOMKD_DATA", ""))
    parser.add_argument("--labels", nargs="+", default=["her2", "pr", "ror_high"])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--write", type=Path, default=RESULTS)
    options = parser.parse_args()
    if not options.data.is_dir():
        parser.error("give --data or set SK_MOMKD_DATA")
    run(options)
