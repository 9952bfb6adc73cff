"""MoMKD as a scikit-learn classifier and transformer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from os import PathLike
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import nn

from .. import training as engine
from ..data.graph import GRAPHS
from ..data.positive_class import positive_class
from ..data.sequence import as_bags
from ..losses.momkd import momkd_terms
from ..models.momkd import MoMKD, slide_affinity
from ..nn.isolation import isolated, own_torch_random_state
from ..nn.memory import ClassMemory
from ..preprocessing.slide_index import indexed_by_slide
from ..training.batches import GraphSpec
from ..training.config import Objective, resolve_device, resolve_precision
from .base import BaseMILClassifier
from .momkd_options import LossOptions, MemoryOptions, NetworkOptions
from .official_checkpoint import read_official_checkpoint
from .parameters import (
    AS_TRAINED,
    AT_LEAST_ONE,
    BELOW_ONE,
    NON_NEGATIVE,
    UNIFIED,
    Parameters,
    parameter,
)
from .privileged_base import PrivilegedMILClassifier

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},  # ours: the paper's constants and sizes, the release's losses and head
    "unified": UNIFIED,
    "paper": {  # as printed; what the paper does not state is as in the default
        **AS_TRAINED,
        "network__head": "linear",
        "loss__assignment": "euclidean",
        "loss__commit_reduction": "sum",
        "loss__commit_memories": "all",
        "loss__ortho_reduction": "sum",
    },
    "release": {  # the authors' script
        **AS_TRAINED,
        "hidden_dim": 512,
        "projection_dim": 64,
        "network__edge_flow": "release",
        "network__identity_residual": True,
        "network__learn_tau": True,
        "memory__kmeans_samples": 50_000,
        "loss__assignment": "euclidean",
        "lambda_mse": 0.05,
        "patience": 1,
        "training__min_epochs": 3,
        "training__tie_break": "latest",
    },
    "small": {  # ours, for some hundred patients; see docs/decisions/0006 and 0011
        "hidden_dim": 64,
        "projection_dim": 32,
        "network__head_hidden_dim": 32,
        "network__omics_hidden_dim": 64,
        "dropout": 0.25,
        "network__head_dropout": 0.25,
        "input_dropout": 0.3,
        "lambda_teacher": "auto",
        "pooled_share": 0.75,
        "batch_size": 32,
        "learning_rate": 7e-4,
        "weight_decay": 0.05,
        "training__lr_schedule": "cosine",
        "max_epochs": 25,
        "early_stopping": False,
        "training__average_after": 0.5,
    },
}


@dataclass(kw_only=True, eq=False, repr=False)
class MoMKDClassifier(TransformerMixin, PrivilegedMILClassifier):
    """Slide classifier that learns from privileged omics through a memory per class (MoMKD).

    Each class has a small memory of directions. During training, slides and expression profiles
    are drawn to the memory of their class, and patches are weighted by how they match the
    memories. Prediction needs the slide alone.

    The defaults, ``preset("default")``, are ours: the paper's constants and sizes, the losses and
    the head of the authors' program. ``preset("unified")``, in which all classifiers are compared,
    is the same. ``preset("paper")`` is the paper as printed, ``preset("release")`` has the settings
    of the authors' script, and ``preset("small")``, which is ours, is for some hundred patients.

    Parameters
    ----------
    hidden_dim : int, default=256
        Width D of the patch embedding.
    projection_dim : int, default=128
        Width D_N of the projections and of the memory.
    n_components : int, default=16
        Number of memory components per class.
    dropout : float, default=0.5
        Dropout in the graph encoder, on outputs and attention.
    graph : {"auto", "spatial", "stored", "features", "none"}, default="auto"
        Which patches attend to which. "auto" takes the bag's own graph, else the nearest patches
        by coordinates, else each patch alone. "features" takes the nearest in feature space.
    n_neighbors : int, default=8
        Number of neighbours of a patch, fewer in smaller bags.
    tau : float, default=0.2
        Temperature of the attention (Eq. 7).
    lambda_mse : float, default=0.01
        Weight of the reconstruction of omics.
    lambda_mem : float, default=0.1
        Weight of the memory loss.
    alpha_omics : float, default=0.05
        Weight of the alignment of omics with the memory.
    alpha_wsi : float, default=0.2
        Weight of the alignment of slides with the memory.
    network : NetworkOptions or None, default=None
        Details of the network, also set as ``network__<name>``.
    memory : MemoryOptions or None, default=None
        How the memory starts and moves, also set as ``memory__<name>``.
    loss : LossOptions or None, default=None
        Constants of the losses, also set as ``loss__<name>``.
    n_genes : int, default=768
        Number of genes that the default omics transformer keeps.
    omics_transformer : transformer or None, default=None
        Fitted on the omics of the training part. None takes log2(x + 1) where the data are counts,
        clips outliers as :class:`ExpressionClipper` does, keeps the `n_genes` genes with the
        largest Welch's t between classes, and standardises them.
    max_epochs : int, default=100
        Largest number of passes over the training slides.
    batch_size : int, default=1
        Number of slides per training step.
    learning_rate : float, default=0.0002
        Learning rate of the optimizer.
    weight_decay : float, default=0.0001
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
    patience : int, default=15
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
        is optimizer="adamw", betas=(0.9, 0.999), lr_schedule="plateau", accumulation_steps=1,
        max_grad_norm=16.0, clip="global", monitor="auc", tie_break="loss", min_epochs=10,
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
    load_cohort : Bags, labels and omics from files.
    InstanceTransformer : Scaling of patch features inside a pipeline.

    Notes
    -----
    ``module_.omics_branch`` may be deleted; prediction does not use it. ``history_`` also has the
    usage of the memory. ``docs/equations.md`` lists every equation with its function, and each
    difference between paper, authors' code and these defaults. More than two classes are our
    extension. The start and the moves of the memory do not know `sample_weight` and `class_weight`;
    all terms of the loss do.

    References
    ----------
    Guo, Lu, Koyun, Zhu, Demir, Gurcan. Momentum Memory for Knowledge Distillation in
    Computational Pathology. CVPR 2026. arXiv:2602.21395.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from sk_momkd import MoMKDClassifier, load_cohort, simulate_cohort
    >>> paths = simulate_cohort(mkdtemp(), n_patients=12, n_patches=20, random_state=0)
    >>> bags, y, omics, join = load_cohort(*paths, label="subtype")
    >>> clf = MoMKDClassifier(hidden_dim=32, projection_dim=16, max_epochs=2, random_state=0)
    >>> clf.fit(bags, y, omics=omics).predict_proba(bags).shape
    (12, 2)
    >>> clf.transform(bags).shape
    (12, 32)
    """

    hidden_dim: int = parameter(256, AT_LEAST_ONE)
    projection_dim: int = parameter(128, AT_LEAST_ONE)
    n_components: int = parameter(16, AT_LEAST_ONE)
    dropout: float = parameter(0.5, BELOW_ONE)
    graph: str = parameter("auto", StrOptions(set(GRAPHS)))
    n_neighbors: int = parameter(8, AT_LEAST_ONE)
    tau: float = parameter(0.2, Interval(Real, 0.01, 2, closed="both"))
    lambda_mse: float = parameter(0.01, NON_NEGATIVE)
    lambda_mem: float = parameter(0.1, NON_NEGATIVE)
    alpha_omics: float = parameter(0.05, NON_NEGATIVE)
    alpha_wsi: float = parameter(0.2, NON_NEGATIVE)
    network: NetworkOptions | None = parameter(None, NetworkOptions, None)
    memory: MemoryOptions | None = parameter(None, MemoryOptions, None)
    loss: LossOptions | None = parameter(None, LossOptions, None)

    _presets: ClassVar[dict[str, dict[str, Any]]] = PRESETS
    _options: ClassVar[dict[str, type[Parameters]]] = {
        **BaseMILClassifier._options,
        "network": NetworkOptions,
        "memory": MemoryOptions,
        "loss": LossOptions,
    }
    _keeps_omics_branch: ClassVar[bool] = True
    _fitted: ClassVar[tuple[str, ...]] = (*PrivilegedMILClassifier._fitted, "official_checkpoint_")

    def fit(
        self, X: Any, y: Any, *, omics: Any = None, groups: Any = None, sample_weight: Any = None
    ) -> Self:
        """Train on bags, their labels and, where patients have it, their omics.

        Parameters
        ----------
        X : BagSequence, list of bags, or array
            A list may hold `Bag`, arrays, ``(features, coords)`` or PyG ``Data``; an array has the
            shape (n_bags, n_instances, n_features) or (n_bags, n_features).
        y : array-like of shape (n_bags,)
            Class labels of any kind.
        omics : AnnData, DataFrame with ids as index, OmicsTable, array in bag order, or None
            Rows are joined to the bags by patient id and then by bag id, never by position; an
            array, dense or sparse, has no ids and must have a row per bag. Bags without omics train
            the histology side alone; None trains without omics.
        groups : array-like of shape (n_bags,), optional
            What stays whole in the inner validation part, e.g. sites; by default patients.
        sample_weight : array-like of shape (n_bags,), optional
            Weights of the bags in the loss, of which only the ratios count. A bag of weight 0 is
            left out. Under the balanced sampler weights count within a class. The loss and the AUC
            of the validation part are weighted, too. What is drawn, which bags form the validation
            part, and how omics is prepared does not depend on weights.

        Returns
        -------
        self

        Raises
        ------
        BagError, OmicsError, LeakageError, ValueError
            If the input is unusable. The message names the bag, patient or gene, what came, what
            was expected and how to mend it.
        TypeError
            If one of ``training__callbacks`` is no callback of skorch.
        TrainingError
            If the training diverges, or is unstable with ``training__strict=True``.
        CheckpointError
            If ``training__checkpoint_dir`` is of another fit, in use or damaged.
        """
        return self._fit(X, y, omics, groups, sample_weight)

    @classmethod
    def from_official_checkpoint(
        cls, path: str | PathLike, classes: Sequence[Any] = (0, 1), **parameters: Any
    ) -> Self:
        """Fitted classifier from a checkpoint of the authors' program.

        Sizes follow from the shapes of the weights, everything else from ``preset("release")``.
        The file is read as weights alone; no code in it can run.

        Parameters
        ----------
        path : path
            A ``s_<fold>_mkd_checkpoint.pt`` of the authors' program.
        classes : (negative label, positive label), default=(0, 1)
            Labels of its two outputs, in this order.
        **parameters
            Other parameters of the estimator, e.g. ``precision="auto"``.

        Returns
        -------
        MoMKDClassifier
            It predicts, transforms and is inspected as any fitted one. Genes and history are not in
            the file, so ``genes_``, ``history_`` and ``omics_transformer_`` do not exist.

        Raises
        ------
        CheckpointError
            If the file is missing, unreadable, or holds the weights of another model.
        ValueError
            If `classes` are not two different labels, or `pos_label` is the first of them.

        Examples
        --------
        >>> path = "s_0_mkd_checkpoint.pt"
        >>> clf = MoMKDClassifier.from_official_checkpoint(path)  # doctest: +SKIP
        >>> clf.predict_proba(bags)  # doctest: +SKIP
        """
        if len(set(classes)) != 2:
            raise ValueError(f"classes must be two different labels, got {classes!r}.")
        if parameters.setdefault("pos_label", classes[1]) != classes[1]:
            raise ValueError(
                f"pos_label={parameters['pos_label']!r}, but classes={classes!r} are the negative "
                "and the positive label, in this order."
            )
        checkpoint = read_official_checkpoint(path)
        clf = cls.preset("release", **(checkpoint.parameters() | parameters))
        clf.classes_, clf.n_features_in_ = np.unique(np.asarray(classes)), checkpoint.in_features
        clf.pos_label_ = positive_class(clf.classes_.tolist(), classes[1])
        clf.device_ = resolve_device(clf.device)
        clf.precision_ = resolve_precision(clf.precision, clf.device_)
        with isolated(), own_torch_random_state():
            module = clf._make_module(checkpoint.in_features, checkpoint.n_genes, 2)
        checkpoint.load_into(module, path)
        clf.__dict__.update(clf._networks([module], checkpoint.n_genes))
        clf._validation = None
        clf.official_checkpoint_ = str(path)
        clf.sampled_prior_, clf._prior_at_fit = np.full(2, 0.5), clf.prior
        return clf

    def __getattr__(self, name: str) -> Any:
        official = vars(self).get("official_checkpoint_")
        if official and name in {"genes_", "history_", "omics_transformer_", "n_iter_"}:
            raise AttributeError(
                f"{name} is not known: the model comes from {official!r}, a checkpoint of the "
                "authors' program, which holds weights alone."
            )
        return super().__getattr__(name)

    def transform(self, X: Any) -> Any:
        """Cosine of each slide with each memory component.

        Parameters
        ----------
        X : bags in any form that `fit` accepts

        Returns
        -------
        ndarray of shape (n_bags, n_models * n_classes * n_components)
            In [-1, 1]; columns as `get_feature_names_out` names them. With
            ``set_output(transform="pandas")`` a DataFrame with the ids of the bags as index.
        """
        check_is_fitted(self)
        affinities = self._affinities(X)  # checks X
        return indexed_by_slide(self, as_bags(X), affinities)

    @isolated()
    def _affinities(self, X: Any) -> NDArray:
        per_bag = ([slide_affinity(out) for out in outs] for outs in self._forward_models(X))
        return np.concatenate([torch.cat(row, dim=1).numpy() for row in per_bag])

    def get_feature_names_out(self, input_features: Any = None) -> NDArray:
        """Names ``memory_<class>_<component>`` of the columns of `transform`.

        With several models the names are ``model<i>_memory_<class>_<component>``.

        Parameters
        ----------
        input_features : object
            Ignored.

        Returns
        -------
        ndarray of str, shape (n_columns,)
        """
        check_is_fitted(self)
        n_components = self._memory().rows.shape[1]
        names = [f"memory_{c}_{j}" for c in self._network_classes for j in range(n_components)]
        if len(self.modules_) > 1:
            names = [f"model{i}_{name}" for i in range(len(self.modules_)) for name in names]
        return np.array(names, dtype=object)

    def _memory(self) -> ClassMemory:
        return self.module_.memory

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # affinities are float32 whatever came
        return tags

    def _graph_spec(self) -> GraphSpec:
        return GraphSpec(self.graph, self.n_neighbors, self._option("network").edge_flow)

    def _make_module(self, n_features: int, n_genes: int, n_classes: int) -> nn.Module:
        network, memory = self._option("network"), self._option("memory")
        if self.hidden_dim % network.n_heads:
            raise ValueError(
                f"network__n_heads={network.n_heads} must divide hidden_dim={self.hidden_dim}."
            )
        if memory.update == "fixed" and (memory.reseed_unused or memory.renormalize):
            raise ValueError(
                "memory__update='fixed' excludes memory__reseed_unused and memory__renormalize."
            )
        return MoMKD(
            n_features,
            n_genes,
            n_classes,
            dim=self.hidden_dim,
            projection_dim=self.projection_dim,
            n_components=self.n_components,
            n_heads=network.n_heads,
            omics_hidden_dim=network.omics_hidden_dim,
            head_hidden_dim=network.head_hidden_dim,
            head=network.head,
            identity_residual=network.identity_residual,
            dropout=self.dropout,
            omics_dropout=network.omics_dropout,
            head_dropout=network.head_dropout,
            tau=self.tau,
            learn_tau=network.learn_tau,
            learn_memory=memory.update == "gradient",
            backend=network.backend,
        )

    def _make_loss(self) -> Objective:
        constants = self._option("loss").get_params()
        weights = {
            "ce": constants.pop("lambda_ce"),
            "mse": self.lambda_mse,
            "memory": self.lambda_mem,
            "align_omics": self.alpha_omics,
            "align_wsi": self.alpha_wsi,
        }
        del constants["teacher_temperature"]  # used where the soft labels are made
        smoothing = constants.pop("label_smoothing")
        terms = partial(momkd_terms, **constants)
        paired = frozenset({"mse", "align_omics"})
        return Objective(terms, weights, paired=paired, label_smoothing=smoothing)

    @property
    def _teacher_temperature(self) -> float:  # type: ignore[override]
        return self._option("loss").teacher_temperature

    def _make_callbacks(self, generator: torch.Generator) -> list[Any]:
        memory = self._option("memory")
        start = engine.InitialMemory(
            memory.kmeans_samples, memory.kmeans_init, memory.warmup, generator
        )
        moving = engine.MovingMemory(
            memory.momentum if memory.update == "ema" else None, memory.renormalize
        )
        names = [str(c) for c in self._network_classes]
        usage = engine.MemoryUsage(names, memory.reseed_unused, generator)
        # A warm start goes on with the memory that was learned.
        return [*([start] if self._earlier is None else []), moving, usage]
