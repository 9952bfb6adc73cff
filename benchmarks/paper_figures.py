"""Of the paper's page what is no table of AUCs: Fig. 3, the loss terms, misclassified patients."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd
import published
from page import line, short
from paper_numbers import Results

from sk_momkd import misclassified_patients

_EPOCHS = (1, 2, 3, 5, 10, 15, 20, 30, 50, 100)  # on the page; all are in the CSV
_FIG3 = {
    "memory_ever_used": "ever used",
    "memory_active_ratio": "usage above 1/(10 m)",
    "memory_effective_components": "effective components",
    "valid_memory_ever_used": "ever used, validation",
    "valid_memory_active_ratio": "usage above 1/(10 m), validation",
    "valid_memory_effective_components": "effective components, validation",
    "memory_drift": "drift",
    "train_align_omics": "omics alignment loss",
    "train_align_wsi": "slide alignment loss",
}
_DEFINITIONS = {
    "ever used in an epoch (the paper's wording)": "memory_ever_used",
    "usage above 1/(10 m)": "memory_active_ratio",
}
_TERMS = {
    "ce": "cross-entropy",
    "align_wsi": "slide alignment",
    "align_omics": "omics alignment",
    "memory": "memory",
    "mse": "reconstruction",
}
_SHOWN = 10  # misclassified patients of a task on the page
FIG3_NOTE = (
    "Means over fits, all of which run through the same epochs. Training columns are over the "
    "stream of slides that the sampler drew, with dropout; validation columns over each slide of "
    "the inner validation part once, without. Ever used in an epoch: the fraction of components "
    "that at least one patch matched best. Usage above 1/(10 m): the fraction that more than "
    "1/(10 m) of a slide's patches matched best, on average over slides (m components per class). "
    "Effective components: twice the geometric mean of the two memories' perplexities, at most "
    "2 m; drift: mean 1 - cosine with the start."
)
LOSS_NOTE = (
    "Weight times mean loss term of the training slides of an epoch, mean over fits: what is added "
    "in Eq. 9. "
)
S3_NOTE = (
    "Patients that MoMKD misclassifies out of fold (most probable class), with a repeat per seed. "
    "Always wrong: in every repeat. p_true is the probability of the true class, wrong_ the "
    "fraction of wrong predictions of another method, means over patients and repeats. omics: "
    "logistic regression on the patients' RNA, out of fold, which says whether "
    "the omics agree with the label; pooled: logistic regression on the mean instance."
)


def memory_numbers(rows: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """Mean over fits of what each epoch told, through the epochs that all fits have."""
    kept = rows[rows["method"].isin(methods) & (rows["history"] != "")]
    parts = []
    for fit in kept.itertuples():
        history = pd.DataFrame(json.loads(fit.history))
        epoch = np.arange(1, len(history) + 1)
        parts.append(history.assign(task=fit.task, method=fit.method, epoch=epoch))
    if not parts:
        return pd.DataFrame()
    shortest = min(map(len, parts))
    by_epoch = pd.concat([part[:shortest] for part in parts])
    by_epoch = by_epoch.groupby(["task", "method", "epoch"], sort=False)
    return by_epoch.mean().assign(fits=by_epoch.size()).reset_index()


def memory_page(numbers: pd.DataFrame) -> list[str]:
    """Fig. 3: what the paper says, what holds here by both definitions, and the epochs."""
    columns = {k: v for k, v in _FIG3.items() if k in numbers}
    lines = table_head(["task", "method", "epoch", "fits", *columns.values()])
    for row in numbers[numbers["epoch"].isin(_EPOCHS)].to_dict("records"):
        named = [row["task"], row["method"], str(row["epoch"]), str(row["fits"])]
        lines.append(line([*named, *(f"{row[c]:.3g}" for c in columns)]))
    return [published.FIG3, _claims(numbers), FIG3_NOTE, "\n".join(lines)]


def _claims(numbers: pd.DataFrame) -> str:
    """By each definition the lowest epoch of each task, and the order of tasks at the end."""
    lines = table_head(["method", "definition", "task", "lowest", "last epoch", "above .75"])
    orders = []
    for method, part in numbers.groupby("method", sort=False):
        for definition, column in _DEFINITIONS.items():
            by_task = part.groupby("task", sort=False)[column].agg(["min", "last"])
            for task, row in by_task.iterrows():
                holds = "all epochs" if row["min"] > published.USED_SHARE else "not all"
                shares = [short(row["min"]), short(row["last"])]
                lines.append(line([str(method), definition, str(task), *shares, holds]))
            ranked = by_task["last"].sort_values(ascending=False, kind="stable")
            order = ", ".join(f"{task} {short(value)}" for task, value in ranked.items())
            orders.append(f"{method}, {definition}: {order}.")
    return (
        "\n".join(lines)
        + "\n\nTasks in the last epoch, most used memory first. "
        + " ".join(orders)
    )


def loss_page(numbers: pd.DataFrame) -> list[str]:
    """Weighted terms of the loss beside the cross-entropy."""
    columns = {f"weighted_{k}": v for k, v in _TERMS.items() if f"weighted_{k}" in numbers}
    if "weighted_ce" not in columns:
        return []
    others = [c for c in columns if c != "weighted_ce"]
    lines = table_head(["task", "method", "epoch", *columns.values(), "sum of the others"])
    for row in numbers[numbers["epoch"].isin(_EPOCHS)].to_dict("records"):
        values = [*(row[c] for c in columns), sum(row[c] for c in others)]
        named = [row["task"], row["method"], str(row["epoch"])]
        lines.append(line([*named, *(f"{v:.3g}" for v in values)]))
    verdicts = []
    for method, part in numbers.groupby("method", sort=False):
        n = len(part)
        counts = [f"{columns[c]} {(part[c] < part['weighted_ce']).sum()} of {n}" for c in others]
        all_below = (part[others].max(axis=1) < part["weighted_ce"]).sum()
        verdicts.append(
            f"{method}, epochs (of all tasks) in which a term is below the cross-entropy: "
            f"{', '.join(counts)}; all of them at once {all_below} of {n}."
        )
    return [" ".join([published.LOSSES, LOSS_NOTE, *verdicts]), "\n".join(lines)]


def misclassified(
    results: Sequence[Results], names: Sequence[str]
) -> tuple[pd.DataFrame, list[str]]:
    """Misclassified patients of the first method on all tasks, and their page."""
    tables, page = [], []
    shorter = {names[1]: "pooled", names[2]: "omics"} if len(names) > 2 else {}
    for result in results:
        seeds = result.seeds(names[0])
        if not seeds:
            continue
        others = {
            shown: result.evaluation(name, shared)
            for name, shown in shorter.items()
            if (shared := result.seeds(name))
        }
        found = misclassified_patients(result.evaluation(names[0], seeds), others=others)
        tables.append(found.patients.assign(task=result.task.name))
        agreement = found.agreement.reset_index()
        page += [
            f"### {result.task.name}",
            f"{found.headline}.",
            _markdown(agreement[agreement["n_patients"] > 0]),
            *([] if found.sites is None else [_sites(found.sites)]),
            _markdown(found.patients.head(_SHOWN).drop(columns="n_repeats")),
        ]
    return pd.concat(tables) if tables else pd.DataFrame(), [S3_NOTE, *page] if page else []


def _sites(sites: pd.DataFrame) -> str:
    """Sentence on the spread over groups that are not tiny."""
    large = sites[sites["n_patients"] >= 20]
    named = [f"{g} {short(r['wrong'])} of {r['n_patients']:.0f}" for g, r in large.iterrows()]
    return (
        f"Fraction of wrong predictions by group, of {len(large)} groups with 20 patients or more: "
        f"{', '.join(named)}."
        if named
        else "No group has 20 patients."
    )


def _markdown(table: pd.DataFrame) -> str:
    shown = table.map(_cell)
    rows = [line(list(row)) for row in shown.itertuples(index=False, name=None)]
    return "\n".join([*table_head(list(map(str, table.columns))), *rows])


def _cell(value: object) -> str:
    if isinstance(value, float):
        return short(value) if np.isfinite(value) else ""
    return str(value)


def table_head(cells: list[str]) -> list[str]:
    """The first two lines of a Markdown table."""
    return [line(cells), "|" + "---|" * len(cells)]
