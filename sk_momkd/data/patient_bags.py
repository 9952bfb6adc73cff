"""Several slides of a patient as one bag, each slide with a graph of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..exceptions import BagError, CohortError
from .arrays import BagArrays
from .bag import Bag
from .info import BagInfo
from .sequence import BagSequence, as_bags, first_few


class PatientSource:
    """The slides of a patient, read one after the other."""

    def __init__(self, slides: list[Bag]) -> None:
        self.slides = slides

    def __str__(self) -> str:
        return f"{len(self.slides)} slides: {first_few(s.bag_id for s in self.slides)}"

    @property
    def shape(self) -> tuple[int, int]:
        """(n_instances of all slides, n_features)."""
        return sum(s.n_instances for s in self.slides), self.slides[0].n_features

    def read(self) -> BagArrays:
        """All slides below each other; ``slide_index`` says which instance is of which.

        Raises
        ------
        BagError
            If the slides differ in width, or some have coordinates or a graph and others not.
        """
        names = [slide.name for slide in self.slides]
        parts = [slide.load() for slide in self.slides]
        widths = [part.features.shape[1] for part in parts]
        odd = [i for i, width in enumerate(widths) if width != widths[0]]
        if odd:
            raise BagError(
                f"{names[odd[0]]} has {widths[odd[0]]} features, {names[0]} of the same patient "
                f"has {widths[0]}. Extract all slides with one encoder."
            )
        sizes = [len(part.features) for part in parts]
        coords = _all_or_none([part.coords for part in parts], names, "coordinates")
        edges = _all_or_none([part.edge_index for part in parts], names, "a graph of its own")
        shifted = [e + o for e, o in zip(edges or [], np.cumsum([0, *sizes[:-1]]), strict=False)]
        return BagArrays(
            np.concatenate([part.features for part in parts]),
            np.concatenate(coords) if coords else None,
            np.concatenate(shifted, axis=1) if edges else None,
            np.repeat(np.arange(len(parts)), sizes),
        )

    def info(self) -> BagInfo:
        """That of the first slide."""
        return self.slides[0].info


def patient_bags(bags: Any) -> BagSequence:
    """One bag per patient, in the order of their first slides; nothing is read.

    The graph of a patient's bag is that of each slide, side by side: patches of different slides
    are never neighbours. A model fitted on patients predicts slides as well, and the other way
    round.

    Parameters
    ----------
    bags : BagSequence or list of Bag
        Slides with patient ids.

    Returns
    -------
    BagSequence
        ``bag_id`` and ``patient_id`` are the patient's.

    Raises
    ------
    CohortError
        Naming the first slide without a patient id.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import Bag, patient_bags
    >>> slides = [Bag(np.ones((n, 2)), bag_id=f"S{n}", patient_id="A") for n in (1, 2)]
    >>> patient_bags(slides)[0]
    Bag('A', patient='A', from 2 slides: 'S1', 'S2' (memory))
    """
    bags = as_bags(bags)
    slides: dict[str, list[Bag]] = {}
    for i, bag in enumerate(bags):
        if bag.patient_id is None:
            raise CohortError(f"{bags.name(i)} has no patient id; give it Bag(patient_id=...).")
        slides.setdefault(bag.patient_id, []).append(bag)
    return BagSequence(
        Bag(PatientSource(own), bag_id=patient, patient_id=patient)
        for patient, own in slides.items()
    )


def patient_labels(bags: Any, y: Any) -> NDArray:
    """Label of each patient, in the order of :func:`patient_bags`.

    Raises
    ------
    CohortError
        If slides of a patient have different labels; names the patients.
    """
    bags, y = as_bags(bags), np.asarray(y)
    _, first, group = np.unique(bags.groups(), return_index=True, return_inverse=True)
    torn = np.unique(group[y != y[first][group]])
    if len(torn):
        patients = [bags[int(first[g])].patient_id for g in torn]
        raise CohortError(
            f"{len(torn)} patients have slides with different labels: {first_few(patients)}. "
            "Label patients, or train on slides."
        )
    return y[np.sort(first)]


def _all_or_none(parts: list[NDArray | None], names: list[str], what: str) -> list[NDArray] | None:
    has = [part is not None for part in parts]
    if any(has) and not all(has):
        raise BagError(
            f"Of one patient, {names[has.index(True)]} has {what} and {names[has.index(False)]} "
            "has not. Give it to all slides or to none."
        )
    return [part for part in parts if part is not None] or None
