"""The base of all classifiers of bags: fit in the fold, predict bag by bag."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted
from torch import nn

from ..data.omics import OmicsTable, join_omics
from ..data.patient import patients_and_groups
from ..data.sequence import BagSequence
from ..data.validation import check_bags, encode_labels
from ..exceptions import BagError
from ..model_selection.split import inner_split
from ..nn.blocks import materialize
from ..nn.initialization import initialise
from ..nn.workspace import clear_workspaces
from ..output import mean_output
from ..preprocessing.omics import default_omics_transformer
from ..training.batches import BagDataset, GraphSpec, forward, open_graph, single_bag_batch
from ..training.config import Objective, TrainingConfig
from ..training.loop import fresh_callbacks, resolve_device, resolve_precision, train
from .parameters import OMICS, TRAINING, UNIFIED, write_docstring
from .privileged import PrivilegedOmics, fit_omics, seeded_clone, transform_omics

# Every use of chance has a stream of its own, so that switching one off leaves the others alone.
_USES = (
    "split",
    "weights",
    "omics_weights",
    "sampling",
    "dropout",
    "omics_dropout",
    "model",
    "teacher",
    "input_dropout",
    "soft_labels",
)


class Streams:
    """Seeds and generators by use.

    Parameters
    ----------
    random_state : int, RandomState or None
    device : str
        Where dropout is drawn; the rest is drawn on the CPU.
    """

    def __init__(self, random_state: Any, device: str) -> None:
        drawn = check_random_state(random_state).randint(2**31 - 1, size=len(_USES))
        self.seeds = dict(zip(_USES, map(int, drawn), strict=True))
        self.device = device

    def generator(self, use: str) -> torch.Generator:
        """A generator at the start of its stream."""
        device = self.device if use in {"dropout", "omics_dropout"} else "cpu"
        return torch.Generator(device).manual_seed(self.seeds[use])

    def generators(self) -> dict[str, torch.Generator]:
        """All of them."""
        return {use: self.generator(use) for use in _USES}

    def within(self, use: str) -> Streams:
        """Streams of a network that is trained within a fit, such as a teacher."""
        return Streams(self.seeds[use], self.device)

    def of_model(self, number: int) -> Streams:
        """Streams of a further model of an ensemble; those of model 0 are these."""
        if number == 0:
            return self
        seed = np.random.SeedSequence([self.seeds["weights"], number]).generate_state(1)[0]
        return Streams(int(seed), self.device)


@dataclass(frozen=True)
class Fold:
    """Data of one fit.

    Attributes
    ----------
    training : BagDataset
    validation : BagDataset or None
    n_genes : int
        Width of the omics vectors, 0 without omics.
    streams : Streams
    callbacks : list
        The user's.
    """

    training: BagDataset
    validation: BagDataset | None
    n_genes: int
    streams: Streams
    callbacks: list[Any]

    def of_model(self, number: int) -> Fold:
        """The same data for a further model of an ensemble."""
        callbacks = self.callbacks if number == 0 else fresh_callbacks(self.callbacks)
        return replace(self, streams=self.streams.of_model(number), callbacks=callbacks)

    def for_teacher(self) -> Fold:
        """The same data for a network that is trained first, out of the user's sight."""
        return replace(self, streams=self.streams.within("teacher"), callbacks=[])


@dataclass(frozen=True)
class Learned:
    """What a fit learned.

    Attributes
    ----------
    modules : list of Module
    history : DataFrame
        One row per epoch; of several models, column ``model`` numbers them.
    n_epochs : int
        Of the model that trained longest.
    callbacks : list
        The user's, as they ended.
    """

    modules: list[nn.Module]
    history: pd.DataFrame
    n_epochs: int
    callbacks: list[Any]


def learn_models(
    learn: Callable[[Fold], tuple[nn.Module, pd.DataFrame]], fold: Fold, n_models: int
) -> Learned:
    """Call `learn` once per model, each with random streams of its own."""
    folds = [fold.of_model(number) for number in range(n_models)]
    modules, histories = zip(*map(learn, folds), strict=True)
    numbered = [table.assign(model=number) for number, table in enumerate(histories)]
    return Learned(
        list(modules),
        histories[0] if n_models == 1 else pd.concat(numbered, ignore_index=True),
        max(map(len, histories)),
        [callback for fold in folds for callback in fold.callbacks],
    )


_BLOCK_SIZE = 8192  # instances of a large slide that are in memory at once, in prediction


