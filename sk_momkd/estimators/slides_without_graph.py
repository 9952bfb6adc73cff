"""Slides whose patches have no neighbours, beside others whose patches have."""

from __future__ import annotations

from ..bag_warnings import warn_of_bag
from ..exceptions import CohortWarning
from ..messages import listed, warn
from ..training.batches import BagDataset, GraphSpec

_NO_NEIGHBOURS = (
    "it has neither coordinates nor a stored graph, so its patches have no neighbours, while those "
    "of the training slides had. Give Bag(features, coords=...)."
)
_NEW_NEIGHBOURS = (
    "its patches have neighbours, but those of the training slides had none, so the model has not "
    "learned from them. Leave the coordinates out, or train on slides that have them."
)


def are_connected(dataset: BagDataset) -> bool | None:
    """Whether patches of the training slides have neighbours; warns if those of some have none.

    A graph is built of coordinates, or is stored; without either, by ``graph="auto"``, each patch
    is alone. None if no slide has several patches, or no graph is wanted.
    """
    if dataset.spec.graph == "none":
        return None
    with_graph, without = dataset.with_and_without_graph()
    if with_graph and without:
        warn(
            f"{len(without)} of {len(dataset.bags)} training slides have neither coordinates nor a "
            f"stored graph: {listed(without)}. Their patches have no neighbours, those of the "
            "other slides have. Give coordinates to all, or treat all alike by graph='features' or "
            "graph='none'.",
            CohortWarning,
        )
    return bool(with_graph) if with_graph or without else None


class UnlikeGraphs:
    """Slides in prediction whose patches have neighbours where those in training had none.

    Or the other way round. Nothing is said where `trained` is None.
    """

    def __init__(self, spec: GraphSpec, trained: bool | None) -> None:
        self.trained = None if spec.graph == "none" else trained

    def look_at(self, name: str, n_patches: int, n_edges: int) -> None:
        """Warn of a slide if it is such; each patch has an edge to itself."""
        if self.trained is not None and n_patches > 1 and (n_edges > n_patches) != self.trained:
            text = _NO_NEIGHBOURS if self.trained else _NEW_NEIGHBOURS
            warn_of_bag(name, text, CohortWarning)
