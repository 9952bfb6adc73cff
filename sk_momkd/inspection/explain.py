"""Shapley values: what each component of the memory does to a slide's prediction."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from torch import Tensor, nn

from ..models.momkd import MoMKD
from ..nn.memory import attention_scores
from ..nn.precision import upcast
from .fitted import SeenBag, momkd_of, momkd_output, seen_bags
from .memory import component_table


def require_shap() -> ModuleType:
    """The shap package.

    Raises
    ------
    ImportError
        If it is not installed; says how to install it.
    """
    try:
        with warnings.catch_warnings():  # its colour maps use what matplotlib will drop one day
            warnings.simplefilter("ignore", PendingDeprecationWarning)
            import shap
    except ImportError as error:
        raise ImportError(
            "Attributions need shap, which is not installed: pip install 'sk_momkd[explain]'."
        ) from error
    return shap


def expected_gradients(
    module: nn.Module, x: Tensor, background: Tensor, *, n_samples: int, seed: int
) -> NDArray:
    """Expected gradients of each output of `module`.

    Parameters
    ----------
    module : Module
        (n, n_inputs) -> (n, n_outputs).
    x : Tensor of shape (n, n_inputs)
    background : Tensor of shape (n_background, n_inputs)
    n_samples, seed : int

    Returns
    -------
    ndarray of shape (n, n_inputs, n_outputs)
    """
    shap = require_shap()
    explainer = shap.GradientExplainer(module, background)
    found = explainer.shap_values(x, nsamples=n_samples, rseed=seed)
    return np.asarray(found, dtype=float)


def shapley_values(
    value: Callable[[NDArray], NDArray],
    n_players: int,
    *,
    n_permutations: int,
    random: np.random.RandomState,
) -> NDArray:
    """Shapley values of a game, estimated from orders in which the players join.

    Each order is taken forward and backward. What the players add along an order sums to the
    value of all minus that of none, so the sum of the estimates is exact.

    Parameters
    ----------
    value : callable
        Coalitions, booleans of shape (n, n_players), -> values (n,).
    n_players, n_permutations : int
    random : RandomState

    Returns
    -------
    ndarray of shape (n_players,)
    """
    total = np.zeros(n_players)
    joined = np.tri(n_players + 1, n_players, -1, dtype=bool)  # row i: the first i of an order
    for _ in range(n_permutations):
        forward = random.permutation(n_players)
        for order in (forward, forward[::-1]):
            total[order] += np.diff(value(joined[:, np.argsort(order)]))
    return total / (2 * n_permutations)


_VALUES_AT_ONCE = 2**21  # affinities of all coalitions that are weighed at a time


@dataclass(frozen=True)
class PredictionExplanation:
    """Attributions of predictions to components; see :func:`explain_prediction`.

    Attributes
    ----------
    components : DataFrame, a row per bag and component
        ``bag_id, patient_id, class, component``, ``attribution`` (change of the target's
        probability) and ``affinity``, the slide's cosine with the component.
    bags : DataFrame, a row per bag
        ``bag_id, patient_id, target``, ``probability`` of the target, ``uniform``, what it were if
        all patches counted the same, and ``error``, by which uniform and attributions miss the
        probability.
    fidelity_error : float
        The largest ``error``; rounding, unless something is wrong.
    """

    components: pd.DataFrame
    bags: pd.DataFrame
    fidelity_error: float = field()

    def __str__(self) -> str:
        size = self.components.assign(size=self.components["attribution"].abs())
        mean = size.groupby(["class", "component"], sort=False)["size"].mean()
        strongest = mean.sort_values(ascending=False).head(5)
        return (
            f"Predictions of {len(self.bags)} bags by memory component; attributions miss the "
            f"probability by at most {self.fidelity_error:.1e}\n"
            f"mean size of attribution, strongest:\n{strongest.to_string(float_format='%.4f')}"
        )


def explain_prediction(
    clf: Any,
    bags: Any,
    *,
    target: Any = None,
    n_permutations: int = 5,
    random_state: Any = None,
) -> PredictionExplanation:
    """By how much each memory component moves the probability of each slide (Shapley values).

    The head of MoMKD never reads affinities: it reads V, the mean of the patch embeddings weighted
    by an attention that comes from the affinities (Eq. 6-8). So this is what is explained, with
    the network itself and no surrogate: a component takes part by telling patches apart. Where it
    does not, each patch has the slide's mean affinity with it. If no component takes part, all
    patches count the same, and the probability is ``uniform``; if all do, it is that of
    ``predict_proba``. The difference is shared among the components as Shapley values, and the
    shares sum to it exactly.

    Parameters
    ----------
    clf : fitted MoMKDClassifier, or a Pipeline that ends in one
        Of an ensemble, its first model.
    bags : bags in any form that `fit` accepts
    target : class label, optional
        Whose probability is explained: by default the last of two classes, and of more the one
        that is predicted for the slide.
    n_permutations : int, default=5
        Orders, each forward and backward, in which components join. More make the shares
        steadier; their sum is exact in any case.
    random_state : int, RandomState or None, default=None

    Returns
    -------
    PredictionExplanation

    Raises
    ------
    TypeError
        If `clf` has no memory.
    ValueError
        If `target` is no class, or `n_permutations` is less than 1.

    Notes
    -----
    What is in the mean of all patches is in ``uniform``, not in an attribution: a small sum says
    that attention hardly matters, which is a finding about the model.

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
    model = momkd_of(clf)
    classes = model.classes_.tolist()
    if target is not None and target not in classes:
        raise ValueError(f"target {target!r} is no class; the classifier knows {classes}.")
    random = check_random_state(random_state)
    components = component_table(model).reset_index(drop=True)
    network = cast(MoMKD, model.module_)
    directions = network.memory.directions().detach().flatten(0, 1)
    tables, rows = [], []
    with _embeddings(network) as embedding:
        for seen in seen_bags(clf, bags, model):
            proba = seen.output.logits.double().softmax(dim=1)[0].numpy()
            which = _target(proba, None if target is None else classes.index(target))
            value = _game(network, seen, embedding[0], which)
            found = shapley_values(
                value, len(components), n_permutations=n_permutations, random=random
            )
            uniform = float(value(np.zeros((1, len(components)), dtype=bool))[0])
            tables.append(_components(seen, components, directions, found))
            rows.append(
                {
                    "bag_id": seen.bag_id,
                    "patient_id": seen.bag.patient_id,
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


def _components(
    seen: SeenBag, components: pd.DataFrame, directions: Tensor, found: NDArray
) -> pd.DataFrame:
    affinity = (directions @ momkd_output(seen.output).slide_projection[0]).double().numpy()
    return pd.DataFrame(
        {
            "bag_id": seen.bag_id,
            "patient_id": seen.bag.patient_id,
            **components,
            "attribution": found,
            "affinity": affinity,
        }
    )


@contextmanager
def _embeddings(module: MoMKD) -> Iterator[list[Tensor]]:
    """A list whose one element is the patch embedding F of the last forward pass."""
    last: list[Tensor] = []

    def keep(encoder: Any, inputs: Any, embedding: Tensor) -> None:
        # The compiled encoder may write its next embedding to the same memory.
        last[:] = [upcast(embedding.detach()).to("cpu", copy=True)]

    handle = module.encoder.register_forward_hook(keep)
    try:
        yield last
    finally:
        handle.remove()


def _game(
    module: MoMKD, seen: SeenBag, embedding: Tensor, target: int
) -> Callable[[NDArray], NDArray]:
    """Coalitions of components (n, K * m) -> probability of the target (n,)."""
    affinity = momkd_output(seen.output).affinity.flatten(1)  # (N, K * m)
    absent = affinity.mean(dim=0, keepdim=True)
    shape = momkd_output(seen.output).affinity.shape[1:]
    at_once = max(1, _VALUES_AT_ONCE // affinity.numel())
    tau, device = float(module.tau()), module.log_tau.device  # a GPU while bags are looked at

    @torch.no_grad()
    def value(coalitions: NDArray) -> NDArray:
        parts = [_probability(chunk) for chunk in torch.from_numpy(coalitions).split(at_once)]
        return torch.cat(parts).double().numpy()

    def _probability(present: Tensor) -> Tensor:
        known = torch.where(present.unsqueeze(1), affinity, absent)  # (c, N, K * m)
        scores = attention_scores(known.flatten(0, 1).unflatten(1, shape)) / tau
        attention = scores.unflatten(0, known.shape[:2]).softmax(dim=1)  # (c, N, maps)
        pooled = attention.transpose(1, 2) @ embedding  # (c, maps, D)
        return module._logits(pooled.to(device)).cpu().double().softmax(dim=1)[:, target]

    return value