@dataclass(kw_only=True, eq=False, repr=False)
class BaseMILClassifier(ClassifierMixin, BaseEstimator):
    """Classifier of bags: fit in the fold, predict bag by bag.

    A subclass is a dataclass of the same kind: a field is a parameter, a field repeated is
    another default. It says what is its own in two hooks, `_make_module` and `_make_objective`
    (and, if it needs them, `_make_callbacks`, or `_learn` for stages), and has a public ``fit``.
    """

    max_epochs: int = 100
    batch_size: int = 1
    accumulation_steps: int = 1
    optimizer: str = "adamw"
    learning_rate: float = 2e-4
    weight_decay: float = 1e-4
    lr_schedule: str | None = "plateau"
    sampler: str = "balanced"
    max_grad_norm: float | None = 16.0
    early_stopping: bool = True
    validation_fraction: float = 0.125
    validation_split: Any = None
    monitor: str = "auc"
    patience: int = 15
    min_epochs: int = 10
    input_dropout: float = 0.0
    instance_dropout: float = 0.0
    average_after: float | None = None
    n_models: int = 1
    callbacks: list[Any] | None = None
    device: str = "auto"
    precision: str = "float32"
    random_state: Any = None
    verbose: int = 0

    _presets: ClassVar[dict[str, dict[str, Any]]] = {"original": {}, "unified": UNIFIED}
    _parameter_constraints: ClassVar[dict[str, Any]] = TRAINING

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        write_docstring(cls)

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

    def _fit(self, X: Any, y: Any, groups: Any, omics: Any = None) -> Self:
        self._validate_params()
        self._forget()
        self.device_ = resolve_device(self.device)
        self.precision_ = resolve_precision(self.precision, self.device_)
        user_callbacks = fresh_callbacks(self.callbacks)
        bags = check_bags(self, X, reset=True)
        self.classes_, labels = encode_labels(self, y, bags)
        check_consistent_length(bags, groups)
        streams = Streams(self.random_state, self.device_)

        training, validation = self._split(bags, labels, groups, streams.seeds["split"])
        parts, seed = (training, validation), streams.seeds["soft_labels"]
        taught, checked = self._fit_omics(omics, bags, labels, parts, groups=groups, seed=seed)
        fold = Fold(
            self._dataset(bags[training], labels[training], taught),
            None
            if validation is None
            else self._dataset(bags[validation], labels[validation], checked),
            0 if taught is None else taught.vectors.shape[1],
            streams,
            user_callbacks,
        )
        learned = learn_models(self._learn, fold, self.n_models)
        self.modules_, self.history_ = learned.modules, learned.history
        self.n_iter_, self.callbacks_ = learned.n_epochs, learned.callbacks
        self.module_ = self.modules_[0]
        self.validation_ = None
        if validation is not None:
            self.validation_ = self._predicted(bags[validation], labels[validation])
        return self

    def _predicted(self, bags: BagSequence, labels: NDArray) -> pd.DataFrame:
        """Ids, labels and probabilities of bags, for a threshold that tests nothing."""
        proba = {
            f"p_{c}": p for c, p in zip(self.classes_, self.predict_proba(bags).T, strict=True)
        }
        known = {
            "bag_id": [bag.bag_id for bag in bags],
            "patient_id": [bag.patient_id for bag in bags],
            "y": self.classes_[labels],
        }
        return pd.DataFrame(known | proba)

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
        self,
        omics: Any,
        bags: BagSequence,
        labels: NDArray,
        parts: tuple[NDArray, NDArray | None],
        *,
        groups: Any,
        seed: int,
    ) -> tuple[PrivilegedOmics | None, PrivilegedOmics | None]:
        """Omics vectors of the training and of the validation part."""
        return None, None

    def _dataset(
        self, bags: BagSequence, labels: NDArray, privileged: PrivilegedOmics | None = None
    ) -> BagDataset:
        known: dict[str, Any] = {}
        if privileged is not None:
            known = {
                "omics": privileged.vectors,
                "paired": privileged.paired,
                "teacher": privileged.teacher,
            }
        dtype = getattr(torch, self.precision_)
        spec = self._graph_spec()
        return BagDataset(bags, labels, spec, self.n_features_in_, dtype=dtype, **known)

    def _learn(self, fold: Fold) -> tuple[nn.Module, pd.DataFrame]:
        """The trained network and its history."""
        module = self._build(self._make_module, fold.n_genes, fold.streams)
        callbacks = self._make_callbacks(fold.streams.generator("model"))
        return module, self._train(module, self._make_objective(), fold, callbacks)

    def _build(
        self, make: Callable[[int, int, int], nn.Module], n_genes: int, streams: Streams
    ) -> nn.Module:
        with torch.random.fork_rng(devices=[]):  # the caller's random state stays untouched
            module = make(self.n_features_in_, n_genes, len(self.classes_))
        initialise(module, streams.generator("weights"))
        # With a stream of its own, the omics branch leaves the start of histology as it is.
        omics_branch = getattr(module, "omics_branch", None)
        if omics_branch is not None:
            initialise(omics_branch, streams.generator("omics_weights"))
        return module

    def _train(
        self, module: nn.Module, objective: Objective, fold: Fold, callbacks: Sequence[Any] = ()
    ) -> pd.DataFrame:
        return train(
            module,
            objective,
            (fold.training, fold.validation),
            self._training_config(),
            fold.streams.generators(),
            model_callbacks=callbacks,
            user_callbacks=fold.callbacks,
        )

    def _graph_spec(self) -> GraphSpec:
        return GraphSpec("none")

    def _training_config(self) -> TrainingConfig:
        names = {field.name for field in fields(TrainingConfig)} & set(self.get_params(deep=False))
        settings = {name: getattr(self, name) for name in names}
        return TrainingConfig(**(settings | {"device": self.device_}))

    def _forward(self, X: Any) -> Iterator[Any]:
        """`MILOutput` of each bag, logits and attention the mean over the models."""
        return map(mean_output, self._forward_models(X))

    @torch.no_grad()
    def _forward_models(self, X: Any) -> Iterator[list[Any]]:
        """What each model says of each bag; alone in its batch, a bag depends on no other."""
        check_is_fitted(self)
        bags, spec = check_bags(self, X, reset=False), self._graph_spec()
        device, dtype = resolve_device(self.device), getattr(torch, self.precision_)
        modules = [module.to(device).eval() for module in self.modules_]
        try:
            for i, bag in enumerate(bags):
                name, width = bags.name(i), self.n_features_in_
                with open_graph(bag, name, spec, width, dtype, block_size=_BLOCK_SIZE) as graph:
                    batch = single_bag_batch(*graph).to(device)
                    outputs = [
                        forward(module, batch, training=False).to("cpu") for module in modules
                    ]
                    if not all(output.logits.isfinite().all() for output in outputs):
                        largest = float(materialize(batch.x).abs().max())
                        raise BagError(
                            f"{name}: the prediction is not finite; its features reach "
                            f"{largest:.3g}. Scale them as in training."
                        )
                yield outputs
        finally:
            for module in modules:
                clear_workspaces(module)
                module.to("cpu")  # so that the estimator can be unpickled where there is no GPU

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "module_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


