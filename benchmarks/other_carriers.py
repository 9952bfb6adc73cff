"""Does omics help a linear student by other ways than soft labels? Tried in inner folds.

    python benchmarks/other_carriers.py --data DATA --gmt FILE [--rows FILE]
                                        [--test] [--predictions FILE]

`DATA` (or the environment variable SK_MOMKD_DATA) holds the folders `tcga_brca` and `tcga_blca`,
the GMT file gene sets of the Molecular Signatures Database. In three folds by site, five shuffles,
within the training part of one split, the logistic regression of privileged_students.py is given,
beside pooled patches or in their place: expression that is predicted from the slide (principal
components, single genes, gene sets, the teacher's opinion), or directions of the slide that go with
expression. Then other poolings, and students of single patches. Each is fitted on labels and on
soft labels. What is learned is learned in the inner training part. A second round varies the
directions; with `--test`, what was frozen then is tested in five folds by site of fresh split
seeds. A stopped run goes on from the files. docs/results/other_carriers.csv has a row per label and
candidate of the rounds, other_carriers_folds.csv one per fresh fold, other_carriers.md the tables.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import anndata
import numpy as np
import pandas as pd
from page import line, short, write_page
from privileged_students import (
    RESULTS,
    TASKS,
    TEACHER,
    differences,
    folds,
    interval,
    part,
    permuted,
    read_cohort,
    student,
)
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler

from sk_momkd import OmicsTable, read_bags
from sk_momkd.estimators.soft_targets import fit_last
from sk_momkd.estimators.teacher_weight import Samples, learn_from, student_evidence
from sk_momkd.preprocessing.expression_outliers import clip_outliers

NAME, CLASSES = "other_carriers", np.array([0, 1])
SEED_OF_DEVELOPMENT, SHUFFLES, SEEDS = 999, range(999, 1004), (41, 42, 43)
BESIDE, ALONE, STRENGTHS = (0.3, 1.0, 3.0, 10.0), (1.0, 3.0, 10.0), (0.01, 0.1, 1.0)
SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)
FAMILIES = {  # number of directions, shrinkage, and whether of gene sets
    "5 CCA directions": (5, 0.5, False),
    "3 CCA directions": (3, 0.5, False),
    "10 CCA directions": (10, 0.5, False),
    "5 CCA directions, shrinkage .2": (5, 0.2, False),
    "5 CCA directions, shrinkage .8": (5, 0.8, False),
    "5 CCA directions, gene sets": (5, 0.5, True),
}
FROZEN, SHARE, LARGER_SHARE = (5, 0.2), 0.1, 0.25
N_COMPONENTS, N_PATCHES, FEWEST_GENES = 50, 64, 5
POOLINGS = {"mean": [0], "mean + SD + quantile .9": [0, 1, 2]}
PLAIN, PATCHES = "mean + SD", "mean of 64 patches"
ARMS = ("labels", "soft", "labels, permuted", "soft, permuted")


class Data(NamedTuple):
    """A cohort with genes as omics, the patches of each patient, and three statistics of them."""

    cohort: Any
    patches: dict[str, Any]
    statistics: dict[str, Any]
    sets: dict[str, list[str]]


class Split(NamedTuple):
    """Inner training and test part, and all that the first may use beside its labels."""

    training: Any
    y: Any
    test: Any
    y_test: Any
    unlabelled: Any


def read(folder: Path, gmt: Path) -> Data:
    genes = anndata.read_h5ad(folder / "omics.h5ad").to_df()
    genes.index = genes.index.astype(str)
    cohort = read_cohort(folder)._replace(omics=genes)
    bags, random = read_bags(folder / "features"), np.random.default_rng(0)
    place, patches, statistics = {name: i for i, name in enumerate(bags.ids)}, {}, {}
    for slide, patient in zip(cohort.table["slide_id"], cohort.table.index, strict=True):
        values = bags.load(place[slide]).features
        pooled = values.mean(axis=0), values.std(axis=0), np.quantile(values, 0.9, axis=0)
        statistics[patient] = np.stack(pooled)
        if len(values) > N_PATCHES:
            values = values[random.choice(len(values), N_PATCHES, replace=False)]
        patches[patient] = values
    lines = [text.split("\t") for text in gmt.read_text().splitlines()]
    sets = {name: [g for g in found if g in genes] for name, _, *found in filter(any, lines)}
    sets = {name: found for name, found in sets.items() if len(found) >= FEWEST_GENES}
    return Data(cohort, patches, statistics, sets)


def split_of(cohort: Any, known: Any, y: Any, parts: tuple[Any, Any], away: Any = ()) -> Split:
    """Pairs without the label are used unless from a site of the test part or of `away`."""
    training, test = (part(known, rows) for rows in parts)
    other = ~cohort.table.index.isin(known.table.index)
    other &= ~cohort.table["site"].isin({*away, *test.table["site"]}).to_numpy()
    free = np.flatnonzero(other & cohort.table.index.isin(cohort.omics.index))
    return Split(training, y[parts[0]], test, y[parts[1]], part(cohort, free))


def labelled(cohort: Any, label: str) -> tuple[Any, Any]:
    known = cohort.labelled(label)
    return known, known.table[label].to_numpy().astype(int)


def inner_splits(cohort: Any, label: str, shuffle: int) -> Iterator[Split]:
    """Three folds by site within the training part of the development split."""
    known, y = labelled(cohort, label)
    outer, kept_away = folds(known, y, SEED_OF_DEVELOPMENT)[0]
    sites = known.table["site"]
    splitter = StratifiedGroupKFold(3, shuffle=True, random_state=shuffle)
    for parts in splitter.split(outer, y[outer], sites.iloc[outer]):
        rows = outer[parts[0]], outer[parts[1]]
        yield split_of(cohort, known, y, rows, sites.iloc[kept_away])


# --- what is given to the student ----------------------------------------------------------


def scaled(split: Split) -> tuple[Any, Any, pd.DataFrame]:
    """Inputs of the student: training part, test part, and training part with further pairs."""
    pool = pd.concat([split.training.features, split.unlabelled.features])
    head = student()[:-1].fit(split.training.features)
    found = pd.DataFrame(head.transform(pool), index=pool.index)
    return found.iloc[: len(split.y)].to_numpy(), head.transform(split.test.features), found


def expression(genes: pd.DataFrame) -> pd.DataFrame:
    """z-scores after clipping."""
    values = StandardScaler().fit_transform(clip_outliers(genes.to_numpy(np.float64)))
    return pd.DataFrame(values, index=genes.index, columns=genes.columns)


def set_scores(z: pd.DataFrame, sets: dict[str, list[str]]) -> pd.DataFrame:
    return pd.DataFrame({name: z[found].mean(axis=1) for name, found in sets.items()})


def rotated(values: Any) -> Any:
    """Principal components of standardised columns."""
    left, size, _ = np.linalg.svd(values - values.mean(axis=0), full_matrices=False)
    return left * size


def targets_of(genes: pd.DataFrame, data: Data, split: Split, logits: pd.Series) -> dict[str, Any]:
    """What is predicted from the slide, by name: tables of the patients with omics."""
    z = expression(genes)
    scores = set_scores(z, data.sets)
    known = genes.index.isin(split.training.features.index)
    y = pd.Series(split.y, index=split.training.features.index).loc[genes.index[known]]
    related = [relation(table[known].to_numpy(), y) for table in (z, scores)]
    return {
        "components": rotated(z.to_numpy())[:, :N_COMPONENTS],
        "20 genes of the label": z.iloc[:, related[0][:20]].to_numpy(),
        "gene sets": scores.to_numpy(),
        "5 gene sets of the label": scores.iloc[:, related[1][:5]].to_numpy(),
        "teacher's opinion": logits.reindex(genes.index).to_numpy()[:, None],
    }


def relation(values: Any, y: Any) -> Any:
    """Columns by the size of their correlation with the label, the largest first."""
    z, label = StandardScaler().fit_transform(values), np.asarray(y) - np.mean(y)
    return np.argsort(-np.abs(label @ z))


def predicted(X: Any, X_test: Any, rows: Any, targets: Any, groups: Any) -> tuple[Any, Any]:
    """Ridge predictions for training rows, cross-fitted by site, and for the test part.

    `rows` are those with targets; columns with missing values are fitted without these patients.
    """
    holes = np.isnan(targets).any(axis=1)
    found = np.zeros((len(X), targets.shape[1]))
    fit = partial(_ridge, X, rows[~holes], targets[~holes])
    for train, held in GroupKFold(5).split(X, groups=groups):
        found[held] = fit(train).predict(X[held]).reshape(len(held), -1)
    return found, fit(np.arange(len(X))).predict(X_test).reshape(len(X_test), -1)


def _ridge(X: Any, rows: Any, targets: Any, allowed: Any) -> Any:
    use = np.isin(rows, allowed)
    model = RidgeCV(alphas=np.logspace(1, 4, 7), alpha_per_target=True)
    return model.fit(X[rows[use]], targets[use])


def directions(X: Any, targets: Any, shrinkage: float) -> Any:
    """Slide directions of a canonical correlation analysis with shrunk covariances.

    With shrinkage 1 it is partial least squares.
    """
    halves = []
    for values in (X, targets):
        cov = np.cov(values.T)
        spread = np.trace(cov) / len(cov)
        size, axes = np.linalg.eigh((1 - shrinkage) * cov + shrinkage * spread * np.eye(len(cov)))
        halves.append((axes / np.sqrt(size)) @ axes.T)
    centred = X - X.mean(axis=0), targets - targets.mean(axis=0)
    left, _, _ = np.linalg.svd(halves[0] @ centred[0].T @ centred[1] @ halves[1])
    return halves[0] @ left


def additions(
    data: Data, split: Split, logits: pd.Series, omics: pd.DataFrame
) -> Iterator[tuple[str, bool, Any, Any]]:
    """Name, whether also tried alone, and inputs of training and test part, as yet unscaled."""
    _, X_test, pool = scaled(split)
    sites = pd.concat([split.training.table["site"], split.unlabelled.table["site"]])
    X, n = pool.to_numpy(), len(split.y)
    genes = omics.loc[pool.index[pool.index.isin(omics.index)]]
    rows = pool.index.get_indexer(genes.index)
    targets = targets_of(genes, data, split, logits)
    for name, values in targets.items():
        scores, scores_test = predicted(X, X_test, rows, values, sites.to_numpy())
        if name != "components":
            yield name, False, scores[:n], scores_test
        else:
            for k in (5, 20, 50):
                yield f"{k} components", k > 5, scores[:n, :k], scores_test[:, :k]
    for name, shrinkage in (("CCA", 0.5), ("PLS", 1.0)):
        axes = directions(X[rows], targets["components"], shrinkage)
        for k in (5, 20):
            yield f"{k} {name} directions", True, X[:n] @ axes[:, :k], X_test @ axes[:, :k]


def controls(split: Split) -> Iterator[tuple[str, bool, Any, Any]]:
    """The same without omics: the predicted label, and components of the slide."""
    X, X_test, _ = scaled(split)
    sites, rows = split.training.table["site"].to_numpy(), np.arange(len(X))
    label = predicted(X, X_test, rows, split.y[:, None].astype(float), sites)
    yield "label, no omics", False, *label
    _, _, axes = np.linalg.svd(X - X.mean(axis=0), full_matrices=False)
    for k in (5, 20):
        yield f"{k} slide components, no omics", True, X @ axes[:k].T, X_test @ axes[:k].T


# --- students ------------------------------------------------------------------------------


def soft_labels(split: Split, omics: pd.DataFrame, weight: Any) -> Any:
    """Soft labels for the training part as `PrivilegedClassifier` makes them."""
    genes = omics.loc[omics.index.isin(split.training.features.index)]
    values = rotated(expression(genes).to_numpy())
    table = OmicsTable(values, genes.index.to_numpy(), np.arange(len(genes)).astype(str))
    rows, numbers = genes.index.get_indexer(split.training.features.index), np.arange(len(split.y))
    samples = Samples(split.training.features, split.y, CLASSES, numbers)
    evidence = partial(student_evidence, student(), temperature=0.5)
    given = {"evidence_of": evidence, "temperature": 0.5, "random_state": 0}
    with warnings.catch_warnings():  # few patients with omics are reported by weight 0
        warnings.simplefilter("ignore")
        return learn_from(TEACHER, table, rows, samples, numbers, weight=weight, **given)


def scores_of(split: Split, X: Any, X_test: Any, targets: Any) -> Any:
    """Of the logistic regression on inputs that are scaled already."""
    last = LogisticRegression(C=0.01, max_iter=1000)
    return fit_last(last, X, CLASSES, split.y, targets).decision_function(X_test)


def auc(split: Split, X: Any, X_test: Any, targets: Any) -> float:
    return roc_auc_score(split.y_test, scores_of(split, X, X_test, targets))


def exchanged(split: Split, omics: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Omics permuted within the classes; the patients without a label are a class of their own."""
    names = split.training.features.index.append(split.unlabelled.features.index)
    classes = np.append(split.y, np.full(len(split.unlabelled.features), -1))
    return permuted(omics, names, classes, seed)


