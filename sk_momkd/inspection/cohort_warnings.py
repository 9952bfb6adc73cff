"""What is doubtful about predictions of many files: a column of the table, and a few warnings.

Files are predicted one by one, in several processes and in several calls. What is found of a slide
is therefore kept in its row, and what follows from all slides is derived from the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from .. import exceptions
from ..bag_warnings import BagWarnings
from ..exceptions import FeatureShiftWarning
from ..messages import first_few, warn

_DISTANCE = "distance"  # of the features from training, as `noted_distances` gives it
_SHIFT = FeatureShiftWarning.__name__


def doubts(found: BagWarnings, distances: Mapping[str, float]) -> dict[str, Any]:
    """Columns for the row of a slide: its distance, and a text per category of warnings."""
    texts = {
        category.__name__: " ".join(text for texts in bags.values() for text in texts)
        for category, bags in found.texts.items()
    }
    return {_DISTANCE: max(distances.values(), default=np.nan), **texts}


def categories(rows: pd.DataFrame) -> list[str]:
    """Columns with texts of warnings; those of probabilities begin with p_."""
    names = map(str, rows.columns)
    return [name for name in names if name.endswith("Warning") and not name.startswith("p_")]


def texts_of(rows: pd.DataFrame) -> pd.DataFrame:
    """What is to be said of each slide, a column per category of warnings."""
    from ..training.feature_scale import far_from_training  # which imports torch

    texts = rows[categories(rows)].astype(object)
    distances = rows[_DISTANCE] if _DISTANCE in rows else pd.Series(np.nan, rows.index)
    far = distances[distances > far_from_training(distances)]
    shift = [
        f"its features lie {distance:.2g} times as far from those of training as 90 % of the "
        "training slides."
        for distance in far
    ]
    # A slide that is out of scale has a text and no distance.
    found = texts.get(_SHIFT, pd.Series(index=rows.index, dtype=object)).copy()
    found[far.index] = shift
    return texts.assign(**{_SHIFT: found})


def in_one_column(texts: pd.DataFrame) -> pd.Series:
    """What is said of each slide in one text; None where there is nothing."""
    joined = [
        " ".join(f"{name}: {text}" for name, text in row.dropna().items())
        for _, row in texts.iterrows()
    ]
    return pd.Series([text or None for text in joined], texts.index, dtype=object)


def warn_of_slides(texts: pd.DataFrame, rows: pd.DataFrame) -> None:
    """Warn once per category, with the worst slides by name."""
    from ..training.feature_scale import REMEDY

    for name in map(str, texts.columns):
        of_slides = texts[name].dropna()
        if not len(of_slides):
            continue
        if name == _SHIFT and _DISTANCE in rows:  # the worst first, those out of scale before all
            distances = rows[_DISTANCE][of_slides.index]
            order = distances.sort_values(ascending=False, na_position="first", kind="stable")
            of_slides = of_slides[order.index]
        ids = rows["bag_id"][of_slides.index]
        which, remedy = ("worst", f" {REMEDY}") if name == _SHIFT else ("first", "")
        warn(
            f"{len(of_slides)} of {len(rows)} files have the warning {name}, as the column "
            f"'warning' says. The {which}: {first_few(ids)}. {ids.iloc[0]!r}: "
            f"{of_slides.iloc[0]}{remedy}",
            _class_of(name),
        )


def _class_of(name: str) -> type[Warning]:
    category: type[Warning] = getattr(exceptions, name, UserWarning)
    return category
