"""From the rows of fits to the paper's tables, as CSV and as one Markdown page."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import published
from page import line, short, write_page
from paper_figures import loss_page, memory_numbers, memory_page, misclassified, table_head
from paper_methods import METHODS, POOLED, PRINTED, PRIVILEGED, TITLES
from paper_numbers import ExternalResults, Results, share_draws

from sk_momkd.evaluation.statistics import Bootstrap
from sk_momkd.evaluation.study import Plan, Study

_FIGURES = {"s1": "figs1", "fig3": "fig3", "s3": "s3"}  # in names of files; others are tables
_DECIDED = {"acc": "ACC", "f1": "F1", "acc_tuned": "ACC, threshold", "f1_tuned": "F1, threshold"}
_WITH_DECISIONS = ("1", "2")  # the tables that have ACC and F1 in the paper, too


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
        row |= result.other_metrics(method, seeds) | result.decisions(method, seeds)
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

    decisions_note = (
        "ACC and macro F1 of the same predictions, mean (SD), of the most probable class (argmax) "
        "and at the threshold that each model chose on its inner validation part (best F1 of the "
        "positive class there); the paper does not say which of the two its tables have. Methods "
        "without a validation part have no threshold."
    )

    def decisions(self) -> str:
        """ACC and F1 of each method and task, and of always predicting the larger class."""
        tasks = [r.task.name for r in self.results if r.task.name in set(self.rows["task"])]
        by = self.rows.set_index(["task", "method"])
        lines = table_head(["", *(f"{t}: {shown}" for t in tasks for shown in _DECIDED.values())])
        for method in [m for m in self.methods if m in set(self.rows["method"])]:
            cells = []
            for task, kind in product(tasks, _DECIDED):
                row = by.loc[(task, method)] if (task, method) in by.index else None
                cells.append("" if row is None else with_sd(row[kind], row[f"{kind}_sd"]))
            lines.append(line([method, *cells]))
        larger = {r.task.name: majority(r.study) for r in self.results}
        cells = [short(larger[t][k]) if k in larger[t] else "" for t, k in product(tasks, _DECIDED)]
        return "\n".join([*lines, line(["always the larger class", *cells])])


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


def majority(study: Study) -> dict[str, float]:
    """ACC and macro F1 of always predicting the larger class."""
    share = max(study.labels.mean(), 1 - study.labels.mean())
    return {"acc": share, "f1": share / (1 + share)}


def published_page(table: str, one: Table) -> list[str]:
    """The paper's numbers of a table beside ours."""
    theirs = published.TABLES.get(table)
    if theirs is None or not len(one.rows):
        return []
    printed = list(dict.fromkeys(column for row in theirs.values() for column in row))
    named = {r.task.name: published.COUNTERPARTS.get(r.task.name) for r in one.results}
    columns = []  # (column of the paper or None, task of ours or None), counterparts side by side
    for column in printed:
        columns += [(column, None), *((None, t) for t, c in named.items() if c == column)]
    columns += [(None, t) for t, c in named.items() if c not in printed]
    heads = [f"{c}, paper" if c else f"{t}, ours" for c, t in columns]
    lines, by = table_head(["", *heads]), one.rows.set_index(["task", "method"])
    for method in [m for m in one.methods if m in set(one.rows["method"])]:
        cells = []
        for column, task in columns:
            number = theirs.get(method, {}).get(column) if column else None
            if task and (task, method) in by.index:
                number = by.loc[(task, method), ["auc", "sd"]]
            cells.append("" if number is None else with_sd(*number))
        lines.append(line([method, *cells]))
    return ["The paper's numbers and ours, AUC where nothing else is said:", "\n".join(lines)]


def differences(tasks: Sequence[Any]) -> str:
    """What differs from the paper's experiments."""
    bags = tasks[0].study.bags
    sizes = {bag.n_instances for bag in bags}
    instances = f"{min(sizes)}" if len(sizes) == 1 else f"{min(sizes)} to {max(sizes)}"
    odx = "for which there is no label here"
    if any(t.name == "ror_high" for t in tasks):
        odx = "for which ROR-high stands, a risk of recurrence computed from RNA"
    grouped = "" if tasks[0].study.sites is None else ", split by whole groups"
    return published.DIFFERENCES.format(
        features=f"bags of {instances} instances with {bags[0].n_features} measurements each",
        cohort=f"{max(len(t.study.names) for t in tasks)} patients at most{grouped}",
        odx=odx,
    )


def with_sd(mean: float, sd: float | None) -> str:
    """``.612 (.041)``"""
    if not np.isfinite(mean):
        return ""
    return short(mean) if sd is None or not np.isfinite(sd) else f"{short(mean)} ({short(sd)})"


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
    if any(table in published.TABLES or table == "fig3" for table in methods):
        said = [published.SOURCE, differences(tasks), published.DISAGREEMENTS]
        page += ["## The paper's experiments and these", " ".join(said)]
    for table, names in methods.items():
        stem = _FIGURES.get(table, f"table{table}")
        path = options.results / f"paper_{options.name}_{stem}.csv"
        kind = ExternalResults if table == "2" else Results
        results = [kind(task, rows, plans) for task in tasks]
        if table in ("fig3", "s3"):
            page += figure(table, rows, results, names, path)
            continue
        one = Table(names, results, bootstrap)
        if len(one.rows):
            one.rows.round(5).to_csv(path, index=False)
            page += [f"## {TITLES[table]}", note(table, names), one.markdown()]
            page += [one.decisions_note, one.decisions()] if table in _WITH_DECISIONS else []
            page += published_page(table, one)
            absent = set(impossible) & set(names) - set(one.rows["method"])
            page += [f"No row {method}: {impossible[method]}." for method in sorted(absent)]
    write_page(
        options.results / f"paper_{options.name}.md",
        f"The paper's tables on `{options.name}`",
        "\n\n".join(page),
    )


def figure(
    table: str, rows: pd.DataFrame, results: Sequence[Results], names: list[str], path: Path
) -> list[str]:
    """Page and CSV of Fig. 3 with the loss terms, or of the misclassified patients."""
    if table == "s3":
        numbers, page = misclassified(results, names)
        more = []
    else:
        numbers = memory_numbers(rows, names)
        page = memory_page(numbers) if len(numbers) else []
        more = loss_page(numbers) if len(numbers) else []
    if not page:
        return []
    numbers.round(4).to_csv(path, index=False)
    return [
        f"## {TITLES[table]}",
        *page,
        *(["## The loss terms during training", *more] if more else []),
    ]


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
    dates = sorted(rows["date"].unique())
    dated = "" if not dates else f", of {' to '.join(dict.fromkeys((dates[0], dates[-1])))}"
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
        + (
            f"; {PRINTED} and the rows called small or default have presets of their own "
            '(`preset("paper")` is what the paper prints) in this training. '
            if own
            else ". "
        )
        + "Intervals: patients drawn again "
        f"({options.n_bootstrap} times, the same for all methods and tasks); chance in training "
        "is not in them.",
        "; ".join(described(task) for task in tasks) + ".",
        f"{len(rows)} fits{dated}, {hours:.2f} h of processor time, one thread ({machines}). "
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
