"""The table of all methods, `docs/methods.md`: their papers, and what they cost.

    python benchmarks/methods_table.py [--measure] [--methods ...] [--folder /tmp]

Texts come from the docstrings, numbers of parameters from the modules at 1,536 features and 768
genes. With `--measure`, each method trains on slides of 2,000 patches and predicts one of 100,000
from a file, in a process of its own with one thread; `docs/results/methods.csv` keeps the numbers.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import platform
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import torch

from sk_momkd import all_estimators, read_bags

ROOT = Path(__file__).parents[1]
MEASURED = ROOT / "docs" / "results" / "methods.csv"
METHODS = dict(all_estimators("classifier"))
N_FEATURES, N_GENES, N_SLIDES, N_PATCHES, N_LARGE = 1536, 768, 12, 2000, 100_000


def takes_omics(cls) -> bool:
    return cls._uses_omics


def section(cls, name: str) -> str:
    """Text of a section of the docstring, in one line."""
    found = re.search(
        rf"{name}\n-+\n(.*?)(\n\n[A-Z][A-Za-z ]+\n-+\n|\Z)", inspect.getdoc(cls), re.S
    )
    return " ".join(found.group(1).split()) if found else ""


def n_parameters(*modules: torch.nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def n_trainable(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def parameters(cls) -> dict[str, int]:
    """Of the fitted model and, where omics teaches, of all that trains."""
    clf = cls()
    kept = n_parameters(clf._make_module(N_FEATURES, 0, 2).to("cpu"))
    if hasattr(clf, "_make_teacher"):
        kept = n_parameters(clf._make_module(N_FEATURES, 0, 2).student)
        student, teacher = clf._make_module, clf._make_teacher(N_FEATURES, N_GENES, 2).net
        trained = n_trainable(student(N_FEATURES, N_GENES, 2)) + n_trainable(teacher)
    else:
        trained = n_parameters(clf._make_module(N_FEATURES, N_GENES if takes_omics(cls) else 0, 2))
    return {"kept": kept, "trained": trained}


def measure(name: str, folder: Path) -> None:
    """Seconds per step, and memory and seconds of a large slide; printed as JSON."""
    torch.set_num_threads(1)
    cls, random = METHODS[name], np.random.default_rng(0)
    bags = [random.normal(size=(N_PATCHES, N_FEATURES)).astype(np.float32) for _ in range(N_SLIDES)]
    y = np.arange(N_SLIDES) % 2
    omics = {"omics": random.normal(size=(N_SLIDES, N_GENES))} if takes_omics(cls) else {}
    clf = cls.preset(
        "unified", max_epochs=3, early_stopping=False, sampler="shuffle", random_state=0
    )
    clf.fit(bags, y, **omics)
    stages = [clf.history_] + ([clf.teacher_history_] if hasattr(clf, "teacher_history_") else [])
    per_slide = sum(float(stage["dur"].min()) for stage in stages) / N_SLIDES
    bags.clear()
    large = read_bags(large_slide(folder))
    start = time.perf_counter()
    clf.predict_proba(large)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    found = {"ms_per_slide": 1000 * per_slide, "large_seconds": seconds, "large_gib": peak}
    print(json.dumps(found))


def large_slide(folder: Path) -> Path:
    """Folder with one file of many patches, made when it is missing."""
    folder = folder / f"sk_momkd_{N_LARGE}"
    path = folder / "LARGE.h5"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(1)
        with h5py.File(path, "w") as file:
            features = file.create_dataset("features", (N_LARGE, N_FEATURES), "float32")
            for i in range(0, N_LARGE, 5000):
                features[i : i + 5000] = random.normal(size=(5000, N_FEATURES))
            file["coords"] = np.stack(np.divmod(np.arange(N_LARGE), 320), axis=1) * 256
    return folder


def measured(methods: list[str], folder: Path) -> None:
    """Measure each method in a process of its own and keep the numbers."""
    rows = pd.read_csv(MEASURED, index_col="method") if MEASURED.exists() else pd.DataFrame()
    for name in methods:
        command = [sys.executable, __file__, "--child", name, "--folder", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        values = json.loads(done.stdout.splitlines()[-1])
        values["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, 1 thread"
        values["load"] = os.getloadavg()[1]  # mean of five minutes, this measurement's own included
        row = pd.DataFrame([values], index=pd.Index([name], name="method")).round(2)
        rows = row if rows.empty else pd.concat([rows.drop(index=name, errors="ignore"), row])
        rows.sort_index().to_csv(MEASURED)
        print(name, values, flush=True)


def as_markdown() -> str:
    costs = pd.read_csv(MEASURED, index_col="method") if MEASURED.exists() else pd.DataFrame()
    lines = [
        "# Methods",
        "",
        "Written by `python benchmarks/methods_table.py --measure`; do not edit.",
        "",
        "Every classifier has the same `fit`, validation part, sampler, stopper, devices and",
        'precision; `preset("original")` is the published training, the default (but for `prior`, '
        "which corrects probabilities from the sampler's class shares) of each but MoMKD,",
        'which has `"default"` (ours), `"paper"` (as printed) and `"release"` (as programmed);',
        '`preset("unified")` the same optimizer, sampler and stopper for all (AdamW, learning rate',
        "2e-4, weight decay 1e-4, one slide per step, gradient clipped at 16). MKD and TDC keep",
        "batches of 16 there, which are a part of these methods. All take any number of classes.",
        "All learn from omics by soft labels where `lambda_teacher` is above 0, and four of them",
        "by losses of their own, too.",
        "On the classical MIL sets ABMIL is within its paper's spread on four of five, and DSMIL,",
        "whose program chooses epoch and threshold on the test fold, is below its paper on all",
        "five ([table](results/classic.md)).",
        "",
        f"Parameters at {N_FEATURES:,} features, {N_GENES} genes and two classes: of the fitted",
        "model, and of all that trains. Time per slide of 2,000 patches in training (forward,",
        'backward and step, in `preset("unified")`; both stages of TDC together); time and peak',
        "memory of the process in predicting a slide of 100,000 patches from a file.",
        "",
        "| estimator | omics by a loss of its own | parameters: fitted / training | "
        "training, ms per slide | 100,000 patches: s / GiB |",
        "|---|---|---|---|---|",
    ]
    for name, cls in METHODS.items():
        counts = parameters(cls)
        cells = [f"`{name}`", "yes" if takes_omics(cls) else "no"]
        cells.append(f"{counts['kept']:,} / {counts['trained']:,}")
        if name in costs.index:
            row = costs.loc[name]
            cells += [f"{row.ms_per_slide:.0f}", f"{row.large_seconds:.0f} / {row.large_gib:.1f}"]
        lines.append("| " + " | ".join([*cells, *["-"] * (5 - len(cells))]) + " |")
    if len(costs):
        machine = costs["machine"].iloc[0]
        known = costs["load"].dropna() if "load" in costs else costs.iloc[:0, 0]
        load = f" (load average {known.min():.0f} to {known.max():.0f})" if len(known) else ""
        lines += ["", f"Machine: {machine}, with other work on it{load}: times are upper bounds."]
    lines += ["", "## Papers, and how the methods here differ from them", ""]
    for name, cls in METHODS.items():
        lines += [f"**{name}.** {section(cls, 'References')}", "", section(cls, "Notes"), ""]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--folder", type=Path, default=Path("/tmp"), help="for the large slide")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        measure(options.child, options.folder)
    else:
        if options.measure:
            measured(options.methods, options.folder)
        (ROOT / "docs" / "methods.md").write_text(as_markdown())
