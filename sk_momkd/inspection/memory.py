"""The memory of a fitted MoMKD: its components, and how evenly a cohort uses them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import NDArray
from torch import Tensor

from ..data.bag_order import labels_in_bag_order
from ..data.sequence import BagSequence, as_bags
from ..estimators.momkd import MoMKDClassifier
from ..io.writers import anndata_key
from ..nn.isolation import isolated
from ..nn.memory import active_ratio, perplexity
from .fitted import fitted_momkd, momkd_output
from .inspected_bags import InspectedBag, inspected_bags

VARIANTS = ("slide", "patch", "attention", "own_class", "other_classes")
RULES = ("difference", *VARIANTS)


def component_table(model: MoMKDClassifier) -> pd.DataFrame:
    """``class, component`` of each memory row, in the order of the columns of `transform`."""
    n = model._memory().rows.shape[1]
    return pd.DataFrame(
        {
            "class": np.repeat(model._network_classes, n),
            "component": np.tile(np.arange(n), len(model.classes_)),
        },
        index=pd.Index(model.get_feature_names_out(), name=None),
    )


def memory_prototypes(clf: Any) -> AnnData:
    """Directions of the memory components and the cosines between them.

    Parameters
    ----------
    clf : fitted MoMKDClassifier, or a Pipeline that ends in one

    Returns
    -------
    AnnData of shape (n_classes * n_components, projection_dim)
        ``X`` holds the directions, rows of length one named ``memory_<class>_<component>``.
        ``obs`` holds ``class``, ``component``, the ``norm`` of the memory row before
        normalisation, and its largest cosine with another row of its class (``cosine_within``)
        and with a row of another class (``cosine_across``), NaN where there is none.
        ``obsp["cosine"]`` holds the cosines of all pairs, and ``uns["cosine"]`` the mean and
        largest absolute cosine of different rows ``within_<class>`` and ``across`` classes.

    Raises
    ------
    TypeError
        If `clf` has no memory.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import MoMKDClassifier, memory_prototypes
    >>> random = np.random.default_rng(0)
    >>> bags = [random.normal(2 * (i % 2), size=(5, 4)) for i in range(20)]
    >>> clf = MoMKDClassifier(hidden_dim=8, n_components=3, max_epochs=1, random_state=0)
    >>> memory_prototypes(clf.fit(bags, np.arange(20) % 2)).obs_names[:4].to_list()
    ['memory_0_0', 'memory_0_1', 'memory_0_2', 'memory_1_0']
    """
    model = fitted_momkd(clf)
    memory = model._memory()
    directions = memory.directions().detach().flatten(0, 1).double().numpy()
    obs = component_table(model)
    cosine = directions @ directions.T
    own = obs["class"].to_numpy()[:, None] == obs["class"].to_numpy()[None]
    other = own & ~np.eye(len(obs), dtype=bool)
    obs["norm"] = memory.rows.detach().flatten(0, 1).norm(dim=1).double().numpy()
    obs["cosine_within"] = _largest(cosine, other)
    obs["cosine_across"] = _largest(cosine, ~own)
    prototypes = AnnData(directions, obs=obs)
    prototypes.obsp["cosine"] = cosine
    prototypes.uns["cosine"] = {
        anndata_key(f"within_{c}"): _size(cosine[other & (obs["class"].to_numpy() == c)[:, None]])
        for c in model._network_classes
    } | {"across": _size(cosine[~own])}
    return prototypes


def _largest(cosine: NDArray, among: NDArray) -> NDArray:
    best = np.where(among, cosine, -np.inf).max(axis=1)
    return np.where(np.isfinite(best), best, np.nan)


def _size(cosine: NDArray) -> dict[str, float]:
    if not cosine.size:
        return {"mean": np.nan, "max": np.nan}
    return {"mean": float(np.abs(cosine).mean()), "max": float(np.abs(cosine).max())}


@dataclass(frozen=True)
class ComponentUsage:
    """Usage of the memory by a cohort; the result of :func:`memory_usage`.

    Attributes
    ----------
    components : DataFrame, a row per memory component
        ``class, component`` and the usage u by each variant, ``slide``, ``patch``, ``attention``,
        ``own_class`` and ``other_classes``. The usage of the n components of a class sums to one.
    summary : DataFrame, a row per variant
        ``active_ratio``, the fraction of components with u > 1/(10 n); ``ever_used``, the fraction
        with u > 0; ``perplexity_<class>`` in [1, n]; ``normalised_<class>``, the perplexity over
        n; and ``effective_components``, their joint number in [n_classes, n_classes * n].
    bags : DataFrame, a row per bag
        ``bag_id, patient_id, n_patches``; ``attention_entropy``, the entropy of the attention over
        its largest possible value (1 for uniform attention, the mean over several maps, NaN for a
        single patch); and ``cosine_<class>``, the slide's largest cosine with a component of the
        class.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import MoMKDClassifier, memory_usage
    >>> random = np.random.default_rng(0)
    >>> bags = [random.normal(2 * (i % 2), size=(5, 4)) for i in range(20)]
    >>> clf = MoMKDClassifier(hidden_dim=8, n_components=3, max_epochs=1, random_state=0)
    >>> usage = memory_usage(clf.fit(bags, np.arange(20) % 2), bags)
    >>> usage.summary.index.to_list()
    ['slide', 'patch', 'attention', 'own_class', 'other_classes']
    """

    components: pd.DataFrame
    summary: pd.DataFrame
    bags: pd.DataFrame = field(repr=False)

    def __str__(self) -> str:
        n = self.components.groupby("class", sort=False).size().iloc[0]
        return (
            f"Memory usage of {len(self.bags)} bags, {n} components per class\n"
            f"{self.summary.to_string(float_format='{:.3f}'.format, na_rep='')}"
        )


def memory_usage(clf: Any, bags: Any, y: Any = None) -> ComponentUsage:
    """Measure how often and how evenly a cohort uses the memory components (Fig. 3).

    Each patch uses one component of each class's memory: the one with the largest cosine.

    Parameters
    ----------
    clf : fitted MoMKDClassifier, or a Pipeline that ends in one
    bags : bags in any form that `fit` accepts
        Any cohort: training, validation or external.
    y : array-like of shape (n_bags,), optional
        Labels for the variants ``own_class`` and ``other_classes``.

    Returns
    -------
    ComponentUsage
        The usage by five variants. ``slide`` gives each slide equal weight. ``patch`` gives each
        patch equal weight, so that large slides dominate. ``attention`` weights patches by their
        attention (with a map per class, by the map of the memory's class). ``own_class`` is
        ``slide`` over the bags of the memory's class alone, as in the commitment loss, and
        ``other_classes`` over the bags of the other classes; both are NaN without `y`.

    Raises
    ------
    TypeError
        If `clf` has no memory.
    ValueError
        If `y` has another length, or labels that `clf` was not fitted on.

    Notes
    -----
    The paper defines the quantities of its Figure 3 in a supplement that is not public; the
    definitions used here are our own. ``history_`` holds the same numbers for each epoch of
    training.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import MoMKDClassifier, memory_usage
    >>> random = np.random.default_rng(0)
    >>> bags = [random.normal(2 * (i % 2), size=(5, 4)) for i in range(20)]
    >>> clf = MoMKDClassifier(hidden_dim=8, n_components=3, max_epochs=1, random_state=0)
    >>> usage = memory_usage(clf.fit(bags, np.arange(20) % 2), bags)
    >>> usage.components.groupby("class")["slide"].sum().round(6).to_list()
    [1.0, 1.0]
    """
    model = fitted_momkd(clf)
    bags = as_bags(bags)
    labels = _label_numbers(model, y, bags)
    usage, rows = _count_usage(
        inspected_bags(clf, bags, model), labels, model._memory().rows.shape[:2]
    )
    components = component_table(model)
    for name in VARIANTS:
        components[name] = usage[name].flatten().numpy()
    names = [str(c) for c in model._network_classes]
    summary = pd.DataFrame.from_dict(
        {name: _summary(usage[name], names) for name in VARIANTS}, orient="index"
    )
    per_bag = pd.DataFrame(rows)
    per_bag = per_bag.rename(columns={f"cosine{k}": f"cosine_{c}" for k, c in enumerate(names)})
    return ComponentUsage(components, summary.rename_axis("variant"), per_bag)


def choose_components(usage: ComponentUsage, n: int = 1, *, by: str = "difference") -> pd.DataFrame:
    """Choose the components of each class that are worth showing (Fig. 4).

    Parameters
    ----------
    usage : ComponentUsage
        Result of :func:`memory_usage`.
    n : int, default=1
        Number of components per class.
    by : str, default="difference"
        The components with the largest value are chosen: a variant of :func:`memory_usage`, such
        as ``own_class``, or ``difference``, the usage by slides of the component's own class minus
        that by slides of the other classes. A component that all tissue matches then comes last,
        however much it is used.

    Returns
    -------
    DataFrame
        Up to `n` rows per class, the largest value first: ``class, component`` and ``value``.

    Raises
    ------
    ValueError
        If `n` is less than 1, `by` is unknown, or the usage was measured without labels that `by`
        needs.

    Notes
    -----
    The paper does not say how the components of its Figure 4 were chosen; the rule is our own.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import MoMKDClassifier, choose_components, memory_usage
    >>> random, y = np.random.default_rng(0), np.arange(20) % 2
    >>> bags = [random.normal(2 * label, size=(5, 4)) for label in y]
    >>> clf = MoMKDClassifier(hidden_dim=8, n_components=3, max_epochs=1, random_state=0)
    >>> choose_components(memory_usage(clf.fit(bags, y), bags, y))["class"].to_list()
    [0, 1]
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n!r}.")
    if by not in RULES:
        raise ValueError(f"by must be one of {RULES}, got {by!r}.")
    table = usage.components
    values = table["own_class"] - table["other_classes"] if by == "difference" else table[by]
    if values.isna().any():
        raise ValueError(
            f"The usage was measured without bags of each class, which by={by!r} needs. Pass y to "
            "memory_usage, or another rule."
        )
    ranked = table[["class", "component"]].assign(value=values)
    ranked = ranked.sort_values("value", ascending=False, kind="stable")
    chosen = ranked.groupby("class", sort=False).head(n)
    order = {c: k for k, c in enumerate(table["class"].unique())}
    return chosen.sort_values("class", key=lambda c: c.map(order), kind="stable").reset_index(
        drop=True
    )


