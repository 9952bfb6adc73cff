"""Cross-validation, a grid search and predictions on the nodes of a SLURM cluster.

python examples/cluster_slurm.py --table slides.csv --features features/ --label her2
    --positive Positive --out results/ --jobs 8 --account NAME [--queue gpu --gpus]

dask-jobqueue submits `--jobs` jobs, each of which is one worker of Dask; they read the features by
their paths, so that these must be on a file system of all nodes. Install
``pip install 'dask[distributed]' dask-jobqueue`` beside sk_momkd on all of them. With ``--dry-run``
the script of a job is printed and nothing is submitted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import joblib
from sklearn.model_selection import GridSearchCV

from sk_momkd import (
    MoMKDClassifier,
    PatientStratifiedKFold,
    align_omics,
    evaluate,
    load_cohort,
    predict_cohort,
)


def cluster_of(options: argparse.Namespace):
    """Description of the jobs; none is submitted before `scale`."""
    from dask_jobqueue import SLURMCluster

    return SLURMCluster(
        account=options.account,
        queue=options.queue,
        cores=1,  # tasks at once: one fit, whose products use the `job_cpu` cores of the job
        processes=1,
        job_cpu=options.cores,
        memory=options.memory,
        walltime=options.walltime,
        job_extra_directives=["--gres=gpu:1"] if options.gpus else [],
        # A task that asks for a GPU waits for a worker whose GPU is free.
        worker_extra_args=["--resources", "GPU=1"] if options.gpus else [],
        job_script_prologue=[f"export OMP_NUM_THREADS={options.cores}"],
        scheduler_options={"dashboard_address": None},
    )


def study(options: argparse.Namespace) -> None:
    """What runs on whatever joblib's backend is."""
    bags, y, omics, _ = load_cohort(
        options.table,
        options.features,
        options.omics,
        label=options.label,
        positive=options.positive,
    )
    model = MoMKDClassifier.preset("small", random_state=0)
    model.set_params(device="cuda" if options.gpus else "cpu")
    resources = {"GPU": 1} if options.gpus else {}
    options.out.mkdir(parents=True, exist_ok=True)
    with joblib.parallel_config("dask", resources=resources):
        result = evaluate(model, bags, y, omics=omics, cv=5, n_jobs=options.jobs)
        result.predictions.to_csv(options.out / "predictions.csv", index=False)
        grid = {"n_components": [8, 16, 32]}
        folds = PatientStratifiedKFold(5)
        search = GridSearchCV(model, grid, cv=folds, scoring="roc_auc", n_jobs=options.jobs)
        aligned = None if omics is None else align_omics(omics, bags)
        search.fit(bags, y, omics=aligned)
    print(result)
    print(search.best_params_)
    if options.others is not None:
        table = predict_cohort(
            search.best_estimator_, options.others, options.out / "others", resources=resources
        )
        print(f"{table['error'].isna().sum()} of {len(table)} files have a prediction.")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", required=True)
    parser.add_argument("--features", required=True)
    parser.add_argument("--omics")
    parser.add_argument("--label", required=True)
    parser.add_argument("--positive")
    parser.add_argument("--others", help="folder of further slides to predict")
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--account")
    parser.add_argument("--queue")
    parser.add_argument("--cores", type=int, default=8)
    parser.add_argument("--memory", default="32GB")
    parser.add_argument("--walltime", default="04:00:00")
    parser.add_argument("--gpus", action="store_true", help="one GPU per job")
    parser.add_argument("--dry-run", action="store_true", help="print the script of a job")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Submit the jobs, run the study on them and end them."""
    options = parse(arguments)
    with cluster_of(options) as cluster:
        if options.dry_run:
            print(cluster.job_script())
            return
        from distributed import Client

        cluster.scale(jobs=options.jobs)
        with Client(cluster):
            study(options)


if __name__ == "__main__":
    main()
