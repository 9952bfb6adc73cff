"""MoMKD as a scikit-learn classifier and transformer."""

from __future__ import annotations

from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import nn

from ..losses.momkd import momkd_terms
from ..models.momkd import MoMKD
from ..nn.backend import BACKENDS
from ..nn.memory import ClassMemory
from ..training.memory import InitialMemory, MemoryUsage, MovingMemory
from ..training.net import Objective
from .base import BaseMILClassifier, positive, positive_int, weight

_dropout = [Interval(Real, 0, 1, closed="left")]


class MoMKDClassifier(TransformerMixin, BaseMILClassifier):
    """Slide classifier taught by omics through a class-conditional memory (MoMKD).

    Each class owns a small memory of directions. During training, slides and expression
    profiles are drawn to the memory of their class; patches are weighted by which memory they
    match. Prediction needs the slide alone.

    The defaults are ``preset("paper")``; ``preset("release")`` has the settings of the authors'
    published script.

    Parameters
    ----------
    hidden_dim : int, default=256
        Width D of the patch embedding.
    projection_dim : int, default=128
        Width D_N of the projections and of the memory.
    n_components : int, default=16
        Memory components per class.
    n_heads : int, default=2
        Attention heads of each graph layer; must divide `hidden_dim`.
    head : {"mlp", "linear"}, default="mlp"
        Classifier on the slide vector; "linear" is the paper's wording, "mlp" the authors' code.
    head_hidden_dim, omics_hidden_dim : int, default=128, 512
        Hidden widths of the head and of the omics encoder and decoder.
    dropout, head_dropout, omics_dropout : float, default=0.5, 0.5, 0.25
        In the graph encoder (outputs and attention), the head, and the omics branch.
    graph : {"auto", "spatial", "stored", "features", "none"}, default="auto"
        Who attends to whom. "auto": the bag's own graph, else its nearest patches by
        coordinates, else each patch to itself alone. "features": nearest in feature space.
    n_neighbors : int, default=8
        Neighbours per patch, fewer in smaller bags.
    edge_flow : {"neighbors", "release", "symmetric"}, default="neighbors"
        A patch receives from its neighbours, sends to them (as the authors' code), or both.
    update : {"gradient", "ema", "fixed"}, default="gradient"
        What moves the memory: the losses, a moving average, or nothing after its start.
    momentum : float, default=0.99
        Share of the old row in each step of ``update="ema"``.
    kmeans_samples : int, default=10000
        Patches per class in the K-means that starts the memory.
    kmeans_init : {"random", "k-means++"}, default="random"
        First centres of the K-means.
    memory_warmup : int, default=0
        Repeat the K-means start after this many epochs; 0 for never.
    reseed_unused : bool, default=False
        Replace components that no patch of their class used during an epoch.
    renormalize_memory : bool, default=False
        Scale the rows to length one after every step.
    assignment : {"cosine", "euclidean"}, default="cosine"
        How the commitment finds a patch's row; "euclidean" uses rows of any length.
    lambda_ce, lambda_mse, lambda_mem : float, default=0.5, 0.01, 0.1
        Weights of cross-entropy, omics reconstruction and memory loss.
    alpha_omics, alpha_wsi : float, default=0.05, 0.2
        Weights of the alignment of omics and of slides with the memory.
    margin, beta, tau_agg : float, default=0.3, 20, 5
        Margin, slope and aggregation sharpness of the alignment (Eq. 3-5).
    tau : float, default=0.2
        Temperature of the attention (Eq. 7).
    learn_tau : bool, default=False
        Learn the temperature, as the authors' code does.
    commit_reduction : {"mean", "sum"}, default="mean"
        Over the dimensions, in the commitment; "sum" is Eq. 10 as printed.
    ortho_reduction : {"mean", "sum"}, default="mean"
        Over pairs of components, in the orthogonality; "sum" is Eq. 10 as printed.
    ortho_memories : {"label", "all"}, default="label"
        Whose components a bag keeps apart: those of its class, or all.
    n_genes : int, default=768
        Genes kept by the default omics transformer.
    omics_transformer : transformer, default=None
        Fitted on the training part of the fold. None: log2(x + 1) where the data are counts,
        the `n_genes` with the largest Welch's t between classes, z-scores.
    max_epochs : int, default=100
    batch_size : int, default=1
        Slides per step.
    accumulation_steps : int, default=1
        Batches whose gradients are averaged, each with equal weight, before the weights move.
    learning_rate, weight_decay : float, default=2e-4, 1e-4
        Of AdamW.
    lr_schedule : {"plateau", "cosine", None}, default="plateau"
        "plateau": factor 0.2 after 5 epochs without progress.
    sampler : {"balanced", "shuffle"}, default="balanced"
        "balanced" draws with replacement, each class equally often.
    max_grad_norm : float or None, default=16.0
        Clip the gradient norm.
    clip : {"global", "branch"}, default="global"
        Over all parameters, or within histology, memory and omics apart.
    early_stopping : bool, default=True
        Set a validation part aside, restore the best epoch, stop without progress.
    validation_fraction : float, default=0.125
        Share of the training data (by patient, stratified) used for validation.
    validation_split : splitter or iterable, default=None
        Use the first split of this instead of `validation_fraction`.
    monitor : {"auc", "loss"}, default="auc"
        What "best" means on the validation part.
    patience, min_epochs : int, default=15, 10
        Stop after `patience` epochs without progress, not before `min_epochs`.
    callbacks : list of skorch callbacks or (name, callback) pairs, default=None
        Cloned; the clones are in ``callbacks_`` after `fit`. They see ``net.history`` with the
        columns of ``history_``; skorch's scorers, which predict on arrays, do not apply.
    device : str, default="auto"
        "auto" is CUDA where there is one.
    precision : {"float32", "bfloat16", "auto"}, default="float32"
        In what patches and their embeddings are kept; sums and weights are float32 always.
        "auto" is bfloat16 where the processor has instructions for it.
    backend : {"auto", "numba", "torch"}, default="auto"
        What computes the graph layers; "auto" is compiled loops (numba) on a CPU.
    random_state : int, RandomState or None, default=None
        The same seed gives the same model, bit for bit on a CPU with as many threads.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    n_features_in_ : int
    module_ : torch module
        The fitted network. ``module_.omics_branch`` may be deleted; prediction does not use it.
    genes_ : ndarray of shape (n_genes_used,)
        Names of what the omics branch saw; only after a fit with omics.
    omics_transformer_ : fitted transformer
        Only after a fit with omics.
    n_paired_ : int
        Training bags with omics (validation part not counted).
    history_ : DataFrame
        One row per epoch: losses by name (unweighted), validation AUC, memory usage.
    n_iter_ : int
        Epochs run.
    callbacks_ : list
        The user's callbacks as they ended.
    device_, precision_ : str
        Where training ran, and in what patches were kept.

    See Also
    --------
    sk_momkd.load_cohort : Bags, labels and omics from files.
    sk_momkd.InstanceTransformer : Scaling of patch features inside a pipeline.

    Notes
    -----
    ``docs/equations.md`` lists every equation, the function that implements it, and each place
    where paper, authors' code and these defaults differ. More than two classes are our
    extension.

    References
    ----------
    Guo, Lu, Koyun, Zhu, Demir, Gurcan. Momentum Memory for Knowledge Distillation in
    Computational Pathology. CVPR 2026. arXiv:2602.21395.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from sk_momkd import MoMKDClassifier, load_cohort, simulate_cohort
    >>> paths = simulate_cohort(mkdtemp(), n_patients=12, n_patches=20, random_state=0)
    >>> bags, y, omics, report = load_cohort(*paths, label="subtype")
    >>> clf = MoMKDClassifier(hidden_dim=32, projection_dim=16, max_epochs=2, random_state=0)
    >>> clf.fit(bags, y, omics=omics).predict_proba(bags).shape
    (12, 2)
    >>> clf.transform(bags).shape
    (12, 32)
    """

    _presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "release": {
            "hidden_dim": 512,
            "projection_dim": 64,
            "edge_flow": "release",
            "kmeans_samples": 50_000,
            "assignment": "euclidean",
            "lambda_mse": 0.05,
            "learn_tau": True,
            "patience": 1,
            "min_epochs": 3,
        },
    }

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseMILClassifier._parameter_constraints,
        "hidden_dim": positive_int,
        "projection_dim": positive_int,
        "n_components": positive_int,
        "n_heads": positive_int,
        "head": [StrOptions({"mlp", "linear"})],
        "head_hidden_dim": positive_int,
        "omics_hidden_dim": positive_int,
        "dropout": _dropout,
        "head_dropout": _dropout,
        "omics_dropout": _dropout,
        "update": [StrOptions({"gradient", "ema", "fixed"})],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "kmeans_samples": positive_int,
        "kmeans_init": [StrOptions({"random", "k-means++"})],
        "memory_warmup": [Interval(Integral, 0, None, closed="left")],
        "reseed_unused": ["boolean"],
        "renormalize_memory": ["boolean"],
        "assignment": [StrOptions({"cosine", "euclidean"})],
        "lambda_ce": positive,
        "lambda_mse": weight,
        "lambda_mem": weight,
        "alpha_omics": weight,
        "alpha_wsi": weight,
        "margin": [Interval(Real, None, None, closed="neither")],
        "beta": positive,
        "tau_agg": positive,
        "tau": [Interval(Real, 0.01, 2, closed="both")],
        "learn_tau": ["boolean"],
        "backend": [StrOptions(set(BACKENDS))],
        "commit_reduction": [StrOptions({"mean", "sum"})],
        "ortho_reduction": [StrOptions({"mean", "sum"})],
        "ortho_memories": [StrOptions({"label", "all"})],
    }

    def __init__(
        self,
        *,
        hidden_dim: int = 256,
        projection_dim: int = 128,
        n_components: int = 16,
        n_heads: int = 2,
        head: str = "mlp",
        head_hidden_dim: int = 128,
        omics_hidden_dim: int = 512,
        dropout: float = 0.5,
        head_dropout: float = 0.5,
        omics_dropout: float = 0.25,
        graph: str = "auto",
        n_neighbors: int = 8,
        edge_flow: str = "neighbors",
        update: str = "gradient",
        momentum: float = 0.99,
        kmeans_samples: int = 10_000,
        kmeans_init: str = "random",
        memory_warmup: int = 0,
        reseed_unused: bool = False,
        renormalize_memory: bool = False,
        assignment: str = "cosine",
        lambda_ce: float = 0.5,
        lambda_mse: float = 0.01,
        lambda_mem: float = 0.1,
        alpha_omics: float = 0.05,
        alpha_wsi: float = 0.2,
        margin: float = 0.3,
        beta: float = 20.0,
        tau_agg: float = 5.0,
        tau: float = 0.2,
        learn_tau: bool = False,
        commit_reduction: str = "mean",
        ortho_reduction: str = "mean",
        ortho_memories: str = "label",
        n_genes: int = 768,
        omics_transformer: Any = None,
        max_epochs: int = 100,
        batch_size: int = 1,
        accumulation_steps: int = 1,
        learning_rate: float = 2e-4,
        weight_decay: float = 1e-4,
        lr_schedule: str | None = "plateau",
        sampler: str = "balanced",
        max_grad_norm: float | None = 16.0,
        clip: str = "global",
        early_stopping: bool = True,
        validation_fraction: float = 0.125,
        validation_split: Any = None,
        monitor: str = "auc",
        patience: int = 15,
        min_epochs: int = 10,
        callbacks: list[Any] | None = None,
        device: str = "auto",
        precision: str = "float32",
        backend: str = "auto",
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.hidden_dim = hidden_dim
        self.projection_dim = projection_dim
        self.n_components = n_components
        self.n_heads = n_heads
        self.head = head
        self.head_hidden_dim = head_hidden_dim
        self.omics_hidden_dim = omics_hidden_dim
        self.dropout = dropout
        self.head_dropout = head_dropout
        self.omics_dropout = omics_dropout
        self.graph = graph
        self.n_neighbors = n_neighbors
        self.edge_flow = edge_flow
        self.update = update
        self.momentum = momentum
        self.kmeans_samples = kmeans_samples
        self.kmeans_init = kmeans_init
        self.memory_warmup = memory_warmup
        self.reseed_unused = reseed_unused
        self.renormalize_memory = renormalize_memory
        self.assignment = assignment
        self.lambda_ce = lambda_ce
        self.lambda_mse = lambda_mse
        self.lambda_mem = lambda_mem
        self.alpha_omics = alpha_omics
        self.alpha_wsi = alpha_wsi
        self.margin = margin
        self.beta = beta
        self.tau_agg = tau_agg
        self.tau = tau
        self.learn_tau = learn_tau
        self.commit_reduction = commit_reduction
        self.ortho_reduction = ortho_reduction
        self.ortho_memories = ortho_memories
        self.n_genes = n_genes
        self.omics_transformer = omics_transformer
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.accumulation_steps = accumulation_steps
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.lr_schedule = lr_schedule
        self.sampler = sampler
        self.max_grad_norm = max_grad_norm
        self.clip = clip
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.validation_split = validation_split
        self.monitor = monitor
        self.patience = patience
        self.min_epochs = min_epochs
        self.callbacks = callbacks
        self.device = device
        self.precision = precision
        self.backend = backend
        self.random_state = random_state
        self.verbose = verbose

    def transform(self, X: Any) -> NDArray:
        """Cosine of each slide with each memory component.

        Parameters
        ----------
        X : bags in any form that `fit` accepts

        Returns
        -------
        ndarray of shape (n_bags, n_classes * n_components)
            In [-1, 1]; columns as `get_feature_names_out` names them.
        """
        check_is_fitted(self)
        rows = self._memory().directions().detach().flatten(0, 1)
        return np.concatenate([(out.slide_projection @ rows.T).numpy() for out in self._forward(X)])

    def get_feature_names_out(self, input_features: Any = None) -> NDArray:
        """Names ``memory_<class>_<component>`` of the columns of `transform`."""
        check_is_fitted(self)
        components = range(self._memory().rows.shape[1])
        names = [f"memory_{c}_{j}" for c in self.classes_ for j in components]
        return np.array(names, dtype=object)

    def _memory(self) -> ClassMemory:
        return self.module_.memory  # type: ignore[return-value]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # affinities are float32 whatever came
        return tags

    def _make_module(self, n_features: int, n_genes: int, n_classes: int) -> nn.Module:
        if self.hidden_dim % self.n_heads:
            raise ValueError(
                f"n_heads={self.n_heads} must divide hidden_dim={self.hidden_dim} without rest."
            )
        if self.update == "fixed" and (self.reseed_unused or self.renormalize_memory):
            raise ValueError("update='fixed' excludes reseed_unused and renormalize_memory.")
        return MoMKD(
            n_features,
            n_genes,
            n_classes,
            dim=self.hidden_dim,
            projection_dim=self.projection_dim,
            n_components=self.n_components,
            n_heads=self.n_heads,
            omics_hidden_dim=self.omics_hidden_dim,
            head_hidden_dim=self.head_hidden_dim,
            head=self.head,
            dropout=self.dropout,
            omics_dropout=self.omics_dropout,
            head_dropout=self.head_dropout,
            tau=self.tau,
            learn_tau=self.learn_tau,
            learn_memory=self.update == "gradient",
            backend=self.backend,
        )

    def _make_objective(self) -> Objective:
        terms = partial(
            momkd_terms,
            margin=self.margin,
            beta=self.beta,
            tau_agg=self.tau_agg,
            assignment=self.assignment,
            commit_reduction=self.commit_reduction,
            ortho_reduction=self.ortho_reduction,
            ortho_memories=self.ortho_memories,
        )
        weights = {
            "ce": self.lambda_ce,
            "mse": self.lambda_mse,
            "memory": self.lambda_mem,
            "align_omics": self.alpha_omics,
            "align_wsi": self.alpha_wsi,
        }
        return Objective(terms, weights)

    def _make_callbacks(self, generator: torch.Generator) -> list[Any]:
        start = InitialMemory(self.kmeans_samples, self.kmeans_init, self.memory_warmup, generator)
        ema = self.momentum if self.update == "ema" else None
        moving = MovingMemory(ema, self.renormalize_memory)
        names = [str(c) for c in self.classes_]
        return [start, moving, MemoryUsage(names, self.reseed_unused, generator)]
