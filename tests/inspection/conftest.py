"""A simulated cohort whose truth is known, and classifiers fitted on it once per session."""

from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest
from anndata import AnnData

from sk_momkd import BagSequence, MoMKDClassifier, load_cohort, simulate_cohort


class Simulated(NamedTuple):
    bags: BagSequence
    y: Any
    omics: AnnData
    planted: dict  # bag id -> whether each patch is in the planted region


def simulated(folder, n_patients, random_state, **overrides):
    settings = {"n_patches": 60, "n_features": 32, "n_genes": 200, "n_signature": 20}
    paths = simulate_cohort(
        folder, n_patients=n_patients, random_state=random_state, **(settings | overrides)
    )
    bags, y, omics, _ = load_cohort(*paths, label="subtype", positive="aggressive")
    planted = {}
    for bag in bags:
        with h5py.File(paths.features / f"{bag.bag_id}.h5") as file:
            planted[bag.bag_id] = file["planted"][:]
    return Simulated(bags, y, omics, planted)


def small_momkd(**overrides):
    settings = {
        "hidden_dim": 32,
        "projection_dim": 16,
        "n_components": 4,
        "network__n_heads": 1,
        "network__omics_hidden_dim": 64,
        "batch_size": 4,
        "learning_rate": 5e-3,
        "max_epochs": 8,
        "early_stopping": False,
        "memory__kmeans_samples": 1000,
        "n_genes": 200,  # all of them: the attributions have to find the signature themselves
        "random_state": 0,
    }
    return MoMKDClassifier().set_params(**(settings | overrides))


@pytest.fixture(scope="session")
def training(tmp_path_factory):
    """60 patients to fit on."""
    return simulated(tmp_path_factory.mktemp("training"), 60, 0)


@pytest.fixture(scope="session")
def unseen(tmp_path_factory):
    """20 patients of another cohort with the same biology."""
    return simulated(tmp_path_factory.mktemp("unseen"), 20, 1)


@pytest.fixture(scope="session")
def momkd(training):
    """MoMKD fitted on the training cohort with its omics."""
    return small_momkd().fit(training.bags, training.y, omics=training.omics)


@pytest.fixture(scope="session")
def misled(training):
    """The same, each patient with the omics of another; and that omics."""
    omics = training.omics.copy()
    omics.obs_names = np.roll(omics.obs_names, 17)  # severity is in random order
    return small_momkd().fit(training.bags, training.y, omics=omics), omics
