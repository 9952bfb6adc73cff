"""What files state of their features, such as encoder and magnification, and where they differ."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd

from ..exceptions import BagError
from ..messages import first_few
from .bag import Bag
from .sequence import BagSequence

_WORDS = {
    "encoder": "encoder",
    "feature_type": "type of features",
    "magnification": "magnification",
    "patch_pixels": "width of a patch in pixels",
    "patch_um": "width of a patch in um",
    "unit": "unit of coordinates",
}


def _same(value: Any) -> Any:
    """A value as it is compared: "UNI v2", "uni_v2" and "uni-v2" are one encoder."""
    return re.sub(r"[\W_]+", "", value).casefold() if isinstance(value, str) else value


def stated_by(bag: Bag) -> dict[str, Any]:
    """What the file of a slide states; a bag in memory or of an unreadable file states nothing."""
    if not bag.is_lazy:
        return {}
    try:
        info = bag.info
    except BagError:  # reading the bag says why
        return {}
    known = {name: getattr(info, name) for name in ("encoder", "feature_type", "magnification")}
    known["patch_pixels"] = info.patch_pixels
    known["patch_um"] = info.patch_size if info.unit == "um" else None
    known["unit"] = info.unit
    return {name: value for name, value in known.items() if value is not None}


def _slides(bags: BagSequence) -> Iterator[Bag]:
    for bag in bags:
        yield from bag.stored_slides


def _may_be_mixed(bag: Bag) -> bool:
    return bool(getattr(bag._source, "allow_mixed", False))


def stated_table(bags: BagSequence) -> pd.DataFrame:
    """What each slide states, one row per slide with its name as index; None where it is silent."""
    slides = list(_slides(bags))
    rows = [stated_by(slide) for slide in slides]
    index = pd.Index([slide.name for slide in slides], dtype=object)
    return pd.DataFrame(rows, index, list(_WORDS), dtype=object)


def disagreements(table: pd.DataFrame) -> list[str]:
    """A sentence for each thing of which slides state different values, most frequent first."""
    found = []
    for name, words in _WORDS.items():
        known = table[name].dropna()
        groups = [part for _, part in known.groupby(known.map(_same), sort=False)]
        if len(groups) < 2:
            continue
        groups.sort(key=len, reverse=True)
        parts = [f"{part.iloc[0]!r} in {len(part)} ({first_few(part.index, 2)})" for part in groups]
        found.append(f"{words}: {', '.join(parts[:4])}")
    return found


def agreed(bags: BagSequence) -> dict[str, Any]:
    """What the bags state together, for a fitted estimator to remember.

    Raises
    ------
    BagError
        If they disagree; slides read with ``allow_mixed=True`` are left out.
    """
    slides = [slide for slide in _slides(bags) if not _may_be_mixed(slide)]
    table = stated_table(BagSequence._same(slides, list(range(len(slides)))))
    if found := disagreements(table):
        raise BagError(
            f"The files of the bags state different things; {'; '.join(found)}. Features that were "
            "made in different ways do not fit together: leave slides out or extract them again. "
            "If they do fit, read them with allow_mixed=True."
        )
    return {name: table[name].dropna().iloc[0] for name in _WORDS if table[name].notna().any()}


def require_as_in_training(bag: Bag, name: str, trained_on: dict[str, Any]) -> None:
    """Raise if the file of a bag states something else than those of the training bags did."""
    for slide in bag.stored_slides:
        if not trained_on or _may_be_mixed(slide):
            continue
        stated = stated_by(slide)
        for key in stated.keys() & trained_on.keys():
            if _same(stated[key]) != _same(trained_on[key]):
                raise BagError(
                    f"{name}: its file states {_WORDS[key]} {stated[key]!r}, the training bags had "
                    f"{trained_on[key]!r}. Extract its features as those for training. If they do "
                    "fit, read it with allow_mixed=True."
                )


def pinned(bags: Iterable[Bag]) -> Iterator[Bag]:
    """The bags, whose files must stay as they are now: a change while they are used raises."""
    for bag in bags:
        yield bag.pinned()
