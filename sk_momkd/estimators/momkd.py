"""MoMKD as a scikit-learn classifier and transformer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import TransformerMixin
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import nn

from ..data.graph import EDGE_FLOWS, GRAPHS
from ..data.omics import OmicsTable
from ..losses.momkd import momkd_terms
from ..models.momkd import MoMKD, slide_affinity
from ..nn.backend import BACKENDS
from ..nn.memory import ClassMemory
from ..training.batches import GraphSpec
from ..training.config import Objective
from ..training.memory_callbacks import InitialMemory, MemoryUsage, MovingMemory
from .base import TaughtClassifier
from .omics_teacher import cross_fitted_labels
from .parameters import UNIFIED, clipping, positive, positive_int, share, switch, weight

_SIZES = ("hidden_dim", "projection_dim", "head_hidden_dim", "omics_hidden_dim")
_COUNTS = ("n_components", "n_heads", "n_neighbors", "kmeans_samples")
_reduction = [StrOptions({"mean", "sum"})]

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "unified": UNIFIED,
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
    "small": {  # ours, for some hundred patients; chosen by benchmarks/small_search.py
        "hidden_dim": 64,
        "projection_dim": 32,
        "head_hidden_dim": 32,
        "omics_hidden_dim": 64,
        "dropout": 0.25,
        "head_dropout": 0.25,
        "input_dropout": 0.3,
        "lambda_teacher": 0.8,
        "batch_size": 32,
        "learning_rate": 7e-4,
        "weight_decay": 0.05,
        "lr_schedule": "cosine",
        "max_epochs": 25,
        "early_stopping": False,
        "average_after": 0.5,
    },
}
CONSTRAINTS: dict[str, Any] = {
    "graph": [StrOptions(set(GRAPHS))],
    "edge_flow": [StrOptions(set(EDGE_FLOWS))],
    "clip": clipping,
    **dict.fromkeys(_SIZES + _COUNTS, positive_int),
    **dict.fromkeys(("dropout", "head_dropout", "omics_dropout"), share),
    "head": [StrOptions({"mlp", "linear"})],
    "update": [StrOptions({"gradient", "ema", "fixed"})],
    "momentum": [Interval(Real, 0, 1, closed="both")],
    "kmeans_init": [StrOptions({"random", "k-means++"})],
    "memory_warmup": [Interval(Integral, 0, None, closed="left")],
    **dict.fromkeys(("reseed_unused", "renormalize_memory", "learn_tau"), switch),
    "assignment": [StrOptions({"cosine", "euclidean"})],
    **dict.fromkeys(("lambda_mse", "lambda_mem", "alpha_omics", "alpha_wsi"), weight),
    **dict.fromkeys(("lambda_ce", "beta", "tau_agg"), positive),
    "margin": [Interval(Real, None, None, closed="neither")],
    "tau": [Interval(Real, 0.01, 2, closed="both")],
    **dict.fromkeys(("commit_reduction", "ortho_reduction"), _reduction),
    "ortho_memories": [StrOptions({"label", "all"})],
    "label_smoothing": share,
    "lambda_teacher": [Interval(Real, 0, 1, closed="both")],
    "teacher": [
        HasMethods(["fit", "predict", "predict_proba"]),
        HasMethods(["fit", "predict", "decision_function"]),
        None,
    ],
    "teacher_temperature": positive,
    "teacher_alignment": switch,
    "backend": [StrOptions(set(BACKENDS))],
}


@dataclass(kw_only=True, eq=False, repr=False)
class MoMKDClassifier(TransformerMixin, TaughtClassifier):
    """Slide classifier taught by omics through a class-conditional memory (MoMKD).

    Each class owns a small memory of directions. During training, slides and expression profiles
    are drawn to that of their class; patches are weighted by which memory they match. Prediction
    needs the slide alone.

    The defaults are ``preset("paper")``, and ``preset("unified")`` is the same;
    ``preset("release")`` has the settings of the authors' published script.

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
    commit_reduction, ortho_reduction : {"mean", "sum"}, default="mean", "mean"
        Over dimensions in the commitment, over pairs of components in the orthogonality; "sum"
        is Eq. 10 as printed.
    ortho_memories : {"label", "all"}, default="label"
        Whose components a bag keeps apart: those of its class, or all.
    label_smoothing : float, default=0
        Share of the label that is spread over all classes, in the cross-entropy.
    lambda_teacher : float, default=0
        Share of the soft label of an omics teacher in the target of bags with omics; ours.
    teacher : scikit-learn classifier or None, default=None
        Cross-fitted on the omics of the training part; None is a logistic regression on all genes.
    teacher_temperature : float, default=0.5
        Of its logits, in units of their standard deviation over the patients.
    teacher_alignment : bool, default=False
        Whether the alignment of slides aims at the soft labels, too.
    clip : {"global", "branch"}, default="global"
        Of the gradient: over all parameters, or within histology, memory and omics apart.
    backend : {"auto", "numba", "torch"}, default="auto"
        What computes the graph layers; "auto" is compiled loops (numba) on a CPU.
    {omics}
    {training}

    Attributes
    ----------
    {fitted}
    {taught}

    See Also
    --------
    sk_momkd.load_cohort : Bags, labels and omics from files.
    sk_momkd.InstanceTransformer : Scaling of patch features inside a pipeline.

    Notes
    -----
    ``module_.omics_branch`` may be deleted; prediction does not use it. ``history_`` also tells of
    the memory. ``docs/equations.md`` lists every equation, its function, and each place where
    paper, authors' code and these defaults differ. More than two classes are our extension.

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

    hidden_dim: int = 256
    projection_dim: int = 128
    n_components: int = 16
    n_heads: int = 2
    head: str = "mlp"
    head_hidden_dim: int = 128
    omics_hidden_dim: int = 512
    dropout: float = 0.5
    head_dropout: float = 0.5
    omics_dropout: float = 0.25
    graph: str = "auto"
    n_neighbors: int = 8
    edge_flow: str = "neighbors"
    update: str = "gradient"
    momentum: float = 0.99
    kmeans_samples: int = 10_000
    kmeans_init: str = "random"
    memory_warmup: int = 0
    reseed_unused: bool = False
    renormalize_memory: bool = False
    assignment: str = "cosine"
    lambda_ce: float = 0.5
    lambda_mse: float = 0.01
    lambda_mem: float = 0.1
    alpha_omics: float = 0.05
    alpha_wsi: float = 0.2
    margin: float = 0.3
    beta: float = 20.0
    tau_agg: float = 5.0
    tau: float = 0.2
    learn_tau: bool = False
    commit_reduction: str = "mean"
    ortho_reduction: str = "mean"
    ortho_memories: str = "label"
    label_smoothing: float = 0.0
    lambda_teacher: float = 0.0
    teacher: Any = None
    teacher_temperature: float = 0.5
    teacher_alignment: bool = False
    clip: str = "global"
    backend: str = "auto"

    _presets: ClassVar[dict[str, dict[str, Any]]] = PRESETS
    _keeps_omics_branch: ClassVar[bool] = True
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **TaughtClassifier._parameter_constraints,
        **CONSTRAINTS,
    }

    def transform(self, X: Any) -> NDArray:
        """Cosine of each slide with each memory component.

        Parameters
        ----------
        X : bags in any form that `fit` accepts

        Returns
        -------
        ndarray of shape (n_bags, n_models * n_classes * n_components)
            In [-1, 1]; columns as `get_feature_names_out` names them.
        """
        check_is_fitted(self)
        per_bag = ([slide_affinity(out) for out in outs] for outs in self._forward_models(X))
        return np.concatenate([torch.cat(row, dim=1).numpy() for row in per_bag])

    def get_feature_names_out(self, input_features: Any = None) -> NDArray:
        """Names ``memory_<class>_<component>`` of the columns of `transform`.

        Of several models, ``model<i>_memory_<class>_<component>``.
        """
        check_is_fitted(self)
        n_components = self._memory().rows.shape[1]
        names = [f"memory_{c}_{j}" for c in self.classes_ for j in range(n_components)]
        if len(self.modules_) > 1:
            names = [f"model{i}_{name}" for i in range(len(self.modules_)) for name in names]
        return np.array(names, dtype=object)

    def _memory(self) -> ClassMemory:
        return self.module_.memory  # type: ignore[return-value]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # affinities are float32 whatever came
        return tags

    def _graph_spec(self) -> GraphSpec:
        return GraphSpec(self.graph, self.n_neighbors, self.edge_flow)

    def _make_module(self, n_features: int, n_genes: int, n_classes: int) -> nn.Module:
        if self.hidden_dim % self.n_heads:
            raise ValueError(f"n_heads={self.n_heads} must divide hidden_dim={self.hidden_dim}.")
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
            label_smoothing=self.label_smoothing,
            lambda_teacher=self.lambda_teacher,
            teacher_alignment=self.teacher_alignment,
        )
        weights = {
            "ce": self.lambda_ce,
            "mse": self.lambda_mse,
            "memory": self.lambda_mem,
            "align_omics": self.alpha_omics,
            "align_wsi": self.alpha_wsi,
        }
        return Objective(terms, weights)

    def _soft_labels(
        self, table: OmicsTable, rows: NDArray, labels: NDArray, groups: NDArray, *, seed: int
    ) -> NDArray | None:
        if not self.lambda_teacher:
            return None
        known = (self.teacher, table, rows, labels, groups)
        return cross_fitted_labels(
            *known,
            temperature=self.teacher_temperature,
            random_state=seed,
            classes=self.classes_.tolist(),
        )

    def _make_callbacks(self, generator: torch.Generator) -> list[Any]:
        start = InitialMemory(self.kmeans_samples, self.kmeans_init, self.memory_warmup, generator)
        momentum = self.momentum if self.update == "ema" else None
        moving = MovingMemory(momentum, self.renormalize_memory)
        usage = MemoryUsage([str(c) for c in self.classes_], self.reseed_unused, generator)
        return [start, moving, usage]
