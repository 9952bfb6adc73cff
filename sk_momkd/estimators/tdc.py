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

from .. import training as engine
from ..losses.tdc import tdc_teacher_terms, tdc_terms
from ..models.tdc import TDC, MultimodalNet, TDCTeacher
from ..training.config import Objective
from .parameters import (
    AS_TRAINED,
    AT_LEAST_ONE,
    AUTO_TRAINING,
    BELOW_ONE,
    NON_NEGATIVE,
    POSITIVE,
    SHARE,
    UNIFIED,
    parameter,
)
from .privileged_base import PrivilegedMILClassifier
from .training_data import FitData

_TEACHER_WEIGHTS = dict.fromkeys(
    ("ce_path", "ce_omics", "ce_fused", "kl_path", "kl_omics", "kl_fused", "kl_masked"), 1.0
)


@dataclass(kw_only=True, eq=False, repr=False)
class TDCClassifier(PrivilegedMILClassifier):
    """Slide classifier distilled from a multimodal teacher and its own moving average (TDC).

    The first stage trains the multimodal teacher, the second the student; without omics there is
    the second alone. The defaults are ``preset("original")``, the published training, but for
    `prior`; ``preset("unified")`` has the training that all methods share, but for `batch_size`.

    Parameters
    ----------
    dim : int, default=128
        Width of all features.
    attention_dim : int, default=128
        Hidden width of the attention.
    omics_hidden_dims : tuple of int, default=(64, 48, 32)
        Hidden widths of the teacher's omics network.
    dropout : float, default=0.25
        Dropout in the path and fusion networks.
    omics_dropout : float, default=0.1
        Dropout in the omics network.
    average_decay : float, default=0.99
        Decay of the moving averages of teacher and student.
    view : float, default=0.8
        Share of a slide's patches that the teacher sees in one pass.
    masked_patches : float, default=0.01
        Share of the patches with the largest influence that are masked in the first stage.
    masked_genes : float, default=1 / 16
        Share of the genes with the largest influence that are masked in the first stage.
    l1 : float, default=0.0003
        Weight of the L1 norm of the omics network.
    n_positives : int, default=6
        Number of bags of the same class that the contrast draws near.
    n_negatives : int, default=4096
        Number of bags that the contrast pushes away.
    contrast_temperature : float, default=0.07
        Temperature of the contrast.
    bank_momentum : float, default=0.5
        Momentum of the memory banks of the contrast.
    temperature : float, default=1.0
        Temperature of the soft labels.
    threshold : float, default=0.25
        Cosine above which the gradients of two losses agree.
    max_discrepancy : float, default=1.0
        Upper bound of the additional weight of bags in which the teacher is more confident than
        the student.
    alpha : float, default=1.0
        Weight of the soft labels.
    beta : float, default=0.05
        Weight of the contrast.
    teacher_eval : bool, default=True
        Run the teachers of the second stage without dropout and with fixed batch norms.
    n_genes : int, default=768
        Number of genes that the default omics transformer keeps.
    omics_transformer : transformer or None, default=None
        Fitted on the omics of the training part. None takes log2(x + 1) where the data are counts,
        clips outliers as :class:`ExpressionClipper` does, keeps the `n_genes` genes with the
        largest Welch's t between classes, and standardises them.
    max_epochs : int, default=30
        Largest number of passes over the training slides.
    batch_size : int, default=16
        Number of slides per training step.
    learning_rate : float, default=0.0005
        Learning rate of the optimizer.
    weight_decay : float, default=0.0004
        Weight decay of the optimizer, on all weights.
    sampler : {"balanced", "shuffle"}, default="shuffle"
        "balanced" draws slides with replacement such that each class is drawn equally often;
        "shuffle" passes over each slide once per epoch.
    prior : {"training", "sampler"}, dict or array-like, default="training"
        Class shares of the population that probabilities refer to: those of the training data;
        those that the sampler draws, for probabilities as trained; or class probabilities of
        another population, by label or in the order of ``classes_``. It does not change the
        training, so it can be set after `fit`. ``preset("original")`` and MoMKD's ``"paper"`` and
        ``"release"`` have "sampler".
    class_weight : {"balanced"}, dict of label to float, or None, default=None
        Weights of the classes in the loss, 1 for a class that a dict does not have. "balanced"
        gives all classes the same total weight; the balanced sampler does so already, and there
        it changes nothing. Like the sampler it acts on the training part alone, and probabilities
        refer to `prior` whatever it is; only with ``prior="sampler"`` does it move them.
    early_stopping : bool, default=True
        Set a validation part of the training data aside, keep the weights of the epoch that is
        best on it, and stop when it no longer improves.
    validation_fraction : float, default=0.125
        Share of the training patients that form the validation part: a random part of whole
        patients (or `groups`), stratified by class. It depends on `random_state`. A warning names
        the reason where it cannot have this size.
    patience : int, default=30
        Number of epochs without improvement after which training stops.
    input_dropout : float, default=0.0
        Share of the patch features that are set to zero in each training step.
    instance_dropout : float, default=0.0
        Share of the patches that are left out of each training step.
    n_models : int, default=1
        Number of networks that are trained from different seeds on the same data; their logits are
        averaged.
    lambda_teacher : {"auto"} or float in [0, 1], default=0.0
        Weight of the soft labels of an omics teacher in the targets of the bags with omics. "auto"
        chooses 0, 0.25, 0.5, 0.75 or 1 in inner folds of the training part, and 0 where nothing can
        be gained. Without omics it is 0.
    teacher : scikit-learn classifier or None, default=None
        The omics teacher, cross-fitted within the training part. None takes log2(x + 1) where the
        data are counts, clips outliers, standardises the genes, and fits a strongly regularised
        logistic regression.
    pooled_share : float in [0, 1), default=0.0
        Share of a logistic regression on the mean and the standard deviation of the patches of a
        slide in the logits; the network has the rest. The regression is fitted to the same labels,
        soft ones included, and reads no attention. Of some hundred patients it often knows more
        than the network. Early stopping and ``history_`` are of the network alone.
    warm_start : bool, default=False
        Whether `fit` of a fitted classifier goes on from its networks for `max_epochs` more epochs,
        on the same data or on those of another site. Width, classes, genes and network must be the
        same. The omics transformer and the regression of `pooled_share` stay the fitted ones;
        everything else is of the new data. See
        ``docs/resuming.md``.
    training : TrainingOptions or None, default=None
        Rarely changed settings of the training loop, also set as ``training__<name>``. Here "auto"
        is optimizer="adam", betas=(0.9, 0.999), lr_schedule="linear", accumulation_steps=1,
        max_grad_norm=None, clip="global", monitor="auc", tie_break="loss", min_epochs=10,
        best_after=0.0.
    device : str, default="auto"
        Device of torch; "auto" is CUDA where there is one, else the CPU.
    precision : {"float32", "bfloat16", "auto"}, default="float32"
        Number format in which patches are kept and first multiplied; sums and weights are always
        float32. "auto" is bfloat16 where the processor has instructions for it.
    random_state : int, RandomState or None, default=None
        Seed of all random draws. The same seed gives the same model, bit for bit on a CPU. Where a
        training step has more than 2^18 values (patches times features), which takes the threads
        of the process, their number must be the same.
    verbose : int, default=0
        1 shows a progress bar over the epochs of each network, on standard error.
    pos_label : label or None, default=None
        The positive one of two classes. None takes the label that sorts last.
    decision_threshold : float, DecisionThreshold or None, default=None
        Probability from which on `predict` takes the positive one of two classes, e.g. from
        :meth:`Evaluation.threshold`. None takes the most probable class. It does not change the
        training, so it can be set after `fit`. A `DecisionThreshold` knows its `prior` and moves
        with it; a number refers to the `prior` at `fit`.

    Attributes
    ----------
    genes_ : ndarray of shape (n_genes_used,)
        Names of the genes that were used; only after a fit with omics.
    omics_transformer_ : transformer
        The fitted omics transformer; only after a fit with omics.
    classes_ : ndarray of shape (n_classes,)
        Class labels in sorted order.
    pos_label_ : label or None
        The positive one of two classes; None for more classes.
    decision_threshold_ : float or None
        The threshold that `predict` uses at the current `prior`; None for the most probable class.
    n_features_in_ : int
        Number of features of a patch.
    bag_info_ : dict
        What the files of the training bags state, such as encoder and magnification; bags that
        state something else are refused in prediction.
    class_prior_ : ndarray of shape (n_classes,)
        Share of each class in the training data, in the order of ``classes_``; by weight where
        there is `sample_weight`.
    sampled_prior_ : ndarray of shape (n_classes,)
        Share of each class in the loss: among the slides that the sampler draws, by weight.
    largest_feature_ : float
        Largest absolute value of a feature in the training part.
    feature_summary_ : FeatureSummary or None
        Mean and spread of the training slides by feature, with which slides in prediction are
        compared; None of fewer than ten slides.
    module_ : torch module
        The fitted network; of several, the first.
    modules_ : list of torch modules
        All fitted networks.
    mean_patch_ : ndarray of shape (n_features_in_,)
        Mean patch of the slides of the training part, which have equal weight; the reference of
        :func:`patch_evidence`.
    history_ : DataFrame
        One row per epoch: unweighted loss terms by name, learning rate, loss and AUC of the
        validation part. With several networks, column ``model`` numbers them. Where bags are read
        in every epoch, also ``bytes_read`` and the ``seconds_waiting`` for them.
    n_iter_ : int
        Number of epochs that were run; of several networks, the largest.
    validation_ : DataFrame or None
        Predictions for the validation part: bag, patient, label and probabilities. Pickles hold
        them only with ``training__pickle_validation=True``; else its thresholds alone.
    training_patients_ : HashedIds
        Ids of the patients and slides that were given to `fit`, as hashes under a random key, by
        which :func:`evaluate_external` and :func:`prediction_table` know them again.
    lambda_teacher_ : float
        Weight of the omics teacher in the targets.
    teacher_report_ : DataFrame, index weight
        Of students in closed form on pooled bags, fitted without a fold of the training part and
        scored in it: AUROC, its gain over weight 0 with the standard error, this gain shrunk
        towards a typical one, and the gains by teachers permuted within the classes and by a
        teacher that sees the slides. Empty where nothing was to be chosen.
    teacher_verdict_ : str
        The weight, why it was chosen, and the AUROC of teacher and student in inner folds.
    pooled_head_ : PooledHead or None
        The regression on pooled slides; None with ``pooled_share=0``.
    n_paired_ : int
        Number of training bags with omics, without the validation part.
    callbacks_ : list
        The user's callbacks after training.
    device_ : str
        Device on which training ran.
    precision_ : str
        Number format in which patches were kept.
    teacher_history_ : DataFrame
        One row per epoch of the first stage, of several models that of the first; only after a fit
        with omics.

    See Also
    --------
    GHANetClassifier, MKDClassifier : Other methods that are trained with privileged omics.

    Notes
    -----
    `max_epochs` and the rules of early stopping hold for each stage; callbacks see the student. The
    first stage chooses its epoch by the AUC of the fused network on the validation part, where that
    has omics. Batch norm and contrast need batches, therefore ``preset("unified")`` keeps batches
    of 16.

    The original reads single images by a convolutional network. Here slides and attention take
    their place, random parts of the patches are views, patches take the place of superpixels, and
    the share of masked genes is the same. Teachers are in eval mode (`teacher_eval`); the contrast
    with the moving average is weighted by the discrepancy of that average; bags without omics learn
    from their labels and the average alone; epochs are chosen on a validation part, in the original
    on the test part; the last, smaller batch of an epoch counts. Teachers and memory banks are
    dropped after `fit`. `sample_weight` and `class_weight` weigh the losses of bags in both stages;
    the norm of the omics network, batch norm, averages and memory banks do not know them.

    References
    ----------
    Xing et al. Comprehensive learning and adaptive teaching: Distilling multi-modal knowledge
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

    dim: int = parameter(128, AT_LEAST_ONE)
    attention_dim: int = parameter(128, AT_LEAST_ONE)
    omics_hidden_dims: tuple[int, ...] = parameter((64, 48, 32), tuple, list)
    dropout: float = parameter(0.25, BELOW_ONE)
    omics_dropout: float = parameter(0.1, BELOW_ONE)
    average_decay: float = parameter(0.99, BELOW_ONE)
    view: float = parameter(0.8, SHARE)
    masked_patches: float = parameter(0.01, SHARE)
    masked_genes: float = parameter(1 / 16, SHARE)
    l1: float = parameter(3e-4, NON_NEGATIVE)
    n_positives: int = parameter(6, AT_LEAST_ONE)
    n_negatives: int = parameter(4096, AT_LEAST_ONE)
    contrast_temperature: float = parameter(0.07, POSITIVE)
    bank_momentum: float = parameter(0.5, BELOW_ONE)
    temperature: float = parameter(1.0, POSITIVE)
    threshold: float = parameter(0.25, Interval(Real, -1, 1, closed="both"))
    max_discrepancy: float = parameter(1.0, NON_NEGATIVE)
    alpha: float = parameter(1.0, NON_NEGATIVE)
    beta: float = parameter(0.05, NON_NEGATIVE)
    teacher_eval: bool = parameter(True, "boolean")
    max_epochs: int = 30
    batch_size: int = 16
    learning_rate: float = 5e-4
    weight_decay: float = 4e-4
    sampler: str = "shuffle"
    patience: int = 30

    _fitted: ClassVar[tuple[str, ...]] = (*PrivilegedMILClassifier._fitted, "teacher_history_")
    _auto_training: ClassVar[dict[str, Any]] = AUTO_TRAINING | {
        "optimizer": "adam",
        "lr_schedule": "linear",
        "max_grad_norm": None,
    }
    _presets: ClassVar[dict[str, dict[str, Any]]] = {
        "original": AS_TRAINED,
        "unified": UNIFIED | {"batch_size": 16},
    }
    _validates_with_omics: ClassVar[bool] = True

    def _train_model(self, data: FitData) -> tuple[nn.Module, pd.DataFrame]:
        teacher = self._train_teacher(data.for_teacher()) if data.n_genes else None
        module = cast(TDC, self._build(self._make_module, data))
        labels, paired = torch.tensor(data.training.y), torch.tensor(data.training.paired)
        module.begin(labels, paired, teacher, data.generators.generator("model"))
        return module, self._train(module, self._soft_loss(), data)

    def _train_teacher(self, data: FitData) -> MultimodalNet:
        module = cast(TDCTeacher, self._build(self._make_teacher, data))
        loss = Objective(
            tdc_teacher_terms,
            _TEACHER_WEIGHTS | {"l1": self.l1},
            paired=frozenset(_TEACHER_WEIGHTS) - {"ce_path", "kl_path"},
            of_batch=frozenset({"l1"}),
        )
        history = self._train(module, loss, data, [engine.StartMasking(2)])
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

    def _make_loss(self) -> Objective:
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
        paired = frozenset({"kl_teacher", "crd_teacher"})
        return Objective(terms, {"ce": 1.0} | soft | contrast, paired=paired)
