"""How patches match the memory of a fitted MoMKD: all cosines, and the best matches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from ..estimators.momkd import MoMKDClassifier
from .fitted import fitted_momkd, momkd_output
from .inspected_bags import inspected_bags
from .memory import component_table


def patch_affinities(clf: Any, bags: Any) -> AnnData:
    """Compute the cosine of every patch with every memory component.

    Parameters
    ----------
    clf : fitted MoMKDClassifier, or a Pipeline that ends in one
        Of an ensemble, the first model is used.
    bags : bags in any form that `fit` accepts

    Returns
    -------
    AnnData of shape (n_patches, n_classes * n_components), float32
        ``X`` holds the cosines. ``obs`` holds ``bag_id, patient_id, patch, x, y`` as in
        :func:`patch_attention`, ``var`` holds ``class`` and ``component``, named like the columns
        of ``clf.transform``, and ``obsm["spatial"]`` holds x and y.

    Raises
    ------
    TypeError
        If `clf` has no memory.
    BagError
        If a bag is unusable; names it.

    See Also
    --------
    top_patches : Keeps the best matches only, and never holds the table of all patches.

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
    model = fitted_momkd(clf)
    parts = list(_tables_and_affinities(model, clf, bags))
    obs = pd.concat([table for table, _ in parts], ignore_index=True)
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
    """Find the patches that match each memory component best (Fig. 4).

    Parameters
    ----------
    clf : fitted MoMKDClassifier, or a Pipeline that ends in one
        Of an ensemble, the first model is used.
    bags : bags in any form that `fit` accepts
    n : int, default=3
        Number of patches per component.
    one_per_bag : bool, default=False
        Take at most one patch of each slide, so that the patches show what slides have in common.

    Returns
    -------
    DataFrame
        Up to `n` rows per component, the best match first: ``class, component, rank`` (from 1),
        ``bag_id, patient_id, patch, x, y`` as in :func:`patch_attention`, and ``affinity``, the
        cosine with the component.

    Raises
    ------
    TypeError
        If `clf` has no memory.
    ValueError
        If `n` is less than 1.
    BagError
        If a bag is unusable; names it.

    See Also
    --------
    patch_affinities : Returns the cosines of all patches.
    PrototypeDisplay : Draws the top patches.

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
    model = fitted_momkd(clf)
    components = component_table(model)
    best = pd.DataFrame()
    for table, affinity in _tables_and_affinities(model, clf, bags):
        kept = min(1 if one_per_bag else n, len(table))
        rows = np.argsort(-affinity, axis=0, kind="stable")[:kept]  # (kept, K * m)
        found = table.iloc[rows.T.ravel()].reset_index(drop=True)
        found["affinity"] = np.take_along_axis(affinity, rows, axis=0).T.ravel().astype(float)
        found["row"] = np.repeat(np.arange(len(components)), kept)
        best = _best(pd.concat([best, found], ignore_index=True), n)
    best["rank"] = best.groupby("row").cumcount() + 1
    which = components.iloc[best.pop("row")].reset_index(drop=True)
    return pd.concat([which, best[["rank", *best.columns.drop("rank")]]], axis=1)


def _best(found: pd.DataFrame, n: int) -> pd.DataFrame:
    """Keep the `n` best rows of each component; of equal ones, the first."""
    ordered = found.sort_values("affinity", ascending=False, kind="stable")
    kept = ordered.groupby("row").head(n)
    return kept.sort_values("row", kind="stable").reset_index(drop=True)


def _tables_and_affinities(
    model: MoMKDClassifier, clf: Any, bags: Any
) -> Iterator[tuple[pd.DataFrame, NDArray]]:
    """Of each bag the table of its patches and their cosines (n_patches, n_components)."""
    for inspected in inspected_bags(clf, bags, model):
        yield inspected.patch_table(), momkd_output(inspected.output).affinity.flatten(1).numpy()
