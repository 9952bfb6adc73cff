"""Iteration over bags: what a fitted classifier computes for each, and where its patches lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from ..data.arrays import BagArrays
from ..data.bag import Bag
from ..data.sequence import BagSequence, as_bags
from ..estimators.base import BaseMILClassifier
from ..exceptions import BagError
from ..output import MILOutput
from .fitted import fitted_classifier

_MAX_CACHED = 8192  # a bag in a file with more instances is read in blocks, and not kept


@dataclass(frozen=True)
class LocatedBag:
    """One bag, and where its patches that reach the classifier lie.

    Attributes
    ----------
    bag : Bag
        The bag that was passed, before the transformers of a pipeline.
    bag_id : str
        Its id, or its position in the sequence where it has none.
    positions : int ndarray of shape (n_instances,)
        Position in `bag` of each patch that reached the classifier. It is -1 where a filter of the
        pipeline dropped patches and coordinates do not identify the kept ones.
    corners : ndarray of shape (n_instances, 2)
        Top-left corner (x, y), in the unit of the bag; NaN where it is unknown.
    slide_ids : ndarray of shape (n_instances,) or None
        Slide of each patch; None where the bag is a single slide.
    """

    bag: Bag
    bag_id: str
    positions: NDArray
    corners: NDArray
    slide_ids: NDArray | None

    def patch_table(self) -> pd.DataFrame:
        """A row per patch: ``bag_id, patient_id, patch, x, y``; of several slides, ``slide_id``."""
        columns: dict[str, Any] = {
            "bag_id": self.bag_id,
            "patient_id": self.bag.patient_id,
            "patch": self.positions,
            "x": self.corners[:, 0],
            "y": self.corners[:, 1],
        }
        if self.slide_ids is not None:
            columns["slide_id"] = self.slide_ids
        return pd.DataFrame(columns)


@dataclass(frozen=True)
class InspectedBag(LocatedBag):
    """One bag and the output of the classifier's network for it."""

    output: MILOutput


def transformed_bags(clf: Any, bags: Any) -> tuple[BagSequence, BagSequence]:
    """Return bags as passed, and as they reach the classifier after the steps of a pipeline.

    Raises
    ------
    BagError
        If there are no bags, or a step of the pipeline changes their number.
    """
    given = as_bags(bags)
    if len(given) == 0:
        raise BagError("There are no bags to inspect; pass at least one.")
    transformed: Any = given
    for name, step in clf.steps[:-1] if isinstance(clf, Pipeline) else ():
        if step is not None and step != "passthrough":
            transformed = as_bags(step.transform(transformed))
            if len(transformed) != len(given):
                raise BagError(
                    f"Step {name!r} of the pipeline turns {len(given)} bags into "
                    f"{len(transformed)}. "
                    "Only pipelines that keep every bag can be inspected."
                )
    return given, transformed


def inspected_bags(
    clf: Any, bags: Any, model: BaseMILClassifier | None = None
) -> Iterator[InspectedBag]:
    """Yield each bag with the classifier's output; one bag is in memory at a time.

    Parameters
    ----------
    clf : fitted classifier or Pipeline
    bags : bags in any form that `fit` accepts
    model : fitted classifier, optional
        Classifier that is applied in place of the last step of `clf`.

    Raises
    ------
    TypeError, BagError
        As :func:`fitted_classifier` and :func:`transformed_bags` do, and if a bag is unusable.
    """
    model = fitted_classifier(clf) if model is None else model
    for located, output in located_bags(clf, bags, model._forward):
        yield InspectedBag(**vars(located), output=output)


def located_bags(
    clf: Any, bags: Any, compute: Callable[[BagSequence], Iterable[Any]]
) -> Iterator[tuple[LocatedBag, Any]]:
    """Yield each bag with what `compute` returns for it; one bag is in memory at a time.

    `compute` takes the bags as they reach the classifier and returns one result per bag.
    """
    given, transformed = transformed_bags(clf, bags)
    readable = transformed.replace(
        _readable(bag, transformed.name(i)) for i, bag in enumerate(transformed)
    )
    for i, result in enumerate(compute(readable)):
        bag, arrays = given[i], _read_arrays(readable[i], readable.name(i))
        located = LocatedBag(
            bag,
            given.name(i) if bag.bag_id is None else bag.bag_id,
            np.arange(len(arrays.features))
            if bag is transformed[i]
            else _positions(bag, arrays, given.name(i)),
            _corners(transformed[i], arrays),
            _slide_ids(bag, arrays),
        )
        yield located, result


def map_suffixes(model: BaseMILClassifier, n_maps: int) -> list[str]:
    """Suffix of the columns of each attention map: none, a class, or a group of genes."""
    if n_maps == 1:
        return [""]
    groups = getattr(model, "gene_groups", None)
    if hasattr(model, "gene_groups"):
        names = groups if isinstance(groups, dict) else range(n_maps)
        return [f"_group_{name}" for name in names]
    return [f"_{c}" for c in model._network_classes]


class _CachedSource:
    """Source of a bag that keeps the arrays it read, so that they are not read twice."""

    allow_constant = True  # the bag is checked when it is read

    def __init__(self, bag: Bag, name: str) -> None:
        self.bag, self.name = bag, name
        self.arrays: BagArrays | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return self.bag.shape

    def read(self) -> BagArrays:
        self.arrays = self.bag.load(self.name)
        return self.arrays


def _readable(bag: Bag, name: str) -> Bag:
    """Return a large bag in a file unchanged, to be read in blocks; cache any other bag."""
    source = bag.source
    if hasattr(source, "opened") and bag.n_instances > _MAX_CACHED:
        return bag
    return bag.read_from(_CachedSource(bag, name))


def _read_arrays(bag: Bag, name: str) -> BagArrays:
    source = bag.source
    if isinstance(source, _CachedSource) and source.arrays is not None:
        arrays, source.arrays = source.arrays, None
        return arrays
    with bag.opened(_MAX_CACHED, name) as opened:
        return bag.load(name) if opened is None else opened.frame


def _positions(bag: Bag, arrays: BagArrays, name: str) -> NDArray:
    n = len(arrays.features)
    if bag.n_instances == n:
        return np.arange(n)
    all_arrays = bag.load(name)
    places = _positions_by_coords(all_arrays)
    kept = _positions_by_coords(arrays)
    if places is None or kept is None:
        return np.full(n, -1)
    return places.reindex(kept.index).fillna(-1).to_numpy(dtype=int)


def _positions_by_coords(arrays: BagArrays) -> pd.Series | None:
    """Positions, indexed by slide and coordinates; None unless these identify each patch."""
    if arrays.coords is None:
        return None
    slide = np.zeros(len(arrays.coords)) if arrays.slide_index is None else arrays.slide_index
    keys = pd.MultiIndex.from_arrays([slide, *np.asarray(arrays.coords).T])
    return pd.Series(np.arange(len(keys)), keys) if keys.is_unique else None


def _corners(bag: Bag, arrays: BagArrays) -> NDArray:
    n = len(arrays.features)
    if arrays.coords is None:
        return np.full((n, 2), np.nan)
    coords = np.asarray(arrays.coords, dtype=float)
    info = bag.info
    if info.anchor != "centre":
        return coords
    return coords - (np.nan if info.patch_size is None else info.patch_size / 2)


def _slide_ids(bag: Bag, arrays: BagArrays) -> NDArray | None:
    if arrays.slide_index is None:
        return None
    names = [f"slide {k}" if s.bag_id is None else s.bag_id for k, s in enumerate(bag.slides)]
    return np.array(names, dtype=object)[np.asarray(arrays.slide_index)]
