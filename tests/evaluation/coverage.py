"""Coverage of the bootstrap intervals and level of DeLong's test: a table of docs/evaluation.md.

Smaller classes have other intervals: benchmarks/small_samples.py.

Run: python tests/evaluation/coverage.py (OMP_NUM_THREADS=1; five minutes on one core).
"""

import numpy as np
from scipy.stats import norm

from sk_momkd.evaluation.fold_results import nan_mean
from sk_momkd.evaluation.metrics import auroc
from sk_momkd.evaluation.statistics import (
    bootstrap_weights,
    delong_test,
    percentile_interval,
    stratified_bootstrap_weights,
)

COHORTS = [(20, 100, 0.75), (40, 80, 0.75), (100, 400, 0.70)]
N_FOLDS, N_COHORTS, N_DRAWS = 5, 1000, 500


def simulate(n_positive, n_negative, truth):
    """Share of intervals with the truth (pooled, within folds), share of false differences."""
    random = np.random.default_rng(1)
    distance = np.sqrt(2) * norm.ppf(truth)
    y = np.r_[np.ones(n_positive, bool), np.zeros(n_negative, bool)]
    fold = np.r_[np.arange(n_positive) % N_FOLDS, np.arange(n_negative) % N_FOLDS]
    held, errors = np.zeros(2), 0
    for _ in range(N_COHORTS):
        score = random.normal(size=len(y)) + distance * y
        pooled = auroc(y, score, bootstrap_weights(np.arange(len(y)), N_DRAWS, random))
        draws = stratified_bootstrap_weights(fold, N_DRAWS, random)
        parts = [auroc(y[fold == k], score[fold == k], draws[:, fold == k]) for k in range(N_FOLDS)]
        for i, values in enumerate((pooled, nan_mean(parts))):
            low, high = percentile_interval(values, 0.95)
            held[i] += low <= truth <= high
        one, other = (score + 0.7 * random.normal(size=len(y)) for _ in range(2))
        errors += delong_test(y, one, other).p_value < 0.05
    return held / N_COHORTS, errors / N_COHORTS


if __name__ == "__main__":
    for n_positive, n_negative, truth in COHORTS:
        (pooled, within), errors = simulate(n_positive, n_negative, truth)
        shares = " | ".join(f"{share:.1%}" for share in (pooled, within, errors))
        print(f"| {n_positive}, {n_negative} | {truth:.2f} | {shares} |")
