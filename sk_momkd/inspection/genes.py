"""Attribution of the omics branch to genes, for a class or a memory component."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType
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
from ..messages import first_few, install_hint
from ..nn.encoders import OmicsBranch
from ..nn.isolation import isolated, own_numpy_random_state
from .fitted import fitted_momkd
from .memory import component_table

TARGETS = ("class", "component")


@dataclass(frozen=True)
class GeneAttributions:
    """Attributions to the genes of a cohort; the result of :func:`gene_attributions`.

    Attributes
    ----------
    genes : DataFrame, most important gene first
        With ``by="class"``: ``gene``; ``mean_abs``, the mean absolute attribution over patients
        (and classes); and for each class ``toward_<class>``, the mean attribution over patients,
        and ``direction_<class>``, the correlation between a gene's value and its attribution (near
        +1, high expression moves a patient toward the class). With ``by="component"``: ``class,
        component, gene, mean_abs, toward, direction``, ordered within each component.
    values : AnnData of shape (n_patients, n_genes)
        ``layers`` holds the attributions to each target, ``toward_<class>`` or
        ``memory_<class>_<component>``, ``X`` the input of the omics branch, and ``obs`` the
        explained quantity ``value_<target>``.
    completeness : float
        Fraction of the variance of the explained quantity that the sums of the attributions
        explain; 1 is exact. Increase `n_samples` where it is low.

    Examples
    --------
    >>> import pandas as pd
    >>> from anndata import AnnData
    >>> from sk_momkd import GeneAttributions
    >>> genes = pd.DataFrame({"gene": ["ERBB2", "ESR1"], "mean_abs": [0.4, 0.2]})
    >>> print(GeneAttributions(genes, AnnData(shape=(24, 2)), completeness=0.99))
    Attributions of 2 genes in 24 patients, completeness 0.990
     gene  mean_abs
    ERBB2     0.400
     ESR1     0.200
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
    """Attribute the output of the omics branch to genes, by class or memory component.

    ``omics_transformer_`` and the omics branch map an expression profile to the space of the
    memory. The explained quantity is Delta of Eq. 4 (how much closer the profile is to the memory
    of a class than to the others), or the cosine with a component. It is attributed to the genes
    by expected gradients (shap): the attributions of a patient sum to the patient's value minus
    the mean value of the background.

    Parameters
    ----------
    clf : fitted MoMKDClassifier, or a Pipeline that ends in one
        Classifier fitted with omics, with its omics branch. Of an ensemble, the first model is
        used.
    omics : AnnData, DataFrame with ids as index, or OmicsTable
        Expression of the patients to explain, on the same scale as in `fit`. Genes are matched by
        name, in any order; genes that were not in `fit` are ignored.
    by : {"class", "component"}, default="class"
        Whether Delta of each class or the cosine with each component is explained.
    n_background : int, default=100
        Number of patients, drawn at random, with which each patient is compared.
    n_samples : int, default=200
        Number of random points per patient between the patient and the background.
    random_state : int, RandomState or None, default=None
        Controls the background and the samples.

    Returns
    -------
    GeneAttributions
        Attributions to the genes that the omics transformer selects, by name; their values are
        those after the transformer (logarithm and z-score).

    Raises
    ------
    OmicsError
        If `clf` was fitted without omics or its branch was deleted, if genes are missing, or if
        there are fewer than two patients.
    ValueError
        If `by` is unknown, or `n_background` or `n_samples` is less than 1.
    ImportError
        If shap is not installed.
    TypeError
        If `clf` has no memory.

    Notes
    -----
    Attributions describe the model, not biology: how correlated genes share an attribution depends
    on the weights of the network. Prediction from slides does not use genes.

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
    model = fitted_momkd(clf)
    branch = _omics_branch(model)
    table = as_omics(omics)
    if len(table.ids) < 2:
        raise OmicsError(
            f"Attributions need at least two patients to compare, but omics holds {len(table.ids)}."
        )
    inputs = _branch_inputs(model, table)
    with isolated():
        target = _Target(branch, model, by).eval()
        x = torch.from_numpy(inputs)
    random = check_random_state(random_state)
    drawn = random.choice(len(inputs), min(n_background, len(inputs)), replace=False)
    seed = int(random.randint(2**31 - 1))
    found = _expected_gradients(target, x, x[np.sort(drawn)], n_samples=n_samples, seed=seed)
    with isolated(), torch.no_grad():
        explained = target(x).double().numpy()  # (n_patients, n_targets)
    if target.is_mirrored:
        found, explained = (np.concatenate([-v, v], axis=-1) for v in (found, explained))
    base = explained[drawn].mean(axis=0)
    return GeneAttributions(
        _by_class(model, inputs, found) if by == "class" else _by_component(model, inputs, found),
        _as_anndata(_target_names(model, by), model.genes_, table, inputs, (found, explained)),
        _explained_variance(explained - base, found.sum(axis=1)),
    )


class _Target(nn.Module):
    """Map expression to Delta of each class (Eq. 4), or to the cosine with each component.

    Of two classes only Delta of the positive one is computed: Delta of the other is its negative.
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


def _import_shap() -> ModuleType:
    """Return the shap package; raises an ImportError with the install command without it."""
    try:
        with warnings.catch_warnings():  # shap uses colour maps deprecated in matplotlib
            warnings.simplefilter("ignore", PendingDeprecationWarning)
            import shap
    except ImportError as error:
        raise ImportError(
            f"Attributions need shap, which is not installed: {install_hint('shap')}."
        ) from error
    return shap


def _expected_gradients(
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
    shap = _import_shap()
    with isolated(), own_numpy_random_state():  # shap seeds the global generator
        explainer = shap.GradientExplainer(module, background)
        found = explainer.shap_values(x, nsamples=n_samples, rseed=seed)
    return np.asarray(found, dtype=float)


def _omics_branch(model: MoMKDClassifier) -> OmicsBranch:
    branch = getattr(model.module_, "omics_branch", None)
    if branch is None:
        raise OmicsError(
            "The classifier has no omics branch: it was fitted without omics, saved without "
            "include_omics=True, or the branch was deleted. Fit it with omics=..., save it with "
            "save_model(..., include_omics=True), and do not delete module_.omics_branch."
        )
    return branch


def _branch_inputs(model: MoMKDClassifier, table: OmicsTable) -> NDArray:
    """Input of the omics branch for each patient, (n_patients, n_genes) float32."""
    transformer = model.omics_transformer_
    check_is_fitted(transformer)
    frame = table.rows(np.arange(len(table.ids)))
    known = getattr(transformer, "feature_names_in_", None)
    if known is not None:
        missing = [gene for gene in known if gene not in frame.columns]
        if missing:
            raise OmicsError(
                f"{len(missing)} genes of the fit are not in omics: {first_few(missing)}. Pass a "
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
        return [f"toward_{c}" for c in model._network_classes]
    return [str(name) for name in model.get_feature_names_out()]


def _by_class(model: MoMKDClassifier, inputs: NDArray, found: NDArray) -> pd.DataFrame:
    genes = pd.DataFrame({"gene": model.genes_, "mean_abs": np.abs(found).mean(axis=(0, 2))})
    for k, c in enumerate(model._network_classes):
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


def _explained_variance(truth: NDArray, summed: NDArray) -> float:
    total = ((truth - truth.mean(axis=0)) ** 2).sum()
    return float(1 - ((truth - summed) ** 2).sum() / total) if total > 0 else np.nan
