"""How often slides of real cohorts are reported as unlike training, and altered ones are noticed.

    python benchmarks/feature_shift.py --data DATA [--repeats 4]

`DATA` (or the environment variable SK_MOMKD_DATA) holds the cohorts. In each of five folds (three
for `her2st`) of whole patients, and of whole sites where they are known, a `FeatureSummary` of the
other folds judges the slides of the fold as prediction does: as they are, and altered. No network
is trained. The two cohorts of 153 features come from the same program and other laboratories, so
each also judges the other. A row of `docs/results/feature_shift.csv` is a cohort, a way to split
and an alteration: the share of slides that are reported one by one, and the share of folds whose
slides are reported together.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pandas as pd
from real_cohorts import RESULTS

from sk_momkd.training.feature_scale import UnlikeTraining
from sk_momkd.training.feature_summary import FeatureSummary

COHORTS = ("tcga_brca", "tcga_blca", "tcga_brca_m2c", "ucsb_breast", "her2st")
SAME_FEATURES = {"her2st": "ucsb_breast", "ucsb_breast": "her2st"}


class Slides(NamedTuple):
    """Mean patch, variance within and number of patches of each slide; patients and sites."""

    means: np.ndarray
    within: np.ndarray
    sizes: np.ndarray
    patients: np.ndarray
    sites: np.ndarray | None


def read(data: Path, cohort: str) -> Slides:
    """What the summary needs of each slide."""
    table = pd.read_csv(data / cohort / "labels.csv", dtype=str)
    means, within, sizes = [], [], []
    for slide in table["slide_id"]:
        with h5py.File(data / cohort / "features" / f"{slide}.h5") as file:
            x = file["features"][:].astype(np.float32)
        means.append(x.mean(axis=0))
        within.append(x.var(axis=0))
        sizes.append(len(x))
    sites = table["site"].to_numpy() if "site" in table and cohort != "ucsb_breast" else None
    return Slides(
        np.array(means), np.array(within), np.array(sizes), table["case_id"].to_numpy(), sites
    )


def altered(slides: Slides, rows: np.ndarray, generator: np.random.Generator) -> dict:
    """Mean patches of slides as they are, and as another encoder, scale or stain makes them."""
    means = slides.means[rows]
    order = generator.permutation(means.shape[1])
    signs = generator.choice([-1, 1], means.shape[1])
    spread = np.sqrt(slides.within.mean(axis=0))
    return {
        "as they are": means,
        "features permuted": means[:, order],
        "features x 10": means * 10,
        "features x 2": means * 2,
        "features x 1.25": means * 1.25,
        "each feature moved by its deviation within slides": means + signs * spread,
        "each feature moved by twice its deviation within slides": means + 2 * signs * spread,
    }


def reported(summary: FeatureSummary, means: np.ndarray, sizes: np.ndarray) -> tuple[float, bool]:
    """Share of slides that are reported by themselves, and whether all are reported together."""
    unlike = UnlikeTraining(1.0, summary)
    unlike.distances = [summary.distance(m, n) for m, n in zip(means, sizes, strict=True)]
    unlike.names = [""] * len(means)
    return len(unlike.far()) / len(means), "together" in " ".join(unlike.messages())


def folds(groups: np.ndarray, generator: np.random.Generator) -> list[np.ndarray]:
    """Which slides are in each fold of whole groups."""
    names = generator.permutation(np.unique(groups))
    return [np.isin(groups, part) for part in np.array_split(names, min(5, len(names)))]


def rows_of(cohort: str, known: dict[str, Slides], repeats: int) -> list[dict]:
    """Rows of one cohort."""
    slides, generator, found = known[cohort], np.random.default_rng(0), []
    for unit, groups in (("patient", slides.patients), ("site", slides.sites)):
        for held_out in [] if groups is None else folds_of(groups, repeats, generator):
            rest = ~held_out
            summary = FeatureSummary.of(
                slides.means[rest], slides.within[rest].mean(axis=0), slides.sizes[rest]
            )
            tried = {
                name: (means, slides.sizes[held_out])
                for name, means in altered(slides, held_out, generator).items()
            }
            if (other := SAME_FEATURES.get(cohort)) is not None:
                tried[f"slides of {other}"] = known[other].means, known[other].sizes
            for name, (means, sizes) in tried.items():
                share, together = reported(summary, means, sizes)
                found.append(
                    {"cohort": cohort, "split by": unit, "slides": name, "n": len(means)}
                    | {"reported alone": share, "folds reported together": together}
                )
    return found


def folds_of(groups: np.ndarray, repeats: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Folds of all repeats."""
    return [fold for _ in range(repeats) for fold in folds(groups, generator)]


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("SK_MOMKD_DATA"))
    parser.add_argument("--repeats", type=int, default=4)
    options = parser.parse_args()
    known = {cohort: read(Path(options.data), cohort) for cohort in COHORTS}
    rows = pd.DataFrame([r for cohort in COHORTS for r in rows_of(cohort, known, options.repeats)])
    keys = ["cohort", "split by", "slides"]
    sums = {"n": "sum", "reported alone": "mean", "folds reported together": "mean"}
    table = rows.groupby(keys, sort=False).agg(sums).round(4).reset_index()
    table.to_csv(RESULTS / "feature_shift.csv", index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
