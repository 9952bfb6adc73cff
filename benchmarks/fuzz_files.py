"""Mutate bag files, expression files and cached copies, and count what reading them gives.

Each case is one file with changed, missing or zeroed bytes, read in a worker process:

- refused: an error of this package that names the file
- equal: the content of the sound file
- different: other content, without a word
- foreign: an error of another library, or of Python
- slow: more than ten seconds
- crash: the worker died

    python benchmarks/fuzz_files.py --write fuzz.csv [--counts docs/results/fuzz_files.csv]

The results are appended case by case; a run that was interrupted is continued.
"""

from __future__ import annotations

import argparse
import csv
import io
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

CASES = {
    "hdf5_without_checksums": 1000,
    "hdf5_of_write_trident": 500,
    "torch": 500,
    "h5ad": 500,
    "cache": 500,
}
FEATURES = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32)
COORDS = np.stack(np.divmod(np.arange(40), 8), axis=1) * 512
OUTCOMES = ["refused", "equal", "different", "foreign", "slow", "crash"]
SLOW = 10  # seconds


def mutated(content: bytes, random: np.random.Generator) -> bytes:
    """Some bytes changed, a part zeroed, or the end cut off."""
    changed, kind = bytearray(content), random.integers(4)
    if kind == 0:
        return content[: random.integers(len(content))]
    if kind == 1:
        start = random.integers(len(content))
        length = int(random.integers(1, 600))
        changed[start : start + length] = bytes(len(changed[start : start + length]))
        return bytes(changed)
    for _ in range(random.integers(1, 5)):
        place = random.integers(len(content))
        changed[place] = (
            random.integers(256) if kind == 2 else changed[place] ^ (1 << random.integers(8))
        )
    return bytes(changed)


def sound_files(folder: Path) -> dict[str, Path]:
    """One sound file of each kind."""
    import torch
    from anndata import AnnData
    from scipy import sparse

    from sk_momkd import Bag, write_trident

    paths = {kind: folder / kind / "S1.h5" for kind in CASES}
    paths |= {"torch": folder / "torch" / "S1.pt", "h5ad": folder / "h5ad" / "rna.h5ad"}
    for path in paths.values():
        path.parent.mkdir(exist_ok=True)
    for kind in ("hdf5_without_checksums", "cache"):
        with h5py.File(paths[kind], "w") as file:
            file.create_dataset("features", data=FEATURES, chunks=(1, 16))
            file["coords"] = COORDS
            file["coords"].attrs["patch_size_level0"] = 512
    bag = Bag(FEATURES, COORDS)
    write_trident(paths["hdf5_of_write_trident"], bag, patch_size_level0=512)
    torch.save(torch.tensor(FEATURES), paths["torch"])
    counts = sparse.csr_matrix(np.random.default_rng(1).poisson(0.7, (12, 30)).astype(np.float32))
    genes = pd.DataFrame(index=[f"G{i}" for i in range(30)])
    AnnData(counts, pd.DataFrame(index=[f"P{i}" for i in range(12)]), genes).write_h5ad(
        paths["h5ad"]
    )
    return paths


def content_of(kind: str, path: Path) -> list:
    """What a user gets: features and coordinates of a bag, or expression joined to patients."""
    from sk_momkd import Bag, BagSequence, cache_bags, read_bags
    from sk_momkd.io.cohort_omics import join_cohort_omics

    if kind == "h5ad":
        bags = BagSequence(
            Bag(np.ones((1, 2)), bag_id=f"S{i}", patient_id=f"P{i}") for i in range(12)
        )
        adata = join_cohort_omics(path, bags).adata
        values = adata.X.toarray() if hasattr(adata.X, "toarray") else np.asarray(adata.X)
        return [values.tolist(), list(adata.obs_names), list(adata.var_names)]
    bags = read_bags(path)
    bags = cache_bags(bags, path.parent / "cache", dtype="float32") if kind == "cache" else bags
    features, coords, *_ = bags[0].load()
    return [features.tolist(), None if coords is None else np.asarray(coords).tolist()]


def outcome(kind: str, path: Path, expected: list) -> tuple[str, str]:
    """Outcome of reading a file, and what was said."""
    from sk_momkd import BagError, CohortError, OmicsError

    started = time.perf_counter()
    try:
        found = content_of(kind, path)
        result, said = ("equal" if found == expected else "different"), ""
    except (BagError, CohortError, OmicsError) as error:
        result, said = "refused", str(error)
    except Exception as error:  # noqa: BLE001
        result, said = "foreign", f"{type(error).__name__}: {error}"
    return ("slow" if time.perf_counter() - started > SLOW else result), said[:200]


def work(table: Path, done: set[tuple[str, int]]) -> None:
    """Read all cases that are not done."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder, open(table, "a", newline="") as file:
        paths = sound_files(Path(folder))
        writer = csv.writer(file)
        for kind, n in CASES.items():
            path = paths[kind]
            expected = content_of(kind, path)
            target = next((path.parent / "cache").glob("*.bag")) if kind == "cache" else path
            sound = target.read_bytes()
            for seed in range(n):
                if (kind, seed) in done:
                    continue
                writer.writerow([kind, seed, "crash", ""])  # unless the next line follows
                file.flush()
                target.write_bytes(mutated(sound, np.random.default_rng(seed)))
                writer.writerow([kind, seed, *outcome(kind, path, expected)])
                file.flush()


def done_in(table: Path) -> pd.DataFrame:
    """Last line of each case."""
    names = ["kind", "seed", "outcome", "said"]
    text = table.read_text() if table.exists() else ""
    lines = pd.read_csv(io.StringIO(text), names=names, keep_default_na=False)
    return lines.drop_duplicates(["kind", "seed"], keep="last")


def main() -> None:
    """Start workers until all cases are done, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, default=Path("fuzz.csv"))
    parser.add_argument("--counts", type=Path)
    parser.add_argument("--worker", action="store_true")
    options = parser.parse_args()
    lines = done_in(options.write)
    if options.worker:
        work(options.write, set(zip(lines["kind"], lines["seed"], strict=True)))
        return
    while len(lines) < sum(CASES.values()):
        command = [sys.executable, __file__, "--worker", "--write", str(options.write)]
        code = subprocess.run(command, check=False).returncode
        before, lines = len(lines), done_in(options.write)
        if code and len(lines) == before:
            raise SystemExit(f"The worker ended with {code} before its first case.")
    counts = pd.crosstab(lines["kind"], lines["outcome"]).reindex(columns=OUTCOMES, fill_value=0)
    print(counts)
    if options.counts:
        counts.to_csv(options.counts)
    for said in lines.loc[lines["outcome"] == "foreign", "said"].drop_duplicates():
        print(said)


if __name__ == "__main__":
    main()
