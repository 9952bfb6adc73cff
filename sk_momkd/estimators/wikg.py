"""WiKG as a scikit-learn classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from sklearn.utils._param_validation import StrOptions
from torch import nn

from ..losses.mil import cross_entropy_terms
from ..models.wikg import ATTENTIONS, READOUTS, WiKG
from ..training.config import Objective
from .base import BaseMILClassifier
from .parameters import AT_LEAST_ONE, AUTO_TRAINING, BELOW_ONE, parameter


@dataclass(kw_only=True, eq=False, repr=False)
class WiKGClassifier(BaseMILClassifier):
    """Slide classifier on a graph of patches with similar embeddings (WiKG).

    The defaults are ``preset("original")``, the published training, but for `prior`;
    ``preset("unified")`` has the training that all methods share.

    Parameters
    ----------
    dim : int, default=512
        Width of the embeddings.
    n_neighbors : int, default=6
        Number of patches from which each patch receives, chosen by embeddings and not by
        coordinates; a patch may choose itself.
    attention : {"sum_product", "dot"}, default="sum_product"
        Score of a neighbour: "sum_product" is what the authors' program computes, "dot" what the
        paper describes.
    readout : {"attention", "mean"}, default="attention"
        Pooling of the patches: "attention" is the paper's, "mean" that of the authors' training
        script.
    dropout : float, default=0.3
        Dropout on the updated patches.
    max_epochs : int, default=100
        Largest number of passes over the training slides.
    batch_size : int, default=1
        Number of slides per training step.
    learning_rate : float, default=0.0001
        Learning rate of the optimizer.
    weight_decay : float, default=1e-05
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
    patience : int, default=100
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
        is optimizer="adam", betas=(0.9, 0.999), lr_schedule=None, accumulation_steps=1,
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
    MoMKDClassifier : A graph by coordinates.

    Notes
    -----
    Time grows with the square of the number of patches, memory does not. Three linear layers of the
    original that nothing reads are left out. The original does not document how it chooses among
    its 100 epochs; here the best epoch on the validation part is chosen.

    References
    ----------
    Li et al. Dynamic Graph Representation with Knowledge-aware Attention for Histopathology
    Whole Slide Image Analysis. CVPR 2024. arXiv:2403.07719.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import WiKGClassifier
    >>> random = np.random.default_rng(0)
    >>> y = np.arange(20) % 2
    >>> bags = [random.normal(2 * label, size=(5 + i, 4)) for i, label in enumerate(y)]
    >>> clf = WiKGClassifier(dim=16, max_epochs=5, random_state=0).fit(bags, y)
    >>> clf.predict_proba(bags).shape
    (20, 2)
    """

    dim: int = parameter(512, AT_LEAST_ONE)
    n_neighbors: int = parameter(6, AT_LEAST_ONE)
    attention: str = parameter("sum_product", StrOptions(set(ATTENTIONS)))
    readout: str = parameter("attention", StrOptions(set(READOUTS)))
    dropout: float = parameter(0.3, BELOW_ONE)
    learning_rate: float = 1e-4
    weight_decay: float = 1e-5
    sampler: str = "shuffle"
    patience: int = 100

    _auto_training: ClassVar[dict[str, Any]] = AUTO_TRAINING | {
        "optimizer": "adam",
        "lr_schedule": None,
        "max_grad_norm": None,
    }

    def _make_module(self, n_features: int, n_genes: int, n_classes: int) -> nn.Module:
        return WiKG(
            n_features,
            n_classes,
            dim=self.dim,
            n_neighbors=self.n_neighbors,
            attention=self.attention,
            readout=self.readout,
            dropout=self.dropout,
        )

    def _make_loss(self) -> Objective:
        return Objective(cross_entropy_terms, {"ce": 1.0})
