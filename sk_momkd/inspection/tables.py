"""Predictions and scores as tables that other tools read: AnnData, STAMP's CSV."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import NDArray
from sklearn.utils.validation import check_consistent_length

from ..data.bag import Bag
from ..data.sequence import as_bags
from ..estimators.momkd import MoMKDClassifier
from ..io.atomic import atomic_write
from ..io.writers import slide_anndata
from ..messages import first_few
from .attention import patch_attention
from .fitted import classifier_of, momkd_of, momkd_output, seen_bags
from .memory import component_table, patch_affinities

_OF_STAMP = ("PATIENT", "pred", "loss")


def prediction_table(clf: Any, bags: Any, y: Any = None) -> pd.DataFrame:
    """Ids, labels and probabilities of bags.

    Parameters
    ----------
    clf : fitted classifier, or a Pipeline that ends in one
    bags : bags in any form that `fit` accepts
    y : array-like of shape (n_bags,), optional

    Returns
    -------
    DataFrame
        ``bag_id, patient_id, y`` (where given), ``p_<class>`` for each class and ``predicted``.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import ABMILClassifier, prediction_table
    >>> random = np.random.default_rng(0)
    >>> bags = [random.normal(2 * (i % 2), size=(5, 4)) for i in range(20)]
    >>> clf = ABMILClassifier(dim=8, max_epochs=2, random_state=0).fit(bags, np.arange(20) % 2)
    >>> prediction_table(clf, bags[:2]).columns.to_list()
    ['bag_id', 'patient_id', 'p_0', 'p_1', 'predicted']
    """
    bags = as_bags(bags)
    proba = np.asarray(clf.predict_proba(bags))
    table = pd.DataFrame(
        {
            "bag_id": [bags.name(i) if b.bag_id is None else b.bag_id for i, b in enumerate(bags)],
            "patient_id": [bag.patient_id for bag in bags],
        }
    )
    if y is not None:
        check_consistent_length(bags, y)
        table["y"] = np.asarray(y)
    for c, column in zip(clf.classes_, proba.T, strict=True):
        table[f"p_{c}"] = column
    table["predicted"] = np.asarray(clf.classes_)[proba.argmax(axis=1)]
    return table


def to_stamp(predictions: pd.DataFrame, path: str | PathLike, *, label: str) -> pd.DataFrame:
    """Write predictions as STAMP's ``patient-preds.csv``, for its statistics and plots.

    Parameters
    ----------
    predictions : DataFrame
        With ``patient_id`` (or ``bag_id`` where that is unknown), ``p_<class>`` and, where the
        truth is known, ``y``: of :func:`prediction_table`, or the ``predictions`` of
        :func:`evaluate`. Probabilities are averaged over the rows of a patient.
    path : path
        The file appears whole or not at all.
    label : str
        Name of the ground truth's column.

    Returns
    -------
    DataFrame
        What was written: ``PATIENT``, `label`, ``pred``, ``<label>_<class>``, ``loss`` (cross-
        entropy; empty without the truth), patients ordered by their loss as STAMP does.

    Raises
    ------
    ValueError
        If a column is absent, slides of a patient differ in their label, or `label` is the name
        of another column.

    Examples
    --------
    >>> import tempfile
    >>> import pandas as pd
    >>> from sk_momkd import to_stamp
    >>> table = pd.DataFrame(
    ...     {"patient_id": ["A", "A"], "y": "MSI", "p_MSI": [0.9, 0.7], "p_MSS": [0.1, 0.3]}
    ... )
    >>> to_stamp(table, tempfile.mkdtemp() + "/patient-preds.csv", label="isMSI").round(3)
      PATIENT isMSI pred  isMSI_MSI  isMSI_MSS   loss
    0       A   MSI  MSI        0.8        0.2  0.223
    """
    if label in _OF_STAMP:
        raise ValueError(f"label {label!r} is a column of its own in STAMP's table; rename it.")
    columns = [str(c) for c in predictions.columns if str(c).startswith("p_")]
    if not columns or "patient_id" not in predictions:
        raise ValueError(
            "predictions need columns patient_id and p_<class>, as prediction_table gives them; "
            f"got {list(predictions.columns)}."
        )
    patient = predictions["patient_id"]
    if "bag_id" in predictions:
        patient = patient.where(patient.notna(), predictions["bag_id"])
    if patient.isna().any():
        raise ValueError("A row has neither a patient id nor a bag id.")
    grouped = predictions.groupby(patient.astype(str).to_numpy(), sort=False)
    proba = grouped[columns].mean()
    classes = [c.removeprefix("p_") for c in columns]
    table = pd.DataFrame({"PATIENT": proba.index})
    truth = _truth(predictions, grouped, classes)
    table[label] = None if truth is None else truth
    table["pred"] = np.array(classes, dtype=object)[proba.to_numpy().argmax(axis=1)]
    for name, column in zip(classes, columns, strict=True):
        table[f"{label}_{name}"] = proba[column].to_numpy()
    table["loss"] = np.nan if truth is None else _loss(proba.to_numpy(), truth, classes)
    table = table.sort_values("loss", kind="stable", na_position="last", ignore_index=True)
    with atomic_write(Path(path)) as part:
        table.to_csv(part, index=False)
    return table


def _truth(predictions: pd.DataFrame, grouped: Any, classes: list[str]) -> NDArray | None:
    if "y" not in predictions:
        return None
    torn = grouped["y"].nunique(dropna=False) > 1
    if torn.any():
        raise ValueError(
            f"{torn.sum()} patients have slides with different labels: "
            f"{first_few(torn.index[torn])}. Export slides, one patient_id each."
        )
    truth = grouped["y"].first()
    unknown = sorted({str(c) for c in truth.dropna()} - set(classes))
    if unknown:
        raise ValueError(f"y holds {unknown[0]!r}, but the probabilities are of {classes}.")
    return truth.map(str, na_action="ignore").to_numpy(dtype=object)


def _loss(proba: NDArray, truth: NDArray, classes: list[str]) -> NDArray:
    place = {c: k for k, c in enumerate(classes)}
    own = [p[place[c]] if c in place else np.nan for p, c in zip(proba, truth, strict=True)]
    return -np.log(np.clip(np.asarray(own, dtype=float), np.finfo(float).tiny, None))


def slide_scores(clf: Any, bag: Bag) -> AnnData:
    """One slide as AnnData with what the classifier made of each patch, for scanpy or squidpy.

    Parameters
    ----------
    clf : fitted classifier of this package, or a Pipeline that ends in one
    bag : Bag
        As it was read; the pipeline's steps are applied for the scores alone.

    Returns
    -------
    AnnData
        That of :func:`slide_anndata`, with the columns of :func:`patch_attention` in ``obs``
        and, of a MoMKD, the affinities in ``obsm["memory"]`` (columns named in
        ``uns["memory"]``). Patches that a filter of the pipeline drops have NaN.

    Raises
    ------
    BagError
        If the bag is of several slides, or cannot be used.
    TypeError
        If `clf` has no attention.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import ABMILClassifier, Bag, slide_scores
    >>> random = np.random.default_rng(0)
    >>> bags = [Bag(random.normal(2 * (i % 2), size=(5, 4))) for i in range(20)]
    >>> clf = ABMILClassifier(dim=8, max_epochs=2, random_state=0).fit(bags, np.arange(20) % 2)
    >>> slide_scores(clf, bags[0]).obs.columns.to_list()
    ['attention', 'score']
    """
    model = classifier_of(clf)
    attention = patch_attention(clf, [bag])
    names = [str(c) for c in attention if str(c).startswith(("attention", "score"))]
    rows = attention["patch"].to_numpy()
    n = bag.n_instances
    scores = {name: _in_bag(attention[[name]].to_numpy(), rows, n, bag)[:, 0] for name in names}
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
            "cannot be told which. Export the bag that the filter gives out."
        )
    filled = np.full((n, values.shape[1]), np.nan, dtype=values.dtype)
    filled[rows] = values
    return filled


def cohort_scores(clf: Any, bags: Any, y: Any = None) -> AnnData:
    """A cohort as AnnData: a row per slide, for clustering, embedding and comparison.

    Parameters
    ----------
    clf : fitted classifier of this package, or a Pipeline that ends in one
    bags : bags in any form that `fit` accepts
    y : array-like of shape (n_bags,), optional

    Returns
    -------
    AnnData
        ``obs``: the columns of :func:`prediction_table`, rows named by bag. ``X``: of a MoMKD
        each slide's cosine with each memory component (``var``: ``class, component``; of an
        ensemble the first model's), of another classifier the probabilities.

    Raises
    ------
    TypeError
        If `clf` is no classifier of this package.

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
    model = classifier_of(clf)
    obs = prediction_table(clf, bags, y)
    obs.index = obs["bag_id"].astype(str).rename(None)
    obs["patient_id"] = obs["patient_id"].astype("category")
    if isinstance(model, MoMKDClassifier):
        first = momkd_of(clf)
        rows = first._memory().directions().detach().flatten(0, 1).T
        projections = [momkd_output(s.output).slide_projection for s in seen_bags(clf, bags, first)]
        var = component_table(first).astype({"class": str})
        return AnnData((torch.cat(projections) @ rows).numpy(), obs=obs, var=var)
    names = [f"p_{c}" for c in model.classes_]
    return AnnData(obs[names].to_numpy(), obs=obs, var=pd.DataFrame(index=names))
