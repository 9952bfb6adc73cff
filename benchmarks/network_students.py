"""Does omics help networks by soft labels? `lambda_teacher="auto"` on real cohorts.

    python benchmarks/network_students.py --data DATA [--cohorts ...] [--seeds 31 32 33]
                                          [--patches 64] [--unscaled] [--predictions FILE]
    python benchmarks/network_students.py --data DATA --develop

`DATA` (or the environment variable SK_MOMKD_DATA) holds the folders `tcga_brca` and `tcga_blca`.
Five folds by site per split seed, `MoMKDClassifier.preset("small")`. Arms: without omics; with it
and `lambda_teacher="auto"`; with the weight that was chosen, omics permuted within each class; and
with that weight, pooled slides in place of omics (self-distillation). Slides have at most so many
patches, drawn once; features are z-scores of the training patches, or as stored (`--unscaled`).
Then simulated cohorts where nothing can be gained. Predictions of patients go to FILE, from which a
stopped run goes on; `--write` makes table and page of it. The two parts of the logits, network and
regression on pooled bags, are also scored by themselves. `--develop` compares weights in folds
within the training part of one split that is not among these.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import tempfile
import time
import warnings
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import anndata
import numpy as np
import pandas as pd
from page import line, short, write_page
from privileged_students import (
    NULLS,
    RESULTS,
    TASKS,
    by_fold,
    cohort_table,
    differences,
    folds,
    interval,
    permuted,
    student,
)
from real_cohorts import scale_patches
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from sk_momkd import Bag, BagPooling, BagSequence, MoMKDClassifier, read_bags

NAME = "network_students"
SEED_OF_DEVELOPMENT = 999
WEIGHTS_OF_DEVELOPMENT = {"0": 0.0, "0.8": 0.8, "auto": "auto"}
PARTS = [f"{part}, {arm}" for arm in ("without", "with") for part in ("network", "regression")]
SCORED = ["without", "with", *PARTS]


class Cohort(NamedTuple):
    """Bags of patients, their labels and sites, omics, and pooled bags."""

    bags: BagSequence
    table: pd.DataFrame
    omics: pd.DataFrame
    pooled: pd.DataFrame

    def at(self, rows: Any) -> Cohort:
        return self._replace(
            bags=self.bags[rows], table=self.table.iloc[rows], pooled=self.pooled.iloc[rows]
        )

    def labelled(self, label: str) -> Cohort:
        return self.at(np.flatnonzero(self.table[label].notna()))


def read_cohort(folder: Path, n_patches: int) -> Cohort:
    """One bag per patient, with at most `n_patches` patches."""
    table = pd.read_csv(folder / "labels.csv", dtype={"slide_id": str, "case_id": str})
    stored, random = read_bags(folder / "features"), np.random.default_rng(0)
    place, found = {name: i for i, name in enumerate(stored.ids)}, []
    for slide, patient in table[["slide_id", "case_id"]].itertuples(index=False):
        arrays = stored.load(place[slide])
        rows = np.arange(len(arrays.features))
        if len(rows) > n_patches:
            rows = np.sort(random.choice(rows, n_patches, replace=False))
        coords = None if arrays.coords is None else arrays.coords[rows]
        found.append(Bag(arrays.features[rows], coords=coords, patient_id=patient))
    bags, table = BagSequence(found), table.set_index("case_id")
    pooled = pd.DataFrame(BagPooling("mean+std").fit_transform(bags), index=table.index)
    return Cohort(bags, table, anndata.read_h5ad(folder / "omics.h5ad").to_df(), pooled)


def fit(cohort: Cohort, y: Any, omics: pd.DataFrame | None, **parameters: Any) -> Any:
    """The network, with its processor time in `seconds`."""
    clf = MoMKDClassifier.preset("small", device="cpu", random_state=0, **parameters)
    start = time.process_time()
    with warnings.catch_warnings():  # few patients with omics are reported by weight 0
        warnings.simplefilter("ignore")
        clf.fit(cohort.bags, y, omics=omics)
    clf.seconds = time.process_time() - start
    return clf


def arms_of(training: Cohort, y: Any, test: Cohort, seed: int) -> pd.DataFrame:
    """Scores of the test patients by arm, the weight, and seconds of two arms."""
    clf = fit(training, y, training.omics, lambda_teacher="auto")
    mixed = permuted(training.omics, training.table.index, y, seed)
    given = {"lambda_teacher": clf.lambda_teacher_}
    fitted = {
        "without": fit(training, y, None),
        "with": clf,
        "permuted": fit(training, y, mixed, **given),
        "self-distillation": fit(training, y, training.pooled, teacher=student(), **given),
    }
    scores = {arm: one.predict_proba(test.bags)[:, 1] for arm, one in fitted.items()}
    seconds = {"with_seconds": clf.seconds, "permuted_seconds": fitted["permuted"].seconds}
    for part, share in (("network", 0.0), ("regression", 1.0)):
        for arm in ("without", "with"):
            scores[f"{part}, {arm}"] = score_of_part(fitted[arm], share, test.bags)
    found = pd.DataFrame(scores, index=test.table.index).rename_axis("patient")
    return found.assign(weight=clf.lambda_teacher_, **seconds)


def score_of_part(clf: Any, share: float, bags: BagSequence) -> Any:
    """Scores with this share of the regression on pooled bags; training does not depend on it."""
    twin = copy.copy(clf)
    twin.pooled_head_ = replace(clf.pooled_head_, share=share)
    return twin.predict_proba(bags)[:, 1]


def scaled(training: Cohort, test: Cohort) -> tuple[Cohort, Cohort]:
    """Features as z-scores over the training patches, clipped at six standard deviations."""
    scale = scale_patches().fit(training.bags)
    first, second = (one._replace(bags=scale.transform(one.bags)) for one in (training, test))
    return first, second


def one_fold(cohort: Cohort, label: str, seed: int, fold: int, *, unscaled: bool) -> pd.DataFrame:
    """A row per test patient."""
    start, cohort = time.process_time(), cohort.labelled(label)
    y = cohort.table[label].to_numpy().astype(int)
    train, held = folds(cohort, y, seed)[fold]
    parts = cohort.at(train), cohort.at(held)
    training, test = parts if unscaled else scaled(*parts)
    found = arms_of(training, y[train], test, seed)
    return found.assign(y=y[held], seconds=time.process_time() - start).reset_index()


def simulated_null(what: str, seed: int) -> pd.DataFrame:
    """The same for a simulated cohort in which nothing can be gained."""
    from sk_momkd import load_cohort, simulate_cohort

    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        paths = simulate_cohort(folder, n_patients=300, n_patches=8, random_state=seed)
        bags, labels, omics, _ = load_cohort(*paths, label="subtype")
        bags = BagSequence([Bag(b.load().features, patient_id=b.patient_id) for b in bags])
    random = np.random.default_rng(seed)
    y, names = pd.factorize(labels, sort=True)[0], [bag.patient_id for bag in bags]
    genes, order = omics.to_df().loc[names], random.permutation(len(y))
    if what == "labels":
        y = y[order]
    elif what == "omics":
        genes = genes.iloc[order].set_axis(genes.index)
    else:
        bags = BagSequence(
            [Bag(bags[j].features, patient_id=n) for j, n in zip(order, names, strict=True)]
        )
    cohort = Cohort(bags, pd.DataFrame(index=names), genes, pd.DataFrame(index=names))
    train, held = order[: len(y) // 2], order[len(y) // 2 :]
    training, test = cohort.at(train), cohort.at(held)
    clf = fit(training, y[train], genes, lambda_teacher="auto")
    without = fit(training, y[train], None).predict_proba(test.bags)[:, 1]
    scores = {"with": clf.predict_proba(test.bags)[:, 1], "without": without}
    scores |= {"permuted": np.nan, "self-distillation": np.nan}
    found = pd.DataFrame(scores, index=test.table.index).rename_axis("patient")
    named = {"y": y[held], "weight": clf.lambda_teacher_}
    return found.assign(**named, seconds=time.process_time() - start).reset_index()


def append(path: Path, found: pd.DataFrame, job: dict[str, Any]) -> None:
    columns = [*job, "patient", "y", "without", "with", "permuted", "self-distillation", "weight"]
    columns += [*PARTS, "seconds", "with_seconds", "permuted_seconds"]
    found = found.assign(**job).reindex(columns=columns)
    found.to_csv(path, mode="a", header=not path.exists(), index=False)
    print(*job.values(), found["weight"].iloc[0], f"{found['seconds'].iloc[0]:.0f} s", flush=True)


def run(options: argparse.Namespace) -> None:
    """Fit what is missing, fold by fold."""
    path, key = options.predictions, ["kind", "cohort", "label", "seed", "fold"]
    known = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=key)
    done = set(known[key].itertuples(index=False, name=None))
    cohorts = {n: read_cohort(options.data / n, options.patches) for n in options.cohorts}
    for seed, name in product(options.seeds, options.cohorts):
        for fold, label in product(range(5), TASKS[name]):
            job = dict(zip(key, ("real", name, label, seed, fold), strict=True))
            if tuple(job.values()) not in done:
                found = one_fold(cohorts[name], label, seed, fold, unscaled=options.unscaled)
                append(path, found, job)
    for seed, (kind, what) in product(options.nulls, NULLS.items()):
        job = dict(zip(key, (kind, "simulated", "subtype", seed, 0), strict=True))
        if tuple(job.values()) not in done:
            append(path, simulated_null(what, seed), job)


def development_fold(
    whole: Cohort, label: str, fold: int
) -> tuple[tuple[Cohort, Any], tuple[Cohort, Any]]:
    """Inner training and test part, scaled, with their labels: one of three folds by site."""
    cohort = whole.labelled(label)
    y = cohort.table[label].to_numpy().astype(int)
    outer = folds(cohort, y, SEED_OF_DEVELOPMENT)[0][0]
    cohort, y = cohort.at(outer), y[outer]
    splitter = StratifiedGroupKFold(3, shuffle=True, random_state=SEED_OF_DEVELOPMENT)
    train, held = list(splitter.split(y, y, cohort.table["site"]))[fold]
    training, test = scaled(cohort.at(train), cohort.at(held))
    return (training, y[train]), (test, y[held])


def develop(options: argparse.Namespace) -> None:
    """AUC of weights in three folds within the training part of the development split."""
    path = RESULTS / f"{NAME}_development.csv"
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    done = {(row["cohort"], row["label"], row["fold"]) for row in rows}
    for name in options.cohorts:
        whole = read_cohort(options.data / name, options.patches)
        for fold, label in product(range(3), TASKS[name]):
            if (name, label, fold) in done:
                continue
            (training, y), (test, y_test) = development_fold(whole, label, fold)
            row = {"cohort": name, "label": label, "fold": fold}
            for weight, value in WEIGHTS_OF_DEVELOPMENT.items():
                clf = fit(training, y, training.omics, lambda_teacher=value)
                proba = clf.predict_proba(test.bags)[:, 1]
                row[weight] = round(roc_auc_score(y_test, proba), 4)
                row["chosen"] = clf.lambda_teacher_
            rows.append(row)
            pd.DataFrame(rows).to_csv(path, index=False)
            print(row, flush=True)


# --- tables --------------------------------------------------------------------------------


def write(path: Path) -> None:
    """Table of folds and page from the predictions; what is written by hand stays."""
    rows = pd.read_csv(path)
    table = by_fold(rows)
    table.to_csv(RESULTS / f"{NAME}.csv", index=False)
    parts = []
    for cohort, own in rows[rows["kind"] == "real"].groupby("cohort", sort=False):
        mine = table[(table["kind"] == "real") & (table["cohort"] == cohort)]
        seeds = ", ".join(map(str, sorted(mine["seed"].unique())))
        parts += [f"## {cohort}", f"Split seeds {seeds}; {len(mine)} folds."]
        parts.append(cohort_table(own, mine))
        gap = differences(own, "permuted", "without").mean(axis=1)
        parts.append(f"Permuted - without: {interval(gap)}.")
        parts += [f"### The two parts on {cohort}", parts_table(own)]
    nulls = table[table["kind"] != "real"]
    if len(nulls):
        from privileged_students import null_table

        parts += ["## Where nothing can be gained", null_table(table)]
    timed = rows[rows["kind"] == "real"].groupby(["cohort", "label", "seed", "fold"]).first()
    share = (timed["with_seconds"] / timed["permuted_seconds"]).groupby("cohort").median() - 1
    parts.append(
        "Processor time of a fit that chooses the weight, beyond one with the same weight given: "
        + ", ".join(f"{cohort} {value:+.0%}" for cohort, value in share.items())
        + f" (medians). All: {short(table['cpu_seconds'].sum() / 3600)} h of processor time, one "
        f"thread ({platform.machine()}, {os.cpu_count()} cores, shared)."
    )
    write_page(RESULTS / f"{NAME}.md", "Soft labels of omics for networks", "\n\n".join(parts))


def parts_table(rows: pd.DataFrame) -> str:
    """AUC of network, regression and both, and how far both are above the regression."""
    head = ["arm", "network", "regression", "both", "both - network", "both - regression"]
    lines = [line(head), "|" + "---|" * len(head)]
    aucs = rows.groupby(["label", "seed", "fold"]).apply(
        lambda own: pd.Series({name: roc_auc_score(own["y"], own[name]) for name in SCORED}),
        include_groups=False,
    )
    for arm in ("without", "with"):
        names = [f"network, {arm}", f"regression, {arm}", arm]
        means = [short(aucs[name].groupby("label").mean().mean()) for name in names]
        gaps = [interval(differences(rows, arm, name).mean(axis=1)) for name in names[:2]]
        lines.append(line([arm + " omics", *means, *gaps]))
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(tempfile.gettempdir()) / f"{NAME}_predictions.csv"
    parser.add_argument("--data", type=Path, default=os.environ.get("SK_MOMKD_DATA", ""))
    parser.add_argument("--cohorts", nargs="*", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[31, 32, 33])
    parser.add_argument("--nulls", nargs="*", type=int, default=[])
    parser.add_argument("--patches", type=int, default=64)
    parser.add_argument("--predictions", type=Path, default=default)
    parser.add_argument("--unscaled", action="store_true", help="features as stored")
    parser.add_argument("--develop", action="store_true")
    parser.add_argument("--write", action="store_true", help="the page alone")
    options = parser.parse_args()
    if options.write:
        write(options.predictions)
    elif options.develop:
        develop(options)
    else:
        run(options)
