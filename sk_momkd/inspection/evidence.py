"""Contribution of each patch to the logits: which patches speak for a class."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..bag_warnings import warn_of_bag, warns_together
from ..data.arrays import check_n_features
from ..data.sequence import BagSequence
from ..estimators.base import BaseMILClassifier
from ..nn.blocks import materialize
from ..nn.edges import Edges
from ..nn.isolation import isolated
from ..nn.precision import upcast
from ..training.batches import FlatBatch
from .fitted import fitted_classifier
from .inspected_bags import located_bags, transformed_bags
from .integrated_gradients import mean_gradient

_STEPS_OF_SUMS, _STEPS_OF_FEATURES = 1024, 64
_TOLERANCE = 0.01  # of the sum of the evidence; a larger error is reported


def patch_evidence(
    clf: Any, bags: Any, *, reference: Any = None, n_steps: int | None = None
) -> pd.DataFrame:
    """Contribution of each patch to the logits: positive for a class, negative against it.

    Attention shows where a model looks, evidence which class a patch speaks for. The evidence of
    the patches of a slide sums to its logit minus the logit of a slide that consists of one
    reference patch.

    Parameters
    ----------
    clf : fitted classifier of this package, or a Pipeline that ends in one
        Transformers of the pipeline are applied to the bags first.
    bags : bags in any form that `fit` accepts
    reference : bags, optional
        Bags whose mean patch is the reference, transformed like `bags`; each has equal weight. By
        default the reference is that of the training slides, ``mean_patch_``.
    n_steps : int, optional
        Number of points at which gradients are integrated; more reduce the error of the sum. The
        default is 1024, or 64 for TransMIL and G-HANet, where each is a pass through the network.

    Returns
    -------
    DataFrame
        A row per patch with columns ``bag_id, patient_id, patch, x, y`` (and ``slide_id``) as in
        :func:`patch_attention`, and ``evidence_<class>``. For two classes there is one column,
        that of the positive class: its logit minus that of the other class. For more, there is one
        for each class: its logit minus the mean of the others'.

    Raises
    ------
    TypeError
        If `clf` is no classifier of this package.
    ValueError
        If `n_steps` is less than 1, or there is no reference: a classifier that was not fitted
        here has no ``mean_patch_``.
    BagError
        If a bag is unusable; names it.

    Warns
    -----
    UserWarning
        If the evidence of a slide sums to another difference of logits by more than 1%.

    See Also
    --------
    patch_attention : Weights of the patches.
    to_geojson : Writes the table for QuPath.
    AttentionMapDisplay : Draws it with ``column="evidence"``.

    Notes
    -----
    Most methods compute logits from weighted sums of patch embeddings, ``V = sum a_i F_i``. There,
    the evidence of patch i is ``a_i (F_i - F_0) . G``. F_0 is the embedding of the reference patch
    and G the gradient of the logits, averaged over the line from F_0 to V (integrated gradients).
    Weights and embeddings are those of the slide, so that neighbours of a patch that its embedding
    reads are credited to the patch. With a linear head (ABMIL, MKD, TDC, MoMKD with
    ``network__head="linear"``) G is the head's weight, and the evidence is exact.

    TransMIL and G-HANet do not form such sums, and networks of your own need not. There, the
    evidence is ``(x_i - x_0) . G`` with the
    gradient for the features x_i of the patch, averaged over the line from the reference patch to
    the slide. It needs `n_steps` passes through the network, and the slide of reference patches
    has as many patches as the slide. G-HANet's choice of patches, which has no gradient, is held
    as it is in the slide. In a network of your own, `attend` and `classify`, as in the networks of
    this package, give it weighted sums.

    With several models (``n_models``), logits and evidence are means over the models. With
    ``pooled_share``, the logits of the regression on pooled slides join them, of which the
    evidence is exact.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import ABMILClassifier, patch_evidence
    >>> random = np.random.default_rng(0)
    >>> bags = [random.normal(2 * (i % 2), size=(5, 4)) for i in range(20)]
    >>> clf = ABMILClassifier(dim=8, max_epochs=2, random_state=0).fit(bags, np.arange(20) % 2)
    >>> evidence = patch_evidence(clf, bags[:2])
    >>> total = evidence.groupby("bag_id")["evidence_1"].sum()
    >>> start = clf.decision_function([clf.mean_patch_[None]])
    >>> np.allclose(start + total, clf.decision_function(bags[:2]), atol=1e-5)
    True
    """
    if n_steps is not None and n_steps < 1:
        raise ValueError(f"n_steps must be at least 1, got {n_steps}.")
    model = fitted_classifier(clf)
    patch = torch.from_numpy(_reference_patch(clf, model, reference))
    compute = partial(_evidence_of_bags, model, patch=patch, n_steps=n_steps)
    tables = []
    for located, evidence in located_bags(clf, bags, compute):
        table = located.patch_table()
        for name, values in zip(evidence_columns(model), evidence.T, strict=True):
            table[name] = values
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def evidence_columns(model: BaseMILClassifier) -> list[str]:
    """``evidence_<class>`` of the positive one of two classes, or of each of several."""
    classes = model._network_classes  # of two, the second is the positive one
    classes = classes[1:] if len(classes) == 2 else classes
    return [f"evidence_{c}" for c in classes]


def _reference_patch(clf: Any, model: BaseMILClassifier, reference: Any) -> NDArray:
    """Features (n_features,), float32, of the reference patch as it reaches the classifier."""
    if reference is None:
        if not hasattr(model, "mean_patch_"):
            raise ValueError(
                f"This {type(model).__name__} was not fitted here and does not know the mean patch "
                "of its training slides. Pass reference=, bags whose mean patch is the reference."
            )
        return model.mean_patch_
    _, bags = transformed_bags(clf, reference)
    total = np.zeros(model.n_features_in_)
    for i, bag in enumerate(bags):
        features = bag.load(bags.name(i)).features
        check_n_features(features.shape[1], bags.name(i), model.n_features_in_)
        total += features.mean(axis=0, dtype=float)
    return (total / len(bags)).astype(np.float32)


@warns_together
def _evidence_of_bags(
    model: BaseMILClassifier, bags: BagSequence, *, patch: Tensor, n_steps: int | None
) -> Generator[NDArray]:
    """Evidence (n_patches, n_columns) of each bag, mean over the models."""
    if n_steps is None:
        n_steps = _STEPS_OF_SUMS if hasattr(model.module_, "classify") else _STEPS_OF_FEATURES
    for name, batch, modules in model._single_bag_batches(bags):
        start = patch.to(batch.x.device, batch.x.dtype).unsqueeze(0)  # (1, n_features)
        with isolated(), torch.no_grad():
            parts = [_evidence(module, batch, start, n_steps) for module in modules]
        evidence = torch.stack([found for found, _ in parts]).mean(dim=0)  # (n, columns)
        expected = torch.stack([change for _, change in parts]).mean(dim=0)  # (columns,)
        _check_sum(name, evidence.sum(dim=0), expected, n_steps)
        if (head := model._pooled_head) is not None:
            with isolated():
                pooled = logit_differences(head.contributions(batch.x, start[0]))
            evidence = torch.lerp(evidence.cpu(), pooled, head.share)
        yield evidence.cpu().numpy()


def _check_sum(name: str, total: Tensor, expected: Tensor, n_steps: int) -> None:
    error = float((total - expected).abs().max())
    if error > _TOLERANCE * max(1.0, float(expected.abs().max())):
        warn_of_bag(
            name,
            f"its evidence sums to the difference of its logits only within {error:.2g}. "
            f"Use more than n_steps={n_steps}.",
            UserWarning,
        )


def _evidence(
    module: nn.Module, batch: FlatBatch, patch: Tensor, n_steps: int
) -> tuple[Tensor, Tensor]:
    """Evidence (n, columns) of the patches, and the change of the logits that it explains."""
    if hasattr(module, "classify"):
        return _evidence_in_sums(module, batch, patch, n_steps)
    return _evidence_of_features(module, batch, patch, n_steps)


def _evidence_in_sums(
    module: Any, batch: FlatBatch, patch: Tensor, n_steps: int
) -> tuple[Tensor, Tensor]:
    """Evidence in a model whose logits are `classify` of weighted sums of what it attends to."""
    alone = Edges.of(torch.empty(2, 0, dtype=torch.int64), 1).to(patch.device)
    rows, weights = module.attend(patch, alone, batch.batch[:1], 1)
    start = weights.T @ upcast(rows)  # (maps, D)
    rows, weights = module.attend(batch.x, batch.edges, batch.batch, 1)
    rows = upcast(rows)
    end = weights.T @ rows  # (maps, D)

    def differences(pooled: Tensor) -> Tensor:
        return logit_differences(module.classify(pooled))

    gradient = mean_gradient(differences, start, end, n_steps=n_steps)  # (columns, maps, D)
    change = (differences(end[None]) - differences(start[None]))[0]
    offset = (gradient * start).sum(dim=2)  # (columns, maps)
    towards = torch.einsum("nd,cmd->nmc", rows, gradient) - offset.T  # (n, maps, columns)
    return (weights.double().unsqueeze(2) * towards).sum(dim=1), change.double()


def _evidence_of_features(
    module: Any, batch: FlatBatch, patch: Tensor, n_steps: int
) -> tuple[Tensor, Tensor]:
    """Evidence from the gradients of the logits for the features of the patches."""
    end = upcast(materialize(batch.x))  # (n, n_features)
    start = upcast(patch).expand_as(end)
    # Choices without gradient, of a module that makes any, are held as they are for `end`.
    held = module.choices(end) if hasattr(module, "choices") else {}

    def differences(points: Tensor) -> Tensor:
        outputs = [module(x, batch.edges, batch.batch, 1, **held) for x in points]
        return torch.cat([logit_differences(output.logits) for output in outputs])

    gradient = mean_gradient(differences, start, end, n_steps=n_steps)  # (columns, n, n_features)
    change = (differences(end[None]) - differences(start[None]))[0]
    return ((end - start).double() * gradient).sum(dim=2).T, change.double()


def logit_differences(logits: Tensor) -> Tensor:
    """Logit of each class minus the mean of the others'; of two classes, of the second alone.

    (B, K) -> (B, 1) for two classes; (B, K) for more.

    Examples
    --------
    >>> logit_differences(torch.tensor([[1.0, 3.0], [2.0, 2.0]]))
    tensor([[2.],
            [0.]])
    """
    n_classes = logits.shape[1]
    if n_classes == 2:
        return logits[:, 1:] - logits[:, :1]
    return (n_classes * logits - logits.sum(dim=1, keepdim=True)) / (n_classes - 1)
