"""Which class does a tile speak for? Evidence, attention and the old reading of MoMKD's score.

    python benchmarks/evidence.py --data DATA [--seeds 0] [--methods ...] [--positive 1 0]
        [--epochs 12]

`DATA` (or the environment variable SK_MOMKD_DATA) holds the folder `tcga_brca_m2c`, in which the
cells of every tile are annotated. The label is `lymphocyte_rich`, folds keep patients together, and
every fit is repeated with the classes swapped, so that the memory of lymphocyte-rich slides is C+
once and C- once. Rows of `docs/results/evidence.csv` are slides of test folds; fits that are there
are not run again. `docs/results/evidence.md` is written from it.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
import warnings
from itertools import product
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import torch
from page import line, short, write_page
from real_cohorts import RESULTS, scale_patches
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_momkd import (
    ABMILClassifier,
    Bag,
    BagSequence,
    DSMILClassifier,
    DTFDMILClassifier,
    MoMKDClassifier,
    load_cohort,
    patch_attention,
    patch_evidence,
)

REGRESSION = "logistic regression"
METHODS = {
    "MoMKD": MoMKDClassifier,
    "MoMKD, linear head": lambda: MoMKDClassifier().set_params(network__head="linear"),
    "ABMIL": ABMILClassifier,
    "DSMIL": DSMILClassifier,
    "DTFD-MIL": DTFDMILClassifier,
    REGRESSION: None,
}
N_SPLITS, BATCH_SIZE = 2, 4
DIFFERENCE = "evidence - attention [95%]"
READINGS = {
    "attention": "attention",
    "score": "score, read as evidence for its class",
    "evidence": "evidence",
}


def read(data: Path):
    """Slides in memory, labels, omics, patients, and which tiles of a slide hold a lymphocyte."""
    folder = data / "tcga_brca_m2c"
    bags, y, omics, _ = load_cohort(
        folder / "labels.csv",
        folder / "features",
        folder / "omics.h5ad",
        label="lymphocyte_rich",
        positive=1,
    )
    cells = {}
    for name in bags.ids:
        with h5py.File(folder / "features" / f"{name}.h5") as file:
            cells[name] = file["cells"][:, 0] > 0
    patients = np.array(bags.patient_ids)
    bags = [Bag(b.features, b.coords, bag_id=b.bag_id, patient_id=b.patient_id) for b in bags]
    return BagSequence(bags), np.asarray(y).astype(int), omics, patients, cells


def fitted(method, bags, y, omics, positive, seed, epochs):
    """Pipeline of scaled tiles and a classifier of which `positive` is the positive class."""
    clf = METHODS[method]()
    clf.set_params(
        pos_label=positive,
        random_state=seed,
        max_epochs=epochs,
        batch_size=BATCH_SIZE,
        learning_rate=clf.learning_rate * (BATCH_SIZE / clf.batch_size) ** 0.5,
    )
    step = type(clf).__name__.lower()
    known = {f"{step}__omics": omics} if isinstance(clf, MoMKDClassifier) else {}
    return make_pipeline(scale_patches(), clf).fit(bags, y, **known)


def tile_values(model, bags, positive) -> pd.DataFrame:
    """Attention, score and evidence of each tile, the last two signed for lymphocyte-rich."""
    sign = 1 if positive == 1 else -1
    table = patch_attention(model, bags)
    own = "_1" if "attention_1" in table else ""  # DSMIL has a map for each class
    found = table[["bag_id"]].assign(attention=table[f"attention{own}"], score=np.nan)
    if isinstance(model[-1], MoMKDClassifier):
        found["score"] = sign * table["raw_attention"]
    found["evidence"] = sign * patch_evidence(model, bags)[f"evidence_{positive}"]
    return found


def regression_values(train, y, test) -> tuple[np.ndarray, pd.DataFrame]:
    """The same of a logistic regression on the mean tile, whose evidence is w . x."""
    scale = scale_patches().fit(train)
    means = [np.stack([b.features.mean(axis=0) for b in scale.transform(x)]) for x in (train, test)]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    model.fit(means[0], y)
    tables = [
        pd.DataFrame({"bag_id": bag.bag_id, "evidence": model.decision_function(bag.features)})
        for bag in scale.transform(test)
    ]
    return model.predict_proba(means[1])[:, 1], pd.concat(tables).assign(
        attention=1.0, score=np.nan
    )


def rows_of_fold(method, cohort, split, positive, seed, epochs) -> list[dict]:
    """A row per test slide: its probability, and AUC of each reading for tiles with lymphocytes."""
    bags, y, omics, _, cells = cohort
    train, test = split
    start = time.perf_counter()
    if METHODS[method] is None:
        proba, tiles = regression_values(bags[train], y[train], bags[test])
    else:
        model = fitted(method, bags[train], y[train], omics, positive, seed, epochs)
        proba = model.predict_proba(bags[test])[:, 1]
        tiles = tile_values(model, bags[test], positive)
    seconds = time.perf_counter() - start
    rows = []
    for i, (name, own) in enumerate(tiles.groupby("bag_id", sort=False)):
        truth = cells[name]
        row = {"slide": name, "rich": y[test][i], "p_rich": proba[i]}
        row |= {"tiles": len(truth), "with_lymphocytes": int(truth.sum())}
        for reading in READINGS:
            known = truth.any() and not truth.all() and own[reading].notna().all()
            row[reading] = roc_auc_score(truth, own[reading]) if known else np.nan
        rows.append({k: round(float(v), 4) if k != "slide" else v for k, v in row.items()})
    return [row | {"seconds": round(seconds, 1)} for row in rows]


def run(options: argparse.Namespace) -> pd.DataFrame:
    """Fit what is missing, and append its rows."""
    torch.set_num_threads(1)
    cohort = read(options.data)
    _, y, _, patients, _ = cohort
    path = options.write / "evidence.csv"
    table = pd.read_csv(path) if path.exists() else pd.DataFrame()
    keys = ["method", "positive", "seed", "fold"]
    done = set(map(tuple, table[keys].drop_duplicates().to_numpy().tolist())) if len(table) else ()
    for seed, positive, method in product(options.seeds, options.positive, options.methods):
        folds = StratifiedGroupKFold(N_SPLITS, shuffle=True, random_state=seed)
        for fold, split in enumerate(folds.split(y, y, patients)):
            key = (method, positive, seed, fold)
            if key in done or (METHODS[method] is None and positive == 0):
                continue
            rows = rows_of_fold(method, cohort, split, positive, seed, options.epochs)
            found = pd.DataFrame(rows).assign(**dict(zip(keys, key, strict=True)))
            table = pd.concat([table, found[[*keys, *found.columns.difference(keys, sort=False)]]])
            table.to_csv(path, index=False)
            print(key, found[list(READINGS)].mean().round(3).to_dict(), rows[0]["seconds"])
    return table


def page(table: pd.DataFrame, epochs: int) -> str:
    """The measured part of docs/results/evidence.md."""
    head = ["method", "memory of rich slides", "AUC of slides", *READINGS.values(), DIFFERENCE]
    rows = [
        table_row(method, positive, own)
        for method, positive in product(METHODS, (1, 0))
        if len(own := table[(table["method"] == method) & (table["positive"] == positive)])
    ]
    slides = table.drop_duplicates("slide")
    both = slides["attention"].notna()
    rich = slides["rich"] == 1
    seeds = sorted(table["seed"].unique())
    fits = table.drop_duplicates(["method", "positive", "seed", "fold"])
    about = (
        'AUC of a tile\'s value for "holds a lymphocyte" within a test slide: mean over the '
        f"{both.sum()} slides that have tiles of both kinds, and in brackets over the "
        f"{(both & rich).sum()} that are lymphocyte-rich and the {(both & ~rich).sum()} that are "
        f"not. Seeds of folds and fits: {len(seeds)}. {N_SPLITS} folds with patients together, at "
        f"most {epochs} epochs, batches of {BATCH_SIZE} (the learning rate times the root of "
        "their size), else the defaults. A row of `evidence.csv` is a slide of a test fold; AUC of "
        "slides is pooled over folds, mean of the seeds."
    )
    machine = (
        f"Machine: {platform.machine()}, {os.cpu_count()} cores, one thread, with other work on "
        f"it; {fits['seconds'].sum() / 60:.0f} minutes by the clock. Command: `python "
        f"benchmarks/evidence.py --data DATA --seeds {' '.join(map(str, seeds))}`."
    )
    return "\n".join([about, "", line(head), line(["---"] * len(head)), *rows, "", machine])


def table_row(method: str, positive: int, own: pd.DataFrame) -> str:
    """A row of the table: one method with one of the classes as the positive one."""
    auc = np.mean([roc_auc_score(p["rich"], p["p_rich"]) for _, p in own.groupby("seed")])
    memory = ("C-", "C+")[positive] if method.startswith("MoMKD") else f"(positive: {positive})"
    cells = [cell(own, reading) for reading in READINGS]
    return line([method, memory, short(auc), *cells, difference(own)])


def difference(own: pd.DataFrame) -> str:
    """Mean over slides of evidence minus attention, with a bootstrap interval over slides."""
    if METHODS[own["method"].iloc[0]] is None:
        return "-"
    per_slide = own.groupby("slide")[["evidence", "attention"]].mean().dropna()
    gain = (per_slide["evidence"] - per_slide["attention"]).to_numpy()
    drawn = np.random.default_rng(0).integers(0, len(gain), size=(2000, len(gain)))
    low, high = np.percentile(gain[drawn].mean(axis=1), [2.5, 97.5])
    return f"{short(gain.mean(), '+')} [{short(low, '+')}, {short(high, '+')}]"


def cell(own: pd.DataFrame, reading: str) -> str:
    """Mean over slides of their mean over seeds; of all, of the rich and of the others."""
    per_slide = own.groupby(["rich", "slide"])[reading].mean().dropna()
    if per_slide.empty:
        return "-"
    rich, other = (short(per_slide.loc[k].mean()) for k in (1, 0))
    return f"{short(per_slide.mean())} ({rich} / {other})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("SK_MOMKD_DATA", ""))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--positive", nargs="+", type=int, choices=[0, 1], default=[1, 0])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--write", type=Path, default=RESULTS)
    options = parser.parse_args()
    if not options.data.is_dir():
        parser.error("give --data or set SK_MOMKD_DATA")
    warnings.simplefilter("ignore")  # slides without a label
    found = run(options)
    title = "Which class does a tile speak for?"
    write_page(options.write / "evidence.md", title, page(found, options.epochs))
