"""Does omics help logistic regression on pooled bags? `PrivilegedClassifier` on real cohorts.

    python benchmarks/privileged_students.py --data DATA [--cohorts ...] [--seeds 11 12 13]
                                             [--predictions FILE]

`DATA` (or the environment variable SK_MOMKD_DATA) holds the folders `tcga_brca` and `tcga_blca`.
Five folds by site per split seed. Arms: without omics, with (`weight="auto"`), and with the weight
that was chosen, omics permuted within each class, and a teacher that sees the slide in place of
omics (self-distillation). Then cohorts where nothing can be gained. Predictions of patients go to
FILE, from which a stopped run goes on; docs/results/privileged_students.csv has a row per fold and
privileged_students.md the tables.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
import warnings
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import anndata
import numpy as np
import pandas as pd
from page import line, short, write_page
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sk_momkd import BagPooling, PrivilegedClassifier, read_bags
from sk_momkd.preprocessing.expression_outliers import clip_outliers

RESULTS = Path(__file__).parents[1] / "docs" / "results"
TASKS = {
    "tcga_brca": ["her2", "hrd", "pr", "er", "ror_high"],
    "tcga_blca": [
        *("infiltrate_strong", "papillary", "tp53_mut", "fgfr3_mut"),
        *("basal_squamous", "luminal_papillary"),
    ],
}
ARMS = ("without", "with", "permuted", "self-distillation")
NULLS = {
    "labels permuted": "labels",
    "omics of other patients": "omics",
    "slides of other patients": "slides",
}
N_BOOTSTRAP = 2000
# The default teacher after its preprocessing, and what a slide teacher has in its place.
TEACHER = LogisticRegression(C=1e-4, class_weight="balanced", max_iter=1000)


class Cohort(NamedTuple):
    """Pooled features, labels, sites, and omics of the patients that have it."""

    features: pd.DataFrame
    table: pd.DataFrame
    omics: pd.DataFrame

    def labelled(self, label: str) -> Cohort:
        known = self.table[label].notna().to_numpy()
        return Cohort(self.features[known], self.table[known], self.omics)


def read_cohort(folder: Path) -> Cohort:
    """One row per patient: mean and standard deviation over the instances."""
    table = pd.read_csv(folder / "labels.csv", dtype={"slide_id": str, "case_id": str})
    bags = read_bags(folder / "features")
    pooled = pd.DataFrame(BagPooling("mean+std").fit_transform(bags), index=list(bags.ids))
    features = pooled.loc[table["slide_id"]].set_axis(table["case_id"])
    return Cohort(features, table.set_index("case_id"), components(folder / "omics.h5ad"))


def components(path: Path) -> pd.DataFrame:
    """All principal components of clipped z-scores, a rotation that no penalised fit notices."""
    genes = anndata.read_h5ad(path).to_df()
    values = StandardScaler().fit_transform(clip_outliers(genes.to_numpy(np.float64)))
    left, size, _ = np.linalg.svd(values, full_matrices=False)
    return pd.DataFrame(left * size, index=genes.index.astype(str))


def student() -> Any:
    """Logistic regression on z-scores clipped at six standard deviations."""
    clip = FunctionTransformer(np.clip, kw_args={"a_min": -6, "a_max": 6})
    return make_pipeline(StandardScaler(), clip, LogisticRegression(C=0.01, max_iter=1000))


def fit(cohort: Cohort, y: Any, omics: pd.DataFrame | None, **parameters: Any) -> Any:
    given = {"teacher": TEACHER, "random_state": 0} | parameters
    clf = PrivilegedClassifier(student(), **given)
    with warnings.catch_warnings():  # few patients with omics are reported by weight 0
        warnings.simplefilter("ignore")
        return clf.fit(cohort.features, y, omics=omics)


def permuted(omics: pd.DataFrame, names: Any, groups: Any, seed: int) -> pd.DataFrame:
    """Omics of `names`, exchanged within groups."""
    random, found = np.random.default_rng(seed), omics[omics.index.isin(names)]
    group = pd.Series(groups, index=names).loc[found.index].to_numpy()
    order = np.arange(len(found))
    for own in (np.flatnonzero(group == g) for g in np.unique(group)):
        order[own] = random.permutation(own)
    return found.iloc[order].set_axis(found.index)


def part(cohort: Cohort, rows: Any) -> Cohort:
    return Cohort(cohort.features.iloc[rows], cohort.table.iloc[rows], cohort.omics)


def all_arms(training: Cohort, y: Any, test: Cohort, seed: int) -> tuple[dict[str, Any], Any]:
    """Scores of the test patients by arm, and the classifier that chose its weight."""
    clf = fit(training, y, training.omics)
    scores = {
        "without": fit(training, y, None).decision_function(test.features),
        "with": clf.decision_function(test.features),
    }
    if clf.weight_ == 0:
        return scores | dict.fromkeys(ARMS[2:], scores["without"]), clf
    mixed = permuted(training.omics, training.features.index, y, seed)
    other = fit(training, y, mixed, weight=clf.weight_)
    own = fit(training, y, training.features, weight=clf.weight_, teacher=student())
    named = {"permuted": other, "self-distillation": own}
    return scores | {k: v.decision_function(test.features) for k, v in named.items()}, clf


def folds(cohort: Cohort, y: Any, seed: int) -> list[Any]:
    splitter = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    return list(splitter.split(y, y, cohort.table["site"]))


def one_fold(cohort: Cohort, label: str, seed: int, fold: int) -> pd.DataFrame:
    """A row per test patient."""
    start, cohort = time.process_time(), cohort.labelled(label)
    y = cohort.table[label].to_numpy().astype(int)
    train, held = folds(cohort, y, seed)[fold]
    scores, clf = all_arms(part(cohort, train), y[train], part(cohort, held), seed)
    found = pd.DataFrame(scores, index=cohort.features.index[held]).rename_axis("patient")
    named = {"y": y[held], "weight": clf.weight_, "seconds": time.process_time() - start}
    return found.assign(**named).reset_index()


def one_null(cohort: Cohort, label: str, what: str, seed: int) -> pd.DataFrame:
    """The same for a cohort where nothing can be gained; the first fold."""
    start, cohort = time.process_time(), cohort.labelled(label)
    y = cohort.table[label].to_numpy().astype(int)
    order = np.random.default_rng(seed).permutation(len(y))
    features, omics = cohort.features, cohort.omics
    if what == "labels":
        y = y[order]
    elif what == "slides":
        features = features.iloc[order].set_axis(features.index)
    else:
        omics = permuted(omics, omics.index, np.zeros(len(omics)), seed)
    cohort = Cohort(features, cohort.table, omics)
    train, held = folds(cohort, y, seed)[0]
    training, test = part(cohort, train), part(cohort, held)
    clf = fit(training, y[train], omics)
    without = fit(training, y[train], None).decision_function(test.features)
    scores = dict.fromkeys(ARMS, np.nan) | {"without": without}
    scores["with"] = clf.decision_function(test.features)
    found = pd.DataFrame(scores, index=features.index[held]).rename_axis("patient")
    named = {"y": y[held], "weight": clf.weight_, "seconds": time.process_time() - start}
    return found.assign(**named).reset_index()


def run(options: argparse.Namespace) -> None:
    """Fit what is missing, and write table and page after each cohort and split seed."""
    path, key = options.predictions, ["kind", "cohort", "label", "seed", "fold"]
    kept = [pd.read_csv(path)] if path.exists() else []
    done = set(kept[0][key].itertuples(index=False, name=None)) if kept else set()
    cohorts = {name: read_cohort(options.data / name) for name in options.cohorts}
    jobs = [
        ("real", name, label, seed, fold)
        for seed, name in product(options.seeds, options.cohorts)
        for label, fold in product(TASKS[name], range(5))
    ]
    jobs += [
        (null, name, label, seed, 0)
        for null, name in product(NULLS, options.cohorts)
        for label, seed in product(TASKS[name], options.seeds[:2])
    ]
    for job in (job for job in jobs if job not in done):
        kind, name, label, seed, fold = job
        known = (cohorts[name], label)
        if kind == "real":
            found = one_fold(*known, seed, fold)
        else:
            found = one_null(*known, NULLS[kind], seed)
        found = found.assign(**dict(zip(key, job, strict=True)))
        found.to_csv(path, mode="a", header=not path.exists(), index=False)
        print(*job, found["weight"].iloc[0], f"{found['seconds'].iloc[0]:.1f} s", flush=True)
    write(pd.read_csv(path))


# --- tables --------------------------------------------------------------------------------


def by_fold(rows: pd.DataFrame) -> pd.DataFrame:
    """AUC of each arm in each fold."""
    found = []
    for key, own in rows.groupby(["kind", "cohort", "label", "seed", "fold"], sort=False):
        if own["y"].nunique() < 2:
            continue
        arms = [arm for arm in ARMS if own[arm].notna().all()]
        aucs = {arm: round(roc_auc_score(own["y"], own[arm]), 4) for arm in arms}
        kept = {"patients": len(own), "weight": own["weight"].iloc[0]}
        names = ("kind", "cohort", "label", "seed", "fold")
        seconds = {"cpu_seconds": round(own["seconds"].iloc[0], 2)}
        found.append(dict(zip(names, key, strict=True)) | kept | aucs | seconds)
    return pd.DataFrame(found)


def differences(rows: pd.DataFrame, one: str, other: str) -> pd.DataFrame:
    """Mean over folds and seeds of ``one - other`` by label; the first row is of the data.

    The others are of resampled patients, the same ones for all labels, folds and seeds.
    """
    names = np.unique(rows["patient"])
    random = np.random.default_rng(0)
    counts = random.multinomial(len(names), np.full(len(names), 1 / len(names)), N_BOOTSTRAP)
    counts = np.vstack([np.ones((1, len(names)), dtype=int), counts]).astype(float)
    place, found = pd.Series(np.arange(len(names)), index=names), {}
    for label, of_label in rows.groupby("label", sort=False):
        gains = []
        for _, own in of_label.groupby(["seed", "fold"]):
            times, y = counts[:, place.loc[own["patient"]]], own["y"].to_numpy()
            wins = (_wins(own[one].to_numpy(), y) - _wins(own[other].to_numpy(), y)) / 2
            positive, negative = times[:, y == 1], times[:, y == 0]
            pairs = positive.sum(axis=1) * negative.sum(axis=1)
            total = ((positive @ wins) * negative).sum(axis=1)
            gains.append(np.where(pairs > 0, total / np.maximum(pairs, 1), np.nan))
        found[label] = np.nanmean(gains, axis=0)
    return pd.DataFrame(found)


def _wins(scores: Any, y: Any) -> Any:
    return np.sign(scores[y == 1][:, None] - scores[y == 0])


def interval(values: pd.Series) -> str:
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return f"{short(values.iloc[0], '+')} [{short(low, '+')}, {short(high, '+')}]"


def cohort_table(rows: pd.DataFrame, folds: pd.DataFrame) -> str:
    """A line per label, and their mean."""
    pairs = [("with", other) for other in ("without", "permuted", "self-distillation")]
    gaps = {pair: differences(rows, *pair) for pair in pairs}
    head = ["label", "without", "with", *(" - ".join(pair) for pair in pairs), "weights chosen"]
    lines = [line(head), "|" + "---|" * len(head)]
    for label, own in folds.groupby("label", sort=False):
        counts = own["weight"].value_counts().sort_index()
        chosen = ", ".join(f"{weight:g}: {count}" for weight, count in counts.items())
        means = [short(own[arm].mean()) for arm in ("without", "with")]
        lines.append(line([label, *means, *(interval(g[label]) for g in gaps.values()), chosen]))
    means = [short(folds.groupby("label")[arm].mean().mean()) for arm in ("without", "with")]
    all_gaps = [interval(gap.mean(axis=1)) for gap in gaps.values()]
    return "\n".join([*lines, line(["mean", *means, *all_gaps, ""])])


def null_table(folds: pd.DataFrame) -> str:
    head = ["nothing to gain", "fits", "weight 0", "mean of the absolute gain", "mean gain"]
    lines = [line(head), "|" + "---|" * len(head)]
    for kind, own in folds[folds["kind"] != "real"].groupby("kind", sort=False):
        gain = own["with"] - own["without"]
        cells = [kind, str(len(own)), f"{(own['weight'] == 0).mean():.0%}"]
        lines.append(line([*cells, short(gain.abs().mean()), short(gain.mean(), "+")]))
    return "\n".join(lines)


def write(rows: pd.DataFrame) -> None:
    folds = by_fold(rows)
    folds.to_csv(RESULTS / "privileged_students.csv", index=False)
    parts = []
    for cohort, own in rows[rows["kind"] == "real"].groupby("cohort", sort=False):
        mine = folds[(folds["kind"] == "real") & (folds["cohort"] == cohort)]
        seeds = ", ".join(map(str, sorted(mine["seed"].unique())))
        parts += [f"## {cohort}", f"Split seeds {seeds}; {len(mine)} folds."]
        parts.append(cohort_table(own, mine))
    parts += ["## Where nothing can be gained", null_table(folds)]
    minutes = folds["cpu_seconds"].sum() / 60
    parts.append(
        f"`python benchmarks/privileged_students.py`, {minutes:.1f} min of processor time, one "
        f"thread ({platform.machine()}, {os.cpu_count()} cores, shared)."
    )
    title = "Soft labels of omics for logistic regression on pooled bags"
    write_page(RESULTS / "privileged_students.md", title, "\n\n".join(parts))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(tempfile.gettempdir()) / "privileged_students_predictions.csv"
    parser.add_argument("--data", type=Path, default=os.environ.get("SK_MOMKD_DATA", ""))
    parser.add_argument("--cohorts", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[11, 12, 13])
    parser.add_argument("--predictions", type=Path, default=default)
    run(parser.parse_args())
