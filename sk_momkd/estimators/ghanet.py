"""G-HANet as a scikit-learn classifier."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ..exceptions import OmicsError
from ..losses.ghanet import ghanet_terms
from ..messages import first_few
from ..models.ghanet import GHANet
from ..training.config import Objective
from .base import TaughtClassifier
from .parameters import part, positive_int, share, weight


@dataclass(kw_only=True, eq=False, repr=False)
class GHANetClassifier(TaughtClassifier):
    """Slide classifier whose tokens must also reconstruct groups of genes (G-HANet).

    The defaults are ``preset("original")``, the published training as far as it goes for
    classification; ``preset("unified")`` trains as every other method does there.

    Parameters
    ----------
    gene_groups : mapping of str to list of str, list of lists of str, or None, default=None
        Names of the genes in each group, of which there is one token each. Groups may overlap;
        genes that the omics transformer did not keep are left out. None: `n_groups` blocks of
        the genes as the transformer orders them.
    n_groups : int, default=6
        Tokens where there are no `gene_groups`.
    dim : int, default=512
        Width of the tokens; `n_heads` must divide it.
    n_heads : int, default=4
    gate_dim, compressed_dim : int, default=256, 256
        Hidden width of the patches' weights; width of a token before the classifier.
    keep : float, default=0.2
        Share of a slide's patches that stay in a hyper-edge, at least one patch.
    dropout : float, default=0.25
    lambda_sce, lambda_mse : float, default=0.3, 0.3
        Weights of both losses of the reconstruction.
    {omics}
    {training}

    Attributes
    ----------
    {fitted}
    {taught}

    Raises
    ------
    OmicsError
        In `fit`, naming genes of `gene_groups` that omics does not have, or a group of which no
        gene is left.

    See Also
    --------
    MKDClassifier, TDCClassifier : Other methods that omics teaches.

    Notes
    -----
    Ours: classification in place of survival (cross-entropy in place of its likelihood); blocks
    of genes chosen in the fold where no groups are given, in place of six signatures filtered by
    a t-test; the best epoch on a validation part, which in the original was the test part; slides
    whole, whatever their size; bags without omics, which train everything but the decoders. Gene
    expression is a target, never an input, and the decoders are dropped after `fit`.

    References
    ----------
    Wang et al. Histo-Genomic Knowledge Distillation for Cancer Prognosis from Histopathology
    Whole Slide Images. arXiv:2403.10040; IEEE Transactions on Medical Imaging, 2025, as
    Histo-Genomic Knowledge Association.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import GHANetClassifier
    >>> random = np.random.default_rng(0)
    >>> y = np.arange(20) % 2
    >>> bags = [random.normal(2 * label, size=(5 + i, 4)) for i, label in enumerate(y)]
    >>> omics = random.normal(y[:, None], size=(20, 12))
    >>> clf = GHANetClassifier(dim=16, max_epochs=2, random_state=0).fit(bags, y, omics=omics)
    >>> clf.predict_proba(bags).shape
    (20, 2)
    """

    gene_groups: Any = None
    n_groups: int = 6
    dim: int = 512
    n_heads: int = 4
    gate_dim: int = 256
    compressed_dim: int = 256
    keep: float = 0.2
    dropout: float = 0.25
    lambda_sce: float = 0.3
    lambda_mse: float = 0.3
    max_epochs: int = 20
    accumulation_steps: int = 32
    optimizer: str = "adam"
    weight_decay: float = 1e-5
    lr_schedule: str | None = None
    max_grad_norm: float | None = None
    patience: int = 20

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **TaughtClassifier._parameter_constraints,
        "gene_groups": [Mapping, list, tuple, None],
        **dict.fromkeys(("n_groups", "dim", "n_heads", "gate_dim", "compressed_dim"), positive_int),
        "keep": part,
        "dropout": share,
        "lambda_sce": weight,
        "lambda_mse": weight,
    }

    def _make_module(self, n_features: int, n_genes: int, n_classes: int) -> nn.Module:
        if self.dim % self.n_heads:
            raise ValueError(f"n_heads={self.n_heads} must divide dim={self.dim} without rest.")
        groups = None if self.gene_groups is None else _groups_by_name(self.gene_groups)
        columns = None
        if groups is not None and n_genes:
            known = getattr(self.omics_transformer_, "feature_names_in_", self.genes_)
            columns = _columns(groups, self.genes_, known)
        return GHANet(
            n_features,
            n_genes,
            n_classes,
            gene_groups=columns,
            n_groups=self._n_tokens(groups, n_genes),
            dim=self.dim,
            n_heads=self.n_heads,
            gate_dim=self.gate_dim,
            compressed_dim=self.compressed_dim,
            keep=self.keep,
            dropout=self.dropout,
        )

    def _n_tokens(self, groups: dict[str, Sequence[str]] | None, n_genes: int) -> int:
        if groups is not None:
            return len(groups)
        if 0 < n_genes < self.n_groups:
            raise ValueError(f"n_groups={self.n_groups} is more than the {n_genes} genes.")
        return self.n_groups

    def _make_objective(self) -> Objective:
        weights = {"ce": 1.0, "sce": self.lambda_sce, "mse": self.lambda_mse}
        return Objective(ghanet_terms, weights)


def _groups_by_name(groups: Any) -> dict[str, Sequence[str]]:
    """Groups of genes with names of their own, or with their numbers."""
    if not isinstance(groups, Mapping):
        groups = {str(i): genes for i, genes in enumerate(groups)}
    for name, genes in groups.items():
        listed = isinstance(genes, Iterable) and not isinstance(genes, str)
        if not listed or not all(isinstance(gene, str) for gene in genes):
            raise ValueError(
                f"gene_groups must hold lists of gene names; group {name!r} is {genes!r}."
            )
    if not groups:
        raise ValueError("gene_groups is empty. Pass None for blocks of genes.")
    return dict(groups)


def _columns(groups: dict[str, Sequence[str]], genes: NDArray, known: NDArray) -> list[list[int]]:
    """Columns of the genes of each group among `genes`; `known` are those before selection."""
    unknown = sorted({gene for group in groups.values() for gene in group} - {*known, *genes})
    if unknown:
        raise OmicsError(
            f"{len(unknown)} genes of gene_groups are not in omics: {first_few(unknown)}. Correct "
            "their names, or leave them out."
        )
    place = {gene: j for j, gene in enumerate(np.asarray(genes).tolist())}
    columns = {name: [place[g] for g in group if g in place] for name, group in groups.items()}
    for name, found in columns.items():
        if not found:
            raise OmicsError(
                f"The omics transformer kept none of the {len(groups[name])} genes of group "
                f"{name!r}. Raise n_genes, or leave the group out."
            )
    return list(columns.values())
