"""Intervals and false differences with few patients: the bootstrap against small-sample methods.

    OMP_NUM_THREADS=1 python benchmarks/small_samples.py [--out docs/results/small_samples.csv]

Scores are simulated with a known AUROC, in five stratified folds. Columns `_before` are percentiles
of a bootstrap over patients, and DeLong's test with the normal distribution; columns `_now` are
what the library does where a class has fewer than 20 patients. Two methods are compared that are
equally good: noisy copies of one score, and with an AUROC of 0.5 two independent noises. Each row
of the table is written when it is done; a second run continues.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm

from sk_momkd.evaluation.comparison import half_width
from sk_momkd.evaluation.fold_results import PatientPredictions
from sk_momkd.evaluation.metrics import patient_metrics
from sk_momkd.evaluation.small_samples import small_sample_intervals
from sk_momkd.evaluation.statistics import Bootstrap, delong_test

COHORTS = [
    (n_positive, n_negative, auroc)
    for n_positive, n_negative in ((3, 57), (5, 55), (10, 50), (4, 4), (15, 45))
    for auroc in (0.5, 0.75, 0.9)
]
N_FOLDS, N_COHORTS, N_DRAWS = 5, 500, 200


def predictions(y, fold, score):
    """Scores as the predictions of one repeat."""
    positive = norm.cdf(score)
    proba, n = np.stack([1 - positive, positive], axis=1), len(y)
    return [PatientPredictions(np.arange(n), fold, y, proba, np.full(n, np.nan), np.ones(n))]


def one_cohort(y, fold, truth, bootstrap, random):
    """Whether each interval holds the truth, and whether each test finds a difference."""
    distance, n = np.sqrt(2) * norm.ppf(truth), len(y)
    score = random.normal(size=n) + distance * y
    [found] = predictions(y, fold, score)
    once = np.ones((1, n))
    values = {"auroc": found.auroc(once)[0], "fold_auroc": found.fold_auroc(once)[0]}
    values["sensitivity"] = patient_metrics(y, found.proba, once)["sensitivity"][0]
    truths = dict.fromkeys(("auroc", "fold_auroc"), truth) | {"sensitivity": norm.cdf(distance)}
    weights = bootstrap.patients(n)
    drawn = {
        "auroc": found.auroc(weights),
        "fold_auroc": found.fold_auroc(bootstrap.within_folds(fold)),
        "sensitivity": (weights @ ((score > 0) & (y == 1))) / np.maximum(weights @ y, 1e-9),
    }
    now = small_sample_intervals(values, y, [y[fold == k] for k in range(N_FOLDS)], 0.95)
    row = {}
    for metric, intervals in (("before", drawn), ("now", now)):
        for name, value in intervals.items():
            low, high = bootstrap.interval(value) if metric == "before" else value
            row[f"{name}_{metric}"] = low <= truths[name] <= high
    common = score if truth > 0.5 else np.zeros(n)
    return row | false_differences(y, fold, common, bootstrap, random)


def false_differences(y, fold, score, bootstrap, random):
    """Whether two methods that add noise to one score are found to differ."""
    noise = random.normal(size=(2, len(y)))
    first, second = (predictions(y, fold, score + 0.7 * e) for e in noise)
    positive, once = y == 1, np.ones((1, len(y)))
    scores = [p[0].proba[:, 1] for p in (first, second)]
    test = delong_test(positive, *scores)
    weights = bootstrap.within_folds(fold)
    gaps = first[0].fold_auroc(weights) - second[0].fold_auroc(weights)
    low, high = bootstrap.interval(gaps)
    gap = (first[0].fold_auroc(once) - second[0].fold_auroc(once))[0]
    half = half_width(first, second, within_folds=True, confidence_level=0.95)
    statistic = abs(test.difference) / max(test.standard_error, 1e-12)
    return {
        "delong_before": 2 * norm.sf(statistic) < 0.05,
        "delong_now": test.p_value < 0.05,
        "fold_difference_before": low > 0 or high < 0,
        "fold_difference_now": abs(gap) > half,
    }


def simulate(n_positive, n_negative, truth, n_cohorts):
    """Shares over the cohorts."""
    random = np.random.default_rng(n_positive * 1000 + int(truth * 100))
    y = np.r_[np.ones(n_positive, int), np.zeros(n_negative, int)]
    fold = np.r_[np.arange(n_positive) % N_FOLDS, np.arange(n_negative) % N_FOLDS]
    rows = [
        one_cohort(y, fold, truth, Bootstrap(N_DRAWS, 0.95, i), random) for i in range(n_cohorts)
    ]
    sizes = {"n_positive": n_positive, "n_negative": n_negative, "auroc": truth}
    return sizes | {"n_cohorts": n_cohorts} | pd.DataFrame(rows).mean().to_dict()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results/small_samples.csv"))
    parser.add_argument("--cohorts", type=int, default=N_COHORTS)
    arguments = parser.parse_args()
    done = pd.read_csv(arguments.out) if arguments.out.exists() else pd.DataFrame()
    known = (
        set(done[["n_positive", "n_negative", "auroc"]].itertuples(index=False, name=None))
        if len(done)
        else set()
    )
    for cohort in COHORTS:
        if cohort not in known:
            row = pd.DataFrame([simulate(*cohort, arguments.cohorts)])
            done = pd.concat([done, row], ignore_index=True)
            done.to_csv(arguments.out, index=False, float_format="%.4g")
    print(done.to_string(index=False, float_format="{:.3f}".format))


if __name__ == "__main__":
    main()
