"""TDC as a scikit-learn classifier."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, cast

import pandas as pd
import torch
from sklearn.utils._param_validation import Interval
from torch import nn

from ..losses.tdc import tdc_teacher_terms, tdc_terms
from ..models.tdc import TDC, MultimodalNet, TDCTeacher
from ..training.callbacks import StartMasking
from ..training.config import Objective
from .base import Fold, TaughtClassifier
from .parameters import UNIFIED, part, positive, positive_int, share, weight

_TEACHER_WEIGHTS = dict.fromkeys(
    ("ce_path", "ce_omics", "ce_fused", "kl_path", "kl_omics", "kl_fused", "kl_masked"), 1.0
)


@dataclass(kw_only=True, eq=False, repr=False)
class TDCClassifier(TaughtClassifier):
    """Slide classifier taught by a multimodal network and by its own moving average (TDC).

    The first stage trains the multimodal teacher, the second the student; without omics there is
    the second alone. The defaults are ``preset("original")``, the published training;
    ``preset("unified")`` trains as every other method does there, but for `batch_size`.

    Parameters
    ----------
    dim : int, default=128
        Width of all features.
    attention_dim : int, default=128
        Hidden width of the attention.
    omics_hidden_dims : tuple of int, default=(64, 48, 32)
        Hidden widths of the teacher's omics network.
    dropout, omics_dropout : float, default=0.25, 0.1
        In path and fusion networks; in the omics network.
    average_decay : float, default=0.99
        Of the moving averages of teacher and student.
    view : float, default=0.8
        Share of a slide's patches that the teacher sees at a time.
    masked_patches, masked_genes : float, default=0.01, 0.0625
        Share of the most telling patches and genes that the teacher learns to do without.
    l1 : float, default=0.0003
        Weight of the L1 norm of the omics network.
    n_positives, n_negatives : int, default=6, 4096
        Bags to be near to and to be far from.
    contrast_temperature, bank_momentum : float, default=0.07, 0.5
        Of that contrast and its memory banks.
    temperature : float, default=1.0
        Of the soft labels.
    threshold : float, default=0.25
        Gradients of two losses agree above this cosine.
    max_discrepancy : float, default=1.0
        Bound of the extra weight of bags of which a teacher is surer.
    alpha, beta : float, default=1.0, 0.05
        Weights of soft labels and of contrast.
    teacher_eval : bool, default=True
        Teach without dropout and with fixed batch norms.
    {omics}
    {training}

    Attributes
    ----------
    {fitted}
    {taught}
    teacher_history_ : DataFrame
        Of the first stage (of several models, of the first); only after a fit with omics.

    See Also
    --------
    GHANetClassifier, MKDClassifier : Other methods that omics teaches.

    Notes
    -----
    `max_epochs` and all that ends a training hold for each stage; `callbacks` are the student's.
    The first stage chooses its epoch by the AUC of the fused network on the validation part,
    where that has omics. Batch norm and contrast need batches, therefore ``preset("unified")``
    keeps batches of 16.

    Ours: whole slides and attention in place of single images and a convolutional network;
    a random part of the patches as a view; patches in place of superpixels; as many masked genes
    in proportion; teachers in eval mode (`teacher_eval`); the contrast with the average weighed by
    the average's own discrepancy; bags without omics, which learn from their labels and the
    average alone; epochs chosen on a validation part, which in the original
    was the test part; the last and smaller batch of an epoch, which counts here. Teachers and
    memory banks are dropped after `fit`.

    References
    ----------
    Zhang et al. Comprehensive learning and adaptive teaching: Distilling multi-modal knowledge
    for pathological glioma grading. Medical Image Analysis 91:102990, 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import TDCClassifier
    >>> random = np.random.default_rng(0)
    >>> y = np.arange(20) % 2
    >>> bags = [random.normal(2 * label, size=(5 + i, 4)) for i, label in enumerate(y)]
    >>> omics = random.normal(y[:, None], size=(20, 12))
    >>> clf = TDCClassifier(dim=16, max_epochs=2, random_state=0).fit(bags, y, omics=omics)
    >>> clf.predict_proba(bags).shape
    (20, 2)
    """

    dim: int = 128
    attention_dim: int = 128
    omics_hidden_dims: tuple[int, ...] = (64, 48, 32)
    dropout: float = 0.25
    omics_dropout: float = 0.1
    average_decay: float = 0.99
    view: float = 0.8
    masked_patches: float = 0.01
    masked_genes: float = 1 / 16
    l1: float = 3e-4
    n_positives: int = 6
    n_negatives: int = 4096
    contrast_temperature: float = 0.07
    bank_momentum: float = 0.5
    temperature: float = 1.0
    threshold: float = 0.25
    max_discrepancy: float = 1.0
    alpha: float = 1.0
    beta: float = 0.05
    teacher_eval: bool = True
    max_epochs: int = 30
    batch_size: int = 16
    optimizer: str = "adam"
    learning_rate: float = 5e-4
    weight_decay: float = 4e-4
    lr_schedule: str | None = "linear"
    sampler: str = "shuffle"
    max_grad_norm: float | None = None
    patience: int = 30

    _presets: ClassVar[dict[str, dict[str, Any]]] = {
        "original": {},
        "unified": UNIFIED | {"batch_size": 16},
    }
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **TaughtClassifier._parameter_constraints,
        **dict.fromkeys(("dim", "attention_dim", "n_positives", "n_negatives"), positive_int),
        "omics_hidden_dims": [tuple, list],
        **dict.fromkeys(("dropout", "omics_dropout", "average_decay", "bank_momentum"), share),
        **dict.fromkeys(("view", "masked_patches", "masked_genes"), part),
        **dict.fromkeys(("contrast_temperature", "temperature"), positive),
        **dict.fromkeys(("l1", "max_discrepancy", "alpha", "beta"), weight),
        "threshold": [Interval(Real, -1, 1, closed="both")],
        "teacher_eval": ["boolean"],
    }
    _validates_with_omics: ClassVar[bool] = True

    def _learn(self, fold: Fold) -> tuple[nn.Module, pd.DataFrame]:
        teacher = self._learn_teacher(fold.for_teacher()) if fold.n_genes else None
        module = cast(TDC, self._build(self._make_module, fold.n_genes, fold.streams))
        labels, paired = torch.tensor(fold.training.y), torch.tensor(fold.training.paired)
        module.begin(labels, paired, teacher, fold.streams.generator("model"))
        return module, self._train(module, self._make_objective(), fold)

    def _learn_teacher(self, fold: Fold) -> MultimodalNet:
        module = cast(TDCTeacher, self._build(self._make_teacher, fold.n_genes, fold.streams))
        objective = Objective(tdc_teacher_terms, _TEACHER_WEIGHTS | {"l1": self.l1})
        history = self._train(module, objective, fold, [StartMasking(2)])
        if not hasattr(self, "teacher_history_"):
            self.teacher_history_ = history
        return module.net

    def _make_teacher(self, n_features: int, n_genes: int, n_classes: int) -> nn.Module:
        widths = self.omics_hidden_dims
        if not all(isinstance(width, Integral) and width > 0 for width in widths):
            raise ValueError(f"omics_hidden_dims must be positive whole numbers, got {widths!r}.")
        return TDCTeacher(
            n_features,
            n_genes,
            n_classes,
            dim=self.dim,
            attention_dim=self.attention_dim,
            omics_hidden_dims=self.omics_hidden_dims,
            dropout=self.dropout,
            omics_dropout=self.omics_dropout,
            average_decay=self.average_decay,
            view=self.view,
            masked_patches=self.masked_patches,
            masked_genes=self.masked_genes,
        )

    def _make_module(self, n_features: int, n_genes: int, n_classes: int) -> nn.Module:
        return TDC(
            n_features,
            n_genes,
            n_classes,
            dim=self.dim,
            attention_dim=self.attention_dim,
            dropout=self.dropout,
            n_positives=self.n_positives,
            n_negatives=self.n_negatives,
            contrast_temperature=self.contrast_temperature,
            bank_momentum=self.bank_momentum,
            average_decay=self.average_decay,
            teacher_eval=self.teacher_eval,
        )

    def _make_objective(self) -> Objective:
        terms = partial(
            tdc_terms,
            temperature=self.temperature,
            threshold=self.threshold,
            max_discrepancy=self.max_discrepancy,
        )
        soft, contrast = (
            dict.fromkeys((f"{kind}_average", f"{kind}_teacher"), weight)
            for kind, weight in (("kl", self.alpha), ("crd", self.beta))
        )
        return Objective(terms, {"ce": 1.0} | soft | contrast)
