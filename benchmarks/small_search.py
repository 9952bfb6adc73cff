"""Which settings suit some hundred patients? Many small fits in lockstep, on inner folds.

    python benchmarks/small_search.py --data DATA [--only NAME ...]

`DATA` (or the environment variable SK_MOMKD_DATA) holds the folder `tcga_brca`. Only the training
part of one split (seed 0, fold 0 of 5, whole sites) is used, in five inner folds of sites for each
of five labels. The bags are of equal size and their graphs complete, so the 25 fits are stacked:
each weight has a first axis for the fit, and a step of all costs little more than a step of one.
The equations are those of `MoMKDClassifier` (`momkd_of` copies a fit into its module, and a test
compares the logits); what is tried beyond them is described at `VARIANTS`. Each setting is a row of
`docs/results/small_search.csv`, and a line of the page beside it; rows that are there are not run
again.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from real_cohorts import read_task, scale_patches
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from small_stack import Stack

from sk_momkd.data.omics import join_omics
from sk_momkd.estimators.cross_fitted_teacher import cross_fit
from sk_momkd.preprocessing.omics import default_omics_transformer

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "small_search.csv"
PAGE = RESULTS.with_suffix(".md")
LABELS = ("her2", "pr", "ror_high", "er", "hrd")


@dataclass(frozen=True)
class Settings:
    """One row of the search; names and defaults as in `MoMKDClassifier` where it has them.

    The last six are variants of the memory's part that are not in the library: see `VARIANTS`.
    """

    omics: bool = True
    permuted: bool = False  # omics of other patients of the same label
    hidden_dim: int = 64
    projection_dim: int = 32
    n_components: int = 16
    head_hidden_dim: int = 32
    omics_hidden_dim: int = 64
    dropout: float = 0.25
    head_dropout: float = 0.25
    omics_dropout: float = 0.25
    input_dropout: float = 0.3
    instance_dropout: float = 0.0
    weight_decay: float = 0.05
    batch_size: int = 32
    learning_rate: float = 7e-4
    max_epochs: int = 25
    average_after: float = 0.5
    label_smoothing: float = 0.0
    lambda_teacher: float = 0.0
    teacher_c: float = 1e-3  # of the teacher's logistic regression
    teacher_temperature: float = 0.5
    teacher_alignment: bool = False
    lambda_ce: float = 0.5
    lambda_mse: float = 0.01
    lambda_mem: float = 0.1
    alpha_omics: float = 0.05
    alpha_wsi: float = 0.2
    margin: float = 0.3
    match: float = 0.0
    match_classes: bool = False
    contrast: float = 0.0
    margin_growth: float = 0.0
    omics_noise: float = 0.0
    regress: float = 0.0


VARIANTS = {
    "match": "Kullback-Leibler divergence of the slide's softmax over the components of its class "
    "from the omics profile's (temperature .2, memory and omics detached)",
    "match_classes": "the same over the components of both classes",
    "contrast": "cross-entropy of finding the patient's own omics among those of the same class in "
    "the batch by the cosine of the affinities (temperature .1)",
    "margin_growth": "by how much the margin has grown at the end",
    "omics_noise": "dropout on the genes that enter the omics branch",
    "regress": "squared error of the slide's margin against `margin` times the teacher's logit in "
    "standard deviations",
}

_none = Settings(omics=False)
_soft = Settings(lambda_teacher=0.8, teacher_c=1e-4, alpha_omics=0.0, lambda_mse=0.0)
_short = replace(_soft, max_epochs=15, teacher_alignment=True)
GRID: dict[str, Settings] = {
    "no omics": _none,
    "memory": Settings(),
    "soft labels, half": replace(_soft, lambda_teacher=0.5, teacher_c=1e-3),
    "soft labels": _soft,
    "soft labels alone": replace(_soft, lambda_teacher=1.0),
    "soft labels, sharp": replace(_soft, teacher_temperature=0.25),
    "soft labels, flat": replace(_soft, teacher_temperature=1.0),
    "soft labels, C=1e-2": replace(_soft, teacher_c=1e-2),
    "soft labels of others": replace(_soft, permuted=True),
    "soft labels in the alignment": replace(_soft, teacher_alignment=True),
    "soft labels and memory": replace(_soft, alpha_omics=0.05, lambda_mse=0.01),
    "soft labels in the alignment, and memory": replace(
        _soft, teacher_alignment=True, alpha_omics=0.05, lambda_mse=0.01
    ),
    "memory, match": Settings(match=0.1),
    "memory, match classes": Settings(match=0.1, match_classes=True),
    "memory, contrast": Settings(contrast=0.1),
    "memory, growing margin": Settings(margin_growth=0.7),
    "memory, weak noised omics": Settings(omics_noise=0.5, omics_hidden_dim=16),
    "memory, regress": Settings(regress=0.5),
    **{
        f"no omics, {name}": replace(_none, **changed)
        for name, changed in {
            "15 epochs": {"max_epochs": 15},
            "10 epochs": {"max_epochs": 10},
            "50 epochs": {"max_epochs": 50},
            "batches of 16": {"batch_size": 16, "learning_rate": 5e-4},
            "learning rate 3e-4": {"learning_rate": 3e-4},
            "learning rate 1.5e-3": {"learning_rate": 1.5e-3},
            "weight decay 0.2": {"weight_decay": 0.2},
            "input dropout 0.5": {"input_dropout": 0.5},
            "dropout 0.5": {"dropout": 0.5, "head_dropout": 0.5},
            "instance dropout 0.25": {"instance_dropout": 0.25},
            "width 32": {"hidden_dim": 32, "projection_dim": 16},
            "width 128": {"hidden_dim": 128, "projection_dim": 64},
            "average of all epochs": {"average_after": 0.0},
            "last epoch": {"average_after": 0.95},
            "label smoothing 0.2": {"label_smoothing": 0.2},
            "no alignment, no memory loss": {"alpha_wsi": 0.0, "lambda_mem": 0.0},
        }.items()
    },
    "short: soft labels": _short,
    "short: soft labels of others": replace(_short, permuted=True),
    "short: hard alignment": replace(_short, teacher_alignment=False),
    "short: soft labels alone": replace(_short, lambda_teacher=1.0),
    "short: and memory": replace(_short, alpha_omics=0.05, lambda_mse=0.01),
    "short: and memory, match": replace(_short, alpha_omics=0.05, lambda_mse=0.01, match=0.2),
    "short: flat": replace(_short, teacher_temperature=1.0),
    "short: no alignment": replace(_short, alpha_wsi=0.0, lambda_mem=0.0),
    "short: regress": replace(_short, regress=0.5),
    "short: width 128": replace(_short, hidden_dim=128, projection_dim=64),
    "short: 10 epochs": replace(_short, max_epochs=10),
}


@dataclass
class Folds:
    """All (label, inner fold) pairs, padded to the largest.

    Attributes
    ----------
    x : Tensor of shape (fits, bags, instances, features)
    y : Tensor of shape (fits, bags)
    genes : Tensor of shape (fits, bags, genes)
    teacher : dict of Tensor of shape (fits, bags)
        Cross-fitted probability of class 1 at temperature 1, by the teacher's C.
    sizes : Tensor of shape (fits,)
    test_x : Tensor; test_y : list of ndarray
    """

    x: torch.Tensor
    y: torch.Tensor
    genes: torch.Tensor
    teacher: dict[float, torch.Tensor]
    sizes: torch.Tensor
    test_x: torch.Tensor
    test_y: list[np.ndarray]


def read_folds(data: Path, strengths: list[float]) -> Folds:
    parts: list[dict] = []
    for label in LABELS:
        bags, y, omics, groups, _ = read_task(data, "tcga_brca", label)
        outer = StratifiedGroupKFold(5, shuffle=True, random_state=0)
        part = next(outer.split(y, y, groups))[0]
        bags, y, groups = bags[part], y[part], groups[part]
        inner = StratifiedGroupKFold(5, shuffle=True, random_state=100)
        for number, (train, test) in enumerate(inner.split(y, y, groups)):
            scale = scale_patches().fit(bags[train])
            x = [np.stack([b.features for b in scale.transform(bags[p])]) for p in (train, test)]
            table, rows = join_omics(omics, bags)
            genes = default_omics_transformer(768).fit(table.rows(rows[train]), y[train])
            codes = np.unique(groups[train], return_inverse=True)[1]
            one = {"x": x[0], "test_x": x[1], "y": y[train], "test_y": y[test]}
            one["genes"] = genes.transform(table.rows(rows[train])).astype(np.float32)
            for c in strengths:
                teacher = make_pipeline(
                    StandardScaler(),
                    LogisticRegression(C=c, class_weight="balanced", max_iter=1000),
                )
                known = (table, rows[train], y[train], codes)
                each = {"classes": [0, 1], "random_state": number, "pairs": False}
                one[c] = cross_fit(teacher, *known, **each).soft_labels(1.0)[:, 1]
            parts.append(one)
    return Folds(
        padded([p["x"] for p in parts]),
        padded([p["y"] for p in parts]).long(),
        padded([p["genes"] for p in parts]),
        {c: padded([p[c] for p in parts]) for c in strengths},
        torch.tensor([len(p["y"]) for p in parts]),
        padded([p["test_x"] for p in parts]),
        [p["test_y"] for p in parts],
    )


def padded(arrays: list[np.ndarray]) -> torch.Tensor:
    longest = max(map(len, arrays))
    rest = [[(0, longest - len(a))] + [(0, 0)] * (a.ndim - 1) for a in arrays]
    return torch.from_numpy(np.stack([np.pad(a, r) for a, r in zip(arrays, rest, strict=True)]))


def permuted_within_class(folds: Folds, generator: torch.Generator) -> Folds:
    """Genes and soft labels of another patient of the same label."""
    genes = folds.genes.clone()
    teacher = {c: s.clone() for c, s in folds.teacher.items()}
    for i, n in enumerate(folds.sizes):
        for c in (0, 1):
            here = torch.nonzero(folds.y[i, :n] == c)[:, 0]
            there = here[torch.randperm(len(here), generator=generator)]
            genes[i, here] = folds.genes[i, there]
            for strength, soft in folds.teacher.items():
                teacher[strength][i, here] = soft[i, there]
    return replace(folds, genes=genes, teacher=teacher)


def fit(folds: Folds, settings: Settings, seed: int = 0) -> dict:
    """AUC of each fit on its inner test fold, training AUC, and the omics alignment's loss."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    if settings.permuted:
        folds = permuted_within_class(folds, generator)
    stack = Stack(folds, settings, generator)
    optimizer = torch.optim.AdamW(
        stack.weights.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.max_epochs)
    counts = torch.stack([(1 - folds.y).sum(1), folds.y.sum(1)], 1).double()
    counts[:, 0] -= folds.y.shape[1] - folds.sizes  # the padding is no bag
    inside = torch.arange(folds.y.shape[1]) < folds.sizes[:, None]
    chance = inside / counts.gather(1, folds.y)
    n_steps = math.ceil(float(folds.sizes.float().mean()) / settings.batch_size)
    mean: dict[str, torch.Tensor] = {}
    aligned = []
    for epoch in range(settings.max_epochs):
        drawn = torch.multinomial(
            chance, n_steps * settings.batch_size, replacement=True, generator=generator
        )
        for rows in drawn.split(settings.batch_size, dim=1):
            loss = stack.loss(rows, progress=epoch / settings.max_epochs)
            optimizer.zero_grad()
            loss.sum().backward()
            optimizer.step()
        schedule.step()
        aligned.append(stack.omics_alignment)
        n = epoch + 1 - int(settings.average_after * settings.max_epochs)
        if n > 0:
            for name, weight in stack.weights.items():
                last = weight.detach().clone()
                mean[name] = last if n == 1 else mean[name].lerp(last, 1 / n)
    stack.weights = mean
    with torch.no_grad():
        test, train = (stack.logits(x).diff(dim=2)[..., 0].numpy() for x in (folds.test_x, folds.x))
    known = [y[:n].numpy() for y, n in zip(folds.y, folds.sizes, strict=True)]
    return {
        "auc": [roc_auc_score(y, z[: len(y)]) for y, z in zip(folds.test_y, test, strict=True)],
        "train": np.mean(
            [roc_auc_score(y, z[: len(y)]) for y, z in zip(known, train, strict=True)]
        ),
        "align_omics_first": aligned[0],
        "align_omics_last": aligned[-1],
    }


