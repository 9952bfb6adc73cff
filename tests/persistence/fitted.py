"""Fitted estimators, each fitted once for all tests of saved models."""

import warnings
from functools import lru_cache

import h5py
import numpy as np
from conftest import make_bags, make_omics
from quick import CLASSIFIERS, PRIVILEGED, quick
from sklearn.preprocessing import StandardScaler

from sk_momkd import (
    BackgroundDetector,
    BagPooling,
    ExpressionClipper,
    GeneSelector,
    InstanceFilter,
    InstanceStandardizer,
    InstanceTransformer,
    LogCounts,
    TissueMaskFilter,
    all_estimators,
)

PATIENTS = [f"TCGA-{'ABCDEF'[i % 6]}{i % 10}-Q{i:03d}" for i in range(16)]
BAGS, NUMBERS = make_bags(16, patients=PATIENTS)
Y = np.array(["neg", "pos"])[NUMBERS]
OMICS = make_omics(NUMBERS).set_axis(PATIENTS)
PATCHES = np.concatenate([bag.features for bag in BAGS])
SITES = {patient: f"site {i % 2}" for i, patient in enumerate(PATIENTS)}
TRANSFORMERS = {
    "BackgroundDetector": (BackgroundDetector(n_neighbors=3), PATCHES),
    "BagPooling": (BagPooling("mean+max"), BAGS),
    "ExpressionClipper": (ExpressionClipper(), OMICS),
    "GeneSelector": (GeneSelector(4), OMICS),
    "InstanceFilter": (InstanceFilter(BackgroundDetector(), random_state=0), BAGS),
    "InstanceStandardizer": (InstanceStandardizer("site", sites=SITES), BAGS),
    "InstanceTransformer": (InstanceTransformer(StandardScaler()), BAGS),
    "LogCounts": (LogCounts(), OMICS.round().abs()),
    "TissueMaskFilter": (TissueMaskFilter("masks", patch_size=256), BAGS),
}


@lru_cache
def fitted(name, **overrides):
    """A classifier or transformer of this name, fitted; do not change it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name in CLASSIFIERS:
            omics = {"omics": OMICS} if name in PRIVILEGED else {}
            return quick(name, max_epochs=1, **overrides).fit(BAGS, Y, **omics)
        estimator, X = TRANSFORMERS[name]
        return estimator.fit(X, NUMBERS)


ESTIMATORS = [name for name, _ in all_estimators()]


def trident(folder, name, *, encoder="uni_v2", n_features=6):
    """A file of features that states its encoder, patches and magnification."""
    random = np.random.default_rng(0)
    with h5py.File(folder / f"{name}.h5", "w") as file:
        file["features"] = random.normal(size=(12, n_features)).astype(np.float32)
        file["coords"] = np.stack(np.divmod(np.arange(12), 4)[::-1], axis=1) * 512
        file["features"].attrs["encoder"] = encoder
        stated = {"patch_size": 256, "patch_size_level0": 512, "target_magnification": 20}
        file["coords"].attrs.update(stated)
