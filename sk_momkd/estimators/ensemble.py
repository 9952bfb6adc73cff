"""Several models of one fit, trained from different seeds on the same data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
from torch import nn

from .fold import Fold


@dataclass(frozen=True)
class Learned:
    """What a fit learned.

    Attributes
    ----------
    modules : list of Module
    history : DataFrame
        One row per epoch; of several models, column ``model`` numbers them.
    n_epochs : int
        Of the model that trained longest.
    callbacks : list
        The user's, as they ended.
    """

    modules: list[nn.Module]
    history: pd.DataFrame
    n_epochs: int
    callbacks: list[Any]


def learn_models(
    learn: Callable[[Fold], tuple[nn.Module, pd.DataFrame]], fold: Fold, n_models: int
) -> Learned:
    """Call `learn` once per model, each with random streams of its own."""
    folds = [fold.of_model(number) for number in range(n_models)]
    modules, histories = zip(*map(learn, folds), strict=True)
    numbered = [table.assign(model=number) for number, table in enumerate(histories)]
    return Learned(
        list(modules),
        histories[0] if n_models == 1 else pd.concat(numbered, ignore_index=True),
        max(map(len, histories)),
        [callback for fold in folds for callback in fold.callbacks],
    )
