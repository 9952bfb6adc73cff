"""Attention over the patches of each bag, as a table; heat maps are drawn from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..models.momkd import MoMKDOutput
from ..nn.memory import attention_scores
from ..output import MILOutput
from .fitted import fitted_classifier, is_ensemble
from .inspected_bags import inspected_bags, map_suffixes


def patch_attention(clf: Any, bags: Any) -> pd.DataFrame:
    """Attention and position of every patch: where the classifier looks.

    Attention does not say which class a patch speaks for; :func:`patch_evidence` does. It is that
    of the network; a regression on pooled slides (``pooled_share``) has none.

    Parameters
    ----------
    clf : fitted classifier of this package, or a Pipeline that ends in one
        Transformers of the pipeline are applied to the bags first.
    bags : bags in any form that `fit` accepts

    Returns
    -------
    DataFrame
        A row per patch that reaches the classifier, bag after bag, with columns

        ``bag_id, patient_id``
            Ids of the bag. A bag without id is named by its position in `bags`.
        ``patch``
            Position in the bag that was passed, also where a filter of the pipeline drops patches
            (-1 where it does and coordinates do not identify the kept ones).
        ``x, y``
            Top-left corner in level-0 pixels, or in micrometres for bags in micrometres
            (``bag.info.unit``); NaN where it is unknown.
        ``slide_id``
            Only for bags of several slides (:func:`patient_bags`), whose coordinates overlap.
        ``attention``
            Attention weight; the weights of a bag sum to one.
        ``raw_attention``
            Value before the softmax, comparable between slides. For MoMKD it is Eq. 6: the best
            match with the positive class minus that with the other, in [-2, 2]. For other
            classifiers, and for an ensemble (whose attention is the mean over its models), it is
            the logarithm of the attention over 1/n: 0 for a patch of average weight.

        A classifier with several maps has both columns for each map: ``attention_<class>``, or
        ``attention_group_<group>`` for groups of genes.

    Raises
    ------
    TypeError
        If `clf` has no attention; names the classifiers that have it.
    BagError
        If a bag is unusable; names it.

    See Also
    --------
    patch_evidence : Which class each patch speaks for.
    patch_affinities : Cosines from which Eq. 6 is computed.
    to_geojson : Writes the table for QuPath.

    Notes
    -----
    The sign of Eq. 6 is no evidence for a class, although it compares the memories of the classes.
    Attention multiplies embeddings that the head reads, whichever class they speak for, and the
    cross-entropy gives large values to the patches that tell classes apart, also to those of the
    class whose memory Eq. 6 subtracts: ``docs/inspection.md`` has numbers.

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
    model = fitted_classifier(clf)
    tables = []
    for inspected in inspected_bags(clf, bags):
        maps = inspected.output.attention.double().numpy()
        scores = _scores(inspected.output, maps, by_memory=not is_ensemble(model))
        table = inspected.patch_table()
        for name, weights, score in zip(
            map_suffixes(model, maps.shape[1]), maps.T, scores.T, strict=True
        ):
            table[f"attention{name}"] = weights
            table[f"raw_attention{name}"] = score
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _scores(output: MILOutput, maps: NDArray, *, by_memory: bool) -> NDArray:
    if by_memory and isinstance(output, MoMKDOutput):
        return attention_scores(output.affinity).double().numpy()
    with np.errstate(divide="ignore"):  # the weight of a patch may be 0
        return np.log(maps * len(maps))
