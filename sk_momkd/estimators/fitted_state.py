"""What a fitted classifier keeps, and what of it goes into copies and pickles."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from .fit_tasks import OF_RUNNING_FIT
from .network_state import network_from, weights_of
from .parameters import WithOptions
from .prediction import PredictionMixin
from .training_data import LabelledBags
from .validation_scores import SavedThresholds, threshold_of_patients


class FittedStateMixin(PredictionMixin, WithOptions):
    """State of a fitted classifier: its networks as arrays, its validation part as thresholds."""

    modules_: list[Any]
    module_: Any
    _network: dict[str, Any]

    @abstractmethod
    def _make_module(self, n_features: int, n_genes: int, n_classes: int) -> nn.Module:
        """The network with arbitrary weights; ``n_genes=0`` without omics."""

    @abstractmethod
    def _made_with(self) -> dict[str, Any]:
        """The parameters that `_make_module` reads."""

    @property
    def validation_(self) -> pd.DataFrame | None:
        """Ids, labels and probabilities, at the current `prior`, of the validation part."""
        if "_validation" not in vars(self):
            raise AttributeError(f"This {type(self).__name__} has no validation_ before fit.")
        if isinstance(self._validation, SavedThresholds):
            raise AttributeError(
                f"This {type(self).__name__} was saved without validation_, which holds patients. "
                "Save it with save_model(..., include_validation=True), or set "
                "training__pickle_validation=True before it is pickled."
            )
        if self._validation is None:
            return None
        known, logits = self._validation
        proba = self._in_class_order(self._at_prior(torch.from_numpy(logits)).softmax(dim=1)).T
        named = {f"p_{c}": p for c, p in zip(self.classes_, proba, strict=True)}
        return known.assign(**named)

    def _validation_threshold(self, positive: Any) -> float:
        """Threshold with the best F1 on the validation part, at the current `prior`; else NaN."""
        kept = vars(self).get("_validation")
        if isinstance(kept, SavedThresholds):
            return kept.at(self._prior_of_probabilities(), positive)
        table = None if kept is None else self.validation_
        if table is None:
            return np.nan
        return threshold_of_patients(table, self.classes_.tolist(), positive)

    def _scores(self, part: LabelledBags) -> tuple[pd.DataFrame, NDArray]:
        """Ids and labels of bags, and their logits as trained, without `prior`."""
        known = {
            "bag_id": [bag.bag_id for bag in part.bags],
            "patient_id": [bag.patient_id for bag in part.bags],
            "y": self._network_classes[part.labels],
        }
        return pd.DataFrame(known), self._trained_logits(part.bags).numpy()

    def _networks(self, modules: Sequence[Any], n_genes: int) -> dict[str, Any]:
        """Networks, and what they were made with: parameters may be set after `fit`."""
        network = {"n_genes": n_genes, "made_with": copy.deepcopy(self._made_with())}
        return {"modules_": list(modules), "module_": modules[0], "_network": network}

    def _restore_networks(self, weights: Sequence[Mapping[str, NDArray]]) -> None:
        """Set the networks that have these weights; everything else was restored before.

        Raises
        ------
        ValueError
            If the weights are not those of networks made with the stored parameters.
        """
        like_this = type(self)(**self._network["made_with"])
        sizes = self.n_features_in_, len(self.classes_)

        def make(n_genes: int) -> nn.Module:
            return like_this._make_module(sizes[0], n_genes, sizes[1])

        self.modules_ = [network_from(make, self._network["n_genes"], one) for one in weights]
        self.module_ = self.modules_[0]

    def __getstate__(self) -> dict[str, Any]:
        """State for pickles: arrays in place of networks, and no patient unless asked for."""
        asked_for = self.training is not None and self.training.pickle_validation
        state = self._state(with_patients=asked_for)
        if "modules_" in state:
            state["_weights"] = [weights_of(module) for module in state.pop("modules_")]
            del state["module_"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        weights = state.get("_weights")
        super().__setstate__({k: v for k, v in state.items() if k != "_weights"})
        if weights is not None:
            self._restore_networks(weights)

    def _state(self, *, with_patients: bool) -> dict[str, Any]:
        """State of which the validation part is kept, or the thresholds that it gave."""
        state = dict(super().__getstate__())
        for name in ("_earlier", *OF_RUNNING_FIT):  # a callback may store what it gets
            state.pop(name, None)
        kept = state.get("_validation")
        table = None if kept is None or isinstance(kept, SavedThresholds) else self.validation_
        if table is None or with_patients:
            return state
        classes, prior = self.classes_.tolist(), self._prior_of_probabilities()
        return state | {"_validation": SavedThresholds.of(table, classes, prior)}

    def __copy__(self) -> Self:
        """A copy with all that `fit` has kept; deep copies hold what pickles do."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def __getattr__(self, name: str) -> Any:
        option = vars(self).get("_left_out", {}).get(name)
        if option:
            raise AttributeError(
                f"{name} is not in the file that this {type(self).__name__} was loaded from. Save "
                f"the fitted model with save_model(..., {option}=True) to keep it."
            )
        return object.__getattribute__(self, name)  # raises, with the message of a property

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "module_")