def trials(split: Split, pair: tuple[Any, Any], found: Any) -> Iterator[tuple[str, Any, Any]]:
    """Inputs with each addition and factor."""
    for name, also_alone, values, values_test in found:
        scale = StandardScaler().fit(values)
        extra, extra_test = scale.transform(values), scale.transform(values_test)
        for factor in BESIDE:
            both = [
                np.hstack([a, factor * b]) for a, b in zip(pair, (extra, extra_test), strict=True)
            ]
            yield f"{name} x {factor:g}", *both
        for factor in ALONE if also_alone else ():
            yield f"{name} alone x {factor:g}", factor * extra, factor * extra_test


def pooled(split: Split, statistics: dict[str, Any], which: list[int]) -> list[Any]:
    head = student()[:-1]
    parts = [
        np.stack([statistics[name][which].ravel() for name in one.features.index])
        for one in (split.training, split.test)
    ]
    return [head.fit_transform(parts[0]), head.transform(parts[1])]


def of_patches(
    split: Split, data: Data, targets: dict[str, Any], row: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Students of patches that carry the label of their bag, each bag with weight 1."""
    parts = [[data.patches[i] for i in one.features.index] for one in (split.training, split.test)]
    scale = StandardScaler().fit(np.concatenate(parts[0]))
    X, X_test = ([np.clip(scale.transform(bag), -6, 6) for bag in bags] for bags in parts)
    head = student()[:-1]
    means = [np.stack([bag.mean(axis=0) for bag in bags]) for bags in (X, X_test)]
    means = [head.fit_transform(means[0]), head.transform(means[1])]
    yield row | {"candidate": PATCHES} | {k: auc(split, *means, t) for k, t in targets.items()}
    owner = np.repeat(np.arange(len(X)), [len(bag) for bag in X])
    share = 1 / np.bincount(owner)[owner]
    for strength in STRENGTHS:
        found: dict[str, dict[str, float]] = {"mean": {}, "mean of the upper quarter": {}}
        for arm, target in targets.items():
            each = target[owner]
            last = LogisticRegression(C=strength, max_iter=1000)
            y, weight = np.repeat(CLASSES, len(each)), (each * share[:, None]).T.ravel()
            copies, used = np.tile(np.concatenate(X), (2, 1)), weight > 0
            last.fit(copies[used], y[used], weight[used])
            scores = [np.sort(last.decision_function(bag)) for bag in X_test]
            upper = [own[-max(1, len(own) // 4) :].mean() for own in scores]
            found["mean"][arm] = roc_auc_score(split.y_test, [own.mean() for own in scores])
            found["mean of the upper quarter"][arm] = roc_auc_score(split.y_test, upper)
        for name, aucs in found.items():
            yield row | {"candidate": f"patches, {name}, C = {strength:g}"} | aucs


def first_round(data: Data, split: Split, shuffle: int) -> Iterator[dict[str, Any]]:
    """A row per candidate."""
    omics, names = data.cohort.omics, split.training.features.index
    chosen, half = (soft_labels(split, omics, weight) for weight in ("auto", 0.5))
    hard = np.eye(2)[split.y]
    soft, row = chosen.targets(hard), {"weight": chosen.weight}
    targets = {"labels": hard, "soft": soft}
    pair = scaled(split)[:2]
    aucs = {arm: auc(split, *pair, target) for arm, target in targets.items()}
    yield row | {"candidate": PLAIN} | aucs
    aucs["soft"] = auc(split, *pair, half.targets(hard))
    yield row | {"candidate": "soft labels of weight .5"} | aucs
    logits = np.log(half.soft[half.paired, 1] / half.soft[half.paired, 0])
    logits = pd.Series(logits, index=names[half.paired])
    mixed = exchanged(split, omics, shuffle)
    of_others = soft_labels(split, mixed, 0.5)
    other = np.log(of_others.soft[half.paired, 1] / of_others.soft[half.paired, 0])
    other = pd.Series(other, index=names[half.paired])
    own = trials(split, pair, additions(data, split, logits, omics))
    without = trials(split, pair, additions(data, split, other, mixed))
    for (name, *inputs), (_, *inputs_mixed) in zip(own, without, strict=True):
        aucs = {arm: auc(split, *inputs, target) for arm, target in targets.items()}
        for arm, target in targets.items():
            aucs[f"{arm}, permuted"] = auc(split, *inputs_mixed, target)
        yield row | {"candidate": name} | aucs
    for name, *inputs in trials(split, pair, controls(split)):
        yield row | {"candidate": name} | {k: auc(split, *inputs, t) for k, t in targets.items()}
    for name, which in POOLINGS.items():
        inputs = pooled(split, data.statistics, which)
        yield row | {"candidate": name} | {k: auc(split, *inputs, t) for k, t in targets.items()}
    if max(map(len, data.patches.values())) == N_PATCHES:
        yield from of_patches(split, data, targets, row)


# --- second round, and fresh split seeds -----------------------------------------------------


def confirmed(
    split: Split, omics: pd.DataFrame | None, n: int, shrinkage: float, sets: Any = None
) -> tuple[Any, Any]:
    """Inputs of the student, and slide directions that go with expression.

    Without omics, the first principal components of the slide.
    """
    X, X_test, pool = scaled(split)
    if omics is None:
        axes = np.linalg.svd(X - X.mean(axis=0), full_matrices=False)[2].T
    else:
        z = expression(omics.loc[pool.index[pool.index.isin(omics.index)]])
        found = rotated(z.to_numpy())[:, :N_COMPONENTS]
        found = set_scores(z, sets).to_numpy() if sets else found
        axes = directions(pool.loc[z.index].to_numpy(), found, shrinkage)
    scale = StandardScaler().fit(X @ axes[:, :n])
    return (X, X_test), [scale.transform(values @ axes[:, :n]) for values in (X, X_test)]


def shared(pair: Any, extra: Any, share: float) -> list[Any]:
    """Inputs, of whose variance, which stays as it is, the directions have a share."""
    factor = np.sqrt(share * pair[0].shape[1] / extra[0].shape[1])
    both = zip(pair, extra, strict=True)
    return [np.hstack([np.sqrt(1 - share) * a, factor * b]) for a, b in both]


def gains_in_folds(split: Split, omics: pd.DataFrame) -> Any:
    """Gain of each share in ten folds of the training part; the first column is share 0."""
    found, sites = [], split.training.table["site"]
    for seed in (0, 1):
        splitter = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        for train, held in splitter.split(sites, split.y, sites):
            if len(np.unique(split.y[held])) < 2:
                continue
            parts = part(split.training, train), part(split.training, held)
            inner = Split(parts[0], split.y[train], parts[1], split.y[held], split.unlabelled)
            given, hard = (
                confirmed(inner, omics, *FAMILIES["5 CCA directions"][:2]),
                np.eye(2)[inner.y],
            )
            aucs = [auc(inner, *shared(*given, share), hard) for share in SHARES]
            found.append([0, *np.array(aucs) - auc(inner, *given[0], hard)])
    return np.array(found)


def second_round(data: Data, split: Split, shuffle: int) -> Iterator[dict[str, Any]]:
    """A row per number and kind of directions and share; then shares chosen in inner folds."""
    omics, hard = data.cohort.omics, np.eye(2)[split.y]
    chosen = soft_labels(split, omics, "auto")
    targets, row = {"labels": hard, "soft": chosen.targets(hard)}, {"weight": chosen.weight}
    pair = scaled(split)[:2]
    plain = {k: auc(split, *pair, t) for k, t in targets.items()}
    yield row | {"candidate": PLAIN} | plain
    mixed, of_first = exchanged(split, omics, shuffle), [plain]
    for name, (n, shrinkage, of_sets) in FAMILIES.items():
        sets = data.sets if of_sets else None
        own, other = (confirmed(split, o, n, shrinkage, sets)[1] for o in (omics, mixed))
        for share in SHARES:
            inputs, inputs_mixed = (shared(pair, extra, share) for extra in (own, other))
            aucs = {k: auc(split, *inputs, t) for k, t in targets.items()}
            aucs |= {f"{k}, permuted": auc(split, *inputs_mixed, t) for k, t in targets.items()}
            yield row | {"candidate": f"{name}, share {share:g}"} | aucs
            of_first += [aucs] if name == "5 CCA directions" else []
    slide = confirmed(split, None, 5, 0)[1]
    for share in SHARES:
        inputs = shared(pair, slide, share)
        aucs = {k: auc(split, *inputs, t) for k, t in targets.items()}
        yield row | {"candidate": f"5 slide components, no omics, share {share:g}"} | aucs
    gains = gains_in_folds(split, omics)
    errors = gains.std(axis=0, ddof=1) / np.sqrt(5)
    for name, rule in {"": 0, " less one standard error": 1}.items():
        aucs = of_first[np.argmax(gains.mean(axis=0) - rule * errors)]
        named = {"candidate": f"5 CCA directions, share of the best AUC{name} in folds"}
        yield row | named | {arm: aucs[arm] for arm in targets}


def one_fold(data: Data, label: str, seed: int, fold: int) -> pd.DataFrame:
    """Scores of the test patients by arm, as frozen."""
    start, omics = time.process_time(), data.cohort.omics
    known, y = labelled(data.cohort, label)
    split = split_of(data.cohort, known, y, folds(known, y, seed)[fold])
    hard, chosen = np.eye(2)[split.y], soft_labels(split, omics, "auto")
    soft, pair = chosen.targets(hard), scaled(split)[:2]
    sources = {"own": omics, "permuted": exchanged(split, omics, seed), "slide": None}
    extra = {name: confirmed(split, source, *FROZEN)[1] for name, source in sources.items()}
    own = shared(pair, extra["own"], SHARE)
    inputs = {
        "without": (*pair, hard),
        "soft labels": (*pair, soft),
        "directions": (*own, hard),
        "both": (*own, soft),
        "both, larger share": (*shared(pair, extra["own"], LARGER_SHARE), soft),
        "permuted": (*shared(pair, extra["permuted"], SHARE), soft),
        "slide": (*shared(pair, extra["slide"], SHARE), soft),
    }
    found = {arm: scores_of(split, *given) for arm, given in inputs.items()}
    found = pd.DataFrame(found, index=split.test.features.index).rename_axis("patient")
    named = {"y": split.y_test, "weight": chosen.weight, "seconds": time.process_time() - start}
    return found.assign(**named).reset_index()


def undone(path: Path, jobs: Any) -> Iterator[dict[str, Any]]:
    """Jobs of which the file has no row."""
    jobs = list(jobs)
    known = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=list(jobs[0]))
    done = set(known[list(jobs[0])].itertuples(index=False, name=None))
    yield from (job for job in jobs if tuple(job.values()) not in done)


def append(path: Path, found: pd.DataFrame, job: dict[str, Any]) -> None:
    found.assign(**job).to_csv(path, mode="a", header=not path.exists(), index=False)
    print(*job.values(), f"{found['seconds'].iloc[0]:.1f} s", flush=True)


def run(options: argparse.Namespace) -> None:
    """Fit what is missing, then write."""
    every = {name: read(options.data / name, options.gmt) for name in TASKS}
    labels = [(name, label) for name in TASKS for label in TASKS[name]]
    rounds = {1: first_round, 2: second_round}
    jobs = (
        {"round": number, "shuffle": shuffle, "cohort": name, "label": label}
        for number, shuffle, (name, label) in product(rounds, SHUFFLES, labels)
    )
    for job in undone(options.rows, jobs):
        start, data, shuffle = time.process_time(), every[job["cohort"]], job["shuffle"]
        found = [
            pd.DataFrame(rounds[job["round"]](data, split, shuffle))
            for split in inner_splits(data.cohort, job["label"], shuffle)
        ]
        # The mean over the folds of each candidate, in the order in which they were tried.
        mean = pd.concat(found).groupby("candidate", sort=False).mean().reset_index()
        mean = mean.assign(seconds=time.process_time() - start)
        append(options.rows, mean.reindex(columns=["candidate", *ARMS, "weight", "seconds"]), job)
    jobs = (
        {"seed": seed, "cohort": name, "label": label, "fold": fold}
        for seed, (name, label), fold in product(SEEDS, labels, range(5))
    )
    for job in undone(options.predictions, jobs) if options.test else ():
        found = one_fold(every[job["cohort"]], job["label"], job["seed"], job["fold"])
        append(options.predictions, found, job)
    write(options)


# --- tables --------------------------------------------------------------------------------


def gains(rows: pd.DataFrame, one: str, other: str = "") -> pd.DataFrame:
    """By candidate, label and shuffle: an arm less another, or less that of the reference."""
    table = rows.set_index(["candidate", "label", "shuffle"])
    if other:
        return (table[one] - table[other]).unstack("candidate")
    found = table[one].unstack("candidate")
    patches = [name for name in found if name.startswith("patches, ")]
    reference = pd.DataFrame(dict.fromkeys(found, found[PLAIN]))
    for name in patches:
        reference[name] = found[PATCHES]
    return found - reference


def with_error(values: pd.Series) -> str:
    if values.isna().any():
        return ""
    return f"{short(values.mean(), '+')} ± {short(values.sem())}"


def development_table(rows: pd.DataFrame) -> str:
    """A line per candidate; those that change next to nothing are in the file alone."""
    kinds = ("labels", "soft labels", "soft: own - permuted", "soft: worst label")
    head = ["candidate", *(f"{name[5:]}, {kind}" for name in TASKS for kind in kinds)]
    cells: dict[str, dict[str, str]] = {}
    for cohort, own in rows.groupby("cohort", sort=False):
        found = gains(own, "labels"), gains(own, "soft"), gains(own, "soft", "soft, permuted")
        for name in own["candidate"].unique():
            means = found[1][name].groupby("label").mean()
            cells.setdefault(name, {})[cohort] = line(
                [*(with_error(table[name]) for table in found), short(means.min(), "+")]
            )[2:-2]
    lines = [line(head), "|" + "---|" * len(head)]
    empty = " | ".join([""] * len(kinds))
    for name, own in cells.items():
        if name != PLAIN and not name.endswith("x 0.3"):
            lines.append(line([name, *(own.get(cohort, empty) for cohort in TASKS)]))
    return "\n".join(lines)


def fresh_table(rows: pd.DataFrame, aucs: pd.DataFrame) -> str:
    """A line per label, and their mean."""
    arms = ["without", "soft labels", "both"]
    pairs = [("both", other) for other in ("without", "soft labels", "permuted", "slide")]
    gaps = {pair: differences(rows, *pair) for pair in pairs}
    head = ["label", *arms, *(" - ".join(pair) for pair in pairs)]
    lines = [line(head), "|" + "---|" * len(head)]
    means = aucs.groupby("label", sort=False)[arms].mean()
    for label, values in means.iterrows():
        cells = [*map(short, values), *(interval(gap[label]) for gap in gaps.values())]
        lines.append(line([label, *cells]))
    cells = [*map(short, means.mean()), *(interval(gap.mean(axis=1)) for gap in gaps.values())]
    others = [("soft labels", "without"), ("directions", "without"), ("permuted", "soft labels")]
    others += [("slide", "soft labels"), ("both, larger share", "soft labels")]
    said = (f"{a} - {b} {interval(differences(rows, a, b).mean(axis=1))}" for a, b in others)
    return "\n".join([*lines, line(["mean", *cells])]) + "\n\nMeans: " + "; ".join(said) + "."


def write(options: argparse.Namespace) -> None:
    rows, parts, key = pd.read_csv(options.rows), [], ["round", "cohort", "label", "candidate"]
    table = rows.groupby(key, sort=False)[[*ARMS, "weight"]].mean().round(4)
    table.to_csv(RESULTS / f"{NAME}.csv")
    minutes = rows.groupby(["round", "shuffle", "label"])["seconds"].first().sum() / 60
    plain = rows[(rows["candidate"] == PLAIN) & (rows["round"] == 1)]
    for cohort, own in plain.groupby("cohort", sort=False):
        gain = with_error((own["soft"] - own["labels"]).reset_index(drop=True))
        levels = short(own["labels"].mean()), short(own["soft"].mean())
        parts.append(f"{cohort}: {levels[0]} by labels, {levels[1]} by soft labels ({gain}).")
    for number, own in rows.groupby("round"):
        parts += [f"## Inner folds, round {number}", development_table(own)]
    if options.predictions.exists():
        scores, key = pd.read_csv(options.predictions), ["cohort", "label", "seed", "fold"]
        arms = list(scores.loc[:, "without":"slide"])
        found = []
        for names, own in scores.groupby(key, sort=False):
            if own["y"].nunique() == 2:
                aucs = {arm: round(roc_auc_score(own["y"], own[arm]), 4) for arm in arms}
                first = own[["weight", "seconds"]].iloc[0].round(2)
                found.append(dict(zip(key, names, strict=True)) | aucs | first.to_dict())
        aucs = pd.DataFrame(found)
        aucs.to_csv(RESULTS / f"{NAME}_folds.csv", index=False)
        minutes += aucs["seconds"].sum() / 60
        for cohort, own in scores.groupby("cohort", sort=False):
            mine, seeds = aucs[aucs["cohort"] == cohort], ", ".join(map(str, SEEDS))
            parts += [f"## Fresh folds, {cohort}", f"Split seeds {seeds}; {len(mine)} folds."]
            parts.append(fresh_table(own, mine))
    parts.append(
        f"`python benchmarks/{NAME}.py --test`, {minutes:.0f} min of processor time, one thread "
        f"({platform.machine()}, {os.cpu_count()} cores, shared)."
    )
    write_page(RESULTS / f"{NAME}.md", "Other carriers of omics", "\n\n".join(parts))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    folder = Path(tempfile.gettempdir())
    parser.add_argument("--data", type=Path, default=os.environ.get("SK_MOMKD_DATA", ""))
    parser.add_argument("--gmt", type=Path, required=True, help="gene sets")
    parser.add_argument("--rows", type=Path, default=folder / f"{NAME}.csv")
    parser.add_argument("--predictions", type=Path, default=folder / f"{NAME}_predictions.csv")
    parser.add_argument("--test", action="store_true", help="fresh split seeds, too")
    run(parser.parse_args())
