"""DSMIL as a scikit-learn classifier."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

from torch import nn

from ..losses.mil import dsmil_terms
from ..models.dsmil import DSMIL
from ..training.config import Objective
from .base import HistologyClassifier
from .parameters import TRAINING, UNIFIED, positive_int, share


@dataclass(kw_only=True, eq=False, repr=False)
class DSMILClassifier(HistologyClassifier):
    """Slide classifier whose patches are weighted by their likeness to critical ones (DSMIL).

    The defaults are ``preset("original")``, the published training; ``preset("unified")`` trains
    as every other method does there.

    Parameters
    ----------
    query_dim : int, default=128
        Width of the queries that are compared.
    value_layer : bool, default=False
        Pass the values through dropout, a linear layer and ReLU; else they are the features.
    dropout : float, default=0.0
        In the value layer.
    average_streams : bool, default=False
        Predict the mean of both streams' sigmoids instead of the bag stream's.
    betas : (float, float), default=(0.5, 0.9)
        Decay of the averages of Adam and AdamW.
    {training}

    Attributes
    ----------
    {fitted}

    See Also
    --------
    ABMILClassifier : Attention from each patch alone.

    Notes
    -----
    Each class has an output with a sigmoid, trained against one-hot labels; probabilities are
    the sigmoids divided by their sum. Differs from the original in this (there the negative
    class had no output), in the learning rate at the end of the cosine, 0 instead of 5e-6, and
    in a validation part of its own.

    References
    ----------
    Li, Li, Eliceiri. Dual-stream Multiple Instance Learning Network for Whole Slide Image
    Classification with Self-supervised Contrastive Learning. CVPR 2021. arXiv:2011.08939.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import DSMILClassifier
    >>> random = np.random.default_rng(0)
    >>> y = np.arange(20) % 2
    >>> bags = [random.normal(2 * label, size=(5 + i, 4)) for i, label in enumerate(y)]
    >>> clf = DSMILClassifier(query_dim=16, max_epochs=5, random_state=0).fit(bags, y)
    >>> clf.predict_proba(bags).shape
    (20, 2)
    """

    query_dim: int = 128
    value_layer: bool = False
    dropout: float = 0.0
    average_streams: bool = False
    betas: tuple[float, float] = (0.5, 0.9)
    max_epochs: int = 50
    optimizer: str = "adam"
    learning_rate: float = 1e-4
    weight_decay: float = 1e-3
    lr_schedule: str | None = "cosine"
    sampler: str = "shuffle"
    max_grad_norm: float | None = None
    patience: int = 10
    min_epochs: int = 1

    _presets: ClassVar[dict[str, dict[str, Any]]] = {
        "original": {},
        "unified": UNIFIED | {"betas": (0.9, 0.999)},
    }
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **TRAINING,
        "query_dim": positive_int,
        "value_layer": ["boolean"],
        "average_streams": ["boolean"],
        "dropout": share,
        "betas": [tuple, list],
    }

    def _make_module(self, n_features: int, n_genes: int, n_classes: int) -> nn.Module:
        sound = [isinstance(beta, Real) and 0 <= beta < 1 for beta in self.betas]
        if sound != [True, True]:
            raise ValueError(f"betas must be two numbers in [0, 1), got {self.betas!r}.")
        return DSMIL(
            n_features,
            n_classes,
            query_dim=self.query_dim,
            value_layer=self.value_layer,
            dropout=self.dropout,
            average_streams=self.average_streams,
        )

    def _make_objective(self) -> Objective:
        return Objective(dsmil_terms, {"bag": 0.5, "max": 0.5})
