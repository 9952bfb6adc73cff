"""From the rows of fits to the paper's tables, as CSV and as one Markdown page."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from page import line, short, write_page
from paper_methods import METHODS, POOLED, PRIVILEGED, TITLES
from paper_numbers import ExternalResults, Results, share_draws

from sk_momkd.evaluation.statistics import Bootstrap
from sk_momkd.evaluation.study import Plan, Study

_FIGURES = {"s1": "figs1", "fig3": "fig3"}  # in names of files; the others are tables
_EPOCHS = (1, 2, 3, 5, 10, 15, 20, 30, 50, 100)  # of Fig. 3 on the page; all are in the CSV
_FIG3 = {
    "memory_active_ratio": "active ratio",
    "memory_ever_used": "ever used",
    "memory_effective_components": "effective components",
    "valid_memory_active_ratio": "active ratio, validation",
    "valid_memory_effective_components": "effective components, validation",
    "memory_drift": "drift",
    "train_align_omics": "omics alignment loss",
    "train_align_wsi": "slide alignment loss",
}


class Table:
    """Rows of a table: AUC of each method and task, and its difference to the first method."""

    def __init__(self, methods: list[str], results: list[Results], bootstrap: Bootstrap) -> None:
        self.methods, self.results, self.bootstrap = methods, results, bootstrap
        share_draws(results, bootstrap)

    @cached_property
    def rows(self) -> pd.DataFrame:
        rows = [
            self._row(result, method)
            for result in self.results
            for method in self.methods
            if result.seeds(method)
        ]
        return pd.DataFrame([*rows, *self._means()])

    def _row(self, result: Results, method: str) -> dict[str, Any]:
        seeds = result.seeds(method)
        fits = result.fits(method, seeds)
        row: dict[str, Any] = {"task": result.task.name, "method": method}
        row |= {"seeds": " ".join(map(str, seeds)), "fits": len(fits)}
        row |= {k: result.auc(k, method, seeds, drawn=False)[0] for k in result.kinds()}
        row |= {"sd": result.spread(method, seeds)} | self._differences([result], method)
        row |= result.other_metrics(method, seeds)
        row["epochs"] = fits["epochs"].mean()
        return row | {"cpu_seconds": fits["cpu_seconds"].mean()}

    def _means(self) -> list[dict[str, Any]]:
        """Means over the tasks that a method has seeds of, if these are all."""
        rows = []
        for method in self.methods:
            seeds = [r.seeds(method) for r in self.results]
            if len(self.results) < 2 or not all(seeds):
                continue
            row: dict[str, Any] = {"task": "mean", "method": method}
            for kind in self.results[0].kinds():
                pairs = zip(self.results, seeds, strict=True)
                row[kind] = np.mean([r.auc(kind, method, s, drawn=False)[0] for r, s in pairs])
            rows.append(row | self._differences(self.results, method))
        return rows

    def _differences(self, results: Sequence[Results], method: str) -> dict[str, float]:
        """To the first method, over the seeds that both have, mean over the tasks."""
        first, found = self.methods[0], {}
        shared = [tuple(s for s in r.seeds(method) if s in r.seeds(first)) for r in results]
        if method == first or not all(shared):
            return {}
        for kind in results[0].kinds():
            once, drawn = (
                np.mean(
                    [
                        r.auc(kind, method, s, drawn=d) - r.auc(kind, first, s, drawn=d)
                        for r, s in zip(results, shared, strict=True)
                    ],
                    axis=0,
                )
                for d in (False, True)
            )
            low, high = self.bootstrap.interval(drawn)
            prefix = "" if kind == "auc" else f"{kind}_"
            found |= {f"{prefix}difference": once[0], f"{prefix}low": low, f"{prefix}high": high}
        return found

    def markdown(self) -> str:
        """A line per method; a column per task, and their mean."""
        tasks = list(dict.fromkeys(self.rows["task"]))
        by = self.rows.set_index(["task", "method"])
        kinds = self.results[0].kinds()
        head = [f"{task}, {k}" if len(kinds) > 1 else task for task in tasks for k in kinds]
        lines = [line(["", *head, "CPU s per fit"]), "|" + "---|" * (len(head) + 2)]
        for method in [m for m in self.methods if m in set(self.rows["method"])]:
            cells = [
                cell(by.loc[(task, method)], kind) if (task, method) in by.index else ""
                for task in tasks
                for kind in kinds
            ]
            seconds = self.rows.loc[self.rows["method"] == method, "cpu_seconds"].mean()
            lines.append(line([method, *cells, "" if np.isnan(seconds) else f"{seconds:.1f}"]))
        return "\n".join(lines)


def cell(row: pd.Series, kind: str) -> str:
    """``.612 (.041) +.012 [-.003, +.027]``"""
    prefix = "" if kind == "auc" else f"{kind}_"
    text = short(row[kind])
    if kind == "auc" and np.isfinite(row.get("sd", np.nan)):
        text += f" ({short(row['sd'])})"
    if np.isfinite(row.get(f"{prefix}difference", np.nan)):
        values = [short(row[prefix + k], "+") for k in ("difference", "low", "high")]
        text += "<br>{} [{}, {}]".format(*values)
    return text


def memory_numbers(rows: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """Mean over fits of what each epoch told; fits that had stopped by then are left out."""
    kept = rows[rows["method"].isin(methods) & (rows["history"] != "")]
    parts = []
    for fit in kept.itertuples():
        history = pd.DataFrame(json.loads(fit.history))
        epoch = np.arange(1, len(history) + 1)
        parts.append(history.assign(task=fit.task, method=fit.method, epoch=epoch))
    if not parts:
        return pd.DataFrame()
    by_epoch = pd.concat(parts).groupby(["task", "method", "epoch"])
    return by_epoch.mean().assign(fits=by_epoch.size()).reset_index()


def memory_page(numbers: pd.DataFrame) -> str:
    shown = numbers[numbers["epoch"].isin(_EPOCHS)]
    columns = {k: v for k, v in _FIG3.items() if k in shown}
    lines = [
        line(["task", "method", "epoch", "fits", *columns.values()]),
        "|" + "---|" * (len(columns) + 4),
    ]
    for row in shown.to_dict("records"):
        values = [f"{row[c]:.3g}" for c in columns]
        named = [row["task"], row["method"], str(row["epoch"]), str(row["fits"])]
        lines.append(line([*named, *values]))
    return "\n".join(lines)


def write_tables(
    rows: pd.DataFrame,
    tasks: Sequence[Any],
    plans: Mapping[Any, Plan],
    methods: Mapping[str, list[str]],
    options: argparse.Namespace,
    impossible: Mapping[str, str],
    *,
    command: str,
) -> None:
    """Write what the rows give: a CSV per table, and the page of all."""
    bootstrap = Bootstrap(options.n_bootstrap, 0.95, 0)
    page = [heading(rows, tasks, options, command)]
    for table, names in methods.items():
        stem = _FIGURES.get(table, f"table{table}")
        path = options.results / f"paper_{options.name}_{stem}.csv"
        if table == "fig3":
            numbers = memory_numbers(rows, names)
            if len(numbers):
                numbers.round(4).to_csv(path, index=False)
                page += [f"## {TITLES[table]}", MEMORY_NOTE, memory_page(numbers)]
            continue
        kind = ExternalResults if table == "2" else Results
        one = Table(names, [kind(task, rows, plans) for task in tasks], bootstrap)
        if len(one.rows):
            one.rows.round(5).to_csv(path, index=False)
            page += [f"## {TITLES[table]}", note(table, names), one.markdown()]
            absent = set(impossible) & set(names) - set(one.rows["method"])
            page += [f"No row {method}: {impossible[method]}." for method in sorted(absent)]
    write_page(
        options.results / f"paper_{options.name}.md",
        f"The paper's tables on `{options.name}`",
        "\n\n".join(page),
    )


MEMORY_NOTE = (
    "Means over fits. Training columns are over the stream of slides that the sampler drew, with "
    "dropout; validation columns over each slide of the inner validation part once, without. "
    "Active: used by more than 1/(10 n) of a slide's patches on average over slides (n components "
    "per class); ever used: by any; effective components: twice the geometric mean of the two "
    "memories' perplexities, at most 2 n; drift: mean 1 - cosine with the start."
)


def note(table: str, methods: Sequence[str]) -> str:
    if table == "2":
        return (
            "AUC on the other cohort: mean (SD) over all fold models, and of the mean probability "
            f"of the fold models of a seed (ensemble). Below: difference to {methods[0]} with 95 % "
            "interval."
        )
    text = (
        "AUC within test folds: mean (SD over seeds and folds). Below: difference to "
        f"{methods[0]} with 95 % interval."
    )
    if "WSI solely" in methods:
        text += (
            " WSI solely: MoMKD's encoder and head with gated attention (hidden width 128) in "
            "place of the memory, which the paper leaves open; no omics, cross-entropy alone."
        )
    if PRIVILEGED in methods:
        text += (
            f" {PRIVILEGED} needs RNA of the patient who is predicted: an upper reference, no "
            "competitor; patients without RNA are predicted at the mean expression. "
            f"{POOLED}: mean over the instances. Baselines other than MoMKD are this "
            "library's adaptations (`docs/methods.md`)."
        )
    return text


def heading(
    rows: pd.DataFrame, tasks: Sequence[Any], options: argparse.Namespace, command: str
) -> str:
    """Protocol, patients, machine, command, time."""
    whole, column = "patients", ""
    if tasks[0].study.groups is not None:
        whole, column = "groups", f" (`{options.groups}`)"
    seeds = " ".join(map(str, sorted(rows["seed"].unique())))
    machines = "; ".join(sorted(rows["machine"].unique()))
    hours = rows["cpu_seconds"].sum() / 3600
    settings = rows["settings"].iloc[0] if len(rows) else "-"
    own = any(METHODS[method].preset for method in rows["method"].unique())
    parts = [
        f"{options.n_splits} folds of whole {whole}{column}, seeds {seeds or '-'} for folds and "
        f"fits; where a method sets a validation part apart, it is of whole {whole}, too. Features "
        "are z-scores over the instances of the training part, clipped at 6; genes are chosen in "
        f"the training part. All methods: `{settings}`; what is "
        "not named is the method's own in this preset"
        + ("; rows called small or default have the preset of that name. " if own else ". ")
        + "Intervals: patients drawn again "
        f"({options.n_bootstrap} times, the same for all methods and tasks); chance in training "
        "is not in them.",
        "; ".join(described(task) for task in tasks) + ".",
        f"{len(rows)} fits, {hours:.2f} h of processor time, one thread ({machines}). "
        f"Command: `{command}`",
    ]
    return "\n\n".join(parts)


def described(task: Any) -> str:
    parts = [f"{task.name}: {counted(task.study)}"]
    if task.study.omics is not None:
        paired = (task.study.omics.match(task.study.bags) >= 0).sum()
        parts.append(f"{paired} bags with omics")
    if task.external is not None:
        parts.append(f"elsewhere {counted(task.external)}")
    return ", ".join(parts)


def counted(study: Study) -> str:
    groups = "" if study.sites is None else f" of {len(np.unique(study.sites))} groups"
    return f"{len(study.names)} patients{groups}, {int(study.labels.sum())} positive"
