"""The paper's experiments on any cohort: Tables 1 to 4, Fig. 3 and S1, misclassified patients.

    python benchmarks/paper.py --table slides.csv --features features/ --omics rna.h5ad \
        --labels her2 pr --groups site \
        [--external-table ... --external-features ... | --external-groups E2 D8] \
        [--tables 1 2 3 4 s1 fig3 s3] [--seeds 0 1 2] [--n-splits 5] [--batch-size 16] ...
    python benchmarks/paper.py --simulate [...]

Each fit is a row of `paper_<name>_fits_<seed>.csv` under `docs/results` as soon as it is done, with
what it predicted; fits that are there are not run again, so a killed run goes on where it was. Rows
of other patients, labels or omics are refused; features are not compared: choose another --name
when they change. From the rows of the seeds of a call the tables are written, `paper_<name>.md` and
`paper_<name>_table<n>.csv` (`fig<n>` of figures), after each table of each seed. Methods that the
cohort cannot have, such as joined instances of bags of several sizes, are left out, and the page
says why. `--external-groups` keeps groups of the cohort out of all training: they are the other
cohort of table 2. `--simulate` makes three cohorts with different simulation parameters,
each with an external one. The rows contain machine and processor seconds (fit and test fold).
"""

from __future__ import annotations

import argparse
import ast
import csv
import datetime
import io
import json
import os
import platform
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray
from paper_methods import METHODS, PRIVILEGED, TABLES, Protocol, learns_from_omics, obstacle
from paper_tables import write_tables
from paper_tasks import SIMULATED, Task, fingerprint, folds, simulated_tasks, tasks_from_files

from sk_momkd.evaluation.fold_fit import bag_probabilities
from sk_momkd.evaluation.omics_comparison import permute_omics
from sk_momkd.evaluation.study import Plan, Study, permutation_generator
from sk_momkd.evaluation.study_fits import fit_folds

RESULTS = Path(__file__).parents[1] / "docs" / "results"
FIELDS = (
    *("task", "method", "settings", "seed", "fold", "data", "elsewhere", "threshold", "epochs"),
    *("cpu_seconds", "machine", "date", "p", "p_external", "history"),
)


def one_fit(
    task: Task, method: str, fold: tuple[int, int], protocol: Protocol, options: argparse.Namespace
) -> None:
    """Fit on one fold, predict its test patients and the other cohort, and append the row."""
    torch.set_num_threads(1)
    seed, number = fold
    plan, study = folds(task.study, options.n_splits, seed), task.study
    split, fit_seed = plan.splits[0][number], plan.seeds[0][number]
    model = protocol.model(method, study.omics)
    omics = study.omics if learns_from_omics(method, model) else None
    if METHODS[method].omics == "permuted":
        omics = permute_omics(study, permutation_generator(seed, number), within_class=True)
    alone = Plan([[split]], [[fit_seed]])
    start = time.process_time()
    outcome = fit_folds(study, model, alone, omics=[omics], keep_models=True)[0]
    seconds = time.process_time() - start
    history = getattr(outcome.model[-1], "history_", None)
    told = memory_history(outcome.model[-1], history) if method in TABLES["fig3"] else ""
    elsewhere = None if method == PRIVILEGED else task.external  # no omics is read of those
    external = [] if elsewhere is None else predict(outcome.model, elsewhere)
    row = {
        "task": task.name,
        "method": method,
        "settings": str(protocol),
        "seed": seed,
        "fold": number,
        "data": fingerprint(study, split),
        "elsewhere": task.elsewhere,
        "threshold": f"{outcome.threshold:.6g}",
        "epochs": 0 if history is None else len(history),
        "cpu_seconds": f"{seconds:.2f}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "date": datetime.date.today().isoformat(),
        "p": numbers(outcome.proba[:, 1]),
        "p_external": numbers(external),
        "history": told,
    }
    append(fits_file(options, seed), row)
    print(method, task.name, f"seed {seed} fold {number}", row["cpu_seconds"], "s", flush=True)


def predict(model: Any, study: Study) -> NDArray:
    """Probability of the positive class of each patient."""
    proba = bag_probabilities(model, study.bags, study.classes)
    return study.mean_over_bags(np.arange(len(study.bags)), proba)[:, 1]


def numbers(values: Any) -> str:
    return " ".join(f"{v:.6g}" for v in values)


def memory_history(clf: Any, history: pd.DataFrame | None) -> str:
    """What the epochs told of the memory, and the weighted terms of the loss, as JSON by column."""
    if history is None or "memory_active_ratio" not in history:
        return ""
    named = history.filter(regex="memory|align|valid_auc").copy()
    for term, weight in clf._make_loss().weights.items():
        if f"train_{term}" in history:
            named[f"weighted_{term}"] = weight * history[f"train_{term}"]
    return json.dumps({c: [float(f"{v:.4g}") for v in named[c]] for c in named})


