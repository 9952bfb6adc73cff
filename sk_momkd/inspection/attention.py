"""Attention over the patches of each bag: what a heat map is drawn from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..models.momkd import MoMKDOutput
from ..nn.memory import attention_scores
from ..output import MILOutput
from .fitted import classifier_of, is_ensemble, seen_bags, shown_names


def patch_attention(clf: Any, bags: Any) -> pd.DataFrame:
    """Attention and score of every patch, with where it lies.

    Parameters
    ----------
    clf : fitted classifier of this package, or a Pipeline that ends in one
        Transformers of the pipeline are applied to the bags first.
    bags : bags in any form that `fit` accepts

    Returns
    -------
    DataFrame
        A row per patch that the classifier sees, bag after bag:

        ``bag_id, patient_id``
            The bag's place in `bags` where it has no id.
        ``patch``
            Place in the bag as it was given, also where a filter of the pipeline drops patches
            (-1 where it does and no coordinates tell which).
        ``x, y``
            Top-left corner in level-0 pixels; in micrometres where the bag has them so
            (``bag.info.unit``); NaN where they are unknown.
        ``attention``
            Sums to one over a bag.
        ``score``
            Before the softmax and comparable between slides: for MoMKD Eq. 6, the best match with
            class 1 minus that with class 0, in [-2, 2]. For other classifiers, and for an ensemble
            (whose attention is the mean over its models), the log of attention over 1/n: 0 is a
            patch that counts as the average does.

        ``slide_id``
            Only where a bag is of several slides (:func:`patient_bags`), whose coordinates
            overlap.

        Where a classifier has several maps, both columns come for each:
        ``attention_<class>``, or ``attention_group_<group>`` for groups of genes.

    Raises
    ------
    TypeError
        If `clf` has no attention; names the classifiers that have.
    BagError
        Naming the bag, if one is unusable.

    See Also
    --------
    patch_affinities : What the score is made of.
    to_geojson : The same for QuPath.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import ABMILClassifier, patch_attention
    >>> random = np.random.default_rng(0)
    >>> bags = [random.normal(2 * (i % 2), size=(5, 4)) for i in range(20)]
    >>> clf = ABMILClassifier(dim=8, max_epochs=2, random_state=0).fit(bags, np.arange(20) % 2)
    >>> attention = patch_attention(clf, bags[:2])
    >>> attention.groupby("bag_id")["attention"].sum().round(6).to_list()
    [1.0, 1.0]
    """
    model = classifier_of(clf)
    tables = []
    for seen in seen_bags(clf, bags):
        maps = seen.output.attention.double().numpy()
        scores = _scores(seen.output, maps, by_memory=not is_ensemble(model))
        table = seen.frame()
        for name, weights, score in zip(
            shown_names(model, maps.shape[1]), maps.T, scores.T, strict=True
        ):
            table[f"attention{name}"] = weights
            table[f"score{name}"] = score
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _scores(output: MILOutput, maps: NDArray, *, by_memory: bool) -> NDArray:
    if by_memory and isinstance(output, MoMKDOutput):
        return attention_scores(output.affinity).double().numpy()
    with np.errstate(divide="ignore"):  # a patch may have no weight at all
        return np.log(maps * len(maps))
