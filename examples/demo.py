"""MoMKD from files to predictions: cross-validate with and without omics, train, predict.

Without options it simulates two cohorts on disk. On your own files:

    python examples/demo.py --table slides.csv --features features/ --omics rna.h5ad \
        --label her2 --positive Positive
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_momkd import (
    InstanceTransformer,
    MoMKDClassifier,
    TrainingOptions,
    align_omics,
    load_cohort,
    simulate_cohort,
)


def make_model():
    """Scale patch features in the fold, then fit a MoMKD of a size for small cohorts."""
    momkd = MoMKDClassifier(
        hidden_dim=64,
        projection_dim=32,
        batch_size=4,
        learning_rate=5e-4,
        max_epochs=25,
        training=TrainingOptions(monitor="loss"),
        patience=8,
        random_state=0,
    )
    return make_pipeline(InstanceTransformer(StandardScaler()), momkd)


def cross_validate(bags, y, omics, folds):
    """Compute the out-of-fold score of each bag and the AUC within each fold."""
    scores = cross_val_predict(
        make_model(),
        bags,
        y,
        cv=folds,
        method="decision_function",
        params={"momkdclassifier__omics": omics},
        n_jobs=2,
    )
    return scores, [roc_auc_score(y[test], scores[test]) for _, test in folds]


def main(options):
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    external = None
    if options.table is None:
        print("Simulating a training cohort and a second one with another staining ...")
        size = {"n_patients": 80, "n_patches": 150, "effect": 0.5}
        paths = simulate_cohort(out / "training", prefix="TRN", random_state=1, **size)
        external = simulate_cohort(
            out / "external", prefix="EXT", stain_shift=0.4, random_state=2, **size
        )
        columns = {"label": "subtype", "positive": "aggressive"}
    else:
        paths = (options.table, options.features, options.omics)
        columns = {"label": options.label, "positive": options.positive}

    bags, y, omics, join = load_cohort(*paths, **columns)
    print(join, end="\n\n")
    splitter = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    folds = list(splitter.split(y, y, groups=bags.patient_ids))
    settings = {"MoMKD, histology alone": None}
    if omics is not None:
        settings["MoMKD, trained with privileged omics"] = align_omics(omics, bags)

    rows, scores = [], {}
    for name, table in settings.items():
        start = time.perf_counter()
        scores[name], within = cross_validate(bags, y, table, folds)
        row = {"model": name, "CV AUC": np.mean(within), "SD over folds": np.std(within, ddof=1)}
        if external is not None:
            row["second cohort AUC"] = predict_external(bags, y, table, external, columns, out)
        rows.append(row | {"seconds": time.perf_counter() - start})
        print(f"{name}: done in {rows[-1]['seconds']:.0f} s")

    table = pd.DataFrame(rows).set_index("model").round(3)
    print(f"\n{table.to_string()}\n")
    table.to_csv(out / "results.csv")
    pd.DataFrame(scores, index=bags.ids).assign(label=y).rename_axis("slide_id").to_csv(
        out / "out_of_fold_scores.csv"
    )
    print(f"Saved results.csv and the predictions in {out}/")


def predict_external(bags, y, omics, paths, columns, out):
    """Train on all bags, predict the second cohort from histology alone and return the AUC."""
    model = make_model().fit(bags, y, momkdclassifier__omics=omics)
    new_bags, new_y, _, _ = load_cohort(paths.table, paths.features, **columns)
    proba = model.predict_proba(new_bags)
    name = "with" if omics is not None else "without"
    frame = pd.DataFrame(proba, index=new_bags.ids, columns=["p(0)", "p(1)"])
    frame.assign(label=new_y).rename_axis("slide_id").to_csv(
        out / f"second_cohort_{name}_omics.csv"
    )
    return roc_auc_score(new_y, proba[:, 1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", help="CSV with slide_id, case_id and the label")
    parser.add_argument("--features", help="folder with <slide_id>.h5")
    parser.add_argument("--omics", help=".h5ad with patient ids as obs_names")
    parser.add_argument("--label", help="column of the table")
    parser.add_argument("--positive", help="its positive value")
    parser.add_argument("--out", type=Path, default=Path("demo_output"))
    main(parser.parse_args())
