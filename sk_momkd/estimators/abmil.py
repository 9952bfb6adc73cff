"""ABMIL as a scikit-learn classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from ..losses.mil import cross_entropy_terms
from ..models.abmil import ABMIL
from ..training.config import Objective
from .base import HistologyClassifier
from .parameters import TRAINING, positive_int, share


@dataclass(kw_only=True, eq=False, repr=False)
class ABMILClassifier(HistologyClassifier):
    """Slide classifier on the attention-weighted mean of embedded patches (ABMIL).

    The defaults are ``preset("original")``, the published training; ``preset("unified")`` trains
    as every other method does there.

    Parameters
    ----------
    dim : int, default=512
        Width of the patch embedding.
    attention_dim : int, default=128
        Hidden width of the attention.
    gated : bool, default=True
        Gated attention, else plain.
    dropout : float, default=0.25
        After the embedding and in the attention.
    {training}

    Attributes
    ----------
    {fitted}

    See Also
    --------
    DTFDMILClassifier : Attention in two tiers, over random chunks of the slide.
    BagPooling : Pooling without attention, for scikit-learn's own classifiers.

    Notes
    -----
    Differs from the original in the embedding, which was a small convolutional network on images
    of digits and is a linear layer with ReLU on patch features, in the dropout (there was none),
    and in a softmax over classes in place of one sigmoid.

    References
    ----------
    Ilse, Tomczak, Welling. Attention-based Deep Multiple Instance Learning. ICML 2018.
    arXiv:1802.04712.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import ABMILClassifier
    >>> random = np.random.default_rng(0)
    >>> y = np.arange(20) % 2
    >>> bags = [random.normal(2 * label, size=(5 + i, 4)) for i, label in enumerate(y)]
    >>> clf = ABMILClassifier(dim=16, max_epochs=5, random_state=0).fit(bags, y)
    >>> clf.predict_proba(bags).shape
    (20, 2)
    """

    dim: int = 512
    attention_dim: int = 128
    gated: bool = True
    dropout: float = 0.25
    max_epochs: int = 20
    optimizer: str = "adam"
    learning_rate: float = 5e-4
    lr_schedule: str | None = None
    sampler: str = "shuffle"
    max_grad_norm: float | None = None
    early_stopping: bool = False

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **TRAINING,
        "dim": positive_int,
        "attention_dim": positive_int,
        "gated": ["boolean"],
        "dropout": share,
    }

    def _make_module(self, n_features: int, n_genes: int, n_classes: int) -> nn.Module:
        return ABMIL(
            n_features,
            n_classes,
            dim=self.dim,
            attention_dim=self.attention_dim,
            gated=self.gated,
            dropout=self.dropout,
        )

    def _make_objective(self) -> Objective:
        return Objective(cross_entropy_terms, {"ce": 1.0})
