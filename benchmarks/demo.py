"""What `make demo` shows, over five cohorts: AUROC at the second hospital with and without omics.

    OMP_NUM_THREADS=1 python benchmarks/demo.py

Each seed draws another training cohort, another second hospital and other initial weights. Writes
docs/results/demo.csv and prints the mean difference with its 95 % t interval over seeds.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from scipy.stats import t

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))

import demo  # noqa: E402

from sk_momkd import load_cohort  # noqa: E402


def one_seed(seed):
    """AUROC without and with omics at the second hospital of one simulated pair of cohorts."""
    with TemporaryDirectory() as folder:
        paths, second = demo.simulate(Path(folder), seed)
        bags, y, omics, _ = load_cohort(*paths, **demo.SIMULATED)
        models = {
            "without omics": demo.fit(bags, y, None, seed),
            "with omics": demo.fit(bags, y, omics, seed),
        }
        others = load_cohort(second.table, second.features, **demo.SIMULATED)
        return demo.second_hospital(models, others.bags, others.y)[1]["AUROC"]


def main():
    table = pd.DataFrame({seed: one_seed(seed) for seed in range(5)}).T.rename_axis("seed")
    table["difference"] = table["with omics"] - table["without omics"]
    table.round(4).to_csv(ROOT / "docs" / "results" / "demo.csv")
    difference = table["difference"].to_numpy()
    half = t.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / np.sqrt(len(difference))
    print(table.round(3).to_string())
    mean = difference.mean()
    print(f"with - without: {mean:+.3f} [{mean - half:+.3f}, {mean + half:+.3f}]")


if __name__ == "__main__":
    main()
