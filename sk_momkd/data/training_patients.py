"""Patients that a model was trained on: it remembers hashes of their ids and knows them again."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from ..messages import first_few
from .bag import Bag
from .sequence import BagSequence

_ATTRIBUTE = "training_patients_"
WITHOUT_IDS = "training bags had no ids"  # a reason why patients could not be looked for


@dataclass(frozen=True, eq=False)
class HashedIds:
    """Ids of patients and slides as hashes under a random key, by which they are known again.

    The key is drawn for each fit, so that hashes of two models cannot be compared and no list of
    hashes can be made beforehand. It is kept beside the hashes: whoever has the model can still
    try ids, and so find out whether an id that he or she guesses is among them.

    Attributes
    ----------
    key : bytes
    patients : uint64 ndarray
        Sorted hashes of patient ids; of the bag id where a bag has no patient id.
    slides : uint64 ndarray
        Sorted hashes of slide ids.
    n_without_id : int
        Number of bags with neither.
    """

    key: bytes
    patients: NDArray
    slides: NDArray
    n_without_id: int = 0

    @classmethod
    def of(cls, bags: Iterable[Bag], key: bytes | None = None) -> Self:
        """Hashes of the ids of `bags`, by default under a new key."""
        bags, key = list(bags), secrets.token_bytes(16) if key is None else key
        owners = [name for bag in bags if (name := _owner(bag)) is not None]
        slides = [name for bag in bags for name in _slide_ids(bag)]
        patients = np.unique(_hashes(set(owners), key))
        return cls(key, patients, np.unique(_hashes(slides, key)), len(bags) - len(owners))

    def joined(self, bags: Iterable[Bag]) -> HashedIds:
        """These, and the ids of `bags` under the same key."""
        more = HashedIds.of(bags, self.key)
        return HashedIds(
            self.key,
            np.union1d(self.patients, more.patients),
            np.union1d(self.slides, more.slides),
            self.n_without_id + more.n_without_id,
        )

    def patients_met(self, bags: BagSequence) -> NDArray:
        """Which of the `bags` are of a patient of these: bool array of shape (n_bags,)."""
        owners = [_owner(bag) for bag in bags]
        met = np.isin(_hashes([name or "" for name in owners], self.key), self.patients)
        return met & np.array([name is not None for name in owners], dtype=bool)

    def slides_met(self, bags: BagSequence) -> NDArray:
        """Which of the `bags` are or hold a slide of these: bool array of shape (n_bags,)."""
        slides = [(i, name) for i, bag in enumerate(bags) for name in _slide_ids(bag)]
        known = np.isin(_hashes([name for _, name in slides], self.key), self.slides)
        met = np.zeros(len(bags), dtype=bool)
        met[[i for (i, _), seen in zip(slides, known, strict=True) if seen]] = True
        return met

    def __repr__(self) -> str:
        return f"HashedIds of {len(self.patients)} patients and {len(self.slides)} slides"


def _owner(bag: Bag) -> str | None:
    return bag.bag_id if bag.patient_id is None else bag.patient_id


def _slide_ids(bag: Bag) -> list[str]:
    return [slide.bag_id for slide in bag.stored_slides if slide.bag_id is not None]


def _hashes(ids: Iterable[str], key: bytes) -> NDArray:
    # Names of files may hold bytes that are no UTF-8.
    encoded = (i.encode("utf-8", "surrogatepass") for i in ids)
    digests = [hashlib.blake2b(name, key=key, digest_size=8).digest() for name in encoded]
    return np.frombuffer(b"".join(digests), dtype=np.uint64)


def hashed_ids(model: Any) -> list[HashedIds]:
    """What a fitted model, or the models inside it, were trained on; empty if none remembers it."""
    return list({id(found): found for found in _search(model, set())}.values())


def _search(model: Any, seen: set[int]) -> Iterator[HashedIds]:
    """Look into a model: at what it learned in `fit`, else at the models that it was given."""
    if id(model) in seen:
        return
    seen.add(id(model))
    state = getattr(model, "__dict__", {})
    if isinstance(own := state.get(_ATTRIBUTE), HashedIds):
        yield own
        return
    learned = [value for name, value in state.items() if name.endswith("_")]
    found = [ids for inner in _models(learned) for ids in _search(inner, seen)]
    yield from found or (i for inner in _models(state.values()) for i in _search(inner, seen))


def _models(values: Iterable[Any]) -> Iterator[Any]:
    """Models among `values` and in lists, tuples and dicts of them."""
    for value in values:
        if isinstance(value, dict):
            yield from _models(value.values())
        elif isinstance(value, list | tuple):
            yield from _models(value)
        elif isinstance(value, BaseEstimator) or hasattr(type(value), "predict_proba"):
            yield value


@dataclass(frozen=True)
class Encounter:
    """What is known of training patients among bags.

    Attributes
    ----------
    names : list of str
        Their ids, with the slide where it is the slide that was in training; names of bags whose
        patient is unknown.
    unchecked : str
        Why some or all could not be checked; empty where all were.
    """

    names: list[str]
    unchecked: str = ""

    def __str__(self) -> str:
        """Number and names of the training patients that were met."""
        return f"{len(self.names)} patients ({first_few(self.names)})"

    def joined(self, names: Iterable[str]) -> Encounter:
        """The same with more names."""
        return Encounter(list(dict.fromkeys([*names, *self.names])), self.unchecked)


def meet(models: Iterable[Any], bags: BagSequence, *, known_otherwise: bool = False) -> Encounter:
    """Look for the training patients of fitted `models` among `bags`, by patient and by slide.

    With `known_otherwise`, the caller knows the training patients of models that do not remember
    them, and looks for these as well.
    """
    patients, slides = np.zeros((2, len(bags)), dtype=bool)
    reasons = ["bags have no ids"] if any(_owner(bag) is None for bag in bags) else []
    for model in models:
        known = hashed_ids(model)
        for ids in known:
            patients |= ids.patients_met(bags)
            slides |= ids.slides_met(bags)
        if not known and not known_otherwise:
            reasons.append(f"{type(model).__name__} does not remember its training patients")
        elif any(ids.n_without_id for ids in known):
            reasons.append(WITHOUT_IDS)
    names: dict[str, str] = {}  # of a patient once, by patient rather than by slide
    for i in np.flatnonzero(patients | slides).tolist():
        name = bags[i].patient_id or bags.name(i)
        by_slide = not patients[i] and bags[i].patient_id is not None
        slide = "a slide" if bags[i].bag_id == name else f"its slide {bags[i].bag_id}"
        text = f"{name}, by {slide}" if by_slide else name
        names[name] = names.get(name, text) if by_slide else text
    return Encounter(list(names.values()), " and ".join(dict.fromkeys(reasons)))
