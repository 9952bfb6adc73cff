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
from .parameters import (
    AS_TRAINED,
    AT_LEAST_ONE,
    AUTO_TRAINING,
    BELOW_ONE,
    NON_NEGATIVE,
    POSITIVE,
    UNIFIED,
    parameter,
)
from .privileged_base import PrivilegedMILClassifier


@dataclass(kw_only=True, eq=False, repr=False)
class MKDClassifier(PrivilegedMILClassifier):
    """Slide classifier that is trained beside an omics and a multimodal teacher (MKD).

    The three networks are trained at once and from each other; the one that reads slides is kept.
    The defaults are ``preset("original")``, the published training, but for `prior`;
    ``preset("unified")`` has the training that all methods share, but for `batch_size`.

    Parameters
    ----------
    dim : int, default=256
        Width of the features that are compared.
    attention_dim : int, default=128
        Hidden width of every attention.
    n_tokens : int, default=6
        Number of tokens into which the genes are cut in the order of the omics transformer, padded
        with zeros at the end. The default transformer keeps the order of the omics table.
    fusion : {"bilinear", "concat"}, default="bilinear"
        How the multimodal teacher joins its two streams.
    gate_dim : int, default=32
        Width of the factors of the bilinear fusion.
    dropout : float, default=0.25
        Dropout of embeddings, fusion and heads.
    temperature : float, default=4.0
        Temperature of the soft labels.
    lambda_skd : float, default=1.0
        Weight of the similarity between bags.
    lambda_clod : float, default=1.0
        Weight of the soft labels.
    lambda_coral : float, default=1.0
        Weight of the moments of the features.
    lambda_orthogonality : float, default=1 / 6
        Weight of the inner products of the features.
    n_genes : int, default=768
        Number of genes that the default omics transformer keeps.
    omics_transformer : transformer or None, default=None
        Fitted on the omics of the training part. None takes log2(x + 1) where the data are counts,
        clips outliers as :class:`ExpressionClipper` does, keeps the `n_genes` genes with the
        largest Welch's t between classes, and standardises them.
    max_epochs : int, default=50
        Largest number of passes over the training slides.
    batch_size : int, default=16
        Number of slides per training step.
    learning_rate : float, default=0.0002
        Learning rate of the optimizer.
    weight_decay : float, default=1e-05
        Weight decay of the optimizer, on all weights.
    sampler : {"balanced", "shuffle"}, default="balanced"
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
    patience : int, default=5
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
        is optimizer="adamw", betas=(0.9, 0.999), lr_schedule="cosine", accumulation_steps=1,
        max_grad_norm=None, clip="global", monitor="auc", tie_break="loss", min_epochs=7,
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

    See Also
    --------
    GHANetClassifier, TDCClassifier : Other methods that are trained with privileged omics.

    Notes
    -----
    The batch is part of the method: similarities and moments are those of the bags with omics in a
    batch, of which there must be at least two. Therefore ``preset("unified")`` keeps batches of 16.
    Genes are chosen in the fold by Welch's t and cut into 6 tokens in the order of the omics table;
    the original takes genes by Cox models fitted outside of the fold, 16 tokens, in order of rank.
    Bags without omics train the student alone. The epoch is chosen by the student's AUC, in the
    original by the mean AUC of the three networks; a tie is progress if the loss is lower; training
    ends after 50 epochs, where the cosine of the original ends; the last, smaller batch of an epoch
    counts. Both teachers are dropped after `fit`. Similarities, moments and orthogonality belong to
    a batch, not to a bag: `sample_weight` and `class_weight` do not reach them.

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

    dim: int = parameter(256, AT_LEAST_ONE)
    attention_dim: int = parameter(128, AT_LEAST_ONE)
    n_tokens: int = parameter(6, AT_LEAST_ONE)
    fusion: str = parameter("bilinear", StrOptions({"bilinear", "concat"}))
    gate_dim: int = parameter(32, AT_LEAST_ONE)
    dropout: float = parameter(0.25, BELOW_ONE)
    temperature: float = parameter(4.0, POSITIVE)
    lambda_skd: float = parameter(1.0, NON_NEGATIVE)
    lambda_clod: float = parameter(1.0, NON_NEGATIVE)
    lambda_coral: float = parameter(1.0, NON_NEGATIVE)
    lambda_orthogonality: float = parameter(1 / 6, NON_NEGATIVE)
    max_epochs: int = 50
    batch_size: int = 16
    weight_decay: float = 1e-5
    patience: int = 5

    _auto_training: ClassVar[dict[str, Any]] = AUTO_TRAINING | {
        "lr_schedule": "cosine",
        "max_grad_norm": None,
        "min_epochs": 7,
    }
    _presets: ClassVar[dict[str, dict[str, Any]]] = {
        "original": AS_TRAINED,
        "unified": UNIFIED | {"batch_size": 16},
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

    def _make_loss(self) -> Objective:
        weights = {
            "ce": 1.0,
            "ce_omics": 1.0,
            "ce_joint": 1.0,
            "skd": self.lambda_skd,
            "clod": self.lambda_clod,
            "coral": self.lambda_coral,
            "orthogonality": self.lambda_orthogonality,
        }
        return Objective(
            partial(mkd_terms, temperature=self.temperature),
            weights,
            paired=frozenset({"ce_omics", "ce_joint", "clod"}),
            of_batch=frozenset({"skd", "coral", "orthogonality"}),
        )
