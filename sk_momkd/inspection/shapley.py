"""Shapley values: how much each memory component contributes to a slide's prediction."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from torch import Tensor

from ..estimators.momkd import MoMKDClassifier
from ..models.momkd import MoMKD
from ..nn.isolation import isolated
from ..nn.memory import attention_scores
from ..nn.precision import upcast
from .fitted import fitted_momkd, momkd_output
from .inspected_bags import InspectedBag, inspected_bags
from .memory import component_table

_VALUES_AT_ONCE = 2**21  # affinities, over coalitions, that are held in memory together


@dataclass(frozen=True)
class PredictionExplanation:
    """Attributions of predictions to components; the result of :func:`explain_prediction`.

    Attributes
    ----------
    components : DataFrame, a row per bag and component
        ``bag_id, patient_id, class, component``; ``attribution``, the change of the target's
        probability; and ``affinity``, the slide's cosine with the component.
    bags : DataFrame, a row per bag
        ``bag_id, patient_id, target``; ``probability`` of the target; ``uniform``, its probability
        if all patches had equal weight; and ``error``, the absolute difference between
        ``probability`` and the sum of ``uniform`` and the attributions.
    fidelity_error : float
        The largest ``error``. It is zero up to rounding.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import MoMKDClassifier, explain_prediction
    >>> random = np.random.default_rng(0)
    >>> bags = [random.normal(2 * (i % 2), size=(5, 4)) for i in range(20)]
    >>> clf = MoMKDClassifier(hidden_dim=8, n_components=3, max_epochs=1, random_state=0)
    >>> found = explain_prediction(clf.fit(bags, np.arange(20) % 2), bags[:2], random_state=0)
    >>> found.components.columns.to_list()
    ['bag_id', 'patient_id', 'class', 'component', 'attribution', 'affinity']
    """

    components: pd.DataFrame
    bags: pd.DataFrame
    fidelity_error: float

    def __str__(self) -> str:
        size = self.components.assign(size=self.components["attribution"].abs())
        mean = size.groupby(["class", "component"], sort=False)["size"].mean()
        strongest = mean.sort_values(ascending=False).head(5)
        return (
            f"Attributions of {len(self.bags)} predictions to memory components; largest error "
            f"{self.fidelity_error:.1e}\n"
            f"Largest mean absolute attributions:\n{strongest.to_string(float_format='%.4f')}"
        )


def explain_prediction(
    clf: Any,
    bags: Any,
    *,
    target: Any = None,
    n_permutations: int = 5,
    random_state: Any = None,
) -> PredictionExplanation:
    """Attribute the probability of each slide to the memory components (Shapley values).

    The head of MoMKD does not read affinities. It reads V, the mean of the patch embeddings
    weighted by attention, and the attention is computed from the affinities (Eq. 6-8). A component
    therefore contributes by distinguishing patches. A component is removed by setting each patch's
    affinity with it to the mean over the slide. Without any component all patches have equal
    weight, and the probability is ``uniform``; with all of them it is that of ``predict_proba``.
    The Shapley values of the components sum to the difference. They are computed with the network
    itself; no surrogate model is fitted. The regression of ``pooled_share`` reads no attention: its
    logits are in ``uniform`` as in the prediction.

    Parameters
    ----------
    clf : fitted MoMKDClassifier, or a Pipeline that ends in one
        Of an ensemble, the first model is used.
    bags : bags in any form that `fit` accepts
    target : class label, optional
        Class whose probability is explained. The default is the positive one of two classes, and
        the predicted class of each slide where there are more.
    n_permutations : int, default=5
        Number of random orders in which components are added, each used forward and backward.
        More orders reduce the variance of the attributions; their sum is exact in any case.
    random_state : int, RandomState or None, default=None
        Controls the random orders.

    Returns
    -------
    PredictionExplanation

    Raises
    ------
    TypeError
        If `clf` has no memory.
    ValueError
        If `target` is not a class, or `n_permutations` is less than 1.
    BagError
        If a bag is unusable; names it.

    Notes
    -----
    Whatever the plain mean of all patches contributes is part of ``uniform``, not of an
    attribution. A small sum of attributions therefore means that attention hardly changes the
    prediction.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import MoMKDClassifier, explain_prediction
    >>> random = np.random.default_rng(0)
    >>> bags = [random.normal(2 * (i % 2), size=(5, 4)) for i in range(20)]
    >>> clf = MoMKDClassifier(hidden_dim=8, n_components=3, max_epochs=1, random_state=0)
    >>> found = explain_prediction(clf.fit(bags, np.arange(20) % 2), bags[:2], random_state=0)
    >>> found.fidelity_error < 1e-5
    True
    """
    if n_permutations < 1:
        raise ValueError(f"n_permutations must be at least 1, got {n_permutations}.")
    model = fitted_momkd(clf)
    classes = model._network_classes.tolist()
    if target is not None and target not in classes:
        raise ValueError(f"target must be one of the classes {classes}, got {target!r}.")
    random = check_random_state(random_state)
    components = component_table(model).reset_index(drop=True)
    network = cast(MoMKD, model.module_)
    directions = network.memory.directions().detach().flatten(0, 1)
    tables, rows = [], []
    with _recorded_embeddings(network) as embeddings:
        for inspected in inspected_bags(clf, bags, model):
            proba = model._at_prior(inspected.output.logits.double()).softmax(dim=1)[0].numpy()
            which = _target(proba, None if target is None else classes.index(target))
            value = _coalition_value(model, inspected, embeddings.popleft(), which)
            found = shapley_values(
                value, len(components), n_permutations=n_permutations, random=random
            )
            uniform = float(value(np.zeros((1, len(components)), dtype=bool))[0])
            tables.append(_component_rows(inspected, components, directions, found))
            rows.append(
                {
                    "bag_id": inspected.bag_id,
                    "patient_id": inspected.bag.patient_id,
                    "target": classes[which],
                    "probability": float(proba[which]),
                    "uniform": uniform,
                    "error": abs(float(proba[which]) - uniform - found.sum()),
                }
            )
    per_bag = pd.DataFrame(rows)
    return PredictionExplanation(
        pd.concat(tables, ignore_index=True), per_bag, float(per_bag["error"].max())
    )


def _target(proba: NDArray, asked: int | None) -> int:
    if asked is not None:
        return asked
    return 1 if len(proba) == 2 else int(proba.argmax())


def _component_rows(
    inspected: InspectedBag, components: pd.DataFrame, directions: Tensor, found: NDArray
) -> pd.DataFrame:
    with isolated():
        slide = momkd_output(inspected.output).slide_projection[0]
        affinity = (directions @ slide).double().numpy()
    return pd.DataFrame(
        {
            "bag_id": inspected.bag_id,
            "patient_id": inspected.bag.patient_id,
            **components,
            "attribution": found,
            "affinity": affinity,
        }
    )


@contextmanager
def _recorded_embeddings(module: MoMKD) -> Iterator[deque[Tensor]]:
    """Record the patch embedding F of each of this thread's forward passes: one for each bag."""
    recorded: deque[Tensor] = deque()
    thread = threading.get_ident()  # others may predict with the same network

    def keep(encoder: Any, inputs: Any, embedding: Tensor) -> None:
        if threading.get_ident() != thread:
            return
        # The compiled encoder may write its next embedding to the same memory.
        recorded.append(upcast(embedding.detach()).to("cpu", copy=True))

    handle = module.encoder.register_forward_hook(keep)
    try:
        yield recorded
    finally:
        handle.remove()


