"""Out-of-fold AUC on real cohorts: MoMKD with and without omics, and logistic regression.

    python benchmarks/real_cohorts.py --data DATA [--cohorts ...] [--seeds 0 1] [--repeats 3]

`DATA` (or the environment variable SK_MOMKD_DATA) holds the folders `tcga_brca` and `her2st`.
Each cross-validation is a row of a table (docs/results); rows that are there are not run
again, so a stopped run goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sk_momkd import InstanceTransformer, MoMKDClassifier, align_omics, load_cohort

RESULTS = Path(__file__).parents[1] / "docs" / "results"
MODELS = (
    "MoMKD with omics",
    "MoMKD with omics, bfloat16",
    "MoMKD without omics",
    "logistic regression",
)
TASKS = {
    "tcga_brca": {"label": ["her2", "pr"], "groups": "site", "n_splits": 5},
    "her2st": {"label": ["label"], "groups": "case_id", "n_splits": 3},
}


def read_task(data: Path, cohort: str, label: str):
    """Bags, labels, omics and the groups that folds keep together."""
    table = pd.read_csv(data / cohort / "labels.csv", dtype={"slide_id": str, "case_id": str})
    table = table[table[label].notna()]
    bags, y, omics, report = load_cohort(
        table, data / cohort / "features", data / cohort / "omics.h5ad", label=label, positive=1
    )
    groups = table.set_index("slide_id").loc[list(bags.ids), TASKS[cohort]["groups"]].to_numpy()
    return bags, y.astype(int), align_omics(omics, bags), groups, report


def scale_patches():
    """z-scores over the training patches, clipped at six standard deviations."""
    clip = FunctionTransformer(np.clip, kw_args={"a_min": -6, "a_max": 6})
    return InstanceTransformer(make_pipeline(StandardScaler(), clip))


def one_fold(bags, y, omics, groups, split, random_state, precision="float32"):
    """Scores of the test fold and what the fit took."""
    torch.set_num_threads(1)
    train, test = split
    momkd = MoMKDClassifier.preset("default", random_state=random_state, precision=precision)
    inner = groups[train]
    if len(np.unique(groups)) < 8:  # three patients: too few to hold some out for validation
        momkd.set_params(early_stopping=False, max_epochs=20)
        inner = None
    model = make_pipeline(scale_patches(), momkd)
    start = time.perf_counter()
    model.fit(bags[train], y[train], momkdclassifier__omics=omics, momkdclassifier__groups=inner)
    return {
        "scores": model.predict_proba(bags[test])[:, 1],
        "epochs": model[-1].n_iter_,
        "seconds": time.perf_counter() - start,
    }


def pooled_regression(bags, y, omics, groups, split, random_state):
    """The same for a logistic regression on the mean of the scaled patches."""
    train, test = split
    start = time.perf_counter()
    scaled = scale_patches().fit(bags[train])
    means = [
        np.stack([bag.features.mean(axis=0) for bag in scaled.transform(bags[part])])
        for part in (train, test)
    ]
    regression = LogisticRegression(C=0.01, max_iter=2000, class_weight="balanced")
    model = make_pipeline(StandardScaler(), regression).fit(means[0], y[train])
    return {
        "scores": model.predict_proba(means[1])[:, 1],
        "epochs": 0,
        "seconds": time.perf_counter() - start,
    }


def run(options: argparse.Namespace) -> None:
    """Fit what is missing and write the table after each row."""
    options.write.parent.mkdir(parents=True, exist_ok=True)
    path = options.write
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    done = {(r["cohort"], r["label"], r["model"], r["split_seed"], r["repeat"]) for r in rows}
    for cohort, label in ((c, x) for c in options.cohorts for x in TASKS[c]["label"]):
        bags, y, omics, groups, report = read_task(options.data, cohort, label)
        print(f"{cohort} {label}\n{report}", flush=True)
        for repeat, seed, name in product(range(options.repeats), options.seeds, options.models):
            once = name == "logistic regression" and repeat > 0  # it has no random start
            if once or (cohort, label, name, seed, repeat) in done:
                continue
            n_splits = TASKS[cohort]["n_splits"]
            folds = StratifiedGroupKFold(n_splits, shuffle=True, random_state=seed)
            splits = list(folds.split(y, y, groups))
            table = omics if name.startswith("MoMKD with omics") else None
            fit = pooled_regression if name == "logistic regression" else one_fold
            if name.endswith("bfloat16"):
                fit = partial(one_fold, precision="bfloat16")
            fits = Parallel(options.n_jobs)(
                delayed(fit)(bags, y, table, groups, split, seed + 100 * repeat) for split in splits
            )
            key = {"cohort": cohort, "label": label, "model": name}
            rows.append(key | {"split_seed": seed, "repeat": repeat} | summary(y, splits, fits))
            print(rows[-1], flush=True)
            pd.DataFrame(rows).to_csv(path, index=False)


def summary(y, splits, fits) -> dict:
    """One row of the results: AUC within folds (mean, SD) and pooled over folds."""
    within = [roc_auc_score(y[t], f["scores"]) for (_, t), f in zip(splits, fits, strict=True)]
    pooled = np.empty(len(y))
    for (_, test), fit in zip(splits, fits, strict=True):
        pooled[test] = fit["scores"]
    return {
        "bags": len(y),
        "positives": int(y.sum()),
        "auc_mean": round(float(np.mean(within)), 4),
        "auc_sd": round(float(np.std(within, ddof=1)), 4),
        "auc_pooled": round(float(roc_auc_score(y, pooled)), 4),
        "epochs": round(float(np.mean([f["epochs"] for f in fits])), 1),
        "seconds": round(float(sum(f["seconds"] for f in fits)), 1),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--write", type=Path, default=RESULTS / "real_cohorts.csv")
    parser.add_argument("--data", type=Path, default=os.environ.get("SK_MOMKD_DATA", ""))
    parser.add_argument("--cohorts", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--repeats", type=int, default=3, help="fits per fold, other seeds")
    parser.add_argument("--n-jobs", type=int, default=2)
    options = parser.parse_args()
    if not options.data.is_dir():
        parser.error("give --data or set SK_MOMKD_DATA")
    run(options)
