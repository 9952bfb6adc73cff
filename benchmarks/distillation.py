"""Does omics teach? Each method that omics teaches, with it and without, on simulated cohorts.

    python benchmarks/distillation.py [--methods ...] [--seeds 0 1 2 3 4]

A seed is a cohort of its own. A hidden cause decides everything: the label is its sign after
noise as large as itself, half of the genes show it nearly clean, and slides show it in the place of
some of their patches along one direction. So omics knows the cause better than the label does,
morphology alone can tell it, and few labels are a poor teacher of where to look. Each method is
fitted to the training patients twice, with omics and with ``omics=None`` (its student alone, equal
in everything else), and scored on slides of other patients. Rows are kept in
`docs/results/distillation.csv`; those that are there are not run again. `distillation.md` beside it
is the table.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import stats
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_momkd import (
    Bag,
    BagPooling,
    BagSequence,
    GHANetClassifier,
    MKDClassifier,
    MoMKDClassifier,
    TDCClassifier,
)

RESULTS = Path(__file__).parents[1] / "docs" / "results"
N_TRAIN, N_TEST, N_FEATURES, N_GENES = 100, 400, 128, 40
COMMON = {
    "batch_size": 16,
    "max_epochs": 30,
    "patience": 60,
    "learning_rate": 1e-3,
    "lr_schedule": "cosine",
    "monitor": "loss",
    "validation_fraction": 0.2,
}
METHODS = {
    "G-HANet": GHANetClassifier.preset(
        "unified", **COMMON | {"max_epochs": 15}, dim=32, gate_dim=16, compressed_dim=16, n_groups=2
    ),
    "MKD": MKDClassifier.preset(
        "unified",
        **COMMON | {"max_epochs": 60, "learning_rate": 2e-3},
        dim=32,
        attention_dim=16,
        n_tokens=2,
        gate_dim=8,
    ),
    "TDC": TDCClassifier.preset("unified", **COMMON, dim=32, attention_dim=16, n_negatives=256),
    "MoMKD": MoMKDClassifier.preset(
        "unified",
        **COMMON,
        hidden_dim=32,
        projection_dim=16,
        n_components=4,
        head_hidden_dim=16,
        omics_hidden_dim=32,
        n_neighbors=4,
    ),
}
# Every arm but the first has omics. MKD's orthogonality draws features to zero, see the table.
ARMS = {name: {"alone": {}, "taught": {}} for name in METHODS}
ARMS["MKD"]["taught, no orthogonality"] = {"lambda_orthogonality": 0.0}


REFERENCES = {
    "cause": "the cause itself",
    "omics": "logistic regression on omics",
    "pooled": "logistic regression on mean patches",
}
NOTES = ""


class Cohort(NamedTuple):
    """Patients of one kind, train and test."""

    bags: BagSequence
    y: np.ndarray
    cause: np.ndarray
    omics: pd.DataFrame


def simulate(seed: int) -> tuple[Cohort, Cohort]:
    """Training and test patients with one biology."""
    random = np.random.default_rng(seed)
    direction = random.normal(size=N_FEATURES) / np.sqrt(N_FEATURES)
    background = random.normal(size=(4, N_FEATURES))
    slope = random.choice([-1.0, 1.0], N_GENES) * (np.arange(N_GENES) % 2)
    cohorts = []
    for n in (N_TRAIN, N_TEST):
        cause = random.normal(size=n)
        y = (cause + random.normal(size=n) > 0).astype(int)
        names = [f"P{i:03d}" for i in range(n)]
        omics = np.outer(cause, slope) + 0.5 * random.normal(size=(n, N_GENES))
        bags = BagSequence(
            _bag(random, name, c, direction, background)
            for name, c in zip(names, cause, strict=True)
        )
        cohorts.append(Cohort(bags, y, cause, pd.DataFrame(omics, index=names)))
    return cohorts[0], cohorts[1]


def _bag(random, name: str, cause: float, direction, background) -> Bag:
    """15 to 25 patches of four tissues; those of the first show the cause."""
    n = int(random.integers(15, 26))
    tissue = random.integers(len(background), size=n)
    features = background[tissue] + random.normal(size=(n, N_FEATURES))
    features += 2 * cause * (tissue == 0)[:, None] * direction
    coords = np.stack(np.divmod(np.arange(n), 5), axis=1) * 256
    return Bag(features.astype(np.float32), coords=coords, bag_id=name, patient_id=name)


def scores(truth: Cohort, given: np.ndarray) -> dict[str, float]:
    """AUC for the noisy label, and for the sign of the cause behind it."""
    found = {"auc": truth.y, "auc_cause": truth.cause > 0}
    return {what: round(float(roc_auc_score(y, given)), 4) for what, y in found.items()}


def reference(arm: str, train: Cohort, test: Cohort) -> dict[str, float]:
    """What the cause itself, omics, and pooled patches tell, the latter by logistic regression."""
    if arm == "cause":
        return scores(test, test.cause)
    steps = [StandardScaler(), LogisticRegression(C=0.01)]
    if arm == "omics":
        clf = make_pipeline(*steps).fit(train.omics, train.y)
        return scores(test, clf.decision_function(test.omics))
    clf = make_pipeline(BagPooling("mean"), *steps).fit(train.bags, train.y)
    return scores(test, clf.decision_function(test.bags))


def fitted(method: str, arm: str, train: Cohort, test: Cohort, seed: int) -> dict[str, float]:
    """Test scores and epochs of one fit; arms differ in omics, and in what `ARMS` says."""
    clf = clone(METHODS[method]).set_params(random_state=seed, **ARMS[method][arm])
    clf.fit(train.bags, train.y, omics=None if arm == "alone" else train.omics)
    best = int(np.flatnonzero(clf.history_["best_so_far"])[-1]) + 1
    return scores(test, clf.decision_function(test.bags)) | {"best_epoch": best}


def run(options: argparse.Namespace) -> None:
    """Fit what is missing and write both tables after each row."""
    torch.set_num_threads(1)
    options.results.mkdir(parents=True, exist_ok=True)
    path = options.results / "distillation.csv"
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    done = {(row["method"], row["arm"], row["seed"]) for row in rows}
    jobs = [("reference", arm) for arm in REFERENCES]
    jobs += [(method, arm) for method in options.methods for arm in ARMS[method]]
    for seed, (method, arm) in product(options.seeds, jobs):
        if (method, arm, seed) in done:
            continue
        train, test = simulate(seed)
        start = time.process_time()
        given = (
            reference(arm, train, test)
            if method == "reference"
            else fitted(method, arm, train, test, seed)
        )
        key = {"method": method, "arm": arm, "seed": seed}
        rows.append(key | given | {"cpu_seconds": round(time.process_time() - start, 1)})
        print(rows[-1], flush=True)
        pd.DataFrame(rows).to_csv(path, index=False)
        (options.results / "distillation.md").write_text(as_markdown(pd.DataFrame(rows)))


def gains(rows: pd.DataFrame, what: str) -> pd.DataFrame:
    """Mean of both arms, and of their difference seed by seed with its 95 % t interval."""
    table = rows.pivot(index=["method", "seed"], columns="arm", values=what)
    found = []
    for method, arms in ARMS.items():
        for arm in list(arms)[1:]:
            if arm not in table or method not in table.index.get_level_values(0):
                continue
            pairs = table.loc[method, ["alone", arm]].dropna()
            gain = pairs[arm] - pairs["alone"]
            half = stats.t.ppf(0.975, len(gain) - 1) * gain.sem() if len(gain) > 1 else np.nan
            label = method + arm.removeprefix("taught")
            values = [pairs["alone"].mean(), pairs[arm].mean(), gain.mean()]
            found.append(
                [
                    label,
                    len(gain),
                    *values,
                    gain.mean() - half,
                    gain.mean() + half,
                    (gain > 0).sum(),
                ]
            )
    names = ["method", "seeds", "alone", "taught", "gain", "low", "high", "better"]
    return pd.DataFrame(found, columns=names)


def as_markdown(rows: pd.DataFrame) -> str:
    """Gains in both AUCs, and what bounds them."""
    lines = []
    for what, title in {"auc": "the label", "auc_cause": "the sign of the cause"}.items():
        lines += [
            f"AUC on test slides for {title}:",
            "",
            "| method | seeds | without omics | with omics | gain | 95 % interval | seeds better |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {r.method} | {r.seeds} | {r.alone:.3f} | {r.taught:.3f} | {r.gain:+.3f} "
            f"| {r.low:+.3f} to {r.high:+.3f} | {r.better} |"
            for r in gains(rows, what).itertuples()
        ]
        lines.append("")
    known = rows[rows["method"] == "reference"]
    means = known.groupby("arm", sort=False)[["auc", "auc_cause"]].mean()
    bounds = "; ".join(
        f"{REFERENCES[arm]} {v.auc:.3f} / {v.auc_cause:.3f}" for arm, v in means.iterrows()
    )
    seeds = ", ".join(map(str, sorted(rows["seed"].unique())))
    return (
        "# Does omics teach?\n\n"
        f"Simulated cohorts of {N_TRAIN} training and {N_TEST} test patients, {N_FEATURES} features, "
        f"{N_GENES} genes; one cohort per seed ({seeds}). A hidden cause shows nearly clean in omics "
        "and in a quarter of the patches; the label is its sign after noise as large as itself. Each "
        "method is fitted with omics and with `omics=None`, all else equal, and predicts from slides. "
        "Intervals are t intervals of the paired differences over seeds.\n\n"
        + "\n".join(lines)
        + f"\nFor comparison (label / cause): {bounds}.\n\n{NOTES}\n\n"
        f"Machine: {platform.machine()}, {os.cpu_count()} cores, one thread, with other work on it; "
        f"{rows['cpu_seconds'].sum() / 60:.0f} processor minutes in all. "
        "Command: `python benchmarks/distillation.py`.\n"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5)))
    parser.add_argument("--results", type=Path, default=RESULTS)
    run(parser.parse_args())
