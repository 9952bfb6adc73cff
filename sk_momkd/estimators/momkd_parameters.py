"""Presets of MoMKD, and the ranges of its own parameters."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

from ..data.graph import EDGE_FLOWS, GRAPHS
from ..nn.backend import BACKENDS
from .parameters import UNIFIED, clipping, positive, positive_int, share, switch, weight

_SIZES = ("hidden_dim", "projection_dim", "head_hidden_dim", "omics_hidden_dim")
_COUNTS = ("n_components", "n_heads", "n_neighbors", "kmeans_samples")
_reduction = [StrOptions({"mean", "sum"})]

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "unified": UNIFIED,
    "release": {
        "hidden_dim": 512,
        "projection_dim": 64,
        "edge_flow": "release",
        "kmeans_samples": 50_000,
        "assignment": "euclidean",
        "lambda_mse": 0.05,
        "learn_tau": True,
        "patience": 1,
        "min_epochs": 3,
    },
    "small": {  # ours, for some hundred patients; chosen by benchmarks/small_search.py
        "hidden_dim": 64,
        "projection_dim": 32,
        "head_hidden_dim": 32,
        "omics_hidden_dim": 64,
        "dropout": 0.25,
        "head_dropout": 0.25,
        "input_dropout": 0.3,
        "lambda_teacher": 0.8,
        "batch_size": 32,
        "learning_rate": 7e-4,
        "weight_decay": 0.05,
        "lr_schedule": "cosine",
        "max_epochs": 25,
        "early_stopping": False,
        "average_after": 0.5,
    },
}
CONSTRAINTS: dict[str, Any] = {
    "graph": [StrOptions(set(GRAPHS))],
    "edge_flow": [StrOptions(set(EDGE_FLOWS))],
    "clip": clipping,
    **dict.fromkeys(_SIZES + _COUNTS, positive_int),
    **dict.fromkeys(("dropout", "head_dropout", "omics_dropout"), share),
    "head": [StrOptions({"mlp", "linear"})],
    "update": [StrOptions({"gradient", "ema", "fixed"})],
    "momentum": [Interval(Real, 0, 1, closed="both")],
    "kmeans_init": [StrOptions({"random", "k-means++"})],
    "memory_warmup": [Interval(Integral, 0, None, closed="left")],
    **dict.fromkeys(("reseed_unused", "renormalize_memory", "learn_tau"), switch),
    "assignment": [StrOptions({"cosine", "euclidean"})],
    **dict.fromkeys(("lambda_mse", "lambda_mem", "alpha_omics", "alpha_wsi"), weight),
    **dict.fromkeys(("lambda_ce", "beta", "tau_agg"), positive),
    "margin": [Interval(Real, None, None, closed="neither")],
    "tau": [Interval(Real, 0.01, 2, closed="both")],
    **dict.fromkeys(("commit_reduction", "ortho_reduction"), _reduction),
    "ortho_memories": [StrOptions({"label", "all"})],
    "label_smoothing": share,
    "lambda_teacher": [Interval(Real, 0, 1, closed="both")],
    "teacher": [
        HasMethods(["fit", "predict", "predict_proba"]),
        HasMethods(["fit", "predict", "decision_function"]),
        None,
    ],
    "teacher_temperature": positive,
    "teacher_alignment": switch,
    "backend": [StrOptions(set(BACKENDS))],
}
