"""TransMIL as a scikit-learn classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from ..losses.mil import cross_entropy_terms
from ..models.transmil import TransMIL
from ..training.config import Objective
from .base import HistologyClassifier
from .parameters import TRAINING, positive_int, share


@dataclass(kw_only=True, eq=False, repr=False)
class TransMILClassifier(HistologyClassifier):
    """Slide classifier on the class token of two Nystroem attention layers (TransMIL).

    The order of a bag's patches is part of the model: they are laid out row by row on a square
    as they come. The defaults are ``preset("original")``, the published training;
    ``preset("unified")`` trains as every other method does there.

    Parameters
    ----------
    dim : int, default=512
        Width of the tokens; half as many landmarks.
    n_heads : int, default=8
        Must divide `dim`.
    dropout : float, default=0.1
        After both attention layers.
    {training}

    Attributes
    ----------
    {fitted}

    See Also
    --------
    WiKGClassifier : Patches that choose their neighbours.

    Notes
    -----
    Differs from the original in the padding of the attention, where the authors' version of
    ``nystrom-attention`` kept the wrong positions; in weight decay, which here acts on biases and
    norms too; and in float32 where the original ran in float16.

    References
    ----------
    Shao et al. TransMIL: Transformer based Correlated Multiple Instance Learning for Whole Slide
    Image Classification. NeurIPS 2021. arXiv:2106.00908.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import TransMILClassifier
    >>> random = np.random.default_rng(0)
    >>> y = np.arange(20) % 2
    >>> bags = [random.normal(2 * label, size=(5 + i, 4)) for i, label in enumerate(y)]
    >>> clf = TransMILClassifier(dim=16, max_epochs=5, random_state=0).fit(bags, y)
    >>> clf.predict_proba(bags).shape
    (20, 2)
    """

    dim: int = 512
    n_heads: int = 8
    dropout: float = 0.1
    max_epochs: int = 200
    accumulation_steps: int = 2
    optimizer: str = "lookahead_radam"
    weight_decay: float = 1e-5
    lr_schedule: str | None = None
    sampler: str = "shuffle"
    max_grad_norm: float | None = None
    monitor: str = "loss"
    patience: int = 10
    min_epochs: int = 1

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **TRAINING,
        "dim": positive_int,
        "n_heads": positive_int,
        "dropout": share,
    }

    def _make_module(self, n_features: int, n_genes: int, n_classes: int) -> nn.Module:
        if self.dim % (2 * self.n_heads):
            raise ValueError(
                f"dim={self.dim} must be a multiple of twice n_heads={self.n_heads}: it is shared "
                "among the heads, and half of it is the number of landmarks."
            )
        return TransMIL(
            n_features, n_classes, dim=self.dim, n_heads=self.n_heads, dropout=self.dropout
        )

    def _make_objective(self) -> Objective:
        return Objective(cross_entropy_terms, {"ce": 1.0})
