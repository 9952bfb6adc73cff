"""MKD as a scikit-learn classifier."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from sklearn.utils._param_validation import StrOptions
from torch import nn

from ..losses.mkd import mkd_terms
from ..models.mkd import MKD
from ..training.config import Objective
from .base import TaughtClassifier
from .parameters import UNIFIED, positive, positive_int, share, weight


@dataclass(kw_only=True, eq=False, repr=False)
class MKDClassifier(TaughtClassifier):
    """Slide classifier that learns beside an omics and a multimodal teacher (MKD).

    All three networks learn at once and from each other; the slide's alone is kept. The defaults
    are ``preset("original")``, the published training; ``preset("unified")`` trains as every
    other method does there, but for `batch_size`.

    Parameters
    ----------
    dim : int, default=256
        Width of the features that are compared.
    attention_dim : int, default=128
        Hidden width of every attention.
    n_tokens : int, default=6
        The genes, as the omics transformer orders them, are cut into this many tokens, at the
        end filled up with zeros. The default transformer keeps the order of the omics table.
    fusion : {"bilinear", "concat"}, default="bilinear"
        How the multimodal teacher joins its two streams.
    gate_dim : int, default=32
        Width of the factors of the bilinear fusion.
    dropout : float, default=0.25
    temperature : float, default=4.0
        Of the soft labels.
    lambda_skd, lambda_clod, lambda_coral : float, default=1.0, 1.0, 1.0
        Weights of the likeness of bags, of the soft labels, and of the features' moments.
    lambda_orthogonality : float, default=1/6
    {omics}
    {training}

    Attributes
    ----------
    {fitted}
    {taught}

    See Also
    --------
    GHANetClassifier, TDCClassifier : Other methods that omics teaches.

    Notes
    -----
    The batch is a part of the method: likeness and moments are of the bags with omics in a batch,
    of which there must be two. Therefore ``preset("unified")`` keeps batches of 16.

    Ours: expression alone, of genes chosen in the fold by Welch's t instead of by Cox models
    outside of it, cut into 6 tokens instead of 16, in the order of the omics table instead of that
    of their rank; bags without omics, which train the student alone. Differs from the original in
    the choice of the epoch (the student's AUC, not the mean of the three), in ties, which count as
    progress here, in at most 50 epochs, where its cosine ends, and in the last and smaller batch
    of an epoch, which counts here. Both teachers are dropped after `fit`.

    References
    ----------
    Zhang et al. Multi-modal Knowledge Decomposition based Online Distillation for Biomarker
    Prediction in Breast Cancer Histopathology. MICCAI 2025.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import MKDClassifier
    >>> random = np.random.default_rng(0)
    >>> y = np.arange(20) % 2
    >>> bags = [random.normal(2 * label, size=(5 + i, 4)) for i, label in enumerate(y)]
    >>> omics = random.normal(y[:, None], size=(20, 12))
    >>> clf = MKDClassifier(dim=16, max_epochs=2, random_state=0).fit(bags, y, omics=omics)
    >>> clf.predict_proba(bags).shape
    (20, 2)
    """

    dim: int = 256
    attention_dim: int = 128
    n_tokens: int = 6
    fusion: str = "bilinear"
    gate_dim: int = 32
    dropout: float = 0.25
    temperature: float = 4.0
    lambda_skd: float = 1.0
    lambda_clod: float = 1.0
    lambda_coral: float = 1.0
    lambda_orthogonality: float = 1 / 6
    max_epochs: int = 50
    batch_size: int = 16
    weight_decay: float = 1e-5
    lr_schedule: str | None = "cosine"
    max_grad_norm: float | None = None
    patience: int = 5
    min_epochs: int = 7

    _presets: ClassVar[dict[str, dict[str, Any]]] = {
        "original": {},
        "unified": UNIFIED | {"batch_size": 16},
    }
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **TaughtClassifier._parameter_constraints,
        **dict.fromkeys(("dim", "attention_dim", "n_tokens", "gate_dim"), positive_int),
        "fusion": [StrOptions({"bilinear", "concat"})],
        "dropout": share,
        "temperature": positive,
        **dict.fromkeys(("lambda_skd", "lambda_clod", "lambda_coral"), weight),
        "lambda_orthogonality": weight,
    }

    def _make_module(self, n_features: int, n_genes: int, n_classes: int) -> nn.Module:
        return MKD(
            n_features,
            n_genes,
            n_classes,
            dim=self.dim,
            attention_dim=self.attention_dim,
            n_tokens=self.n_tokens,
            fusion=self.fusion,
            gate_dim=self.gate_dim,
            dropout=self.dropout,
        )

    def _make_objective(self) -> Objective:
        weights = {
            "ce": 1.0,
            "ce_omics": 1.0,
            "ce_joint": 1.0,
            "skd": self.lambda_skd,
            "clod": self.lambda_clod,
            "coral": self.lambda_coral,
            "orthogonality": self.lambda_orthogonality,
        }
        return Objective(partial(mkd_terms, temperature=self.temperature), weights)
