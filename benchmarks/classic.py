"""ABMIL and DSMIL on the five classical MIL sets, beside the tables of their papers.

    python benchmarks/classic.py --data DATA [--methods ...] [--cohorts ...] [--runs 5]
    python benchmarks/classic.py --data DATA --check     (lockstep against `fit`, one fold)

`DATA` (or the environment variable SK_MOMKD_DATA) holds the folder `mil_classic`. Each row of
`docs/results/classic.csv` is one fit; runs that are there are not fitted again, so a stopped run
goes on where it was. `docs/results/classic.md` is the table.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from learning import read_cohort
from lockstep import Lockstep
from numpy.typing import NDArray
from page import line, short, write_page
from sklearn.metrics import accuracy_score, roc_auc_score, roc_curve
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from sk_momkd import ABMILClassifier, DSMILClassifier, InstanceTransformer

RESULTS = Path(__file__).parents[1] / "docs" / "results"
COHORTS = ("musk1", "musk2", "fox", "tiger", "elephant")
N_FOLDS = 10
# Learning rate, weight decay and 50 epochs: README of yanyongluan/MINNs, whose network ABMIL takes.
MINN_SETTINGS = {
    "musk1": (5e-4, 0.005),
    "musk2": (5e-4, 0.03),
    "fox": (1e-4, 0.01),
    "tiger": (5e-4, 0.005),
    "elephant": (1e-4, 0.005),
}
# The papers' tables (mean, and what stands behind +-) in the order of COHORTS, from memory.
PUBLISHED = {
    "ABMIL, attention": "0.892 0.040  0.858 0.048  0.615 0.043  0.839 0.022  0.868 0.022",
    "ABMIL, gated attention": "0.900 0.050  0.863 0.042  0.603 0.029  0.845 0.018  0.857 0.027",
    "DSMIL": "0.932 0.023  0.930 0.020  0.729 0.018  0.869 0.008  0.925 0.007",
}
METHODS = ("DSMIL", "ABMIL, attention", "DSMIL, linear", "ABMIL, gated attention")
KEY = ["method", "cohort", "run"]
MEASURES = {
    "accuracy": "last epoch, threshold .5",
    "best_epoch": "best epoch on the test fold, threshold .5",
    "best_epoch_and_threshold": "best epoch and best threshold on the test fold",
}


def make_classifier(method: str, cohort: str, seed: int) -> ABMILClassifier | DSMILClassifier:
    """The method as its paper trained it on this set."""
    if method.startswith("DSMIL"):
        printed = {"nonlinear": False, "value_layer": True} if method == "DSMIL, linear" else {}
        return DSMILClassifier.preset(
            "original",
            learning_rate=2e-4,
            weight_decay=5e-3,
            max_epochs=40,
            early_stopping=False,
            random_state=seed,
            **printed,
        )
    rate, decay = MINN_SETTINGS[cohort]
    return ABMILClassifier.preset(
        "original",
        hidden_dims=(256, 128),
        dim=64,
        attention_dim=64,
        gated=method == "ABMIL, gated attention",
        dropout=0.5,
        attention_dropout=0.0,
        training__optimizer="sgd",
        training__momentum=0.9,
        learning_rate=rate,
        weight_decay=decay,
        max_epochs=50,
        random_state=seed,
    )


def read_sorted(data: Path, cohort: str) -> tuple[Any, NDArray]:
    """Bags in order of size, which makes the steps of a lockstep cheap, and labels."""
    bags, y, _ = read_cohort(data, cohort)
    order = np.argsort([len(bag.features) for bag in bags], kind="stable")
    return bags[order], y[order]


def one_run(method: str, cohort: str, bags: Any, y: NDArray, run: int) -> list[dict[str, Any]]:
    """A row for each fold; folds with equally many training bags are trained in lockstep."""
    splitter = StratifiedKFold(N_FOLDS, shuffle=True, random_state=run)
    splits = list(splitter.split(y, y))
    rows = []
    for size in sorted({len(train) for train, _ in splits}):
        folds = [k for k, (train, _) in enumerate(splits) if len(train) == size]
        clf = make_classifier(method, cohort, run)
        rows += fit_folds(clf, bags, y, {k: splits[k] for k in folds})
    return [{"method": method, "cohort": cohort, "run": run} | row for row in rows]


def fit_folds(clf: Any, bags: Any, y: NDArray, splits: dict[int, Any]) -> list[dict[str, Any]]:
    """Scores of folds that are trained together."""
    start = time.process_time()
    training, test = [], []
    for train, held_out in splits.values():
        scaler = InstanceTransformer(StandardScaler())
        training.append(scaler.fit_transform(bags[train]))
        test.append(scaler.transform(bags[held_out]))
    stack = Lockstep(clf, training, [y[train] for train, _ in splits.values()])
    epochs = [stack.probabilities(test) for _ in stack.epochs()]
    fitted, seconds = stack.probabilities(training), time.process_time() - start
    return [
        {"fold": k}
        | scores(y[held_out], np.stack([epoch[i] for epoch in epochs]))
        | {"accuracy_train": round(accuracy_score(y[train], fitted[i] > 0.5), 4)}
        | {"cpu_seconds": round(seconds / len(splits), 1)}
        for i, (k, (train, held_out)) in enumerate(splits.items())
    ]


def scores(y: NDArray, p: NDArray) -> dict[str, Any]:
    """Accuracies of a test fold from the probabilities after each epoch, (epochs, bags)."""
    accuracies = ((p > 0.5) == y).mean(axis=1)
    return {
        "test_bags": len(y),
        "accuracy": round(accuracies[-1], 4),
        "auc": round(roc_auc_score(y, p[-1]), 4),
        "best_epoch": round(accuracies.max(), 4),
        "best_epoch_and_threshold": round(max(best_threshold(y, row) for row in p), 4),
        "number_of_best_epoch": int(accuracies.argmax()) + 1,
    }


def best_threshold(y: NDArray, p: NDArray) -> float:
    """Accuracy at the threshold where sensitivity plus specificity is largest on these bags."""
    false, true, thresholds = roc_curve(y, p, drop_intermediate=False)
    return float(((p >= thresholds[np.argmax(true - false)]) == y).mean())


def check(options: argparse.Namespace, max_epochs: int = 10) -> None:
    """Train one fold of Musk1 by `fit` and in lockstep, and keep the largest difference."""
    bags, y = read_sorted(options.data, "musk1")
    train, held_out = next(StratifiedKFold(N_FOLDS, shuffle=True, random_state=0).split(y, y))
    scaler = InstanceTransformer(StandardScaler())
    training, test = scaler.fit_transform(bags[train]), scaler.transform(bags[held_out])
    rows = []
    for method in options.methods:
        clf = make_classifier(method, "musk1", 0).set_params(max_epochs=max_epochs)
        stack = Lockstep(clf, [training, training], [y[train], y[train]])
        n_epochs = len(list(stack.epochs()))
        expected = clf.fit(training, y[train]).predict_proba(test)[:, 1]
        found = stack.probabilities([test, test])[1]
        difference = float(np.abs(found - expected).max())
        rows.append({"method": method, "epochs": n_epochs, "difference": difference})
        print(rows[-1], flush=True)
    pd.DataFrame(rows).to_csv(RESULTS / "classic_check.csv", index=False)


def run_all(options: argparse.Namespace) -> None:
    """Fit what is missing, with the rows after each run, and write the page."""
    path = RESULTS / "classic.csv"
    rows = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=[*KEY, "fold"])
    counts = rows.groupby(KEY).size().to_dict()
    for run, method, cohort in product(range(options.runs), options.methods, options.cohorts):
        if counts.get((method, cohort, run), 0) == N_FOLDS:
            continue
        bags, y = read_sorted(options.data, cohort)
        found = pd.DataFrame(one_run(method, cohort, bags, y, run))
        rows = pd.concat([rows, found], ignore_index=True) if len(rows) else found
        rows.to_csv(path, index=False)
        mean, seconds = found["accuracy"].mean(), found["cpu_seconds"].sum()
        print(f"{method}, {cohort}, run {run}: {mean:.3f} in {seconds:.0f} s", flush=True)
    write(rows)


def published(method: str, cohort: str) -> tuple[float, float]:
    """Mean and +- of the paper's table."""
    numbers = list(map(float, PUBLISHED[method.removesuffix(", linear")].split()))
    place = 2 * COHORTS.index(cohort)
    return numbers[place], numbers[place + 1]


