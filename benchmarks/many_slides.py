"""Time to open, join and check thousands of slides, of which no features are read.

python benchmarks/many_slides.py [--slides 5000] [--patches 500]
    [--write docs/results/many_slides.csv]

Each slide is a file of its own as TRIDENT writes it: features and coordinates in chunks of one row,
attributes on the coordinates. Two slides are of one patient, whose expression of 2,000 genes is in
an .h5ad. The files have just been written, so that they are read from memory: a disk adds to it.
"""

from __future__ import annotations

import argparse
import datetime
import tempfile
import time
import warnings
from pathlib import Path

import anndata  # noqa: F401 - its import, of seconds, is not measured
import h5py
import numpy as np
import pandas as pd
from speed import machine

from sk_momkd import load_cohort, read_bags

N_FEATURES, N_GENES = 32, 2000


def write_slides(folder: Path, n_slides: int, n_patches: int) -> tuple[pd.DataFrame, Path]:
    """The slide table, and the file of expression."""
    from anndata import AnnData

    random = np.random.default_rng(0)
    places = np.stack(np.divmod(np.arange(n_patches), 25)[::-1], axis=1) * 512
    (folder / "bags").mkdir()
    for i in range(n_slides):
        features = random.normal(size=(n_patches, N_FEATURES)).astype(np.float16)
        with h5py.File(folder / "bags" / f"S{i:05d}.h5", "w") as file:
            file.create_dataset("features", data=features, chunks=(1, N_FEATURES))
            coords = file.create_dataset("coords", data=places, chunks=(1, 2))
            coords.attrs.update(patch_size=256, patch_size_level0=512, target_magnification=20)
    patients = [f"P{i // 2:05d}" for i in range(n_slides)]
    table = pd.DataFrame({"slide_id": [f"S{i:05d}" for i in range(n_slides)], "case_id": patients})
    known = pd.DataFrame(index=pd.unique(table["case_id"]))
    counts = random.poisson(2, (len(known), N_GENES)).astype(np.float32)
    AnnData(counts, known).write_h5ad(folder / "rna.h5ad")
    return table.assign(er=np.arange(n_slides) // 2 % 2), folder / "rna.h5ad"


def measure(folder: Path, table: pd.DataFrame, rna: Path) -> dict[str, float]:
    """Seconds of each step by the clock and of the processor, which others may use as well."""
    seconds, before = {}, (time.perf_counter(), time.process_time())

    def done(step: str) -> None:
        nonlocal before
        now = time.perf_counter(), time.process_time()
        seconds[f"{step}_s"], seconds[f"{step}_cpu_s"] = now[0] - before[0], now[1] - before[1]
        before = now

    bags = read_bags(folder / "bags")
    done("read_bags")
    cohort = load_cohort(table, folder / "bags", rna, label="er")
    done("load_cohort")
    found = cohort.report.check_geometry()
    done("check_geometry")
    if len(bags) != len(cohort.bags) or found["problem"].notna().any():
        raise SystemExit("The slides were not all read, or disagree.")
    own = [value for name, value in seconds.items() if name.endswith("cpu_s")]
    return seconds | {"together_s": sum(seconds.values()) - sum(own), "together_cpu_s": sum(own)}


def main() -> None:
    """Write slides, measure, print and, if asked, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slides", type=int, default=5000)
    parser.add_argument("--patches", type=int, default=500)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        table, rna = write_slides(Path(folder), options.slides, options.patches)
        seconds = measure(Path(folder), table, rna)
    row = {"slides": options.slides, "patches": options.patches}
    row |= {name: round(value, 2) for name, value in seconds.items()}
    row |= {"machine": machine("cpu"), "date": datetime.date.today().isoformat()}
    frame = pd.DataFrame([row])
    print(frame.T.to_string(header=False))
    if options.write:
        frame.to_csv(options.write, index=False)


if __name__ == "__main__":
    main()
