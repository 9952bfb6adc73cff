"""Scores of a slide, or of a cohort, as AnnData for scanpy and squidpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import NDArray

from ..data.bag import Bag
from ..estimators.momkd import MoMKDClassifier
from ..io.writers import anndata_key, slide_anndata
from ..nn.isolation import isolated
from .attention import patch_attention
from .evidence import evidence_columns, patch_evidence
from .fitted import fitted_classifier, fitted_momkd, momkd_output
from .inspected_bags import inspected_bags
from .memory import component_table
from .memory_patches import patch_affinities
from .predictions import prediction_table


def slide_scores(clf: Any, bag: Bag, *, evidence: bool = False) -> AnnData:
    """Return a slide as AnnData with the scores of its patches, for scanpy or squidpy.

    Parameters
    ----------
    clf : fitted classifier of this package, or a Pipeline that ends in one
    bag : Bag
        A single slide. The steps of a pipeline are applied to compute scores; the features in the
        result are those of `bag`.
    evidence : bool, default=False
        Add the columns of :func:`patch_evidence`.

    Returns
    -------
    AnnData
        The result of :func:`slide_anndata` with the columns ``attention`` and ``raw_attention`` of
        :func:`patch_attention` in ``obs``, with `evidence` also ``evidence_<class>`` and, for a
        MoMKD, the affinities in ``obsm["memory"]`` (columns named in ``uns["memory"]``). They are
        NaN for patches that a filter of the pipeline drops.

    Raises
    ------
    BagError
        If the bag has several slides, or is unusable.
    TypeError
        If `clf` has no attention.
    ValueError
        If a filter of the pipeline drops patches and coordinates do not identify the kept ones.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import ABMILClassifier, Bag, slide_scores
    >>> random = np.random.default_rng(0)
    >>> bags = [Bag(random.normal(2 * (i % 2), size=(5, 4))) for i in range(20)]
    >>> clf = ABMILClassifier(dim=8, max_epochs=2, random_state=0).fit(bags, np.arange(20) % 2)
    >>> slide_scores(clf, bags[0]).obs.columns.to_list()
    ['attention', 'raw_attention']
    """
    model = fitted_classifier(clf)
    attention = patch_attention(clf, [bag])
    rows, n = attention["patch"].to_numpy(), bag.n_instances
    table = attention.filter(regex="^(raw_)?attention")
    if evidence:
        table = table.join(patch_evidence(clf, [bag])[evidence_columns(model)])
    scores = {str(c): _in_bag(table[[c]].to_numpy(), rows, n, bag)[:, 0] for c in table.columns}
    if not isinstance(model, MoMKDClassifier):
        return slide_anndata(bag, scores)
    affinities = patch_affinities(clf, [bag])
    slide = slide_anndata(bag, scores | {"memory": _in_bag(affinities.X, rows, n, bag)})
    slide.uns["memory"] = affinities.var_names.to_list()
    return slide


def _in_bag(values: NDArray, rows: NDArray, n: int, bag: Bag) -> NDArray:
    if (rows < 0).any():
        raise ValueError(
            f"{bag.name}: a filter of the pipeline drops patches, and without coordinates it "
            "is unknown which. Pass the bag that the filter returns."
        )
    filled = np.full((n, values.shape[1]), np.nan, dtype=values.dtype)
    filled[rows] = values
    return filled


def cohort_scores(clf: Any, bags: Any, y: Any = None) -> AnnData:
    """Return a cohort as AnnData with a row per slide, for clustering and embedding.

    Parameters
    ----------
    clf : fitted classifier of this package, or a Pipeline that ends in one
    bags : bags in any form that `fit` accepts
    y : array-like of shape (n_bags,), optional
        Labels, which become a column of ``obs``.

    Returns
    -------
    AnnData
        ``obs`` holds the columns of :func:`prediction_table`, with rows named by bag. ``X`` holds,
        for a MoMKD, each slide's cosine with each memory component (``var`` has ``class,
        component``; of an ensemble the first model is used) and, for other classifiers, the
        probabilities.

    Raises
    ------
    TypeError
        If `clf` is not a classifier of this package.
    BagError
        If a bag is unusable; names it.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import MoMKDClassifier, cohort_scores
    >>> random = np.random.default_rng(0)
    >>> bags = [random.normal(2 * (i % 2), size=(5, 4)) for i in range(20)]
    >>> clf = MoMKDClassifier(hidden_dim=8, n_components=3, max_epochs=1, random_state=0)
    >>> cohort_scores(clf.fit(bags, np.arange(20) % 2), bags).shape
    (20, 6)
    """
    model = fitted_classifier(clf)
    obs = prediction_table(clf, bags, y, allow_training_patients=True)
    obs = obs.rename(columns=anndata_key)
    obs.index = obs["bag_id"].astype(str).rename(None)
    obs["patient_id"] = obs["patient_id"].astype("category")
    if isinstance(model, MoMKDClassifier):
        first = fitted_momkd(clf)
        var = component_table(first).astype({"class": str})
        return AnnData(_slide_affinities(clf, bags, first), obs=obs, var=var)
    names = [anndata_key(f"p_{c}") for c in model.classes_]
    return AnnData(obs[names].to_numpy(), obs=obs, var=pd.DataFrame(index=names))


@isolated()
def _slide_affinities(clf: Any, bags: Any, model: MoMKDClassifier) -> NDArray:
    """Cosines of slides with the components of the memory of `model`."""
    rows = model._memory().directions().detach().flatten(0, 1).T
    outputs = (momkd_output(s.output) for s in inspected_bags(clf, bags, model))
    return (torch.cat([output.slide_projection for output in outputs]) @ rows).numpy()
