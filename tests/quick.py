"""Every classifier of the package, small enough for many fits."""

from conftest import quick_classifier

from sk_momkd import all_estimators

CLASSIFIERS = dict(all_estimators("classifier"))
SMALL = {
    "ABMILClassifier": {"dim": 16, "attention_dim": 8, "dropout": 0.1},
    "DSMILClassifier": {"query_dim": 8},
    "DTFDMILClassifier": {"dim": 16, "attention_dim": 8, "best_after": 0.0},
    "GHANetClassifier": {"dim": 16, "n_heads": 2, "gate_dim": 8, "compressed_dim": 8},
    "MKDClassifier": {"dim": 16, "attention_dim": 8, "gate_dim": 4},
    "TDCClassifier": {"dim": 16, "attention_dim": 8, "omics_hidden_dims": (16,)},
    "TransMILClassifier": {"dim": 16, "n_heads": 2},
    "WiKGClassifier": {"dim": 16, "dropout": 0.1},
}
TRAINING = {
    "max_epochs": 8,
    "batch_size": 16,
    "accumulation_steps": 1,
    "optimizer": "adamw",
    "learning_rate": 0.01,
    "lr_schedule": None,
    "min_epochs": 10,
    "random_state": 0,
}


def quick(name, **overrides):
    """A small instance; a class that is not in `SMALL` gets its own sizes."""
    if name == "MoMKDClassifier":
        return quick_classifier(**overrides)
    return CLASSIFIERS[name](**(SMALL.get(name, {}) | TRAINING | overrides))


def takes_omics(name):
    return hasattr(CLASSIFIERS[name], "set_fit_request") and "omics" in (
        CLASSIFIERS[name].fit.__code__.co_varnames
    )


TAUGHT = [name for name in CLASSIFIERS if takes_omics(name)]
