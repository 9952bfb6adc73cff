"""What a classifier of bags is trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .. import training as engine
from ..data.sequence import BagSequence
from ..io.checkpoint_files import CheckpointFiles
from ..preprocessing.bag_pooling import pool
from ..training.batches import BagDataset
from ..training.random_generators import RandomGenerators

if TYPE_CHECKING:
    from .fit_tasks import FitTasks


@dataclass(frozen=True)
class LabelledBags:
    """Bags with the class number in the network and the group (patient or site) of each.

    `weights` are the sample weights, None where there are none.
    """

    bags: BagSequence
    labels: NDArray
    groups: NDArray
    weights: NDArray | None = None

    @property
    def weighed(self) -> NDArray:
        """Positions of the bags that have a weight above 0."""
        return np.arange(len(self.bags)) if self.weights is None else np.flatnonzero(self.weights)

    def __getitem__(self, rows: NDArray) -> LabelledBags:
        weights = None if self.weights is None else self.weights[rows]
        return LabelledBags(self.bags[rows], self.labels[rows], self.groups[rows], weights)


class TrainingBags:
    """The bags of the training part, which are read once, when they are first needed.

    Parameters
    ----------
    read : callable
        Reads the bags and calls its argument, if it is not None, with the features of each.
    """

    def __init__(self, read: Callable[[Callable[[NDArray], None] | None], BagDataset]) -> None:
        self._read = read
        self._dataset: BagDataset | None = None

    def pooled(self) -> NDArray:
        """Read the bags; mean and standard deviation of the patches, (n_bags, 2 * n_features)."""
        rows: list[NDArray] = []
        self._dataset = self._read(lambda features: rows.append(pool(features, "mean+std")))
        return np.stack(rows)

    def dataset(self) -> BagDataset:
        """The bags with their graphs and labels, without omics."""
        if self._dataset is None:
            self._dataset = self._read(None)
        return self._dataset


@dataclass(frozen=True)
class FitData:
    """What one network is trained on.

    Attributes
    ----------
    training : BagDataset
    validation : BagDataset or None
    n_genes : int
        Width of the omics vectors, 0 without omics.
    generators : RandomGenerators
    callbacks : list
        Those of the user.
    tasks : FitTasks or None
        Who reports epochs to callbacks of scikit-learn.
    checkpoints : CheckpointFiles or None
        Where the network is kept while it is trained.
    start : list of mappings of str to Tensor, or None
        Weights that the networks of a warm start begin with.
    """

    training: BagDataset
    validation: BagDataset | None
    n_genes: int
    generators: RandomGenerators
    callbacks: list[Any]
    tasks: FitTasks | None = None
    checkpoints: CheckpointFiles | None = None
    start: list[Mapping[str, Tensor]] | None = None

    def epoch_tasks(self) -> engine.EpochTasks | None:
        """The callback of skorch that reports a network's epochs; None without callbacks."""
        return None if self.tasks is None else self.tasks.epochs_of_network()

    def for_model(self, number: int) -> FitData:
        """The same data for one model of an ensemble."""
        callbacks = self.callbacks if number == 0 else engine.fresh_callbacks(self.callbacks)
        return replace(
            self,
            generators=self.generators.for_model(number),
            callbacks=callbacks,
            checkpoints=self._checkpoints_of(f"network{number}"),
            start=None if self.start is None else self.start[number : number + 1],
        )

    def for_teacher(self) -> FitData:
        """The same data for a teacher network, which the user's callbacks do not see."""
        return replace(
            self,
            generators=self.generators.for_teacher(),
            callbacks=[],
            tasks=None,
            checkpoints=self._checkpoints_of("teacher"),
            start=None,
        )

    def _checkpoints_of(self, name: str) -> CheckpointFiles | None:
        return None if self.checkpoints is None else self.checkpoints.of(name)
