"""Warm start: the next fit begins with the fitted networks, on the same or on other data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..data.omics import OmicsTable
from ..data.sequence import BagSequence
from ..data.training_patients import HashedIds
from ..exceptions import OmicsError
from .network_state import OMICS
from .privileged import PrivilegedOmics

KEPT = ("genes_", "omics_transformer_", "pooled_head_")  # that a warm start does not renew
INPUT_GENES = "_input_genes"  # what the omics transformer was fitted on


@dataclass(frozen=True)
class EarlierFit:
    """What a warm start takes over from the earlier fit, and what the next one must agree with.

    Attributes
    ----------
    weights : list of mappings of str to Tensor
        Of each network.
    made_with : dict
        Parameters that the networks were made with.
    n_genes : int
        Width of the omics branch; 0 without.
    n_features : int
    classes : ndarray of shape (n_classes,)
    pos_label : label or None
    bag_info : dict
    transformer : transformer or None
        The fitted omics transformer.
    genes : ndarray of str or None
        That the transformer gives.
    input_genes : ndarray of str or None
        That it was fitted on; None where that is unknown.
    patients : HashedIds or None
    """

    weights: list[Mapping[str, torch.Tensor]]
    made_with: dict[str, Any]
    n_genes: int
    n_features: int
    classes: NDArray
    pos_label: Any
    bag_info: dict[str, Any]
    transformer: Any
    genes: NDArray | None
    input_genes: NDArray | None
    patients: HashedIds | None

    @classmethod
    def of(cls, clf: Any) -> EarlierFit:
        """The fit of a fitted classifier."""
        known = vars(clf)
        transformer = known.get("omics_transformer_")
        named = getattr(transformer, "feature_names_in_", None)
        return cls(
            [dict(module.state_dict()) for module in clf.modules_],
            clf._network["made_with"],
            clf._network["n_genes"],
            clf.n_features_in_,
            clf.classes_,
            clf.pos_label_,
            known.get("bag_info_", {}),
            transformer,
            known.get("genes_"),
            known.get(INPUT_GENES, named),
            known.get("training_patients_"),
        )

    @property
    def has_omics_branch(self) -> bool:
        """Whether the networks have kept their omics branch."""
        return any(name.startswith(f"{OMICS}.") for name in self.weights[0])

    def require_same(self, clf: Any) -> None:
        """Raise unless the next fit has the same width, classes and number of networks.

        Raises
        ------
        ValueError
            Saying what the fitted networks have, and what came.
        """
        pairs = {
            "features of a patch": (self.n_features, clf.n_features_in_),
            "classes": (self.classes.tolist(), clf.classes_.tolist()),
            "positive class": (self.pos_label, clf.pos_label_),
            "n_models": (len(self.weights), clf.n_models),
        }
        for what, (fitted, came) in pairs.items():
            if fitted != came:
                raise ValueError(
                    f"warm_start=True goes on from the fitted networks, which have {what}: "
                    f"{fitted!r}, but this fit has {came!r}. Make it the same, or fit anew with "
                    "warm_start=False."
                )

    def patients_and(self, bags: BagSequence) -> HashedIds | None:
        """Training patients of both fits; None where those of the earlier one are unknown."""
        return None if self.patients is None else self.patients.joined(bags)

    def table(self, table: OmicsTable) -> OmicsTable:
        """Omics with the genes that the fitted transformer knows, in its order.

        Raises
        ------
        OmicsError
            If there is no fitted transformer, its genes are not known, or genes are missing.
        """
        if self.transformer is None:
            raise OmicsError(
                "warm_start=True goes on from networks whose omics transformer is not known: they "
                "were trained without omics, or loaded from a file without it. Pass omics=None, "
                "save the model with save_model(..., include_omics=True), or fit anew with "
                "warm_start=False."
            )
        if self.input_genes is None:
            raise OmicsError(
                "warm_start=True goes on with the fitted omics transformer, a "
                f"{type(self.transformer).__name__}, which does not name the genes that it was "
                "fitted on, and the model comes from an sk_momkd that did not keep them. Genes in "
                "another order would be taken for one another. Pass omics=None, or fit anew with "
                "warm_start=False."
            )
        return table.select_genes(self.input_genes)

    def without_omics(self, n_bags: int) -> PrivilegedOmics | None:
        """Bags without omics; None where the networks have no omics branch, either."""
        if not (self.n_genes and self.has_omics_branch):
            return None
        genes = np.array([], object) if self.genes is None else self.genes
        vectors = np.zeros((n_bags, self.n_genes), dtype=np.float32)
        return PrivilegedOmics(vectors, np.zeros(n_bags, dtype=bool), genes)


@contextmanager
def earlier_fit(clf: Any) -> Iterator[None]:
    """Hold the earlier fit in ``clf._earlier`` while a warm start fits; put it back if that fails.

    Without ``warm_start=True``, or before the first fit, there is none, and a fit that fails leaves
    no networks.
    """
    before, fitted = dict(vars(clf)), False
    clf._earlier = EarlierFit.of(clf) if clf.warm_start and "modules_" in before else None
    try:
        yield
        fitted = True
    finally:
        earlier = vars(clf).pop("_earlier", None)
        if earlier is not None and not fitted:
            vars(clf).clear()
            vars(clf).update(before)
        elif not fitted:
            for name in ("modules_", "module_"):
                vars(clf).pop(name, None)


def begin_with(module: nn.Module, weights: Mapping[str, torch.Tensor], changed: str) -> None:
    """Give a new network the weights of a fitted one, which has dropped what it does not keep.

    Parameters
    ----------
    module : Module
        Its omics branch stays as it is where `weights` have none.
    weights : mapping of str to Tensor
    changed : str
        Parameters that differ from those the fitted network was made with, for the message.

    Raises
    ------
    ValueError
        If the weights are those of another network.
    """
    own = module.state_dict()
    absent = [n for n in own if n not in weights and not n.startswith(f"{OMICS}.")]
    other = [n for n in weights if n not in own or own[n].shape != weights[n].shape]
    if absent or other:
        first = [*other, *absent][0]
        raise ValueError(
            "warm_start=True goes on from the fitted networks, which are not like those of this "
            f"fit: {len(absent) + len(other)} weights differ, the first is {first!r}. "
            + (f"Changed since the last fit: {changed}. Set it back" if changed else "Set it back")
            + ", or fit anew with warm_start=False."
        )
    module.load_state_dict({**own, **weights})


def changed_parameters(made_with: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Names and values of parameters that have another value now."""
    names = [name for name in now if repr(made_with.get(name)) != repr(now[name])]
    return ", ".join(f"{name} from {made_with.get(name)!r} to {now[name]!r}" for name in names)