def append(path: Path, row: dict[str, Any]) -> None:
    """One line by one write: runs in parallel do not tear each other's rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = io.StringIO()
    csv.DictWriter(line, FIELDS, lineterminator="\n").writerow(row)
    text = line.getvalue() if path.exists() else ",".join(FIELDS) + "\n" + line.getvalue()
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, text.encode())
        os.fsync(file)
    finally:
        os.close(file)


def fits_file(options: argparse.Namespace, seed: int) -> Path:
    return options.results / f"paper_{options.name}_fits_{seed}.csv"


def read_fits(path: Path) -> pd.DataFrame:
    """The rows that are there; a last one that a killed run left unfinished is cut off."""
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        print(f"{path.name}: the last row is unfinished and is run again", flush=True)
        path.write_bytes(whole)
    text = dict.fromkeys(("p", "p_external", "history", "data", "elsewhere"), str)
    absent = {"threshold": "nan", "cpu_seconds": ""}
    rows = pd.read_csv(io.BytesIO(whole), dtype=text, keep_default_na=False, na_values=absent)
    if list(rows) != list(FIELDS):
        raise SystemExit(f"{path.name} has columns {list(rows)}; this version writes {FIELDS}.")
    return rows.drop_duplicates(["task", "method", "settings", "seed", "fold"], keep="last")


def known_fits(options: argparse.Namespace, tasks: list[Task], protocol: Protocol) -> pd.DataFrame:
    """Rows of these settings; an error if their folds are not those of today."""
    files = [fits_file(options, seed) for seed in options.seeds]
    found = [read_fits(path) for path in files if path.exists()]
    rows = pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=FIELDS)
    rows = rows[rows["settings"] == str(protocol)]
    for task, seed in product(tasks, options.seeds):
        plan = folds(task.study, options.n_splits, seed)
        mine = rows[(rows["task"] == task.name) & (rows["seed"] == seed)]
        for fold, split in enumerate(plan.splits[0]):
            there = set(mine.loc[mine["fold"] == fold, "data"])
            if there - {fingerprint(task.study, split)}:
                raise SystemExit(
                    f"{fits_file(options, seed).name} has fits of {task.name}, fold {fold} on "
                    "other patients, labels, omics or folds than those of this call. Choose "
                    "another --name, or delete the file."
                )
    return rows


def missing_fits(
    rows: pd.DataFrame, tasks: list[Task], methods: list[str], seed: int, n_splits: int
) -> list[tuple[Task, str, tuple[int, int]]]:
    """Fits that are not there, or predicted another cohort elsewhere than today's."""
    elsewhere = rows["task"].map({task.name: task.elsewhere for task in tasks})
    rows = rows[(elsewhere == "") | (elsewhere == rows["elsewhere"])]
    done = set(zip(rows["task"], rows["method"], rows["seed"], rows["fold"], strict=True))
    every = product(methods, tasks, range(n_splits))
    return [(t, m, (seed, f)) for m, t, f in every if (t.name, m, seed, f) not in done]


