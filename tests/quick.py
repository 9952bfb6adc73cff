"""Every classifier of the package, small enough for many fits."""

from conftest import quick_classifier

from sk_momkd import all_estimators

CLASSIFIERS = dict(all_estimators("classifier"))
SMALL = {
    "ABMILClassifier": {"dim": 16, "attention_dim": 8, "dropout": 0.1},
    "DSMILClassifier": {"query_dim": 8},
    "DTFDMILClassifier": {"dim": 16, "attention_dim": 8, "training__best_after": 0.0},
    "GHANetClassifier": {"dim": 16, "n_heads": 2, "gate_dim": 8, "compressed_dim": 8},
    "MKDClassifier": {"dim": 16, "attention_dim": 8, "gate_dim": 4},
    "TDCClassifier": {"dim": 16, "attention_dim": 8, "omics_hidden_dims": (16,)},
    "TransMILClassifier": {"dim": 16, "n_heads": 2},
    "WiKGClassifier": {"dim": 16, "dropout": 0.1},
}
TRAINING = {
    "max_epochs": 8,
    "batch_size": 16,
    "training__accumulation_steps": 1,
    "training__optimizer": "adamw",
    "learning_rate": 0.01,
    "training__lr_schedule": None,
    "training__min_epochs": 10,
    "random_state": 0,
}


def quick(name, **overrides):
    """A small instance; a class that is not in `SMALL` gets its own sizes."""
    if name == "MoMKDClassifier":
        return quick_classifier(**overrides)
    settings = SMALL.get(name, {}) | TRAINING | overrides
    return CLASSIFIERS[name]().set_params(**settings)


def takes_omics(name):
    return CLASSIFIERS[name]._uses_omics


PRIVILEGED = [name for name in CLASSIFIERS if takes_omics(name)]