def _label_numbers(model: MoMKDClassifier, y: Any, bags: BagSequence) -> NDArray | None:
    if y is None:
        return None
    y = labels_in_bag_order(y, bags)
    if len(y) != len(bags):
        raise ValueError(f"y has {len(y)} labels, but there are {len(bags)} bags.")
    place = {c: k for k, c in enumerate(model._network_classes.tolist())}
    unknown = [label for label in y.tolist() if label not in place]
    if unknown:
        raise ValueError(
            f"y holds {unknown[0]!r}, but the classifier was fitted on {list(place)}. Leave these "
            "bags out, or pass y=None."
        )
    return np.array([place[label] for label in y.tolist()], dtype=int)


@isolated()
def _count_usage(
    bags: Iterable[InspectedBag], labels: NDArray | None, shape: tuple[int, ...]
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Usage (n_classes, n_components) by each variant, and a row per bag."""
    sums = {name: torch.zeros(shape, dtype=torch.float64) for name in VARIANTS}
    weights = {name: torch.zeros(shape[0], 1, dtype=torch.float64) for name in VARIANTS}
    rows = []
    for i, inspected in enumerate(bags):
        output = momkd_output(inspected.output)
        maps = output.attention.double()  # (n, 1) or (n, K)
        chosen = torch.nn.functional.one_hot(output.affinity.argmax(dim=2), shape[1]).double()
        count, n = chosen.sum(dim=0), len(chosen)  # (K, m)
        one = torch.ones(shape[0], 1, dtype=torch.float64)
        own, other = torch.zeros_like(one), torch.zeros_like(one)
        if labels is not None:
            own[labels[i]] = 1
            other = 1 - own
        for name, part, weight in (
            ("slide", count / n, one),
            ("patch", count, n * one),
            ("attention", (chosen * maps.unsqueeze(2)).sum(dim=0), one),
            ("own_class", own * count / n, own),
            ("other_classes", other * count / n, other),
        ):
            sums[name] += part
            weights[name] += weight
        rows.append(_bag_row(inspected, maps))
    # The usage of a memory without a slide of its class is NaN, 0 / 0.
    return {name: sums[name] / weights[name] for name in VARIANTS}, rows


def _bag_row(inspected: InspectedBag, maps: Tensor) -> dict[str, Any]:
    output = momkd_output(inspected.output)
    n = len(maps)
    entropy = torch.special.entr(maps).sum(dim=0).mean()
    rows = torch.nn.functional.normalize(output.memory.detach(), dim=2)
    nearest = torch.einsum("d,kmd->km", output.slide_projection[0], rows).amax(dim=1)
    return {
        "bag_id": inspected.bag_id,
        "patient_id": inspected.bag.patient_id,
        "n_patches": n,
        "attention_entropy": float(entropy) / np.log(n) if n > 1 else np.nan,
    } | {f"cosine{k}": float(value) for k, value in enumerate(nearest)}


def _summary(usage: Tensor, classes: list[str]) -> dict[str, float]:
    effective = perplexity(usage)
    known = not usage.isnan().any()
    joint = len(effective) * effective.log().mean().exp()
    shares = effective / usage.shape[1]
    return {
        "active_ratio": active_ratio(usage) if known else np.nan,
        "ever_used": active_ratio(usage, 0.0) if known else np.nan,
        **{f"perplexity_{c}": float(v) for c, v in zip(classes, effective, strict=True)},
        **{f"normalised_{c}": float(v) for c, v in zip(classes, shares, strict=True)},
        "effective_components": float(joint),
    }
