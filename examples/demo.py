"""From files to a report, a saved model and predictions, with and without privileged omics.

Without options it simulates a training cohort, in which seven of twenty labels are wrong, as labels
of routine reports are, and a second hospital whose labels are right. On your own files:

    python examples/demo.py --table slides.csv --features features/ --omics rna.h5ad \
        --label her2 --positive Positive --negative Negative
"""

import argparse
from pathlib import Path

import pandas as pd
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_momkd import (
    InstanceTransformer,
    MoMKDClassifier,
    align_omics,
    compare_omics,
    evaluate,
    evaluate_external,
    load_cohort,
    report,
    save_model,
    simulate_cohort,
)

SIZE = {"n_patches": 20, "n_features": 32, "n_genes": 300}
SIMULATED = {"label": "subtype", "positive": "aggressive"}


def make_model(random_state=0):
    """Scale patch features in the fold, then MoMKD in the sizes for some hundred patients."""
    momkd = MoMKDClassifier.preset("small", random_state=random_state)
    return make_pipeline(InstanceTransformer(StandardScaler()), momkd)


def simulate(out, seed=0):
    """Paths of a training cohort with wrong labels, and of a second hospital."""
    training = simulate_cohort(
        out / "training",
        n_patients=300,
        label_noise=0.35,
        omics_effect=3.0,
        random_state=10 + seed,
        **SIZE,
    )
    second = simulate_cohort(
        out / "second_hospital",
        n_patients=200,
        prefix="EXT",
        stain_shift=0.2,
        random_state=100 + seed,
        **SIZE,
    )
    return training, second


def fit(bags, y, omics, random_state=0):
    """The final model, trained on all bags; `omics` may be None."""
    known = {} if omics is None else {"momkdclassifier__omics": omics}
    return make_model(random_state).fit(bags, y, **known)


def second_hospital(models, bags, y):
    """Results of each model on the second cohort, from histology alone, and their AUROC."""
    results = {name: evaluate_external(model, bags, y) for name, model in models.items()}
    columns = ["ensemble", "ensemble_low", "ensemble_high"]
    rows = {name: result.summary.loc["auroc", columns] for name, result in results.items()}
    return results, pd.DataFrame(rows).T.set_axis(["AUROC", "low", "high"], axis=1).astype(float)


def columns_of(options):
    """What `load_cohort` is told of the table, from the command line."""
    positive = options.positive
    if options.map:
        pairs = dict(pair.rsplit("=", 1) for pair in options.map)
        positive = {name: int(code) if code else None for name, code in pairs.items()}
    names = ("label", "slide_id", "patient_id", "negative", "site", "unit", "barcodes", "id_column")
    given = {name: getattr(options, name) for name in names}
    return {n: v for n, v in given.items() if v is not None} | {"positive": positive}


def main(options):
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    second = None
    if options.table is None:
        print("Simulating a cohort with wrong labels, and a second hospital ...")
        paths, second = simulate(out)
        columns = SIMULATED
    else:
        paths = (options.table, options.features, options.omics)
        columns = columns_of(options)
    bags, y, omics, join = load_cohort(*paths, **columns)
    print(join, end="\n\n")

    if omics is None:
        answer = evaluate(make_model(), bags, y, cv=5, n_jobs=2, keep_models=True)
    else:
        omics = align_omics(omics, bags)
        answer = compare_omics(make_model(), bags, y, omics, cv=5, n_jobs=2)
    print(answer, end="\n\n")
    answer.to_csv(out / "cross_validation")

    models = {"without omics": fit(bags, y, None)}
    if omics is not None:
        models["with omics"] = fit(bags, y, omics)
    shown = answer
    if second is not None:
        bags, y, _, join = load_cohort(second.table, second.features, **SIMULATED)
        results, table = second_hospital(models, bags, y)
        print("Second hospital, predicted from histology alone:")
        print(table.round(3).to_string(), end="\n\n")
        table.round(3).to_csv(out / "second_hospital.csv")
        shown = results["with omics"]

    final = list(models.values())[-1]
    kept = save_model(final, out / "model.zip", overwrite=True)
    page = report(shown, out / "report.html", bags=bags, y=y, join=join, model=final)
    print(f"Saved {kept}, {page} and the tables in {out}/.")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", help="CSV, TSV or Excel file with a row per slide")
    parser.add_argument("--features", help="folder with a feature file per slide")
    parser.add_argument("--omics", help=".h5ad or table with patient ids")
    parser.add_argument("--label", help="column of the table")
    parser.add_argument("--positive", help="value of the positive class")
    parser.add_argument("--negative", help="value of the negative class; others are left out")
    parser.add_argument(
        "--map",
        nargs="+",
        metavar="VALUE=CODE",
        help="code of each value, none to leave it out: --map Positive=1 Negative=0 Equivocal=",
    )
    parser.add_argument("--slide-id", help="column with the slide, else slide_id")
    parser.add_argument("--patient-id", help="column with the patient, else case_id")
    parser.add_argument("--site", help="column with the hospital")
    parser.add_argument("--unit", choices=["slide", "patient"], help="what a bag is")
    parser.add_argument("--barcodes", choices=["tcga"], help="read patients from barcodes")
    parser.add_argument("--id-column", help="column of ids in the omics")
    parser.add_argument("--out", type=Path, default=Path("demo_output"))
    options = parser.parse_args()
    needed = {"--table": options.table, "--features": options.features, "--label": options.label}
    own = any(value for name, value in vars(options).items() if name != "out")
    missing = [name for name, value in needed.items() if value is None]
    if own and missing:
        parser.error(f"for your own files, {', '.join(missing)} must be given, too")
    return options


if __name__ == "__main__":
    main(parse())
