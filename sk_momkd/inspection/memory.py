"""The memory of a fitted MoMKD: its components, how slides use them, which patches match."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import NDArray
from sklearn.utils import column_or_1d
from torch import Tensor

from ..data.sequence import as_bags
from ..estimators.momkd import MoMKDClassifier
from ..nn.memory import active_ratio, perplexity
from .fitted import SeenBag, momkd_of, momkd_output, seen_bags

VARIANTS = ("slide", "patch", "attention", "own_class")


def component_table(model: MoMKDClassifier) -> pd.DataFrame:
    """``class, component`` of each memory row, in the order of the columns of `transform`."""
    n = model._memory().rows.shape[1]
    return pd.DataFrame(
        {
            "class": np.repeat(model.classes_, n),
            "component": np.tile(np.arange(n), len(model.classes_)),
        },
        index=pd.Index(model.get_feature_names_out(), name=None),
    )


def memory_prototypes(clf: Any) -> AnnData:
    """The directions of the memory, and how they lie to each other.

    Parameters
    ----------
    clf : fitted MoMKDClassifier, or a Pipeline that ends in one

    Returns
    -------
    AnnData of shape (n_classes * n_components, projection_dim)
        ``X`` rows of length one, named ``memory_<class>_<component>``. ``obs``: ``class``,
        ``component``, ``norm`` of the row itself, ``cosine_within`` and ``cosine_across``, its
        largest cosine with another row of its class and with a row of another class (NaN where
        there is none). ``obsp["cosine"]``: all pairs. ``uns["cosine"]``: mean and largest absolute
        cosine of different rows ``within_<class>`` and ``across`` classes.

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
    model = momkd_of(clf)
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
        f"within_{c}": _size(cosine[other & (obs["class"].to_numpy() == c)[:, None]])
        for c in model.classes_
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
    """How much of the memory a cohort uses; see :func:`memory_usage`.

    Attributes
    ----------
    components : DataFrame, a row per memory component
        ``class, component``, and the usage u by each variant; of a class they sum to one.
    summary : DataFrame, index variant
        ``active_ratio`` (share of components with u > 1/(10 n)), ``ever_used`` (u > 0),
        ``perplexity_<class>`` in [1, n], ``normalised_<class>`` (that over n), and
        ``effective_components``, the joint number in [n_classes, n_classes * n].
    bags : DataFrame, a row per bag
        ``bag_id, patient_id, n_patches``, ``attention_entropy`` over its largest value (1 is
        uniform; with several maps their mean, NaN for a single patch) and ``cosine_<class>``, the
        slide's largest cosine with a component of the class.
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
    """Which components the patches of a cohort match best, and how evenly (Fig. 3).

    A patch counts for one component of each class's memory: the one with the largest cosine.

    Parameters
    ----------
    clf : fitted MoMKDClassifier, or a Pipeline that ends in one
    bags : bags in any form that `fit` accepts
        Any cohort: training, validation, external. Each bag counts once.
    y : array-like of shape (n_bags,), optional
        Labels, for the variant ``own_class``.

    Returns
    -------
    ComponentUsage
        By four variants. ``slide``: each slide counts the same. ``patch``: each patch does, so
        that large slides dominate. ``attention``: patches count by their attention (with a map
        per class, by that of the memory's class). ``own_class``: as ``slide``, over the bags of
        the memory's class alone, which is what the commitment loss sees; NaN without `y`.

    Raises
    ------
    TypeError
        If `clf` has no memory.
    ValueError
        If `y` has another length, or labels that `clf` was not fitted on.

    Notes
    -----
    The definitions behind the paper's Figure 3 are in a supplement that is not public; these are
    ours. ``history_`` has the same numbers for each epoch of training.

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
    model = momkd_of(clf)
    bags = as_bags(bags)
    labels = _label_numbers(model, y, len(bags))
    counted = _counted(seen_bags(clf, bags, model), labels, model._memory().rows.shape[:2])
    components = component_table(model)
    for name in VARIANTS:
        components[name] = counted.usage[name].flatten().numpy()
    names = [str(c) for c in model.classes_]
    summary = pd.DataFrame.from_dict(
        {name: _summary(counted.usage[name], names) for name in VARIANTS}, orient="index"
    )
    rows = pd.DataFrame(counted.rows)
    rows = rows.rename(columns={f"cosine{k}": f"cosine_{c}" for k, c in enumerate(names)})
    return ComponentUsage(components, summary.rename_axis("variant"), rows)


@dataclass(frozen=True)
class _Counted:
    usage: dict[str, Tensor]
    rows: list[dict[str, Any]]


def _label_numbers(model: MoMKDClassifier, y: Any, n_bags: int) -> NDArray | None:
    if y is None:
        return None
    y = column_or_1d(y)
    if len(y) != n_bags:
        raise ValueError(f"y has {len(y)} labels, but there are {n_bags} bags.")
    place = {c: k for k, c in enumerate(model.classes_.tolist())}
    foreign = [label for label in y.tolist() if label not in place]
    if foreign:
        raise ValueError(
            f"y holds {foreign[0]!r}; the classifier was fitted on {list(place)}. Leave these bags "
            "out, or pass y=None."
        )
    return np.array([place[label] for label in y.tolist()], dtype=int)


def _counted(bags: Iterable[SeenBag], labels: NDArray | None, shape: tuple[int, ...]) -> _Counted:
    sums = {name: torch.zeros(shape, dtype=torch.float64) for name in VARIANTS}
    weights = {name: torch.zeros(shape[0], 1, dtype=torch.float64) for name in VARIANTS}
    rows = []
    for i, seen in enumerate(bags):
        output = momkd_output(seen.output)
        maps = output.attention.double()  # (n, 1) or (n, K)
        chosen = torch.nn.functional.one_hot(output.affinity.argmax(dim=2), shape[1]).double()
        count, n = chosen.sum(dim=0), len(chosen)  # (K, m)
        one = torch.ones(shape[0], 1, dtype=torch.float64)
        own = torch.zeros_like(one)
        if labels is not None:
            own[labels[i]] = 1
        for name, part, weight in (
            ("slide", count / n, one),
            ("patch", count, n * one),
            ("attention", (chosen * maps.unsqueeze(2)).sum(dim=0), one),
            ("own_class", own * count / n, own),
        ):
            sums[name] += part
            weights[name] += weight
        rows.append(_row(seen, maps))
    # A memory without a slide of its class has no usage: 0 / 0.
    return _Counted({name: sums[name] / weights[name] for name in VARIANTS}, rows)


def _row(seen: SeenBag, maps: Tensor) -> dict[str, Any]:
    output = momkd_output(seen.output)
    n = len(maps)
    entropy = torch.special.entr(maps).sum(dim=0).mean()
    rows = torch.nn.functional.normalize(output.memory.detach(), dim=2)
    nearest = torch.einsum("d,kmd->km", output.slide_projection[0], rows).amax(dim=1)
    return {
        "bag_id": seen.bag_id,
        "patient_id": seen.bag.patient_id,
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
