"""How much of the logits should a regression on pooled slides have? `pooled_share` of preset small.

    python benchmarks/pooled_share.py --data DATA

`DATA` (or the environment variable SK_MOMKD_DATA) holds `tcga_brca`, `tcga_blca` and `mil_classic`.
Network and regression are trained by themselves, so one fit is scored with every share: 0 is the
network alone, 1 the regression alone. AUC in three folds by site within the training part of the
development split of the two cohorts, without omics and with the weight 0.8; at a second hospital of
simulated cohorts, with right labels and with three of ten wrong; and in five folds of the classical
sets. A row per fold in docs/results/pooled_share.csv, from which a stopped run goes on; the means
are printed.
"""

from __future__ import annotations

import argparse
import copy
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from network_students import SEED_OF_DEVELOPMENT, development_fold, fit, read_cohort
from privileged_students import RESULTS, TASKS
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from sk_momkd import InstanceTransformer, MoMKDClassifier, load_cohort, simulate_cohort

SHARES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
CLASSICAL = ("musk1", "elephant", "fox", "tiger", "ucsb_708")
SIZE = {"n_patches": 20, "n_features": 32, "n_genes": 300}
Task = tuple[tuple[str, str, int], Callable[[], list[dict[str, Any]]]]


def by_share(clf: Any, bags: Any, y: Any) -> dict[str, float]:
    """AUC with each share of the regression."""
    twin, found = copy.copy(clf), {}
    for share in SHARES:
        twin.pooled_head_ = replace(clf.pooled_head_, share=share)
        found[f"{share:g}"] = round(roc_auc_score(y, twin.predict_proba(bags)[:, 1]), 4)
    return found


def real(data: Path, name: str) -> Iterator[Task]:
    whole = read_cohort(data / name, 64)
    for label in TASKS[name]:
        for fold in range(3):
            yield (name, label, fold), lambda label=label, fold=fold: real_fold(whole, label, fold)


def real_fold(whole: Any, label: str, fold: int) -> list[dict[str, Any]]:
    (training, y), (test, y_test) = development_fold(whole, label, fold)
    arms = {"without omics": (None, 0.0), "weight 0.8": (training.omics, 0.8)}
    return [
        {"arm": arm} | by_share(fit(training, y, omics, lambda_teacher=w), test.bags, y_test)
        for arm, (omics, w) in arms.items()
    ]


def simulated(noise: float) -> Iterator[Task]:
    for seed in range(3):
        name = "right labels" if noise == 0 else "three of ten labels wrong"
        yield ("simulated", name, seed), lambda seed=seed: second_hospital(noise, seed)


def second_hospital(noise: float, seed: int) -> list[dict[str, Any]]:
    with TemporaryDirectory() as folder:
        known = {"n_patients": 150, "label_noise": noise, "omics_effect": 2.0}
        paths = simulate_cohort(f"{folder}/a", **known, random_state=20 + seed, **SIZE)
        other = {"n_patients": 200, "prefix": "EXT", "stain_shift": 0.2, "random_state": 200 + seed}
        second = simulate_cohort(f"{folder}/b", **other, **SIZE)
        named = {"label": "subtype", "positive": "aggressive"}
        bags, y, omics, _ = load_cohort(*paths, **named)
        unseen = load_cohort(second.table, second.features, **named)
        scale = InstanceTransformer(StandardScaler()).fit(bags)
        bags, test = scale.transform(bags), scale.transform(unseen.bags)
        arms = {"without omics": (None, 0.0), "weight 0.8": (omics, 0.8)}
        found = []
        for arm, (given, weight) in arms.items():
            clf = MoMKDClassifier.preset("small", random_state=seed, lambda_teacher=weight)
            clf.fit(bags, y, omics=given)
            found.append({"arm": arm} | by_share(clf, test, np.asarray(unseen.y)))
        return found


def classical(data: Path, name: str) -> Iterator[Task]:
    stored = np.load(data / "mil_classic" / f"{name}.npz")
    y = stored["y"].astype(int)
    bags = [stored["X"][stored["bag"] == i].astype(np.float32) for i in range(len(y))]
    splitter = StratifiedKFold(5, shuffle=True, random_state=SEED_OF_DEVELOPMENT)
    for fold, parts in enumerate(splitter.split(y, y)):
        yield (name, "published", fold), lambda parts=parts: classical_fold(bags, y, *parts)


def classical_fold(bags: Any, y: Any, train: Any, held: Any) -> list[dict[str, Any]]:
    scale = InstanceTransformer(StandardScaler()).fit([bags[i] for i in train])
    training, test = (scale.transform([bags[i] for i in part]) for part in (train, held))
    clf = MoMKDClassifier.preset("small", random_state=0).fit(training, y[train])
    return [{"arm": "without omics"} | by_share(clf, test, y[held])]


def tasks(data: Path) -> Iterator[Task]:
    for name in TASKS:
        yield from real(data, name)
    for noise in (0.0, 0.3):
        yield from simulated(noise)
    for name in CLASSICAL:
        yield from classical(data, name)


def main(data: Path) -> None:
    path = RESULTS / "pooled_share.csv"
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    done = {(row["cohort"], row["label"], row["fold"]) for row in rows}
    for key, run in tasks(data):
        if key in done:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = run()
        rows += [dict(zip(("cohort", "label", "fold"), key, strict=True)) | one for one in found]
        pd.DataFrame(rows).to_csv(path, index=False)
        print(*key, flush=True)
    table = pd.DataFrame(rows)
    table["label"] = table["label"].where(table["cohort"] == "simulated", "mean")
    keys = ["cohort", "label", "arm"]
    means = table.groupby(keys, sort=False)[[f"{share:g}" for share in SHARES]].mean()
    print(means.round(3).to_string())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("SK_MOMKD_DATA", ""))
    main(parser.parse_args().data)
