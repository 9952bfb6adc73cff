"""What every estimator on bags shares: fit in the fold, predict bag by bag."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import nn

from ..data.graph import EDGE_FLOWS, GRAPHS
from ..data.omics import join_omics
from ..data.sequence import BagSequence
from ..exceptions import BagError
from ..nn.blocks import whole
from ..nn.initialise import initialise
from ..nn.workspace import clear_workspaces
from ..training.batches import BagDataset, GraphSpec, forward, open_graph, single
from ..training.net import (
    Objective,
    TrainingConfig,
    fresh_callbacks,
    resolve_device,
    resolve_precision,
    train,
)
from .omics_transformer import default_omics_transformer
from .privileged import PrivilegedOmics, fit_omics
from .validation import check_bags, encode_labels, inner_split

positive_int = [Interval(Integral, 1, None, closed="left")]
positive = [Interval(Real, 0, None, closed="neither")]
weight = [Interval(Real, 0, None, closed="left")]

_BLOCK_SIZE = 8192  # instances of a large slide that are in memory at once, in prediction

# Every use of chance has a stream of its own, so that switching one off leaves the others alone.
_STREAMS = ("split", "weights", "omics_weights", "sampling", "dropout", "omics_dropout", "model")


class BaseMILClassifier(ClassifierMixin, BaseEstimator):
    """Classifier of bags that may learn from privileged omics.

    A subclass says what is its own in two hooks, `_make_module` and `_make_objective` (and, if
    it needs them, `_make_callbacks`); its ``__init__`` declares its parameters and those below.
    """

    _presets: ClassVar[dict[str, dict[str, Any]]] = {}

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "graph": [StrOptions(set(GRAPHS))],
        "n_neighbors": positive_int,
        "edge_flow": [StrOptions(set(EDGE_FLOWS))],
        "n_genes": positive_int,
        "omics_transformer": [HasMethods(["fit", "transform"]), None],
        "max_epochs": positive_int,
        "batch_size": positive_int,
        "accumulation_steps": positive_int,
        "learning_rate": positive,
        "weight_decay": weight,
        "lr_schedule": [StrOptions({"plateau", "cosine"}), None],
        "sampler": [StrOptions({"balanced", "shuffle"})],
        "max_grad_norm": [*positive, None],
        "clip": [StrOptions({"global", "branch"})],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 0.5, closed="right")],
        "validation_split": ["cv_object", None],
        "monitor": [StrOptions({"auc", "loss"})],
        "patience": positive_int,
        "min_epochs": positive_int,
        "callbacks": [list, None],
        "device": [str],
        "precision": [StrOptions({"float32", "bfloat16", "auto"})],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> Self:
        """Estimator with a named set of parameters.

        Parameters
        ----------
        name : str
        **overrides
            Parameters that shall differ from the preset.

        Raises
        ------
        ValueError
            If there is no such preset.
        """
        if name not in cls._presets:
            raise ValueError(f"preset must be one of {sorted(cls._presets)}, got {name!r}.")
        return cls(**(cls._presets[name] | overrides))

    def fit(self, X: Any, y: Any, omics: Any = None, groups: Any = None) -> Self:
        """Train on bags, their labels and, where patients have it, their omics.

        Parameters
        ----------
        X : BagSequence, list of Bag, of arrays, of (features, coords) or of PyG ``Data``, array \
