"""The cohorts of the paper's tables: from files, or simulated; their folds and fingerprints."""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from numpy.typing import NDArray

from sk_momkd import Bag, BagSequence, PatientStratifiedKFold, load_cohort, simulate_cohort
from sk_momkd.evaluation.study import Plan, Study, as_study, make_plan
from sk_momkd.exceptions import LeakageError

SIMULATED = {
    "visible": {},
    "half hidden": {"omics_only": 0.5},
    "wrong labels": {"label_noise": 0.2},
}


class Task(NamedTuple):
    """One label of a cohort, and the same label elsewhere."""

    name: str
    study: Study
    external: Study | None

    @property
    def elsewhere(self) -> str:
        """What tells the other cohort from others; empty where there is none."""
        return "" if self.external is None else digest(self.external.names, self.external.labels)


def read_table(path: Path, options: argparse.Namespace) -> pd.DataFrame:
    return pd.read_csv(path, dtype=dict.fromkeys((options.slide_id, options.patient_id), str))


def read_study(
    table: pd.DataFrame,
    features: Path,
    omics: Path | None,
    label: str,
    options: argparse.Namespace,
) -> Study:
    """Bags with a label; with their groups and omics if these are given: those to learn from."""
    columns = {"slide_id": options.slide_id, "patient_id": options.patient_id}
    bags, y, profiles, report = load_cohort(
        table, features, omics, label=label, positive=options.positive[label], **columns
    )
    print(f"{label}: {report}", flush=True)
    groups = None
    if options.groups and omics is not None:
        require_groups(table, options)
        groups = table.set_index(options.slide_id)[options.groups].loc[list(bags.ids)]
        if groups.isna().any():
            raise SystemExit(f"{groups.index[groups.isna()][0]!r} has no {options.groups!r}.")
        if groups.nunique() == 1:
            print(f"{label}: {options.groups} {groups.iloc[0]!r} alone; folds are of patients.")
            groups = None
        else:
            groups = groups.astype(str).to_numpy()
    if options.in_memory:
        bags = BagSequence(
            Bag(bag.features, bag.coords, bag_id=bag.bag_id, patient_id=bag.patient_id)
            for bag in bags
        )
    return as_study(bags, y.astype(int), omics=profiles, groups=groups)


def require_groups(table: pd.DataFrame, options: argparse.Namespace) -> None:
    if options.groups not in table:
        raise SystemExit(f"--groups {options.groups}: the table has {list(table)}.")


def hold_out(table: pd.DataFrame, options: argparse.Namespace) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table without the external groups, and these alone."""
    require_groups(table, options)
    groups = table[options.groups].astype(str)
    if unknown := set(options.external_groups) - set(groups):
        raise SystemExit(
            f"--external-groups: {options.groups!r} has no {sorted(unknown)}; "
            f"it has {sorted(set(groups))}."
        )
    held_out = groups.isin(options.external_groups)
    return table[~held_out], table[held_out]


def tasks_from_files(options: argparse.Namespace) -> list[Task]:
    """A task per label; the other cohort has files of its own, or is some groups of this one."""
    here, there = read_table(options.table, options), None
    if options.external_groups:
        here, there = hold_out(here, options)
    elif options.external_table:
        there = read_table(options.external_table, options)
    elsewhere = options.external_features or options.features
    tasks = [
        Task(
            label,
            read_study(here, options.features, options.omics, label, options),
            None if there is None else read_study(there, elsewhere, None, label, options),
        )
        for label in options.labels
    ]
    for task in tasks:
        if task.external is not None:
            require_others(task.external.names, task.study.names)
    return tasks


def require_others(elsewhere: Iterable[str], trained: Iterable[str]) -> None:
    """Raise if a patient of the external cohort is also one of the training cohort."""
    shared = sorted(set(elsewhere) & set(trained))
    if shared:
        raise LeakageError(
            f"{len(shared)} patients of the external cohort are also in the training cohort; the "
            f"first is {shared[0]}. Leave them out of one of them."
        )


def simulated_tasks(options: argparse.Namespace) -> list[Task]:
    """Cohorts whose label is visible, half hidden from morphology, and sometimes wrong."""
    size = {"n_patients": options.patients, "n_patches": options.patches, "n_features": 32}
    size |= {"n_genes": 300, "effect": 0.5, "site_shift": 0.3, "n_sites": 10}
    with tempfile.TemporaryDirectory() as folder:
        options.in_memory, options.groups = True, "site"
        options.slide_id, options.patient_id = "slide_id", "case_id"
        options.positive = {"subtype": "aggressive"}
        tasks = []
        for i, (name, simulation) in enumerate(SIMULATED.items()):
            if name not in options.labels:
                continue
            here, there = (
                simulate_cohort(
                    Path(folder, f"{name}{where}"),
                    prefix=f"S{i}{where}",
                    stain_shift=shift,
                    random_state=10 * i + j,
                    **size,
                    **simulation,
                )
                for j, (where, shift) in enumerate({"TRN": 0.0, "EXT": 0.4}.items())
            )
            studies = [
                read_study(
                    read_table(paths.table, options), paths.features, omics, "subtype", options
                )
                for paths, omics in ((here, here.omics), (there, there.omics))
            ]
            tasks.append(Task(name, *studies))
    return tasks


def folds(study: Study, n_splits: int, seed: int) -> Plan:
    """Folds of patients, or of whole groups, stratified by label."""
    return make_plan(study, PatientStratifiedKFold(n_splits, random_state=seed), 1, seed)


def fingerprint(study: Study, split: tuple[NDArray, NDArray]) -> str:
    """What tells the test patients of a fold, all labels and the omics from others."""
    parts = [study.names[study.patients_at(split[1])], study.names, study.labels]
    if study.omics is not None:
        rows = study.omics.match(study.bags)
        parts += [rows >= 0, study.omics.rows(rows[rows >= 0]).to_numpy()]
    return digest(*parts)


def digest(*parts: NDArray) -> str:
    """A short name of what arrays hold."""
    found = hashlib.sha256()
    for part in parts:
        found.update("\n".join(map(str, part)).encode() if part.dtype == object else part.tobytes())
    return found.hexdigest()[:12]
