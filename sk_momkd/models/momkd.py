"""MoMKD: momentum memory knowledge distillation (arXiv 2602.21395)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..nn.backend import are_few
from ..nn.blocks import Blocks
from ..nn.dropout import Dropout
from ..nn.edges import Edges
from ..nn.encoders import GraphEncoder, OmicsBranch
from ..nn.memory import ClassMemory, attention_scores
from ..nn.precision import mixed_linear
from ..nn.segment import segment_pool, segment_softmax
from ..output import MILOutput


@dataclass(frozen=True)
class MoMKDOutput(MILOutput):
    """Output of MoMKD; n instances, B bags, K classes, m components.

    Attributes
    ----------
    projection : Tensor of shape (n, projection_dim)
        Patch projections p, of length one; Eq. 6 compares them with the memory.
    affinity : Tensor of shape (n, K, m)
        Cosines of the patches with the memory, without gradient for the memory.
    slide_projection : Tensor of shape (B, projection_dim)
        F_N-wsi, of length one (Eq. 1).
    memory : Tensor of shape (K, m, projection_dim)
        The rows of the memory, with gradient.
    paired : Tensor of shape (B,), bool
        Which bags have omics; P of them.
    omics, reconstruction : Tensor of shape (P, n_genes) or None
    omics_projection : Tensor of shape (P, projection_dim) or None
        F_N-omics, of length one (Eq. 2).
    few : bool
        Whether compiled loops for few patches suit the losses, too.
    """

    projection: Tensor
    affinity: Tensor
    slide_projection: Tensor
    memory: Tensor
    paired: Tensor
    omics: Tensor | None = None
    reconstruction: Tensor | None = None
    omics_projection: Tensor | None = None
    few: bool = False


class MoMKD(nn.Module):
    """Slide classifier whose attention compares the patches with a memory shaped by omics.

    The omics branch influences the histology branch through the memory alone. It is not needed
    for prediction (``n_genes=0``, or deleted after training).

    Parameters
    ----------
    in_features : int
        Width of the patch features.
    n_genes : int
        Width of the omics vector; 0 for no omics branch.
    n_classes : int
    dim : int, default=256
        Width D of the patch embedding.
    projection_dim : int, default=128
        Width D_N of projections and memory.
    n_components : int, default=16
        Memory rows per class.
    n_heads, omics_hidden_dim, head_hidden_dim : int
    head : {"mlp", "linear"}
    dropout, omics_dropout, head_dropout : float
    tau : float, default=0.2
        Temperature of the attention.
    learn_tau, learn_memory : bool
        Whether the losses train the temperature and the memory.
    backend : {"auto", "numba", "torch", "torch_compile"}
        Implementation of the graph encoder.
    identity_residual : bool, default=False
        Where `dim` is `in_features`, the first residual is the identity, as in the release.

    References
    ----------
    Guo et al. Momentum Memory for Knowledge Distillation in Computational Pathology. CVPR 2026.
    """

    def __init__(
        self,
        in_features: int,
        n_genes: int,
        n_classes: int,
        *,
        dim: int = 256,
        projection_dim: int = 128,
        n_components: int = 16,
        n_heads: int = 2,
        omics_hidden_dim: int = 512,
        head_hidden_dim: int = 128,
        head: str = "mlp",
        dropout: float = 0.5,
        omics_dropout: float = 0.25,
        head_dropout: float = 0.5,
        tau: float = 0.2,
        learn_tau: bool = False,
        learn_memory: bool = True,
        backend: str = "auto",
        identity_residual: bool = False,
    ) -> None:
        super().__init__()
        self.log_tau = nn.Parameter(torch.tensor(math.log(tau)), requires_grad=learn_tau)
        identity = identity_residual and in_features == dim
        self.encoder = GraphEncoder(in_features, dim, n_heads, dropout, backend, identity=identity)
        self.patch_projector = nn.Linear(dim, projection_dim)
        self.slide_projector = nn.Linear(dim, projection_dim)
        self.memory = ClassMemory(n_classes, n_components, projection_dim, trainable=learn_memory)
        self.head = _head(dim, head_hidden_dim, n_classes, head, head_dropout)
        self.omics_branch = (
            OmicsBranch(n_genes, dim, projection_dim, omics_hidden_dim, omics_dropout)
            if n_genes
            else None
        )

    def forward(
        self,
        x: Tensor | Blocks,  # (n, in_features), float32 or bfloat16
        edge_index: Tensor | Edges,  # (2, n_edges)
        batch: Tensor,  # (n,)
        n_bags: int,
        *,
        y: Tensor | None = None,  # (B,), given in training
        omics: Tensor | None = None,  # (P, n_genes), rows of the paired bags in order
        paired: Tensor | None = None,  # (B,) bool
    ) -> MoMKDOutput:
        embedding = self.encoder(x, edge_index)  # F (n, D)
        layers = (self.patch_projector, self.slide_projector, self.head)
        few = len(self.memory.rows) == 2 and self._suits_loops(embedding, *layers)
        bags = (
            self._few_bags(embedding.float(), batch, n_bags, layers)
            if few
            else self._bags(embedding, batch, n_bags, y)
        )
        projection, affinity, attention, slide, logits = bags

        seen = batch.new_zeros(n_bags, dtype=torch.bool) if paired is None else paired
        reconstruction = omics_projection = None
        if omics is not None and len(omics) and self.omics_branch is not None:
            suits = self._suits_loops(omics, self.omics_branch)
            gradients = self.encoder.workspace.gradients if suits else None
            omics_projection, reconstruction = self.omics_branch(omics, gradients=gradients)
        return MoMKDOutput(
            logits=logits,
            attention=attention,
            batch=batch,
            projection=projection,
            affinity=affinity,
            slide_projection=slide,
            memory=self.memory.rows,
            paired=seen,
            omics=omics,
            reconstruction=reconstruction,
            omics_projection=omics_projection,
            few=few,
        )

    def _suits_loops(self, x: Tensor, *parts: nn.Module) -> bool:
        return self.training and are_few(x, self.encoder.backend, *parts)

    def attend(
        self, x: Tensor | Blocks, edge_index: Tensor | Edges, batch: Tensor, n_bags: int
    ) -> tuple[Tensor, Tensor]:
        """Patch embeddings F (n, D) and their weights alpha (n, maps)."""
        embedding = self.encoder(x, edge_index)
        _, affinity = self._project(embedding)
        return embedding, self._attention(affinity, batch, n_bags)

    def classify(self, pooled: Tensor) -> Tensor:
        """Logits of weighted sums of patch embeddings: V (B, maps, D) -> (B, K)."""
        logits = self.head(pooled)  # (B, maps, K)
        # One map: its logits. A map per class: entry c of the head applied to V^c.
        return logits[:, 0] if pooled.shape[1] == 1 else logits.diagonal(dim1=1, dim2=2)

    def tau(self) -> Tensor:
        """Temperature of the attention, clipped to [0.01, 2]."""
        return self.log_tau.exp().clamp(0.01, 2.0)

    def branches(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by branch, for gradient clipping per branch."""
        omics = [] if self.omics_branch is None else list(self.omics_branch.parameters())
        memory = list(self.memory.parameters())
        other = {id(p) for p in (*omics, *memory)}
        histology = [p for p in self.parameters() if id(p) not in other]
        return {"histology": histology, "memory": memory, "omics": omics}

    def _bags(
        self, embedding: Tensor, batch: Tensor, n_bags: int, y: Tensor | None
    ) -> tuple[Tensor, ...]:
        """Projection p, affinity, weights alpha (n, maps), F_N-wsi, logits (Eq. 1, Eq. 6-8)."""
        projection, affinity = self._project(embedding)
        attention = self._attention(affinity, batch, n_bags)
        pooled = segment_pool(attention, embedding, batch, n_bags)  # V (B, maps, D)
        slide = F.normalize(self.slide_projector(_slide(pooled, y)), dim=1)  # (B, D_N)
        return projection, affinity, attention, slide, self.classify(pooled)

    def _few_bags(
        self,
        embedding: Tensor,
        batch: Tensor,
        n_bags: int,
        layers: tuple[nn.Linear, nn.Linear, nn.Module],
    ) -> tuple[Tensor, ...]:
        """The same for two classes in compiled loops."""
        from ..nn.few import bag_outputs  # imports numba

        gradients = self.encoder.workspace.gradients
        return bag_outputs(
            embedding, (batch, n_bags), self.memory.rows, self.tau(), layers, gradients
        )

    def _project(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        projection = mixed_linear(embedding, self.patch_projector)
        projection = F.normalize(projection, dim=1)  # p (n, D_N)
        return projection, self.memory.affinity(projection)  # (n, K, m)

    def _attention(self, affinity: Tensor, batch: Tensor, n_bags: int) -> Tensor:
        scores = attention_scores(affinity) / self.tau()  # (n, maps), Eq. 6
        return segment_softmax(scores, batch, n_bags)  # alpha (n, maps), Eq. 7


@torch.no_grad()
def slide_affinity(output: MoMKDOutput) -> Tensor:
    """Cosines of the slides with the memory components, class by class: (B, K * m)."""
    rows = F.normalize(output.memory, dim=2).flatten(0, 1)
    return output.slide_projection @ rows.T


def _slide(pooled: Tensor, y: Tensor | None) -> Tensor:
    """Slide vector that Eq. 1 projects: V; of a map per class V^y, or the mean without y."""
    if pooled.shape[1] == 1:
        return pooled[:, 0]
    if y is None:
        return pooled.mean(dim=1)
    return pooled[torch.arange(len(y), device=y.device), y]


def _head(dim: int, hidden_dim: int, n_classes: int, kind: str, dropout: float) -> nn.Module:
    if kind == "linear":
        return nn.Linear(dim, n_classes)
    return nn.Sequential(
        nn.LayerNorm(dim),
        nn.Linear(dim, hidden_dim),
        nn.ReLU(),
        Dropout(dropout),
        nn.Linear(hidden_dim, n_classes),
    )
