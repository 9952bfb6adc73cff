"""Which genes pull a patient toward a class, or toward a component of the memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from ..data.omics import OmicsTable, as_omics
from ..estimators.momkd import MoMKDClassifier
from ..exceptions import OmicsError
from ..losses.momkd import alignment_margin
from ..messages import first_few
from ..nn.encoders import OmicsBranch
from .explain import expected_gradients
from .fitted import momkd_of
from .memory import component_table

TARGETS = ("class", "component")


@dataclass(frozen=True)
class GeneAttributions:
    """Attributions of the genes of a cohort; see :func:`gene_attributions`.

    Attributes
    ----------
    genes : DataFrame, most important first
        ``by="class"``: ``gene``; ``mean_abs``, the mean size over patients (and classes); for each
        class ``toward_<class>``, the mean over patients, and ``direction_<class>``, the
        correlation between a gene's value and its pull toward the class: near +1, high expression
        pulls toward it. ``by="component"``: ``class, component, gene, mean_abs, toward,
        direction``, ordered within each component.
    values : AnnData of shape (n_patients, n_genes)
        ``layers``: an attribution per target, ``toward_<class>`` or ``memory_<class>_<component>``.
        ``X``: what the omics branch was given. ``obs``: ``value_<target>``, the explained quantity.
    completeness : float
        Share of the variance of the explained quantity that the sums of the attributions account
        for; 1 is exact. Low values ask for more `n_samples`.
    """

    genes: pd.DataFrame
    values: AnnData = field(repr=False)
    completeness: float

    def __str__(self) -> str:
        n_patients, n_genes = self.values.shape
        shown = self.genes.head(10).to_string(index=False, float_format="{:.3f}".format)
        return (
            f"Attributions of {n_genes} genes in {n_patients} patients, completeness "
            f"{self.completeness:.3f}\n{shown}"
        )


def gene_attributions(
    clf: Any,
    omics: Any,
    *,
    by: str = "class",
    n_background: int = 100,
    n_samples: int = 200,
    random_state: Any = None,
) -> GeneAttributions:
    """How much each gene pulls each patient toward a class, or toward a memory component.

    The explained quantity is what teaches the slides: ``omics_transformer_`` and the omics branch
    take a profile to the memory's space, and there it is Delta of Eq. 4 (by how much the profile
    is closer to the class's memory than to the others), or the cosine with a component. It is
    attributed to the genes by expected gradients (shap): the sum over a patient's genes is its
    value minus the mean value of the background.

    Parameters
    ----------
    clf : fitted MoMKDClassifier, or a Pipeline that ends in one
        Fitted with omics, its omics branch not deleted. Of an ensemble, its first model.
    omics : AnnData, DataFrame with ids as index, or OmicsTable
        The patients to explain, on the scale of those of `fit`. Genes are taken by name, in any
        order; those that `fit` did not have are left out.
    by : {"class", "component"}, default="class"
    n_background : int, default=100
        So many of the patients, drawn at random, are what a patient is compared with.
    n_samples : int, default=200
        Draws per patient, from the background and along the way to it.
    random_state : int, RandomState or None, default=None

    Returns
    -------
    GeneAttributions
        In the space of the genes that the omics transformer gives out (after logarithm, selection
        and z-score), by their own names.

    Raises
    ------
    OmicsError
        If `clf` was fitted without omics, its branch is gone, genes are missing, or there is one
        patient alone, who would be compared with himself.
    ValueError
        If `by` is unknown, or `n_background` or `n_samples` is less than 1.
    ImportError
        If shap is not installed.
    TypeError
        If `clf` has no memory.

    Notes
    -----
    Attributions describe the model, not biology: correlated genes share credit as the network
    happens to weigh them. Prediction from slides does not use genes at all.

    References
    ----------
    Erion, Janizek, Sturmfels, Lundberg, Lee. Improving performance of deep learning models with
    axiomatic attribution priors and expected gradients. Nature Machine Intelligence, 2021.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from sk_momkd import Bag, MoMKDClassifier, gene_attributions
    >>> random = np.random.default_rng(0)
    >>> y = np.arange(24) % 2
    >>> bags = [Bag(random.normal(size=(4, 5)), bag_id=f"S{i:02d}") for i in range(24)]
    >>> rna = random.normal(size=(24, 6))
    >>> rna[:, 0] += 3 * y
    >>> rna = pd.DataFrame(rna, [b.bag_id for b in bags], ["ERBB2", *"ABCDE"])
    >>> clf = MoMKDClassifier(hidden_dim=8, n_components=2, max_epochs=8, random_state=0)
    >>> found = gene_attributions(clf.fit(bags, y, omics=rna), rna, random_state=0)
    >>> found.genes["gene"].iloc[0]
    'ERBB2'
    """
    if by not in TARGETS:
        raise ValueError(f"by must be one of {TARGETS}, got {by!r}.")
    for name, count in (("n_background", n_background), ("n_samples", n_samples)):
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count!r}.")
    model = momkd_of(clf)
    branch = _branch(model)
    table = as_omics(omics)
    if len(table.ids) < 2:
        raise OmicsError(
            f"Attributions compare patients, omics holds {len(table.ids)}. Pass at least two."
        )
    inputs = _branch_inputs(model, table)
    target = _Target(branch, model, by).eval()
    random = check_random_state(random_state)
    drawn = random.choice(len(inputs), min(n_background, len(inputs)), replace=False)
    seed = int(random.randint(2**31 - 1))
    x = torch.from_numpy(inputs)
    found = expected_gradients(target, x, x[np.sort(drawn)], n_samples=n_samples, seed=seed)
    with torch.no_grad():
        explained = target(x).double().numpy()  # (n_patients, n_targets)
    if target.is_mirrored:
        found, explained = (np.concatenate([-v, v], axis=-1) for v in (found, explained))
    base = explained[drawn].mean(axis=0)
    return GeneAttributions(
        _by_class(model, inputs, found) if by == "class" else _by_component(model, inputs, found),
        _as_anndata(_target_names(model, by), model.genes_, table, inputs, (found, explained)),
        _explained_share(explained - base, found.sum(axis=1)),
    )


class _Target(nn.Module):
    """Expression -> Delta of each class (Eq. 4), or cosine with each component.

    Of two classes, Delta of the first is minus that of the second, which alone is computed.
    """

    def __init__(self, branch: OmicsBranch, model: MoMKDClassifier, by: str) -> None:
        super().__init__()
        self.branch, self.by, self.tau_agg = branch, by, model._option("loss").tau_agg
        self.memory: Tensor = model._memory().rows.detach().clone()
        self.is_mirrored = by == "class" and len(self.memory) == 2

    def forward(self, omics: Tensor) -> Tensor:
        """(n, n_genes) -> (n, n_targets)."""
        f = nn.functional.normalize(self.branch.projector(self.branch.encoder(omics)), dim=1)
        if self.by == "component":
            return f @ nn.functional.normalize(self.memory, dim=2).flatten(0, 1).T
        classes = [1] if self.is_mirrored else range(len(self.memory))
        y = [torch.full((len(f),), c, device=f.device) for c in classes]
        deltas = [alignment_margin(f, self.memory, c, tau_agg=self.tau_agg) for c in y]
        return torch.stack(deltas, dim=1)


def _branch(model: MoMKDClassifier) -> OmicsBranch:
    branch = getattr(model.module_, "omics_branch", None)
    if branch is None:
        raise OmicsError(
            "The classifier has no omics branch: it was fitted without omics, or the branch was "
            "deleted. Fit it with omics=... and keep module_.omics_branch."
        )
    return branch


def _branch_inputs(model: MoMKDClassifier, table: OmicsTable) -> NDArray:
    """What the omics branch is given for each patient, (n_patients, n_genes) float32."""
    transformer = model.omics_transformer_
    check_is_fitted(transformer)
    frame = table.rows(np.arange(len(table.ids)))
    known = getattr(transformer, "feature_names_in_", None)
    if known is not None:
        missing = [gene for gene in known if gene not in frame.columns]
        if missing:
            raise OmicsError(
                f"{len(missing)} genes of the fit are not in omics: {first_few(missing)}. Pass the "
                "table with the genes of training, under the same names."
            )
        frame = frame[list(known)]
    values = transformer.transform(frame)
    dense = values.toarray() if hasattr(values, "toarray") else values
    return np.ascontiguousarray(dense, dtype=np.float32)


def _as_anndata(
    names: Sequence[str],
    genes: NDArray,
    table: OmicsTable,
    inputs: NDArray,
    results: tuple[NDArray, NDArray],
) -> AnnData:
    found, explained = results
    values = AnnData(
        inputs,
        obs=pd.DataFrame(index=table.ids.astype(str)),
        var=pd.DataFrame(index=genes.astype(str)),
    )
    for t, name in enumerate(names):
        values.layers[name] = found[:, :, t].astype(np.float32)
        values.obs[f"value_{name}"] = explained[:, t]
    return values


def _target_names(model: MoMKDClassifier, by: str) -> Sequence[str]:
    if by == "class":
        return [f"toward_{c}" for c in model.classes_]
    return [str(name) for name in model.get_feature_names_out()]


def _by_class(model: MoMKDClassifier, inputs: NDArray, found: NDArray) -> pd.DataFrame:
    genes = pd.DataFrame({"gene": model.genes_, "mean_abs": np.abs(found).mean(axis=(0, 2))})
    for k, c in enumerate(model.classes_):
        genes[f"toward_{c}"] = found[:, :, k].mean(axis=0)
        genes[f"direction_{c}"] = _correlation(inputs, found[:, :, k])
    return genes.sort_values("mean_abs", ascending=False, kind="stable", ignore_index=True)


def _by_component(model: MoMKDClassifier, inputs: NDArray, found: NDArray) -> pd.DataFrame:
    components = component_table(model)
    parts = []
    for t, (c, j) in enumerate(components.itertuples(index=False)):
        part = pd.DataFrame({"class": c, "component": j, "gene": model.genes_})
        part["mean_abs"] = np.abs(found[:, :, t]).mean(axis=0)
        part["toward"] = found[:, :, t].mean(axis=0)
        part["direction"] = _correlation(inputs, found[:, :, t])
        parts.append(part.sort_values("mean_abs", ascending=False, kind="stable"))
    return pd.concat(parts, ignore_index=True)


def _correlation(a: NDArray, b: NDArray) -> NDArray:
    """Correlation of the columns of `a` with those of `b`; NaN where one does not vary."""
    a, b = a - a.mean(axis=0, dtype=float), b - b.mean(axis=0, dtype=float)
    size = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return np.divide((a * b).sum(axis=0), size, out=np.full(a.shape[1], np.nan), where=size > 0)


def _explained_share(truth: NDArray, summed: NDArray) -> float:
    total = ((truth - truth.mean(axis=0)) ** 2).sum()
    return float(1 - ((truth - summed) ** 2).sum() / total) if total > 0 else np.nan
