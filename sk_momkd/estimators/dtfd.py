"""DTFD-MIL as a scikit-learn classifier."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

from sklearn.utils._param_validation import Interval, StrOptions
from torch import nn

from ..losses.mil import dtfd_terms
from ..models.dtfd import DISTILLATIONS, DTFD
from ..training.config import Objective
from .base import HistologyClassifier
from .parameters import TRAINING, UNIFIED, clipping, positive_int, share


@dataclass(kw_only=True, eq=False, repr=False)
class DTFDMILClassifier(HistologyClassifier):
    """Slide classifier on features distilled from random chunks of the slide (DTFD-MIL).

    The defaults are ``preset("original")``, the published training; ``preset("unified")`` trains
    as every other method does there.

    Parameters
    ----------
    dim : int, default=512
        Width of the reduced features.
    attention_dim : int, default=128
        Hidden width of both attentions.
    n_chunks : int, default=8
        Chunks (pseudo-bags) per slide; fewer in a slide of fewer patches.
    distillation : {"AFS", "MaxS", "MaxMinS"}, default="AFS"
        From each chunk its slide vector, its best patches, or its best and its worst.
    total_instances : int, default=8
        ``max(1, total_instances // n_chunks)`` patches are best, and as many worst.
    joint : bool, default=False
        Let tier 1 learn from the loss of tier 2 too.
    n_shuffles : int, default=5
        Ways to cut a slide whose probabilities are averaged in prediction.
    split_seed : int, default=0
        Of those cuts.
    dropout : float, default=0.0
        Before both classifiers.
    clip : {"global", "branch"}, default="branch"
        Clip the gradient over all parameters, or within reduction, attention, classifier and
        second tier apart.
    best_after : float, default=0.8
        Epochs before this share of `max_epochs` are never the best.
    {training}

    Attributes
    ----------
    {fitted}

    See Also
    --------
    ABMILClassifier : The first tier, on the whole slide.

    Notes
    -----
    A slide is always cut in the same way in prediction, given its number of patches. Differs
    from the original in 8 chunks and 5 shuffles (its program: 4 and 1), and in one optimizer for
    both tiers: they share no gradient unless `joint`.

    References
    ----------
    Zhang et al. DTFD-MIL: Double-Tier Feature Distillation Multiple Instance Learning for
    Histopathology Whole Slide Image Classification. CVPR 2022. arXiv:2203.12081.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import DTFDMILClassifier
    >>> random = np.random.default_rng(0)
    >>> y = np.arange(20) % 2
    >>> bags = [random.normal(2 * label, size=(5 + i, 4)) for i, label in enumerate(y)]
    >>> clf = DTFDMILClassifier(dim=16, max_epochs=5, random_state=0).fit(bags, y)
    >>> clf.predict_proba(bags).shape
    (20, 2)
    """

    dim: int = 512
    attention_dim: int = 128
    n_chunks: int = 8
    distillation: str = "AFS"
    total_instances: int = 8
    joint: bool = False
    n_shuffles: int = 5
    split_seed: int = 0
    dropout: float = 0.0
    clip: str = "branch"
    best_after: float = 0.8
    max_epochs: int = 200
    optimizer: str = "adam"
    learning_rate: float = 1e-4
    lr_schedule: str | None = "step"
    sampler: str = "shuffle"
    max_grad_norm: float | None = 5.0
    patience: int = 200

    _presets: ClassVar[dict[str, dict[str, Any]]] = {
        "original": {},
        "unified": UNIFIED | {"clip": "global", "best_after": 0.0},
    }
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **TRAINING,
        **dict.fromkeys(("dim", "attention_dim", "n_chunks", "total_instances"), positive_int),
        "distillation": [StrOptions(set(DISTILLATIONS))],
        "joint": ["boolean"],
        "n_shuffles": positive_int,
        "split_seed": [Interval(Integral, 0, None, closed="left")],
        "dropout": share,
        "clip": clipping,
        "best_after": share,
    }

    def _make_module(self, n_features: int, n_genes: int, n_classes: int) -> nn.Module:
        return DTFD(
            n_features,
            n_classes,
            dim=self.dim,
            attention_dim=self.attention_dim,
            n_chunks=self.n_chunks,
            distillation=self.distillation,
            total_instances=self.total_instances,
            joint=self.joint,
            n_shuffles=self.n_shuffles,
            split_seed=self.split_seed,
            dropout=self.dropout,
        )

    def _make_objective(self) -> Objective:
        return Objective(dtfd_terms, {"tier1": 1.0, "tier2": 1.0})