def reached(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each method and set: mean over runs and folds, and spread over runs and folds."""
    found = []
    for (method, cohort), group in rows.groupby(["method", "cohort"], sort=False):
        runs = group.groupby("run")["accuracy"].mean()
        mean, spread = published(method, cohort)
        found.append(
            {
                "method": method,
                "cohort": cohort,
                "runs": len(runs),
                "published": mean,
                "published_spread": spread,
                **{name: group[name].mean() for name in MEASURES},
                "sd_runs": runs.std(ddof=1),
                "sd_folds": group["accuracy"].std(ddof=1),
                "auc": group["auc"].mean(),
                "accuracy_train": group["accuracy_train"].mean(),
                "cpu_seconds": group["cpu_seconds"].mean(),
            }
        )
    table = pd.DataFrame(found)
    order = {name: i for i, name in enumerate([*METHODS, *COHORTS])}
    return table.sort_values(["method", "cohort"], key=lambda column: column.map(order))


def write(rows: pd.DataFrame) -> None:
    """The page below its text."""
    table = reached(rows)
    head = ["method", "set", "runs", "published", "reached", "SD of runs", "SD of folds"]
    head += ["difference", "within ±", "best epoch on the test fold", "and best threshold"]
    lines = [head, ["---"] * len(head)]
    for row in table.itertuples():
        gap = row.accuracy - row.published
        lines.append(
            [
                row.method,
                row.cohort,
                str(row.runs),
                f"{short(row.published)} ± {short(row.published_spread)}",
                f"**{short(row.accuracy)}**",
                short(row.sd_runs) if row.runs > 1 else "-",
                short(row.sd_folds),
                short(gap, "+"),
                "yes" if abs(gap) <= row.published_spread else "no",
                short(row.best_epoch),
                short(row.best_epoch_and_threshold),
            ]
        )
    text = "\n".join(map(line, lines)) + f"\n\n{_checked()}{_machine(table)}"
    write_page(RESULTS / "classic.md", "The classical MIL sets", text)


def _checked() -> str:
    path = RESULTS / "classic_check.csv"
    if not path.exists():
        return ""
    parts = [
        f"{row.method} {row.difference:.1e} ({row.epochs} epochs)"
        for row in pd.read_csv(path).itertuples()
    ]
    return (
        "Largest difference of a test probability between the training in lockstep and `fit`, "
        f"at the end of training on one fold of Musk1: {'; '.join(parts)}.\n\n"
    )


def _machine(table: pd.DataFrame) -> str:
    seconds = table.groupby("method", sort=False)["cpu_seconds"].mean()
    each = ", ".join(f"{name} {value:.1f}" for name, value in seconds.items())
    return (
        f"CPU seconds per fit: {each}. Machine: {platform.machine()}, {os.cpu_count()} cores, one "
        "thread, with other work on it. Command: `python benchmarks/classic.py --data DATA`; each "
        "fit is a row of `classic.csv`, with AUC and training accuracy."
    )


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("SK_MOMKD_DATA"))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--cohorts", nargs="+", choices=COHORTS, default=COHORTS)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    if options.data is None:
        parser.error("--data or SK_MOMKD_DATA is needed.")
    options.data = Path(options.data)
    return options


if __name__ == "__main__":
    torch.set_num_threads(1)
    given = parse()
    if given.check:
        check(given)
    else:
        run_all(given)
