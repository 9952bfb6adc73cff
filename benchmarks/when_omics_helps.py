"""When does omics help? MoMKD's memory and soft labels over the simulation parameters.

    python benchmarks/when_omics_helps.py [--cells ...] [--seeds 0 1 2 3 4 5] [--cohorts 40]
                                          [--n-jobs 1] [--results docs/results]

Each seed simulates a training cohort and, from other sites, a test cohort whose labels are right;
all arms see both. The second part asks how often `compare_omics` claims a gain on simulated
cohorts without one and with one. Rows that are in the files are not run again;
`when_does_omics_help.md` is the page, from `when_does_omics_help.csv` (a row per cell and seed)
and `when_does_omics_help_claims.csv` (a row per cohort).
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from page import line, short, write_page
from scipy.stats import binomtest, t
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_momkd import (
    Bag,
    BagPooling,
    BagSequence,
    InstanceTransformer,
    MoMKDClassifier,
    compare_omics,
    load_cohort,
    simulate_cohort,
)
from sk_momkd.data.omics import join_omics
from sk_momkd.estimators.cross_fitted_teacher import cross_fit

RESULTS = Path(__file__).parents[1] / "docs" / "results"
BASE = {
    "effect": 1.0,
    "label_noise": 0.2,
    "n_patches": 12,
    "n_features": 16,
    "n_genes": 100,
    "n_signature": 20,
}
TRAINING, TEST = 120, 300  # patients
CELLS: dict[str, dict[str, Any]] = {
    "base": {},
    "all labels right": {"label_noise": 0.0},
    "two labels in five wrong": {"label_noise": 0.4},
    "omics says more": {"omics_effect": 2.0},
    "omics says nothing": {"omics_effect": 0.0},
    "omics of three patients in ten": {"omics_fraction": 0.3},
    "half of severity only in omics": {"omics_only": 0.5},
    "morphology shows nothing": {"effect": 0.0},
    "few informative patches": {"largest_share": 0.1},
    "stain differs between sites": {"n_sites": 8, "site_shift": 0.5},
}
SMALL = {
    "hidden_dim": 32,
    "projection_dim": 16,
    "n_components": 4,
    "network__head_hidden_dim": 32,
    "network__omics_hidden_dim": 32,
    "dropout": 0.25,
    "network__head_dropout": 0.25,
    "n_neighbors": 4,
    "batch_size": 16,
    "learning_rate": 1e-3,
    "weight_decay": 0.01,
    "training__lr_schedule": "cosine",
    "max_epochs": 20,
    "early_stopping": False,
}
MEMORY_OFF = {"alpha_omics": 0.0, "lambda_mse": 0.0}
SOFT = {"lambda_teacher": 0.5}
# Parameters, and whether there is omics; the first is what the others are compared with.
ARMS: dict[str, tuple[dict[str, Any], bool]] = {
    "without omics": ({}, False),
    "memory": ({}, True),
    "soft labels": (MEMORY_OFF | SOFT, True),
    "memory and soft labels": (SOFT, True),
}
POOLED = "LR on pooled bags"
FASTER = {"hidden_dim": 16, "network__n_heads": 1, "max_epochs": 15}
WIDE = {"n_features": 64, "n_patches": 8}


class Claim(NamedTuple):
    """Cohorts of which `compare_omics` is asked whether omics helps an estimator."""

    estimator: str
    n_patients: int
    n_splits: int
    simulation: dict[str, Any]


RIDGE = "ridge regression"
CLAIMS: dict[str, Claim] = {
    "none: omics says nothing": Claim(RIDGE, 300, 5, WIDE | {"omics_effect": 0.0}),
    "none: morphology shows nothing": Claim(RIDGE, 300, 5, WIDE | {"effect": 0.0}),
    "planted: omics knows which labels are wrong": Claim(
        RIDGE, 300, 5, WIDE | {"omics_effect": 2.0}
    ),
    "none: omics says nothing, MoMKD": Claim("MoMKD", 60, 3, {"omics_effect": 0.0}),
}
OUTCOMES = ("gain", "unspecific", "no gain shown", "harm")


class SoftRidge(ClassifierMixin, BaseEstimator):
    """Ridge regression on pooled bags and, where there is omics, soft labels: fast."""

    def __init__(self, share: float = 0.5, alpha: float = 1.0) -> None:
        self.share = share
        self.alpha = alpha

    def fit(self, X: BagSequence, y: Any, omics: Any = None) -> Self:
        self.classes_, label = np.unique(y, return_inverse=True)
        target = label.astype(float)
        if omics is not None:
            table, rows = join_omics(omics, X)
            known = (rows, label, np.arange(len(label)))
            each = {"classes": [0, 1], "random_state": 0, "pairs": False}
            soft = cross_fit(None, table, *known, **each).soft_labels(0.5)[:, 1]
            target[rows >= 0] += self.share * (soft - target[rows >= 0])
        regression = Ridge(self.alpha)
        self.model_ = make_pipeline(BagPooling(), StandardScaler(), regression).fit(X, target)
        return self

    def predict_proba(self, X: BagSequence) -> Any:
        positive = np.clip(self.model_.predict(X), 1e-6, 1 - 1e-6)
        return np.stack([1 - positive, positive], axis=1)


def simulated(seed: int, n_patients: int, **simulation: Any) -> tuple[BagSequence, Any, Any]:
    """Bags in memory, labels and omics."""
    with tempfile.TemporaryDirectory() as folder:
        paths = simulate_cohort(
            folder, n_patients=n_patients, random_state=seed, **(BASE | simulation)
        )
        bags, y, omics, _ = load_cohort(*paths, label="subtype", positive="aggressive")
        omics = omics.to_memory()
        read = [Bag(b.features, b.coords, bag_id=b.bag_id, patient_id=b.patient_id) for b in bags]
    return BagSequence(read), y, omics


def scaled(model: Any) -> Any:
    return make_pipeline(InstanceTransformer(StandardScaler()), model)


def one_seed(cell: str, seed: int) -> dict[str, Any]:
    """AUC of all arms on the test cohort."""
    torch.set_num_threads(1)
    start, simulation = time.process_time(), CELLS[cell]
    bags, y, omics = simulated(1000 + seed, TRAINING, **simulation)
    right = {"label_noise": 0.0, "prefix": "TST"}
    test, truth, _ = simulated(2000 + seed, TEST, **(simulation | right))
    row: dict[str, Any] = {"cell": cell, "seed": seed}
    for arm, (parameters, with_omics) in ARMS.items():
        model = scaled(MoMKDClassifier.preset("default", **SMALL | parameters, random_state=seed))
        model.fit(bags, y, momkdclassifier__omics=omics if with_omics else None)
        row[arm] = auc(model, test, truth)
    regression = LogisticRegression(C=0.1, max_iter=2000)
    pooled = scaled(make_pipeline(BagPooling(), StandardScaler(), regression)).fit(bags, y)
    return row | {POOLED: auc(pooled, test, truth)} | cost(start)


def auc(model: Any, bags: BagSequence, y: Any) -> float:
    return round(float(roc_auc_score(y, model.predict_proba(bags)[:, 1])), 4)


def one_claim(cell: str, seed: int) -> dict[str, Any]:
    """What `compare_omics` says of a cohort."""
    torch.set_num_threads(1)
    start, claim = time.process_time(), CLAIMS[cell]
    bags, y, omics = simulated(3000 + seed, claim.n_patients, **claim.simulation)
    model = SoftRidge()
    if claim.estimator == "MoMKD":
        model = scaled(MoMKDClassifier.preset("default", **SMALL | FASTER | SOFT))
    settings = {"cv": claim.n_splits, "random_state": seed, "n_bootstrap": 1000}
    found = compare_omics(model, bags, y, omics, **settings)
    gap = found.differences.loc["with - without"]
    row = {"cell": cell, "seed": seed, "outcome": found.outcome}
    return row | gap[["fold_auroc", "fold_low", "fold_high"]].round(4).to_dict() | cost(start)


def cost(start: float) -> dict[str, Any]:
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    return {"cpu_seconds": round(time.process_time() - start, 1), "machine": machine}


def fill(
    path: Path, work: Callable[[str, int], dict], jobs: Sequence[tuple[str, int]], n_jobs: int
) -> pd.DataFrame:
    """Rows of all jobs; those that are missing are made, a batch of `n_jobs` at a time."""
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    done = {(row["cell"], row["seed"]) for row in rows}
    missing = [job for job in jobs if job not in done]
    for i in range(0, len(missing), n_jobs):
        rows += Parallel(n_jobs)(delayed(work)(*job) for job in missing[i : i + n_jobs])
        temporary = path.with_suffix(".partial")
        pd.DataFrame(rows).to_csv(temporary, index=False)
        temporary.replace(path)
        print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def mean_and_interval(values: pd.Series) -> tuple[float, float, float]:
    """Mean with 95 % t interval over seeds."""
    half = t.ppf(0.975, len(values) - 1) * values.std() / np.sqrt(len(values))
    return values.mean(), values.mean() - half, values.mean() + half


def gains_page(rows: pd.DataFrame) -> str:
    """A line per cell: AUC without omics, differences to it."""
    first, *others = [*ARMS, POOLED]
    lines = [line(["cell", "seeds", first, *others]), "|" + "---|" * (len(others) + 3)]
    for cell in [c for c in CELLS if (rows["cell"] == c).sum() > 1]:
        mine = rows[rows["cell"] == cell]
        cells = [cell, str(len(mine)), f"{short(mine[first].mean())} ({short(mine[first].std())})"]
        for other in others:
            values = mean_and_interval(mine[other] - mine[first])
            cells.append("{} [{}, {}]".format(*(short(v, "+") for v in values)))
        lines.append(line(cells))
    return "\n".join(lines)


def claims_page(rows: pd.DataFrame) -> str:
    """A line per cell: what was claimed, how often."""
    head = [
        "cell",
        "estimator",
        "cohorts",
        "patients",
        *OUTCOMES,
        "gain claimed (95 % interval)",
        "mean difference",
    ]
    lines = [line(head), "|" + "---|" * len(head)]
    for cell in [c for c in CLAIMS if c in set(rows["cell"])]:
        mine = rows[rows["cell"] == cell]
        counts = [int((mine["outcome"] == outcome).sum()) for outcome in OUTCOMES]
        found = binomtest(counts[0], len(mine))
        low, high = found.proportion_ci(method="wilson")
        share = f"{found.statistic:.0%} [{low:.0%}, {high:.0%}]"
        claim = CLAIMS[cell]
        cells = [cell, claim.estimator, str(len(mine)), str(claim.n_patients), *map(str, counts)]
        lines.append(line([*cells, share, short(mine["fold_auroc"].mean(), "+")]))
    return "\n".join(lines)


def page(gains: pd.DataFrame, claims: pd.DataFrame) -> str:
    changed = CELLS | {cell: claim.simulation for cell, claim in CLAIMS.items()}
    changed_parameters = "; ".join(
        f"{cell}: " + (", ".join(f"`{k}={v}`" for k, v in simulation.items()) or "none changed")
        for cell, simulation in changed.items()
    )
    seconds = sum(table["cpu_seconds"].sum() for table in (gains, claims) if len(table))
    minutes = seconds / 60
    base = ", ".join(f"`{k}={v}`" for k, v in BASE.items())
    parts = [
        "## Gains over the simulation parameters",
        f"AUC on {TEST} test patients whose labels are right, after training on {TRAINING}: mean "
        f"(SD over seeds) of {next(iter(ARMS))}, then differences to it with 95 % t interval over "
        "seeds. Each seed is another training cohort, another test cohort from other sites and "
        "other initial weights, so the intervals contain chance in all three; they are not "
        f"corrected for the number of cells. Simulator: {base}. Memory: MoMKD as published, "
        "with omics; soft labels: `lambda_teacher=0.5`, without what omics does to the memory "
        f"(`alpha_omics=0, lambda_mse=0`). Sizes: `{SMALL}`.",
        gains_page(gains),
        "## Claims of `compare_omics`",
        "`compare_omics`, one repeat, on cohorts whose labels are as often wrong in the test folds "
        "as in training. Ridge regression: on the mean patch with half the target from "
        "cross-fitted soft labels, 5 folds, fast enough for many cohorts; MoMKD: memory and soft "
        f"labels, smaller still (`{FASTER}`), 3 folds. A gain is claimed if the intervals of with "
        "- without and of with - permuted both lie above zero.",
        claims_page(claims) if len(claims) else "Not run.",
        "## How it was made",
        f"Simulation parameters: {changed_parameters}.",
        f"`python benchmarks/when_omics_helps.py`, {minutes:.0f} min of processor time, one thread "
        f"({gains['machine'].iloc[0]}).",
    ]
    return "\n\n".join(parts)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", nargs="+", default=list(CELLS), choices=list(CELLS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(10)))
    parser.add_argument("--claims", nargs="*", default=list(CLAIMS), choices=list(CLAIMS))
    parser.add_argument("--cohorts", type=int, default=20, help="per cell of compare_omics")
    parser.add_argument("--n-jobs", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    options.results.mkdir(parents=True, exist_ok=True)
    stem = options.results / "when_does_omics_help"
    jobs = [(cell, seed) for seed in options.seeds for cell in options.cells]
    gains = fill(stem.with_suffix(".csv"), one_seed, jobs, options.n_jobs)
    jobs = [(cell, seed) for seed in range(options.cohorts) for cell in options.claims]
    claims = fill(stem.with_name(f"{stem.name}_claims.csv"), one_claim, jobs, options.n_jobs)
    write_page(stem.with_suffix(".md"), "When does omics help?", page(gains, claims))


if __name__ == "__main__":
    main()
