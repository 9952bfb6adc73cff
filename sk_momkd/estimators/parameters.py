"""Parameters that estimators share: their ranges, and their words in every docstring."""

from __future__ import annotations

from numbers import Integral, Real
from textwrap import fill, indent
from typing import Any

from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

from ..training.optimizers import OPTIMIZERS, SCHEDULES

positive_int = [Interval(Integral, 1, None, closed="left")]
positive = [Interval(Real, 0, None, closed="neither")]
weight = [Interval(Real, 0, None, closed="left")]
share = [Interval(Real, 0, 1, closed="left")]
part = [Interval(Real, 0, 1, closed="right")]
switch = ["boolean"]
clipping = [StrOptions({"global", "branch"})]

TRAINING: dict[str, list[Any]] = {
    "max_epochs": positive_int,
    "batch_size": positive_int,
    "accumulation_steps": positive_int,
    "optimizer": [StrOptions(set(OPTIMIZERS))],
    "learning_rate": positive,
    "weight_decay": weight,
    "lr_schedule": [StrOptions(set(SCHEDULES)), None],
    "sampler": [StrOptions({"balanced", "shuffle"})],
    "max_grad_norm": [*positive, None],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 0.5, closed="right")],
    "validation_split": ["cv_object", None],
    "monitor": [StrOptions({"auc", "loss"})],
    "patience": positive_int,
    "min_epochs": positive_int,
    "input_dropout": share,
    "instance_dropout": share,
    "average_after": [*share, None],
    "n_models": positive_int,
    "callbacks": [list, None],
    "device": [str],
    "precision": [StrOptions({"float32", "bfloat16", "auto"})],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}
OMICS: dict[str, list[Any]] = {
    "n_genes": positive_int,
    "omics_transformer": [HasMethods(["fit", "transform"]), None],
}

# The protocol under which methods are compared, see `BaseMILClassifier.preset`.
UNIFIED: dict[str, Any] = {
    "max_epochs": 100,
    "batch_size": 1,
    "accumulation_steps": 1,
    "optimizer": "adamw",
    "learning_rate": 2e-4,
    "weight_decay": 1e-4,
    "lr_schedule": "plateau",
    "sampler": "balanced",
    "max_grad_norm": 16.0,
    "early_stopping": True,
    "validation_fraction": 0.125,
    "monitor": "auc",
    "patience": 15,
    "min_epochs": 10,
}

# (type, text) of each shared parameter; the default is the class's own.
_TRAINING_WORDS = {
    "max_epochs": ("int", "Passes over the training slides, at most."),
    "batch_size": ("int", "Slides per step."),
    "accumulation_steps": (
        "int",
        "Batches whose gradients are averaged, each with equal weight, before the weights move.",
    ),
    "optimizer": (
        '{"adamw", "adam", "lookahead_radam"}',
        'The weight decay of "adam" is a part of the gradient, that of the others is not.',
    ),
    "learning_rate": ("float", "Of the optimizer."),
    "weight_decay": ("float", "Of the optimizer, on all weights."),
    "lr_schedule": (
        '{"plateau", "cosine", "linear", "step", None}',
        '"plateau": factor 0.2 after 5 epochs without progress; "cosine" and "linear": down to 0 '
        'over `max_epochs`; "step": factor 0.2 at half of `max_epochs`.',
    ),
    "sampler": (
        '{"balanced", "shuffle"}',
        '"balanced" draws with replacement, each class equally often.',
    ),
    "max_grad_norm": ("float or None", "Clip the gradient norm."),
    "early_stopping": (
        "bool",
        "Set a validation part aside, restore the best epoch, stop without progress.",
    ),
    "validation_fraction": (
        "float",
        "Share of the training data (by patient, stratified) used for validation.",
    ),
    "validation_split": (
        "splitter or iterable",
        "Use the first split of this instead of `validation_fraction`.",
    ),
    "monitor": ('{"auc", "loss"}', 'What "best" means on the validation part.'),
    "patience": ("int", "Stop after this many epochs without progress ..."),
    "min_epochs": ("int", "... but not before this many."),
    "input_dropout": ("float", "Share of patch features set to zero in each training step."),
    "instance_dropout": ("float", "Share of patches left out of each training step."),
    "average_after": (
        "float or None",
        "Predict with the mean of the weights after each epoch that follows this share of "
        "`max_epochs`, in place of the last or the best weights; a training that stops before it "
        "keeps the best.",
    ),
    "n_models": (
        "int",
        "Models trained from different seeds on the same data; their logits are averaged.",
    ),
    "callbacks": (
        "list of skorch callbacks or (name, callback) pairs",
        "Cloned; the clones are in ``callbacks_`` after `fit`. They see ``net.history`` with the "
        "columns of ``history_``; skorch's scorers, which predict on arrays, do not apply.",
    ),
    "device": ("str", '"auto" is CUDA where there is one.'),
    "precision": (
        '{"float32", "bfloat16", "auto"}',
        "In what patches are kept and first multiplied; sums and weights are float32 always. "
        '"auto" is bfloat16 where the processor has instructions for it.',
    ),
    "random_state": (
        "int, RandomState or None",
        "The same seed gives the same model, bit for bit on a CPU with as many threads.",
    ),
    "verbose": ("int", "1 shows a progress bar."),
}
_OMICS_WORDS = {
    "n_genes": ("int", "Genes kept by the default omics transformer."),
    "omics_transformer": (
        "transformer",
        "Fitted on the training part of the fold. None: log2(x + 1) where the data are counts, "
        "the `n_genes` with the largest Welch's t between classes, z-scores.",
    ),
}
_FITTED_WORDS = {
    "classes_": ("ndarray of shape (n_classes,)", ""),
    "n_features_in_": ("int", ""),
    "module_, modules_": ("torch module, list of them", "The (first) fitted network, and all."),
    "history_": (
        "DataFrame",
        "One row per epoch: losses by name (unweighted), learning rate, validation loss and AUC; "
        "of several models, column ``model`` numbers them.",
    ),
    "n_iter_": ("int", "Epochs run, at most, by a model."),
    "validation_": (
        "DataFrame or None",
        "The inner validation part as the fitted model sees it: ids, label, probabilities.",
    ),
    "callbacks_": ("list", "The user's callbacks as they ended."),
    "device_, precision_": ("str", "Where training ran, and in what patches were kept."),
}
_TAUGHT_WORDS = {
    "genes_": (
        "ndarray of shape (n_genes_used,)",
        "Names of the genes that were used; only after a fit with omics.",
    ),
    "omics_transformer_": ("fitted transformer", "Only after a fit with omics."),
    "n_paired_": ("int", "Training bags with omics (validation part not counted)."),
}
_BLOCKS = {
    "{training}": _TRAINING_WORDS,
    "{omics}": _OMICS_WORDS,
    "{fitted}": _FITTED_WORDS,
    "{taught}": _TAUGHT_WORDS,
}


def write_docstring(cls: type) -> None:
    """Put the words of shared parameters and attributes in the places that `cls` left for them."""
    for mark, words in _BLOCKS.items():
        if cls.__doc__ and mark in cls.__doc__:
            text = "\n".join(_entry(cls, name, *entry) for name, entry in words.items())
            cls.__doc__ = cls.__doc__.replace(f"    {mark}", indent(text, "    "))


def _entry(cls: type, name: str, kind: str, text: str) -> str:
    default = f", default={getattr(cls, name)!r}" if hasattr(cls, name) else ""
    lines = [f"{name} : {kind}{default}".replace("'", '"')]
    return "\n".join(lines + ([indent(fill(text, 92), "    ")] if text else []))
