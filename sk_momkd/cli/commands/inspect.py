"""`inspect`: what is in the files and how they fit together, without training."""

from __future__ import annotations

from typing import Any

import typer

from ..examples import Command
from ..keys import Run, uses
from ..load import Loaded, load_run
from ..options import run_command
from ..session import Session

_NOT_USED = ("n_repeats", "n_bootstrap", "confidence_level", "n_jobs")
_USES = uses("cohort", "model.random_state", "evaluation", without=_NOT_USED)


@run_command(_USES)
def _inspect(run: Run, output: Session) -> None:
    cohort = load_run(run, None, labelled=run.cohort.label is not None)
    geometry = cohort.report.check_geometry()
    facts = {
        "features": _features(cohort),
        "leakage": _leakage(run, cohort),
        "omics": _omics(cohort),
    }
    lines = [f"{name}: {line}" for name, found in facts.items() for line in found]
    output.result(
        "\n".join([str(cohort.report), *lines]),
        {
            "slides": cohort.report.slides,
            "geometry": geometry.rename_axis("slide_id"),
            "unmatched_omics": cohort.report.unmatched_omics,
            **facts,
        },
    )


def _features(cohort: Loaded) -> list[str]:
    """Widths, formats and what the files state, such as encoder and magnification."""
    from ...data.stated import stated_table
    from ...exceptions import BagError

    widths: dict[str, int] = {}
    for bag in cohort.bags:
        try:
            kind = f"{bag.info.format}, {bag.n_features} features a patch"
        except BagError as error:
            kind = f"unreadable: {error}"
        widths[kind] = widths.get(kind, 0) + 1
    lines = [f"{n} slides, {kind}" for kind, n in widths.items()]
    stated = stated_table(cohort.bags)
    for name in stated:
        values = stated[name].dropna().astype(str).value_counts()
        if len(values):
            lines.append(f"{name} {', '.join(f'{v} ({n} slides)' for v, n in values.items())}")
    return lines


def _leakage(run: Run, cohort: Loaded) -> list[str]:
    """Whether no patient is in two folds, and files are of one slide each."""
    from ...model_selection.split import PatientStratifiedKFold, check_leakage
    from ...model_selection.split_files import read_splits

    n_patients, n_slides = len(set(cohort.bags.groups().tolist())), len(cohort.bags)
    lines = [f"{n_slides} slides of {n_patients} patients; no patient is in two folds"]
    if run.evaluation.splits is not None:
        splits: Any = read_splits(run.evaluation.splits, cohort.bags)
        check_leakage(splits, cohort.bags)
        lines.append(f"no patient is in two parts of the {len(splits)} splits that are given")
    elif cohort.y is not None:
        folds = PatientStratifiedKFold(run.evaluation.cv, random_state=run.model.random_state)
        splits = list(folds.split(cohort.bags, cohort.y, groups=cohort.sites))
        check_leakage(splits, cohort.bags)
        lines += [f"fold {i}: {_counts(cohort.y[test])}" for i, (_, test) in enumerate(splits)]
    return lines


def _counts(labels: Any) -> str:
    import pandas as pd

    counts = pd.Series(labels).value_counts(sort=False).sort_index()
    return ", ".join(f"{n} x {label!r}" for label, n in counts.items())


def _omics(cohort: Loaded) -> list[str]:
    if cohort.omics is None:
        return ["none"]
    from ...data.omics import as_omics
    from ...preprocessing.expression_outliers import are_counts

    table = as_omics(cohort.omics)
    values = table.rows(range(len(table.ids))).to_numpy()  # type: ignore[arg-type]
    kind = "whole numbers, used as log2(x + 1)" if are_counts(values) else "used unchanged"
    return [
        f"{len(table.ids)} rows of {len(table.genes)} genes, {kind}; "
        f"from {values.min():.4g} to {values.max():.4g}"
    ]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    text = "Show how slides, labels and omics were joined, and what the files state. No training."
    app.command("inspect", help=text, cls=Command)(_inspect)