def main(arguments: list[str] | None = None) -> None:
    """Fit what is missing, table by table, and write the tables."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse(arguments)
    protocol = Protocol(
        options.preset,
        options.batch_size,
        options.max_epochs,
        options.patience,
        options.n_genes,
        dict(options.sizes),
    )
    rows_of = {
        table: [m for m in TABLES[table] if m in (options.methods or METHODS)]
        for table in options.tables
    }
    protocol.refuse_unusable(sorted({m for rows in rows_of.values() for m in rows}))
    tasks = simulated_tasks(options) if options.simulate else tasks_from_files(options)
    impossible = impossible_rows(rows_of, tasks, options)
    for seed, table in product(options.seeds, options.tables):
        rows = known_fits(options, tasks, protocol)
        missing = []
        if not options.no_fits:
            methods = [m for m in rows_of[table] if m not in impossible]
            missing = missing_fits(rows, tasks, methods, seed, options.n_splits)
        Parallel(options.n_jobs)(delayed(one_fit)(*fit, protocol, options) for fit in missing)
        if missing or (seed, table) == (options.seeds[-1], options.tables[-1]):
            plans = {
                (task.name, s): folds(task.study, options.n_splits, s)
                for task in tasks
                for s in options.seeds
            }
            rows = known_fits(options, tasks, protocol)
            command = shown_command(arguments)
            write_tables(rows, tasks, plans, rows_of, options, impossible, command=command)


def impossible_rows(
    rows_of: dict[str, list[str]], tasks: list[Task], options: argparse.Namespace
) -> dict[str, str]:
    """Methods that the cohort cannot have, and why; an error for those that were asked for."""
    found = {}
    for method, task in product(sorted({m for rows in rows_of.values() for m in rows}), tasks):
        if method not in found and (why := obstacle(method, task.study.bags)):
            found[method] = why
            if options.methods and not options.no_fits:
                raise SystemExit(f"--methods {method!r}: {why}.")
            print(f"{method!r} is not fitted: {why}", flush=True)
    return found


def shown_command(arguments: list[str]) -> str:
    """The call without the paths of the machine it ran on."""
    data = os.environ.get("SK_MOMKD_DATA")
    shown = [a for a in arguments if a != "--no-fits"]
    if "--results" in shown:
        del shown[(at := shown.index("--results")) : at + 2]
    if data:
        shown = [a.replace(str(Path(data)), "$SK_MOMKD_DATA") for a in shown]
    shown = [Path(a).name if Path(a).is_absolute() else a for a in shown]
    return " ".join(["python benchmarks/paper.py", *(f"'{a}'" if " " in a else a for a in shown)])


def size(text: str) -> tuple[str, Any]:
    """``dim=16`` as a parameter of every method that has it."""
    name, _, value = text.partition("=")
    if not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    files = parser.add_argument_group("cohort")
    for name in ("table", "features", "omics", "external-table", "external-features"):
        files.add_argument(f"--{name}", type=Path)
    files.add_argument("--labels", nargs="+", help="columns; with --simulate, names of cohorts")
    files.add_argument(
        "--positive", nargs="+", default=["1"], help="positive value of all labels, or of each"
    )
    files.add_argument("--groups", help="column that folds keep whole, e.g. site")
    files.add_argument(
        "--external-groups", nargs="+", metavar="GROUP", help="groups that are the other cohort"
    )
    files.add_argument("--slide-id", default="slide_id")
    files.add_argument("--patient-id", default="case_id")
    files.add_argument("--in-memory", action="store_true", help="read all bags once")
    files.add_argument("--simulate", action="store_true")
    files.add_argument("--patients", type=int, default=150, help="of each simulated cohort")
    files.add_argument("--patches", type=int, default=40, help="per simulated slide")
    what = parser.add_argument_group("experiments")
    what.add_argument("--tables", nargs="+", default=["1"], choices=list(TABLES))
    what.add_argument("--methods", nargs="+", choices=list(METHODS), help="default: all")
    what.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of folds and fits")
    what.add_argument("--n-splits", type=int, default=5)
    what.add_argument("--no-fits", action="store_true", help="write the tables of what is there")
    what.add_argument("--n-jobs", type=int, default=1, help="folds fitted at once")
    how = parser.add_argument_group("training, the same for all methods")
    how.add_argument("--preset", default="unified", choices=["unified", "original"])
    how.add_argument("--batch-size", type=int, help="slides per step; default: the preset's")
    how.add_argument("--max-epochs", type=int)
    how.add_argument("--patience", type=int)
    how.add_argument("--n-genes", type=int, default=768)
    how.add_argument("--set", dest="sizes", nargs="+", type=size, default=[], metavar="NAME=VALUE")
    parser.add_argument("--n-bootstrap", type=int, default=2000)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--name", help="of the cohort, in the names of the results")
    options = parser.parse_args(arguments)
    if options.simulate:
        options.labels, options.name = (
            options.labels or list(SIMULATED),
            options.name or "simulated",
        )
        if unknown := set(options.labels) - set(SIMULATED):
            parser.error(f"--simulate has {list(SIMULATED)}, not {sorted(unknown)}")
    elif not (
        options.table and options.features and options.omics and options.labels and options.name
    ):
        parser.error("give --table, --features, --omics, --labels and --name, or --simulate")
    elif options.external_groups and (not options.groups or options.external_table):
        parser.error("--external-groups needs --groups, and replaces --external-table")
    elif options.external_table and not options.external_features:
        parser.error("--external-table needs --external-features")
    elif "2" in options.tables and not (options.external_table or options.external_groups):
        parser.error("table 2 needs --external-table, or --external-groups")
    if len(options.positive) == 1:
        options.positive *= len(options.labels)
    if len(options.positive) != len(options.labels):
        parser.error(f"--positive has {options.positive}, --labels {options.labels}")
    options.positive = dict(zip(options.labels, options.positive, strict=True))
    return options


if __name__ == "__main__":
    main()