def aucs(labels: list[np.ndarray], scores: np.ndarray) -> list[float]:
    return [roc_auc_score(y, z[: len(y)]) for y, z in zip(labels, scores, strict=True)]


def main(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    rows = pd.read_csv(RESULTS).to_dict("records") if RESULTS.exists() else []
    done = {row["name"] for row in rows}
    missing = [n for n in options.only or GRID if n not in done]
    if not missing:
        PAGE.write_text(as_markdown(pd.DataFrame(rows)))
        return
    folds = read_folds(options.data, sorted({s.teacher_c for s in GRID.values()}))
    for name in missing:
        start = time.perf_counter()
        found = fit(folds, GRID[name])
        by_label = np.reshape(found.pop("auc"), (len(LABELS), -1))
        row = {"name": name} | dict(zip(LABELS, by_label.mean(axis=1).round(4), strict=True))
        row |= {"mean": round(float(by_label.mean()), 4)}
        row |= {k: round(float(v), 3) for k, v in found.items()}
        row |= {"seconds": round(time.perf_counter() - start, 1)}
        rows.append(row | asdict(GRID[name]))
        print(row, flush=True)
        pd.DataFrame(rows).to_csv(RESULTS, index=False)
        PAGE.write_text(as_markdown(pd.DataFrame(rows)))


def as_markdown(rows: pd.DataFrame) -> str:
    """A line per setting: AUC of each label, mean, difference to no omics, training AUC."""
    reference = rows.set_index("name")["mean"]["no omics"]
    head = ["setting", *LABELS, "mean", "to no omics", "training"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows.to_dict("records"):
        values = [f"{row[c]:.3f}" for c in (*LABELS, "mean")]
        values += [f"{row['mean'] - reference:+.3f}", f"{row['train']:.3f}"]
        lines.append("| " + " | ".join([row["name"], *values]) + " |")
    variants = "\n".join(f"- *{name}*: {words}." for name, words in VARIANTS.items())
    left = [name for name in GRID if name not in set(rows["name"])]
    unfinished = f"Settings that were not run: {', '.join(left)}. " if left else ""
    return (
        "# Settings for some hundred patients\n\n"
        "*Measured before soft labels of networks were shifted to the class shares (CHANGELOG, "
        "Unreleased); not run again.*\n\n"
        "AUC on inner test folds of the training part of one split of `tcga_brca` (five folds of "
        "whole sites, one seed of the networks), mean over the folds. With 25 folds of some 100 "
        "patients and one seed, differences below about .01 are not told from chance. "
        '`preset("small")` is *soft labels and memory*. *short*: 15 epochs, soft labels in the '
        "alignment, no memory where it is not named.\n\n"
        + "\n".join(lines)
        + f"\n\nVariants of the memory's part that are not in the library:\n\n{variants}\n\n"
        f"{unfinished}Command: `python benchmarks/small_search.py --data DATA`.\n"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("SK_MOMKD_DATA", ""))
    parser.add_argument("--only", nargs="+", choices=list(GRID))
    options = parser.parse_args()
    if not options.data.is_dir():
        parser.error("give --data or set SK_MOMKD_DATA")
    main(options)
