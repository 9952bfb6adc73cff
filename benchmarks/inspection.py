"""What inspection finds of a planted truth, and how long a heat map takes.

    python benchmarks/inspection.py [--patients 100] [--epochs 15] [--seeds 0 1 2]
        [--coding-seeds 0 1 2] [--slides 20000 100000]

Simulated cohorts, one for fitting and one of the same size that is unseen. In `docs/results`:

- `inspection.csv`, a row per seed and measure: share of attention in the planted region against its
  share of area (at 20x and 40x geometry), share of top patches in it, share of planted genes among
  as many first genes as are planted (with the patients' own omics and with that of others);
- `inspection_codings.csv`, what attention, its score (Eq. 6) and evidence tell of the planted
  patches, with the memory of the planted class as C+ and as C-;
- `heat_map.csv`, seconds of ``patch_attention`` on slides of 1,536 features.

An option without values, such as `--slides`, leaves its part out.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

from sk_momkd import (
    Bag,
    BagSequence,
    MoMKDClassifier,
    NetworkOptions,
    explain_prediction,
    gene_attributions,
    load_cohort,
    memory_usage,
    patch_attention,
    patch_evidence,
    read_bags,
    simulate_cohort,
    to_geojson,
    top_patches,
    write_trident,
)

RESULTS = Path(__file__).parents[1] / "docs" / "results"
N_GENES, N_SIGNATURE = 400, 40


def cohort(folder: Path, n_patients: int, seed: int):
    """Bags, labels, omics, and which patches of each bag are planted."""
    paths = simulate_cohort(
        folder,
        n_patients=n_patients,
        n_patches=200,
        n_genes=N_GENES,
        n_signature=N_SIGNATURE,
        random_state=seed,
    )
    bags, y, omics, _ = load_cohort(*paths, label="subtype", positive="aggressive")
    planted = {}
    for bag in bags:
        with h5py.File(paths.features / f"{bag.bag_id}.h5") as file:
            planted[bag.bag_id] = file["planted"][:]
    return bags, y, omics, planted


def model(epochs: int, seed: int) -> MoMKDClassifier:
    """All genes reach the network, so that it is not the selection that finds the signature."""
    return MoMKDClassifier(
        hidden_dim=64,
        projection_dim=32,
        n_components=8,
        network=NetworkOptions(omics_hidden_dim=128),
        n_genes=N_GENES,
        batch_size=8,
        learning_rate=2e-3,
        max_epochs=epochs,
        early_stopping=False,
        random_state=seed,
    )


def mass_and_area(attention: pd.DataFrame, planted: dict) -> np.ndarray:
    """Per slide: attention in the planted region, and its share of the patches."""
    groups = attention.groupby("bag_id", sort=False)["attention"]
    return np.array([(a.to_numpy()[planted[b]].sum(), planted[b].mean()) for b, a in groups])


def of_planted(clf, bags, planted: dict) -> dict[str, float]:
    """What attention, score and evidence say of planted patches; the planted class is 1.

    `nearer_own`: share of planted patches nearer to the memory of the planted class, which is
    what the score would say as evidence. `supporting`: share of planted patches, and of the others,
    whose evidence is for the planted class. AUC: planted against other patches of a slide, mean.
    """
    sign = 1 if clf.pos_label_ == 1 else -1
    table = patch_attention(clf, bags)
    evidence = sign * patch_evidence(clf, bags)[f"evidence_{clf.pos_label_}"]
    table = table.assign(score=sign * table["raw_attention"], evidence=evidence)
    inside = np.concatenate([planted[b] for b in table["bag_id"].unique()])
    slides = [(planted[b], own) for b, own in table.groupby("bag_id", sort=False)]
    slides = [(truth, own) for truth, own in slides if truth.any()]
    found = {
        "nearer_own": (table["score"][inside] > 0).mean(),
        "supporting": (evidence[inside] > 0).mean(),
        "supporting_elsewhere": (evidence[~inside] > 0).mean(),
        "share_of_evidence": evidence.clip(lower=0)[inside].sum() / evidence.clip(lower=0).sum(),
        "share_of_area": inside.mean(),
    }
    for reading in ("attention", "score", "evidence"):
        found[f"auc_{reading}"] = np.mean([roc_auc_score(t, own[reading]) for t, own in slides])
    return found


def at_20x(bags: BagSequence, folder: Path) -> BagSequence:
    """The same slides as scanned at 20x: patches of 256 level-0 pixels instead of 512."""
    folder.mkdir()
    for bag in bags:
        slide = Bag(bag.features, bag.coords // 2, bag_id=bag.bag_id)
        path = folder / f"{bag.bag_id}.h5"
        write_trident(path, slide, patch_size_level0=256, level0_magnification=20)
    return read_bags(folder)


def recall(genes: pd.DataFrame, omics) -> float:
    """Share of planted genes among the first 40."""
    return float(omics.var["signature"].reindex(genes["gene"].iloc[:N_SIGNATURE]).mean())


def of_seed(patients: int, epochs: int, seed: int) -> dict[str, float]:
    """All measures of one fit (and of one with the omics of others)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bags, y, omics, _ = cohort(folder / "fit", patients, 2 * seed)
        unseen, y_unseen, _, planted = cohort(folder / "unseen", patients, 2 * seed + 1)
        clf = model(epochs, seed).fit(bags, y, omics=omics)
        positive = np.asarray(y_unseen) == 1
        found = {"auroc_unseen": roc_auc_score(positive, clf.predict_proba(unseen)[:, 1])}
        shares = mass_and_area(patch_attention(clf, unseen), planted)
        other = mass_and_area(patch_attention(clf, at_20x(unseen, folder / "20x")), planted)
        for part, chosen in (("positive", positive), ("negative", ~positive)):
            found[f"area_{part}"] = shares[chosen, 1].mean()
            found[f"attention_{part}_40x"] = shares[chosen, 0].mean()
            found[f"attention_{part}_20x"] = other[chosen, 0].mean()
        best = top_patches(clf, unseen, n=3)
        inside = [planted[b][i] for b, i in zip(best["bag_id"], best["patch"], strict=True)]
        by_component = best.assign(inside=inside).groupby(["class", "component"])["inside"].mean()
        found |= {
            "top_patches_inside_class1": by_component[1].mean(),
            "top_patches_inside_best_component": by_component[1].max(),
            "top_patches_inside_class0": by_component[0].mean(),
            "effective_components": memory_usage(clf, unseen).summary.loc[
                "slide", "effective_components"
            ],
        }
        genes = gene_attributions(clf, omics, random_state=seed)
        found |= {"gene_recall": recall(genes.genes, omics), "completeness": genes.completeness}
        selector = clf.omics_transformer_[1].scores_
        welch = pd.DataFrame({"gene": omics.var_names[np.argsort(-selector, kind="stable")]})
        found["gene_recall_welch_t"] = recall(welch, omics)
        moved = omics.copy()
        moved.obs_names = np.random.default_rng(seed).permutation(moved.obs_names)
        wrong = model(epochs, seed).fit(bags, y, omics=moved)
        found["gene_recall_permuted"] = recall(
            gene_attributions(wrong, moved, random_state=seed).genes, moved
        )
        explained = explain_prediction(clf, unseen[:20], random_state=seed)
        return found | {"explanation_error": explained.fidelity_error}