def _coalition_value(
    clf: MoMKDClassifier, inspected: InspectedBag, embedding: Tensor, target: int
) -> Callable[[NDArray], NDArray]:
    """Function from coalitions of components (n, K * m) to the target's probability (n,)."""
    module = cast(MoMKD, clf.module_)
    affinity = momkd_output(inspected.output).affinity.flatten(1)  # (N, K * m)
    absent = affinity.mean(dim=0, keepdim=True)
    shape = momkd_output(inspected.output).affinity.shape[1:]
    at_once = max(1, _VALUES_AT_ONCE // affinity.numel())
    tau, device = float(module.tau()), module.log_tau.device  # may be a GPU
    head, of_head = clf._pooled_head, inspected.output.pooled_logits

    def value(coalitions: NDArray) -> NDArray:
        with isolated(), torch.no_grad():
            parts = [_probability(chunk) for chunk in torch.from_numpy(coalitions).split(at_once)]
        return torch.cat(parts).double().numpy()

    def _probability(present: Tensor) -> Tensor:
        known = torch.where(present.unsqueeze(1), affinity, absent)  # (c, N, K * m)
        scores = attention_scores(known.flatten(0, 1).unflatten(1, shape)) / tau
        attention = scores.unflatten(0, known.shape[:2]).softmax(dim=1)  # (c, N, maps)
        pooled = attention.transpose(1, 2) @ embedding  # (c, maps, D)
        logits = module.classify(pooled.to(device)).cpu()
        if head is not None:
            logits = head.joined(logits, of_head)
        return clf._at_prior(logits.double()).softmax(dim=1)[:, target]

    return value


def shapley_values(
    value: Callable[[NDArray], NDArray],
    n_players: int,
    *,
    n_permutations: int,
    random: np.random.RandomState,
) -> NDArray:
    """Estimate the Shapley values of a game from random orders in which the players join.

    Each order is used forward and backward. The marginal contributions along an order sum to the
    value of all players minus that of none, so the sum of the estimates is exact.

    Parameters
    ----------
    value : callable
        Maps coalitions, a bool array of shape (n, n_players), to values of shape (n,).
    n_players, n_permutations : int
    random : RandomState

    Returns
    -------
    ndarray of shape (n_players,)
    """
    total = np.zeros(n_players)
    joined = np.tri(n_players + 1, n_players, -1, dtype=bool)  # row i: the first i players joined
    for _ in range(n_permutations):
        forward = random.permutation(n_players)
        for order in (forward, forward[::-1]):
            total[order] += np.diff(value(joined[:, np.argsort(order)]))
    return total / (2 * n_permutations)
