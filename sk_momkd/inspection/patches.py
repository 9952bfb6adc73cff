"""How patches match the memory, and which match each component best."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from ..estimators.momkd import MoMKDClassifier
from .fitted import momkd_of, momkd_output, seen_bags
from .memory import component_table


def patch_affinities(clf: Any, bags: Any) -> AnnData:
    """Cosine of every patch with every memory component.

    Parameters
    ----------
    clf : fitted MoMKDClassifier, or a Pipeline that ends in one
        Of an ensemble, its first model.
    bags : bags in any form that `fit` accepts

    Returns
    -------
    AnnData of shape (n_patches, n_classes * n_components), float32
        ``obs``: ``bag_id, patient_id, patch, x, y`` as in :func:`patch_attention`; ``var``:
        ``class`` and ``component``, named as the columns of ``clf.transform``;
        ``obsm["spatial"]``: x and y.

    Raises
    ------
    TypeError
        If `clf` has no memory.

    See Also
    --------
    top_patches : The best matches alone; holds no table of all patches.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import MoMKDClassifier, patch_affinities
    >>> random = np.random.default_rng(0)
    >>> bags = [random.normal(2 * (i % 2), size=(5, 4)) for i in range(20)]
    >>> clf = MoMKDClassifier(hidden_dim=8, n_components=3, max_epochs=1, random_state=0)
    >>> patch_affinities(clf.fit(bags, np.arange(20) % 2), bags[:2]).shape
    (10, 6)
    """
    model = momkd_of(clf)
    parts = list(_frames_and_affinities(model, clf, bags))
    obs = pd.concat([frame for frame, _ in parts], ignore_index=True)
    spatial = obs[["x", "y"]].to_numpy()
    obs = obs.astype({"bag_id": "category", "patient_id": "category"})
    obs.index = obs.index.astype(str)
    var = component_table(model)
    var["class"] = var["class"].astype(str)
    return AnnData(
        np.concatenate([affinity for _, affinity in parts]),
        obs=obs,
        var=var,
        obsm={"spatial": spatial},
    )


def top_patches(clf: Any, bags: Any, n: int = 3, *, one_per_bag: bool = False) -> pd.DataFrame:
    """The patches that match each memory component best (Fig. 4).

    Parameters
    ----------
    clf : fitted MoMKDClassifier, or a Pipeline that ends in one
        Of an ensemble, its first model.
    bags : bags in any form that `fit` accepts
    n : int, default=3
    one_per_bag : bool, default=False
        At most one patch of each slide, so that they show what slides have in common.

    Returns
    -------
    DataFrame
        ``class, component, rank`` (from 1), ``bag_id, patient_id, patch, x, y`` as in
        :func:`patch_attention`, and ``affinity``, the cosine with the component. Fewer than `n`
        rows of a component where there are fewer patches.

    Raises
    ------
    TypeError
        If `clf` has no memory.
    ValueError
        If `n` is less than 1.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import MoMKDClassifier, top_patches
    >>> random = np.random.default_rng(0)
    >>> bags = [random.normal(2 * (i % 2), size=(5, 4)) for i in range(20)]
    >>> clf = MoMKDClassifier(hidden_dim=8, n_components=3, max_epochs=1, random_state=0)
    >>> best = top_patches(clf.fit(bags, np.arange(20) % 2), bags, n=2)
    >>> best.groupby(["class", "component"]).size().to_list()
    [2, 2, 2, 2, 2, 2]
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}.")
    model = momkd_of(clf)
    components = component_table(model)
    best = pd.DataFrame()
    for frame, affinity in _frames_and_affinities(model, clf, bags):
        kept = min(1 if one_per_bag else n, len(frame))
        rows = np.argsort(-affinity, axis=0, kind="stable")[:kept]  # (kept, K * m)
        found = frame.iloc[rows.T.ravel()].reset_index(drop=True)
        found["affinity"] = np.take_along_axis(affinity, rows, axis=0).T.ravel().astype(float)
        found["row"] = np.repeat(np.arange(len(components)), kept)
        best = _best(pd.concat([best, found], ignore_index=True), n)
    best["rank"] = best.groupby("row").cumcount() + 1
    which = components.iloc[best.pop("row")].reset_index(drop=True)
    return pd.concat([which, best[["rank", *best.columns.drop("rank")]]], axis=1)


def _best(found: pd.DataFrame, n: int) -> pd.DataFrame:
    """The `n` best of each component; of equal ones those that came first."""
    ordered = found.sort_values("affinity", ascending=False, kind="stable")
    kept = ordered.groupby("row").head(n)
    return kept.sort_values("row", kind="stable").reset_index(drop=True)


def _frames_and_affinities(
    model: MoMKDClassifier, clf: Any, bags: Any
) -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
    for seen in seen_bags(clf, bags, model):
        yield seen.frame(), momkd_output(seen.output).affinity.flatten(1).numpy()
