"""A fitted classifier, or a pipeline that ends in one, and what it sees of each bag."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from ..data.arrays import BagArrays
from ..data.bag import Bag
from ..data.sequence import BagSequence, as_bags
from ..estimators.base import BaseMILClassifier
from ..estimators.discovery import all_estimators
from ..estimators.momkd import MoMKDClassifier
from ..exceptions import BagError
from ..models.momkd import MoMKDOutput
from ..output import MILOutput

_WHOLE = 8192  # instances of a bag in a file up to which it is read at once, and once only


@dataclass(frozen=True)
class SeenBag:
    """One bag, and what the classifier made of it.

    Attributes
    ----------
    bag : Bag
        As it was given.
    bag_id : str
        Its id, or its place in the sequence where it has none.
    positions : int ndarray of shape (n_instances,)
        Place of each patch that the classifier saw in the bag as given; -1 where a filter of the
        pipeline dropped patches of a bag without coordinates of their own.
    corners : ndarray of shape (n_instances, 2)
        Top-left corner (x, y), in the unit of the bag; NaN where it is unknown.
    slide_ids : ndarray of shape (n_instances,) or None
        Slide of each patch, where the bag is of several.
    output : MILOutput
    """

    bag: Bag
    bag_id: str
    positions: NDArray
    corners: NDArray
    slide_ids: NDArray | None
    output: MILOutput

    def frame(self) -> pd.DataFrame:
        """A row per patch: ``bag_id, patient_id, patch, x, y``, and of several slides which."""
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


def classifier_of(clf: Any) -> BaseMILClassifier:
    """The fitted classifier of this package that `clf` is, or ends in.

    Raises
    ------
    TypeError
        If it is, or ends in, anything else; names the classifiers that can be inspected.
    """
    last = clf.steps[-1][1] if isinstance(clf, Pipeline) else clf
    if not isinstance(last, BaseMILClassifier):
        names = ", ".join(name for name, _ in all_estimators("classifier"))
        raise TypeError(
            f"{type(last).__name__} has no attention over patches. Expected one of {names}, or a "
            "Pipeline that ends in one; of a search, its best_estimator_."
        )
    check_is_fitted(last)
    return last


def momkd_of(clf: Any) -> MoMKDClassifier:
    """The fitted `MoMKDClassifier` that `clf` is, or ends in; of an ensemble its first model.

    Raises
    ------
    TypeError
        If it is another classifier, which has no memory.
    """
    last = classifier_of(clf)
    if not isinstance(last, MoMKDClassifier):
        raise TypeError(
            f"{type(last).__name__} has no memory; expected a MoMKDClassifier, or a Pipeline that "
            "ends in one. patch_attention works for every classifier of this package."
        )
    if not is_ensemble(last):
        return last
    first = copy.copy(last)
    first.modules_ = last.modules_[:1]
    return first


def is_ensemble(model: BaseMILClassifier) -> bool:
    """Whether predictions are the mean over several networks, each with a memory of its own."""
    return len(getattr(model, "modules_", ())) > 1


def momkd_output(output: MILOutput) -> MoMKDOutput:
    """`output`, which comes from a MoMKD."""
    if not isinstance(output, MoMKDOutput):
        raise TypeError(f"Expected the output of a MoMKD, got {type(output).__name__}.")
    return output


def prepared_bags(clf: Any, bags: Any) -> tuple[BagSequence, BagSequence]:
    """Bags as given, and as they reach the classifier after the steps of a pipeline.

    Raises
    ------
    BagError
        If there are none, or a step of the pipeline makes something else of them.
    """
    given = as_bags(bags)
    if len(given) == 0:
        raise BagError("There are no bags to inspect; pass at least one.")
    seen: Any = given
    for name, step in clf.steps[:-1] if isinstance(clf, Pipeline) else ():
        if step is not None and step != "passthrough":
            seen = as_bags(step.transform(seen))
            if len(seen) != len(given):
                raise BagError(
                    f"Step {name!r} of the pipeline makes {len(seen)} bags of {len(given)}; only "
                    "steps that keep every bag can be followed."
                )
    return given, seen


def seen_bags(clf: Any, bags: Any, model: BaseMILClassifier | None = None) -> Iterator[SeenBag]:
    """What the classifier makes of each bag, one after the other; no other bag is in memory.

    Parameters
    ----------
    clf : fitted classifier or Pipeline
    bags : bags in any form that `fit` accepts
    model : fitted classifier, optional
        Looks at the bags in place of the last step of `clf`.

    Raises
    ------
    TypeError, BagError
        As :func:`classifier_of` and :func:`prepared_bags`, and if a bag is unusable.
    """
    model = classifier_of(clf) if model is None else model
    given, seen = prepared_bags(clf, bags)
    carriers = seen.replace(_carrier(bag, seen.name(i)) for i, bag in enumerate(seen))
    for i, output in enumerate(model._forward(carriers)):
        bag, arrays = given[i], _taken(carriers[i], carriers.name(i))
        yield SeenBag(
            bag,
            given.name(i) if bag.bag_id is None else bag.bag_id,
            np.arange(len(arrays.features))
            if bag is seen[i]
            else _positions(bag, arrays, given.name(i)),
            _corners(seen[i], arrays),
            _slide_ids(bag, arrays),
            output,
        )


def shown_names(model: BaseMILClassifier, n_maps: int) -> list[str]:
    """Ending of the column of each attention map: none, a class, or a group of genes."""
    if n_maps == 1:
        return [""]
    groups = getattr(model, "gene_groups", None)
    if hasattr(model, "gene_groups"):
        names = groups if isinstance(groups, dict) else range(n_maps)
        return [f"_group_{name}" for name in names]
    return [f"_{c}" for c in model.classes_]


class _ReadOnce:
    """A bag that keeps what was read for the one who asks next."""

    def __init__(self, bag: Bag, name: str) -> None:
        self.bag, self.name = bag, name
        self.arrays: BagArrays | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return self.bag.shape

    def read(self) -> BagArrays:
        self.arrays = self.bag.load(self.name)
        return self.arrays


def _carrier(bag: Bag, name: str) -> Bag:
    """A large bag in a file as it is, to be read in blocks; any other as one that is read once."""
    source = bag.source
    if hasattr(source, "opened") and bag.n_instances > _WHOLE:
        return bag
    return Bag(_ReadOnce(bag, name), bag_id=bag.bag_id, patient_id=bag.patient_id)


def _taken(carrier: Bag, name: str) -> BagArrays:
    source = carrier.source
    if isinstance(source, _ReadOnce) and source.arrays is not None:
        arrays, source.arrays = source.arrays, None
        return arrays
    with carrier.opened(_WHOLE, name) as opened:
        return carrier.load(name) if opened is None else opened.frame


def _positions(bag: Bag, arrays: BagArrays, name: str) -> NDArray:
    n = len(arrays.features)
    if bag.n_instances == n:
        return np.arange(n)
    whole = bag.load(name)
    places = _place_of_each(whole)
    kept = _place_of_each(arrays)
    if places is None or kept is None:
        return np.full(n, -1)
    return places.reindex(kept.index).fillna(-1).to_numpy(dtype=int)


def _place_of_each(arrays: BagArrays) -> pd.Series | None:
    """Position by slide and coordinates, where these tell the patches apart."""
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
