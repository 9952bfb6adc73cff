"""Are probabilities right at any prevalence? Mean probability and Brier score of every method.

    python benchmarks/calibration.py [--seeds 0] [--methods MoMKD ABMIL]

Simulated slides: in those of the positive class a third of the patches is shifted. Each method is
trained with ``preset("unified")`` (balanced sampler) on 200 slides, of which 5, 10, 30 or 50 %
are positive, and predicts 400 others of the same prevalence, with ``prior="sampler"`` (as
trained) and with ``prior="training"``. A row per fit is added to `docs/results/calibration.csv`;
what is there is not fitted again. `docs/results/calibration.md` has the means over the seeds.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from page import line, short, write_page
from sklearn.metrics import brier_score_loss, roc_auc_score

from sk_momkd import all_estimators

RESULTS = Path(__file__).parents[1] / "docs" / "results"
PREVALENCES = (0.05, 0.1, 0.3, 0.5)
N_TRAIN, N_TEST, N_FEATURES, N_GENES = 200, 400, 8, 24
SIZES = {
    "ABMIL": {"dim": 32, "attention_dim": 16},
    "DSMIL": {"query_dim": 16},
    "DTFDMIL": {"dim": 32, "attention_dim": 16, "n_chunks": 2},
    "GHANet": {"dim": 32, "n_heads": 2, "gate_dim": 16, "compressed_dim": 16},
    "MKD": {"dim": 32, "attention_dim": 16, "gate_dim": 8},
    "MoMKD": {"hidden_dim": 32, "projection_dim": 16, "network__omics_hidden_dim": 32},
    "TDC": {"dim": 32, "attention_dim": 16, "omics_hidden_dims": (32,)},
    "TransMIL": {"dim": 32, "n_heads": 2},
    "WiKG": {"dim": 32},
}


def simulate(n: int, prevalence: float, random: np.random.Generator):
    """Bags of nine patches, labels, and expression that follows the label."""
    y = np.zeros(n, dtype=int)
    y[: round(prevalence * n)] = 1
    bags = random.normal(size=(n, 9, N_FEATURES)).astype(np.float32)
    bags[y == 1, :3, :2] += 0.9
    omics = random.normal(size=(n, N_GENES))
    omics[y == 1, :4] += 1.5
    return bags, y, omics


def measure(name: str, prevalence: float, seed: int) -> dict:
    """Mean probability, Brier score and AUC, as trained and corrected, of one fit."""
    cls = dict(all_estimators("classifier"))[f"{name}Classifier"]
    random = np.random.default_rng([seed, round(1000 * prevalence)])
    bags, y, omics = simulate(N_TRAIN, prevalence, random)
    unseen, truth, _ = simulate(N_TEST, prevalence, random)
    training = {"max_epochs": 8, "batch_size": 16, "learning_rate": 1e-3, "early_stopping": False}
    clf = cls.preset("unified", random_state=seed, **training, **SIZES[name])
    start = time.process_time()
    clf.fit(bags, y, **({"omics": omics} if cls._uses_omics else {}))
    row = {"method": name, "prevalence": prevalence, "seed": seed}
    for when, prior in (("before", "sampler"), ("after", "training")):
        p = clf.set_params(prior=prior).predict_proba(unseen)[:, 1]
        row |= {
            f"mean_{when}": p.mean(),
            f"brier_{when}": brier_score_loss(truth, p),
            f"auc_{when}": roc_auc_score(truth, p),
        }
    return row | {"seconds": time.process_time() - start}


def measured(rows: pd.DataFrame) -> str:
    """Means over the seeds as a Markdown table."""
    columns = ["method", "positive", "mean p, as trained", "corrected", "Brier, as trained"]
    columns += ["corrected", "of a constant", "AUC, as trained", "corrected"]
    lines = [line(columns), line(["---"] * len(columns))]
    for (method, prevalence), row in rows.groupby(["method", "prevalence"]).mean().iterrows():
        constant = prevalence * (1 - prevalence)
        numbers = [row.mean_before, row.mean_after, row.brier_before, row.brier_after, constant]
        numbers += [row.auc_before, row.auc_after]
        lines.append(line([method, f"{prevalence:.0%}", *map(short, numbers)]))
    changed = (rows["auc_before"] != rows["auc_after"]).sum()
    lines += [
        "",
        f"{len(rows)} fits, {rows['seed'].nunique()} per row; the AUC differs in {changed} of "
        f"them. {rows['seconds'].sum() / 60:.1f} processor minutes, one thread "
        f"({platform.machine()}, {os.cpu_count()} cores, shared). Command: "
        "`python benchmarks/calibration.py`.",
    ]
    return "\n".join(lines)


def run(options: argparse.Namespace) -> None:
    """Fit what is missing and write both files after each fit."""
    torch.set_num_threads(1)
    path = options.write / "calibration.csv"
    rows = pd.read_csv(path) if path.exists() else pd.DataFrame()
    for seed in options.seeds:
        for name in options.methods:
            for prevalence in PREVALENCES:
                key = {"method": name, "prevalence": prevalence, "seed": seed}
                if len(rows) and (rows[list(key)] == pd.Series(key)).all(axis=1).any():
                    continue
                new = pd.DataFrame([measure(name, prevalence, seed)])
                rows = pd.concat([rows, new], ignore_index=True)
                rows.to_csv(path, index=False)
    write_page(options.write / "calibration.md", "Probabilities at any prevalence", measured(rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--methods", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--write", type=Path, default=RESULTS)
    run(parser.parse_args())