of shape (n_bags, n_instances, n_features) or (n_bags, n_features)
        y : array-like of shape (n_bags,)
            Class labels of any kind.
        omics : AnnData, DataFrame with ids as index, OmicsTable, array in bag order, or None
            Joined to the bags by patient id and then by bag id, never by position (an array has
            no ids and must have a row per bag). Bags without omics train the histology side
            alone; ``None`` trains without omics.
        groups : array-like of shape (n_bags,), optional
            The inner validation part takes whole groups (e.g. sites); by default patients.

        Returns
        -------
        self

        Raises
        ------
        BagError, OmicsError, LeakageError, ValueError
            Naming the bag, patient or gene, what came, what was expected and how to mend it.
        """
        self._validate_params()
        self._forget()
        self.device_ = resolve_device(self.device)
        self.precision_ = resolve_precision(self.precision, self.device_)
        user_callbacks = fresh_callbacks(self.callbacks)
        bags = check_bags(self, X, reset=True)
        self.classes_, labels = encode_labels(self, y, bags)
        drawn = check_random_state(self.random_state).randint(2**31 - 1, size=len(_STREAMS))
        seeds = dict(zip(_STREAMS, map(int, drawn), strict=True))

        training, validation = self._split(bags, labels, groups, seeds["split"])
        privileged = self._fit_omics(omics, bags, labels, training)
        data = (
            self._dataset(bags[training], labels[training], privileged),
            None if validation is None else self._dataset(bags[validation], labels[validation]),
        )
        module = self._build_module(privileged, seeds)
        generators = {
            name: torch.Generator(self.device_ if "dropout" in name else "cpu").manual_seed(seed)
            for name, seed in seeds.items()
        }
        self.history_ = train(
            module,
            self._make_objective(),
            data,
            self._training_config(),
            generators,
            model_callbacks=self._make_callbacks(generators["model"]),
            user_callbacks=user_callbacks,
        )
        self.callbacks_ = user_callbacks
        self.module_ = module
        self.n_iter_ = len(self.history_)
        return self

    def decision_function(self, X: Any) -> NDArray:
        """Logits of shape (n_bags, n_classes); for two classes their difference, (n_bags,)."""
        logits = torch.cat([out.logits for out in self._forward(X)]).double().numpy()
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict_proba(self, X: Any) -> NDArray:
        """Class probabilities from histology alone.

        Parameters
        ----------
        X : bags in any form that `fit` accepts

        Returns
        -------
        ndarray of shape (n_bags, n_classes)
            Columns in the order of ``classes_``. A bag's row does not depend on the other bags.
        """
        logits = torch.cat([out.logits for out in self._forward(X)])
        return logits.double().softmax(dim=1).numpy()

    def predict(self, X: Any) -> NDArray:
        """Most probable class of each bag, of shape (n_bags,)."""
        check_is_fitted(self)
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    @abstractmethod
    def _make_module(self, n_features: int, n_genes: int, n_classes: int) -> nn.Module:
        """The network, its weights still arbitrary; ``n_genes=0`` without omics."""

    @abstractmethod
    def _make_objective(self) -> Objective:
        """Named loss terms and their weights."""

    def _make_callbacks(self, generator: torch.Generator) -> list[Any]:
        """Callbacks that belong to the method."""
        return []

    def _forget(self) -> None:
        """Drop what an earlier fit learned; a fit that fails leaves no model behind."""
        for name in [name for name in vars(self) if name.endswith("_") and name[0] != "_"]:
            delattr(self, name)

    def _split(
        self, bags: BagSequence, labels: NDArray, groups: Any, seed: int
    ) -> tuple[NDArray, NDArray | None]:
        if not self.early_stopping:
            return np.arange(len(bags)), None
        return inner_split(
            bags,
            labels,
            groups,
            fraction=self.validation_fraction,
            splitter=self.validation_split,
            random_state=np.random.RandomState(seed),
        )

    def _fit_omics(
        self, omics: Any, bags: BagSequence, labels: NDArray, training: NDArray
    ) -> PrivilegedOmics | None:
        self.n_paired_ = 0
        if omics is None:
            return None
        table, rows = join_omics(omics, bags)
        self.omics_transformer_ = (
            default_omics_transformer(self.n_genes)
            if self.omics_transformer is None
            else clone(self.omics_transformer)
        )
        privileged = fit_omics(self.omics_transformer_, table, rows[training], labels[training])
        self.genes_ = privileged.genes
        self.n_paired_ = int(privileged.paired.sum())
        return privileged

    def _dataset(
        self, bags: BagSequence, labels: NDArray, privileged: PrivilegedOmics | None = None
    ) -> BagDataset:
        known: dict[str, Any] = {}
        if privileged is not None:
            known = {"omics": privileged.vectors, "paired": privileged.paired}
        dtype = getattr(torch, self.precision_)
        spec = self._graph_spec()
        return BagDataset(bags, labels, spec, self.n_features_in_, dtype=dtype, **known)

    def _build_module(self, privileged: PrivilegedOmics | None, seeds: dict[str, int]) -> nn.Module:
        n_genes = 0 if privileged is None else privileged.vectors.shape[1]
        with torch.random.fork_rng(devices=[]):  # the caller's random state stays untouched
            module = self._make_module(self.n_features_in_, n_genes, len(self.classes_))
        initialise(module, torch.Generator().manual_seed(seeds["weights"]))
        # With a stream of its own, the omics branch leaves the start of histology as it is.
        omics_branch = getattr(module, "omics_branch", None)
        if omics_branch is not None:
            initialise(omics_branch, torch.Generator().manual_seed(seeds["omics_weights"]))
        return module

    def _graph_spec(self) -> GraphSpec:
        return GraphSpec(self.graph, self.n_neighbors, self.edge_flow)

    def _training_config(self) -> TrainingConfig:
        names = (name for name in TrainingConfig.__annotations__ if name != "device")
        return TrainingConfig(device=self.device_, **{name: getattr(self, name) for name in names})

    @torch.no_grad()
    def _forward(self, X: Any) -> Iterator[Any]:
        """`MILOutput` of each bag; alone in its batch, a bag cannot depend on the others."""
        check_is_fitted(self)
        bags, spec = check_bags(self, X, reset=False), self._graph_spec()
        device, dtype = resolve_device(self.device), getattr(torch, self.precision_)
        module = self.module_.to(device).eval()
        try:
            for i, bag in enumerate(bags):
                name, width = bags.name(i), self.n_features_in_
                with open_graph(bag, name, spec, width, dtype, block_size=_BLOCK_SIZE) as graph:
                    batch = single(*graph).to(device)
                    output = forward(module, batch, training=False).to("cpu")
                    if not output.logits.isfinite().all():
                        raise BagError(
                            f"{name}: the prediction is not finite; its features reach "
                            f"{float(whole(batch.x).abs().max()):.3g}. Scale them as in training."
                        )
                yield output
        finally:
            clear_workspaces(module)
            module.to("cpu")  # so that the estimator can be unpickled where there is no GPU

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "module_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags
