"""The paper as printed, the authors' script and the defaults: AUC, and what each loss term weighs.

    python benchmarks/presets.py --data DATA [--seeds 0 1 2] [--batch-size 16] [--max-epochs 12]
        [--patches 64]

`DATA` (or the environment variable SK_MOMKD_DATA) holds the folders `tcga_brca` and `tcga_blca`. A
seed draws five folds of whole sites; one of them is the test part, the others are trained on. All
presets see the same folds, and a seed of folds is the seed of the fit. With batches of B slides
(published: 1) the learning rate is sqrt(B) times the preset's. The script's rule of stopping counts
epochs, of which it takes few; a fourth row is `preset("release")` with the rule of the other two.

Each fit is a row of `docs/results/presets.csv`; rows that are there are not fitted again, so a
stopped run goes on where it was. Seeds are the outer loop, so that all presets have been compared
whenever it stops.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from page import line, short, write_page
from real_cohorts import RESULTS, scale_patches
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline

from sk_momkd import (
    Bag,
    BagSequence,
    MoMKDClassifier,
    PatientStratifiedKFold,
    align_omics,
    load_cohort,
)

PRESETS = {
    "paper": ("paper", {}),
    "release": ("release", {}),
    "release, stopped as default": ("release", {"patience": 15, "training__min_epochs": 10}),
    "default": ("default", {}),
}
TASKS = {"tcga_brca": ["her2", "pr"], "tcga_blca": ["infiltrate_strong", "tp53_mut"]}
# Terms of the objective and the parameters that weigh them.
WEIGHTS = {
    "ce": "loss__lambda_ce",
    "memory": "lambda_mem",
    "align_wsi": "alpha_wsi",
    "align_omics": "alpha_omics",
    "mse": "lambda_mse",
}
NAMES = {
    "ce": "CE",
    "memory": "L_mem",
    "align_wsi": "L_wsi",
    "align_omics": "L_omics",
    "mse": "L_mse",
}
KEY = ["cohort", "label", "preset", "seed", "batch_size", "max_epochs", "patches"]
N_SPLITS = 5


def read_task(data: Path, cohort: str, label: str, n_patches: int):
    """Bags of at most `n_patches` random patches, labels, omics and sites."""
    table = pd.read_csv(data / cohort / "labels.csv", dtype={"slide_id": str, "case_id": str})
    table = table[table[label].notna()]
    bags, y, omics, report = load_cohort(
        table, data / cohort / "features", data / cohort / "omics.h5ad", label=label, positive=1
    )
    print(f"{cohort} {label}\n{report}", flush=True)
    sites = table.set_index("slide_id").loc[list(bags.ids), "site"].to_numpy()
    return thinned(bags, n_patches), y.astype(int), align_omics(omics, bags), sites


def thinned(bags: BagSequence, n_patches: int) -> BagSequence:
    """Random patches of each bag, at most `n_patches`, always the same ones."""
    random, thin = np.random.default_rng(0), []
    for bag in bags:
        n = len(bag.features)
        kept = np.sort(random.choice(n, min(n, n_patches), replace=False))
        ids = {"bag_id": bag.bag_id, "patient_id": bag.patient_id}
        thin.append(Bag(bag.features[kept], bag.coords[kept], **ids))
    return BagSequence(thin)


def classifier(name: str, seed: int, options: argparse.Namespace) -> MoMKDClassifier:
    """A preset with the batches and epochs of the call."""
    preset, own = PRESETS[name]
    given = {"batch_size": options.batch_size, "max_epochs": options.max_epochs, **own}
    clf = MoMKDClassifier.preset(preset, **given, random_state=seed, device="cpu")
    return clf.set_params(learning_rate=clf.learning_rate * options.batch_size**0.5)


def one_fit(task, clf: MoMKDClassifier) -> dict[str, object]:
    """AUC of the test fold, epochs, and each weighted term by epoch."""
    bags, y, omics, sites = task
    folds = PatientStratifiedKFold(N_SPLITS, random_state=clf.random_state)
    train, test = next(folds.split(bags, y, sites))
    model = make_pipeline(scale_patches(), clf)
    start = time.process_time()
    model.fit(
        bags[train], y[train], momkdclassifier__omics=omics, momkdclassifier__groups=sites[train]
    )
    seconds, fitted = time.process_time() - start, model[-1]
    return {
        "train": len(train) - len(fitted.validation_),
        "validation": len(fitted.validation_),
        "test": len(test),
        "positive_test": int(y[test].sum()),
        "auc": round(float(roc_auc_score(y[test], model.predict_proba(bags[test])[:, 1])), 4),
        "epochs": fitted.n_iter_,
        "best_epoch": int(fitted.history_["best_so_far"].to_numpy().nonzero()[0][-1]) + 1,
        "cpu_seconds": round(seconds, 1),
        **weighted(fitted),
    }


def weighted(fitted: MoMKDClassifier) -> dict[str, str]:
    """Mean of each term over the training bags of an epoch times its weight, epoch by epoch."""
    parameters, history = fitted.get_params(), fitted.history_
    values = {t: parameters[weight] * history[f"train_{t}"] for t, weight in WEIGHTS.items()}
    return {term: " ".join(f"{v:.4g}" for v in column) for term, column in values.items()}


def run(options: argparse.Namespace) -> None:
    """Fit what is missing; write the row after each fit, and the page."""
    torch.set_num_threads(1)
    path = options.write
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    done = {tuple(row[name] for name in KEY) for row in rows}
    tasks: dict[tuple[str, str], tuple] = {}
    labels = [(cohort, label) for cohort in TASKS for label in TASKS[cohort]]
    labels = [task for task in labels if task[1] in options.labels]
    for seed, (cohort, label), preset in product(options.seeds, labels, options.presets):
        key = (cohort, label, preset, seed, *(getattr(options, name) for name in KEY[4:]))
        if key in done:
            continue
        if (cohort, label) not in tasks:
            tasks[cohort, label] = read_task(options.data, cohort, label, options.patches)
        row = one_fit(tasks[cohort, label], classifier(preset, seed, options))
        machine = f"{platform.machine()}, {os.cpu_count()} cores"
        rows.append(dict(zip(KEY, key, strict=True)) | row | {"machine": machine})
        print(rows[-1], flush=True)
        pd.DataFrame(rows).to_csv(path, index=False)
        write(pd.DataFrame(rows), path)
    if rows:
        write(pd.DataFrame(rows), path)


def write(rows: pd.DataFrame, path: Path) -> None:
    """The page beside the table."""
    title = "The paper as printed, the authors' script, and the defaults"
    write_page(path.with_suffix(".md"), title, as_markdown(rows))


def as_markdown(rows: pd.DataFrame) -> str:
    """AUC and epochs, then the weighted terms, then how it was run."""
    names = [*TASKS, *(label for labels in TASKS.values() for label in labels), *PRESETS]
    order = {name: i for i, name in enumerate(names)}
    rows = rows.sort_values(KEY[:3], key=lambda column: column.map(order), kind="stable")
    parts = []
    for (batch, epochs, patches), group in rows.groupby(KEY[4:], sort=False):
        cut = f"Batches of {batch}, at most {epochs} epochs, at most {patches} patches of a slide"
        parts += [f"## {cut}", scores(group), terms(group), claim(group), size(group)]
    return "\n\n".join(parts)


def scores(rows: pd.DataFrame) -> str:
    """A line per task and preset: AUC over the seeds, epochs and time; then means over tasks."""
    head = ["cohort", "label", "preset", "seeds", "AUC (SD)", "epochs", "best epoch", "s per fit"]
    lines = [line(head), line(["---"] * len(head))]
    for (cohort, label, preset), group in rows.groupby(KEY[:3], sort=False):
        spread = f" ({short(group['auc'].std())})" if len(group) > 1 else ""
        counts = [f"{group[name].mean():.1f}" for name in ("epochs", "best_epoch")]
        cells = [cohort, label, preset, str(len(group)), short(group["auc"].mean()) + spread]
        lines.append(line([*cells, *counts, f"{group['cpu_seconds'].mean():.0f}"]))
    n_tasks = len(rows[["cohort", "label"]].drop_duplicates())
    for preset, group in rows.groupby("preset", sort=False):
        means = group.groupby("seed")["auc"].agg(["mean", "count"])
        if (means["count"] == n_tasks).all() and n_tasks > 1:
            spread = f" ({short(means['mean'].std())})" if len(means) > 1 else ""
            cells = ["mean", "", preset, str(len(means)), short(means["mean"].mean()) + spread]
            lines.append(line([*cells, "", "", ""]))
    return "\n".join(lines)


def by_epoch(rows: pd.DataFrame) -> pd.DataFrame:
    """The weighted terms of every epoch of every fit, a row each."""
    return pd.DataFrame(
        {"row": index, "epoch": epoch, **dict(zip(WEIGHTS, values, strict=True))}
        for index, row in rows.iterrows()
        for epoch, values in enumerate(
            zip(*(map(float, str(row[t]).split()) for t in WEIGHTS), strict=True), 1
        )
    )


def terms(rows: pd.DataFrame) -> str:
    """Weighted terms of the first and last epoch of training, means over the fits."""
    names = list(NAMES.values())
    head = ["cohort", "preset", "epoch", *names, "L_mem / CE"]
    lines = [
        "Each term times its weight, mean over the training bags of an epoch and the fits:",
        "",
    ]
    lines += [line(head), line(["---"] * len(head))]
    for (cohort, preset), group in rows.groupby(["cohort", "preset"], sort=False):
        epochs = by_epoch(group).groupby("row")
        for name, found in (("first", epochs.first()), ("last", epochs.last())):
            mean = found[list(WEIGHTS)].mean()
            cells = [cohort, preset, name, *(f"{v:.3g}" for v in mean)]
            lines.append(line([*cells, f"{mean['memory'] / mean['ce']:.2g}"]))
    return "\n".join(lines)


def claim(rows: pd.DataFrame) -> str:
    """In how many epochs each term lies above the cross-entropy."""
    others = list(WEIGHTS)[1:]
    head = ["preset", "epochs", *(NAMES[t] for t in others), "any of them", "their sum"]
    lines = [
        "Share of the epochs in which a weighted term is above the weighted cross-entropy:",
        "",
    ]
    lines += [line(head), line(["---"] * len(head))]
    for preset, group in rows.groupby("preset", sort=False):
        epochs = by_epoch(group)
        above = epochs[others].gt(epochs["ce"], axis=0)
        total = epochs[others].sum(axis=1) > epochs["ce"]
        shares = [*above.mean(), above.any(axis=1).mean(), total.mean()]
        lines.append(line([preset, str(len(epochs)), *(f"{100 * s:.0f} %" for s in shares)]))
    return "\n".join(lines)


def size(rows: pd.DataFrame) -> str:
    """What was fitted, on what, and for how long."""
    first = rows.groupby(["cohort", "label"], sort=False).first()
    sizes = "; ".join(
        f"{cohort} {label}: {r.train + r.validation} bags, {r.validation} of them for validation, "
        f"and {r.test} in the test part, {r.positive_test} positive"
        for (cohort, label), r in first.iterrows()
    )
    minutes = rows["cpu_seconds"].sum() / 60
    named = {"seeds": "seed", "labels": "label"}
    chosen = " ".join(f"--{k} {' '.join(map(str, rows[v].unique()))}" for k, v in named.items())
    return (
        f"{len(rows)} fits, {minutes:.0f} processor minutes, one thread, shared "
        f"({'; '.join(rows['machine'].unique())}). Of the first seed: {sizes}. Command: `python "
        f"benchmarks/presets.py --data DATA {chosen} --batch-size {rows['batch_size'].iloc[0]} "
        f"--max-epochs {rows['max_epochs'].iloc[0]} --patches {rows['patches'].iloc[0]}`."
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("SK_MOMKD_DATA", ""))
    known = [label for labels in TASKS.values() for label in labels]
    parser.add_argument("--labels", nargs="+", default=known, choices=known)
    parser.add_argument("--presets", nargs="+", default=list(PRESETS), choices=list(PRESETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--batch-size", type=int, default=16, help="slides per step")
    parser.add_argument("--max-epochs", type=int, default=12)
    parser.add_argument("--patches", type=int, default=64, help="patches per bag, at most")
    parser.add_argument("--write", type=Path, default=RESULTS / "presets.csv")
    options = parser.parse_args()
    if not options.data.is_dir():
        parser.error("give --data or set SK_MOMKD_DATA")
    run(options)
