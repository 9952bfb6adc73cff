"""Patients of bags: their labels and groups, and one bag for all slides of a patient."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length

from ..exceptions import BagError, CohortError, CohortWarning, LeakageError
from ..messages import first_few, warn
from .arrays import BagArrays, check_n_features
from .bag import Bag, BagInfo
from .bag_order import in_bag_order, labels_in_bag_order
from .ids import normalise_ids, samples_as_patients
from .sequence import BagSequence, as_bags, is_bag_list


class Patients(NamedTuple):
    """Patients as numbers 0, 1, ...

    Attributes
    ----------
    of_bag : ndarray of shape (n_bags,)
        Patient of each bag.
    labels : ndarray of shape (n_patients,)
        Class number: the label of most bags of the patient, on a tie the lower number.
    groups : ndarray of shape (n_patients,)
        Group that a split keeps on one side, such as the site; by default the patient itself.
    classes : list
        Name of each class number, sorted unless given in another order.
    """

    of_bag: NDArray
    labels: NDArray
    groups: NDArray
    classes: list[Any]

    @property
    def are_grouped(self) -> bool:
        """Whether a group holds several patients."""
        return len(np.unique(self.groups)) < len(self.groups)

    def bags(self, patients: NDArray) -> NDArray:
        """Sorted positions of the bags of `patients`."""
        return np.flatnonzero(np.isin(self.of_bag, patients))


def _encode(values: NDArray, what: str, bags: BagSequence | None) -> tuple[NDArray, list[Any]]:
    """Return the number of each value, and the values; a missing one raises."""
    codes, names = pd.factorize(values, sort=True)
    missing = np.flatnonzero(codes < 0)
    if len(missing):
        i = int(missing[0])
        where = f"position {i}" if bags is None else bags.name(i)
        raise ValueError(f"{len(missing)} {what} are missing, the first for {where}.")
    return codes, np.asarray(names).tolist()


def warn_of_samples(patient_ids: Iterable[Any]) -> None:
    """Warn if patient ids are TCGA sample barcodes, of which a patient may have several."""
    samples = samples_as_patients(patient_ids)
    if not samples:
        return
    several = {patient: own for patient, own in samples.items() if len(own) > 1}
    first = next(iter((several or samples).values()))
    warn(
        f"{sum(map(len, samples.values()))} patient ids are barcodes of TCGA samples, not of "
        f"patients: {first_few(first)}. {len(several)} patients have several, which splits would "
        "separate: their slides would be in training and in test. Cut the ids to 12 characters, or "
        "use load_cohort(..., barcodes='tcga').",
        CohortWarning,
    )


def patients_and_groups(X: Any, bags: BagSequence | None, groups: Any) -> tuple[NDArray, NDArray]:
    """Patient and group of each bag; the groups are the patients where no bag has one."""
    if groups is None:
        if bags is None:
            raise ValueError(
                f"X is a {type(X).__name__}, which has no patient ids. Pass a BagSequence, "
                "or groups=patient_ids."
            )
        return bags.groups(), bags.groups()
    groups = column_or_1d(in_bag_order(groups, bags, "groups"))
    normalise_ids((g for g in groups if isinstance(g, str)), "groups", ValueError)
    codes, _ = _encode(groups, "groups", bags)
    if bags is None or not any(bag.patient_id is not None for bag in bags):
        return codes, codes
    of_bag = bags.groups()
    _, first = np.unique(of_bag, return_index=True)
    inconsistent = np.flatnonzero(codes != codes[first][of_bag])
    if len(inconsistent):
        names = dict.fromkeys(bags[i].patient_id for i in inconsistent)
        raise LeakageError(
            f"{len(names)} patients are in several groups: {first_few(names)}. A split by these "
            "groups would leak; give all bags of a patient the same group."
        )
    return of_bag, codes


def patients_of(X: Any, y: Any, groups: Any, *, classes: Sequence[Any] | None = None) -> Patients:
    """Patients of the bags `X`, with their labels and groups.

    The `classes` in the order of their numbers; by default those of `y`, sorted.

    Raises
    ------
    LeakageError
        If a patient is in several groups.
    ValueError
        If a label or a group is missing, a label is none of `classes`, or neither `X` nor
        `groups` has patient ids.
    """
    if y is None:
        raise ValueError("Folds are stratified by label, but y is None.")
    bags = as_bags(X) if isinstance(X, BagSequence) or is_bag_list(X) else None
    y = labels_in_bag_order(y, bags)
    check_consistent_length(X, y, groups)
    if len(y) == 0:
        raise ValueError("X holds no bags.")
    labels, found = _encode(y, "labels", bags)
    numbered = found if classes is None else list(classes)
    if unknown := [c for c in found if c not in numbered]:
        raise ValueError(
            f"y holds {', '.join(map(repr, unknown))}, expected only "
            f"{', '.join(map(repr, numbered))}, the classes of the models. Labels of a table are "
            "coded by positive=, as they were for the training."
        )
    labels = np.array([numbered.index(c) for c in found])[labels]
    if y.dtype.kind == "f":
        check_classification_targets(y)
    of_bag, group_of_bag = patients_and_groups(X, bags, groups)
    if bags is not None and groups is None:
        warn_of_samples(bags.patient_ids)
    numbers, first = np.unique(of_bag, return_index=True)
    counts = np.zeros((len(numbers), len(numbered)), dtype=int)
    np.add.at(counts, (of_bag, labels), 1)
    return Patients(of_bag, counts.argmax(axis=1), group_of_bag[first], numbered)


def require_patients(patients: Patients, among: NDArray, least: int, purpose: str) -> None:
    """Raise if a class has fewer than `least` groups with it `among` the patients.

    Every class is needed in each of `least` parts, which the message calls `purpose`.
    """
    labels, groups = patients.labels[among], patients.groups[among]
    n_groups = [len(np.unique(groups[labels == c])) for c in range(len(patients.classes))]
    rarest = int(np.argmin(n_groups))
    if n_groups[rarest] >= least:
        return
    n_patients = np.bincount(labels, minlength=len(patients.classes)).tolist()
    within = f" in {n_groups[rarest]} groups" if patients.are_grouped else ""
    raise ValueError(
        f"Class {patients.classes[rarest]!r} has {n_patients[rarest]} patients{within}, too few "
        f"for {purpose}. Patients per class, each counted by the label of most of its bags: "
        f"{dict(zip(patients.classes, n_patients, strict=True))}. "
        f"{_remedy(n_patients[rarest], n_groups[rarest])}"
    )


def _remedy(n_patients: int, n_groups: int) -> str:
    """What to do about a class that too few patients, in too few groups, have."""
    if n_groups > 1:
        return f"Use at most {n_groups} folds, or leave the class out."
    if n_patients > 1:
        return "Use smaller groups, or leave the class out."
    if n_patients == 1:
        return "Leave the class out, or add patients who have it."
    return (
        "If slides have labels of their own, count them one by one: name the column of slides as "
        "patient_id=, that of patients as site=, and keep sites together in the folds."
    )


def _all_or_none(parts: list[NDArray | None], names: list[str], what: str) -> list[NDArray] | None:
    has = [part is not None for part in parts]
    if any(has) and not all(has):
        raise BagError(
            f"{names[has.index(True)]} has {what}, but {names[has.index(False)]} of the same "
            "patient has not. Give it to all slides of a patient or to none."
        )
    return [part for part in parts if part is not None] or None


class PatientSource:
    """The slides of a patient as the source of one bag."""

    def __init__(self, slides: list[Bag]) -> None:
        self.slides = slides

    def __str__(self) -> str:
        return f"{len(self.slides)} slides: {first_few(s.bag_id for s in self.slides)}"

    @property
    def shape(self) -> tuple[int, int]:
        """(n_instances of all slides, n_features)."""
        return sum(s.n_instances for s in self.slides), self.slides[0].n_features

    def read(self) -> BagArrays:
        """Concatenate the slides; ``slide_index`` is the slide of each instance.

        Raises
        ------
        BagError
            If the slides differ in their number of features, or only some have coordinates or a
            graph.
        """
        names = [slide.name for slide in self.slides]
        parts = [slide.load() for slide in self.slides]
        width = parts[0].features.shape[1]
        for name, part in zip(names, parts, strict=True):
            others = f"{names[0]} of the same patient has"
            check_n_features(part.features.shape[1], name, width, others)
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

    def pinned(self) -> PatientSource:
        """The slides, whose files must stay as they are now."""
        return PatientSource([slide.pinned() for slide in self.slides])

    def info(self) -> BagInfo:
        """Format, keys, unit and patch size of the first slide."""
        return self.slides[0].info


def patient_bags(bags: Any) -> BagSequence:
    """Join the slides of each patient to one bag, in the order of the first slides.

    Nothing is read. Patches of different slides are never neighbours in the graph of a patient's
    bag. A model fitted on patients predicts slides as well, and a model fitted on slides predicts
    patients.

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

    Parameters
    ----------
    bags : BagSequence or list of Bag
        Slides with patient ids.
    y : array-like of shape (n_bags,)
        Label of each slide.

    Returns
    -------
    ndarray of shape (n_patients,)

    Raises
    ------
    CohortError
        If slides of a patient have different labels; names the patients.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import Bag, patient_labels
    >>> slides = [Bag(np.ones((1, 2)), patient_id=p) for p in ("B", "A", "B")]
    >>> patient_labels(slides, ["low", "high", "low"]).tolist()
    ['low', 'high']
    """
    bags = as_bags(bags)
    y = labels_in_bag_order(y, bags)
    _, first, group = np.unique(bags.groups(), return_index=True, return_inverse=True)
    inconsistent = np.unique(group[y != y[first][group]])
    if len(inconsistent):
        patients = [bags[int(first[g])].patient_id for g in inconsistent]
        raise CohortError(
            f"{len(inconsistent)} patients have slides with different labels: "
            f"{first_few(patients)}. Label patients, or train on slides."
        )
    return y[np.sort(first)]