def codings_of_seed(patients: int, epochs: int, seed: int) -> pd.DataFrame:
    """Measures of two fits, a row each: the planted class as C+ and as C-."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bags, y, omics, _ = cohort(folder / "fit", patients, 2 * seed)
        unseen, y_unseen, _, planted = cohort(folder / "unseen", patients, 2 * seed + 1)
        rows = []
        for memory, positive in (("C+", 1), ("C-", 0)):
            clf = model(epochs, seed).set_params(pos_label=positive).fit(bags, y, omics=omics)
            auroc = roc_auc_score(y_unseen, clf.predict_proba(unseen)[:, 1])
            row = {"seed": seed, "memory": memory, "auroc_unseen": auroc}
            rows.append(row | of_planted(clf, unseen, planted))
    return pd.DataFrame(rows).round(4)


def heat_map_seconds(n_patches: int) -> list[dict]:
    """Seconds of a paper-size model on one HDF5 slide, and to write its GeoJSON."""
    random = np.random.default_rng(0)
    small = [random.normal(i % 2, size=(50, 1536)).astype(np.float32) for i in range(8)]
    clf = MoMKDClassifier(max_epochs=1, early_stopping=False, random_state=0)
    clf.fit(small, np.arange(8) % 2)
    side = int(np.ceil(np.sqrt(n_patches)))
    coords = np.stack(np.divmod(np.arange(n_patches), side), axis=1) * 512
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slide = Bag(random.standard_normal((n_patches, 1536), np.float32), coords, bag_id="S")
        write_trident(folder / "S.h5", slide, patch_size_level0=512)
        del slide
        (bag,) = read_bags(folder)
        clf.predict_proba(small[:1])  # compiled loops are loaded
        table, attention = timed(patch_attention, clf, [bag])
        _, geojson = timed(to_geojson, table, folder / "S.geojson", bag=bag)
    what = {"patches": n_patches, "features": 1536}
    return [what | {"step": "patch_attention"} | attention, what | {"step": "to_geojson"} | geojson]


def timed(function, *args, **kwargs):
    """What the function gives, and its seconds."""
    clock, cpu = time.perf_counter(), time.process_time()
    result = function(*args, **kwargs)
    spent = {"seconds": time.perf_counter() - clock, "cpu_seconds": time.process_time() - cpu}
    return result, {name: round(value, 2) for name, value in spent.items()}


def run(options: argparse.Namespace) -> None:
    """Measure, print and write the tables."""
    torch.set_num_threads(1)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, one thread"
    options.write.mkdir(parents=True, exist_ok=True)
    if options.slides:
        speed = pd.DataFrame([row for n in options.slides for row in heat_map_seconds(n)])
        print(speed.to_string(), flush=True)
        speed.assign(machine=machine).to_csv(options.write / "heat_map.csv", index=False)
    codings = pd.DataFrame()
    for seed in options.coding_seeds:
        found = codings_of_seed(options.patients, options.epochs, seed)
        codings = pd.concat([codings, found])
        print(found.T.to_string(), flush=True)
        codings.assign(machine=machine).to_csv(
            options.write / "inspection_codings.csv", index=False
        )
    rows = []
    for seed in options.seeds:
        found = of_seed(options.patients, options.epochs, seed)
        rows += [(seed, name, f"{value:.4g}") for name, value in found.items()]
        print(seed, {k: round(v, 3) for k, v in found.items()}, flush=True)
        table = pd.DataFrame(rows, columns=["seed", "measure", "value"])
        table.assign(machine=machine).to_csv(options.write / "inspection.csv", index=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--coding-seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--slides", nargs="*", type=int, default=[20_000, 100_000])
    parser.add_argument("--write", type=Path, default=RESULTS)
    run(parser.parse_args())