@dataclass(kw_only=True, eq=False, repr=False)
class HistologyClassifier(BaseMILClassifier):
    """Base of classifiers that have no use for omics; their `fit` takes none."""

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Train on bags and their labels.

        Parameters
        ----------
        X : BagSequence, list of Bag, of arrays, of (features, coords) or of PyG ``Data``, array \
of shape (n_bags, n_instances, n_features) or (n_bags, n_features)
        y : array-like of shape (n_bags,)
            Class labels of any kind.
        groups : array-like of shape (n_bags,), optional
            The inner validation part takes whole groups (e.g. sites); by default patients.

        Returns
        -------
        self

        Raises
        ------
        BagError, LeakageError, ValueError
            Naming the bag or patient, what came, what was expected and how to mend it.
        """
        return self._fit(X, y, groups)


@dataclass(kw_only=True, eq=False, repr=False)
class TaughtClassifier(BaseMILClassifier):
    """Base of classifiers whose `fit` takes privileged omics; prediction never does."""

    n_genes: int = 768
    omics_transformer: Any = None

    _parameter_constraints: ClassVar[dict[str, Any]] = TRAINING | OMICS
    _keeps_omics_branch: ClassVar[bool] = False
    _validates_with_omics: ClassVar[bool] = False

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
        self._fit(X, y, groups, omics)
        if not self._keeps_omics_branch:
            for module in self.modules_:
                module.omics_branch = None  # type: ignore[assignment]
        return self

    def _fit_omics(
        self,
        omics: Any,
        bags: BagSequence,
        labels: NDArray,
        parts: tuple[NDArray, NDArray | None],
        *,
        groups: Any,
        seed: int,
    ) -> tuple[PrivilegedOmics | None, PrivilegedOmics | None]:
        self.n_paired_ = 0
        if omics is None:
            return None, None
        training, validation = parts
        table, rows = join_omics(omics, bags)
        self.omics_transformer_ = (
            default_omics_transformer(self.n_genes)
            if self.omics_transformer is None
            else seeded_clone(self.omics_transformer, seed)
        )
        taught = fit_omics(self.omics_transformer_, table, rows[training], labels[training])
        _, group_of_bag = patients_and_groups(bags, bags, groups)
        known = (rows[training], labels[training], group_of_bag[training])
        taught = replace(taught, teacher=self._soft_labels(table, *known, seed=seed))
        self.genes_ = taught.genes
        self.n_paired_ = int(taught.paired.sum())
        if validation is None or not self._validates_with_omics:
            return taught, None
        return taught, transform_omics(self.omics_transformer_, table, rows[validation])

    def _soft_labels(
        self, table: OmicsTable, rows: NDArray, labels: NDArray, groups: NDArray, *, seed: int
    ) -> NDArray | None:
        """Soft labels of the training bags, for a method that learns from them."""
        return None
