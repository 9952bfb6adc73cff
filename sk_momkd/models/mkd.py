"""MKD: multi-teacher knowledge distillation with feature decomposition (MICCAI 2025)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..nn.attention import AttentionMIL, AttentionPool
from ..nn.blocks import Blocks, PatchEmbedding, materialize
from ..nn.dropout import AlphaDropout, Dropout
from ..nn.initialization import initialise_normal
from ..nn.kronecker import GatedOuterProduct
from ..nn.segment import paired_instances
from ..output import MILOutput

_PRODUCT_DIM = 256  # width of the compressed outer product, which does not follow `dim`


@dataclass(frozen=True)
class MKDOutput(MILOutput):
    """Output of the student and, in training, of its two teachers; P of B bags have omics.

    Attributes
    ----------
    feature : Tensor of shape (B, dim)
        f_P, never negative.
    paired : Tensor of shape (B,), bool
        Which bags have omics.
    omics_logits, joint_logits : Tensor of shape (P, K) or None
        z_G of the omics teacher, z_M of the multimodal one.
    omics_feature, joint_feature : Tensor of shape (P, dim) or None
        f_G, which is signed, and f_M, which is not.
    """

    feature: Tensor
    paired: Tensor
    omics_logits: Tensor | None = None
    omics_feature: Tensor | None = None
    joint_logits: Tensor | None = None
    joint_feature: Tensor | None = None


class MKD(nn.Module):
    """Attention MIL student with an omics and a multimodal teacher, trained at the same time.

    Parameters
    ----------
    in_features : int
        Width of the patch features.
    n_genes : int
        Width of the omics vector; 0 for no teachers.
    n_classes : int
    dim : int, default=256
        Width d of all features that are compared.
    attention_dim : int, default=128
        Hidden width of every attention pooling.
    n_tokens : int, default=6
        The omics vector is padded with zeros and cut into this many tokens; the order of the
        genes is part of the model.
    fusion : {"bilinear", "concat"}, default="bilinear"
        How the multimodal teacher fuses the two modalities.
    gate_dim : int, default=32
        Width of the factors of the bilinear fusion.
    dropout : float, default=0.25
        In all networks; AlphaDropout on the omics tokens.

    Attributes
    ----------
    student : Module
    omics_branch : Module or None
        Both teachers, which prediction does not use.

    Notes
    -----
    Ours: RNA alone, 768 selected genes as 6 x 128 tokens (the original has 16 x 512), and bags
    without omics, which train the student alone. The multimodal teacher reads the patches of
    the paired bags through layers of its own. Any number of classes.

    References
    ----------
    Zhang et al. Multi-modal Knowledge Decomposition based Online Distillation for Biomarker
    Prediction in Breast Cancer Histopathology. MICCAI 2025.
    """

    def __init__(
        self,
        in_features: int,
        n_genes: int,
        n_classes: int,
        *,
        dim: int = 256,
        attention_dim: int = 128,
        n_tokens: int = 6,
        fusion: str = "bilinear",
        gate_dim: int = 32,
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        self.student = AttentionMIL(
            in_features, n_classes, dim, attention_dim, head_dropout=dropout
        )
        self.omics_branch = (
            Teachers(
                in_features,
                n_genes,
                n_classes,
                dim=dim,
                attention_dim=attention_dim,
                n_tokens=n_tokens,
                fusion=fusion,
                gate_dim=gate_dim,
                dropout=dropout,
            )
            if n_genes
            else None
        )

    def forward(
        self,
        x: Tensor | Blocks,  # (n, in_features), float32 or bfloat16
        edge_index: Tensor,  # not used
        batch: Tensor,  # (n,)
        n_bags: int,
        *,
        y: Tensor | None = None,  # not used
        omics: Tensor | None = None,  # (P, n_genes), rows of the paired bags in order
        paired: Tensor | None = None,  # (B,) bool
    ) -> MKDOutput:
        feature, logits, attention = self.student(x, batch, n_bags)  # f_P, z_P, (n, 1)
        seen = torch.zeros(n_bags, dtype=torch.bool, device=x.device) if paired is None else paired
        f_g = z_g = f_m = z_m = None
        if omics is not None and len(omics) and self.omics_branch is not None:
            f_g, z_g = self.omics_branch.omics(omics)  # (P, d), (P, K)
            patches, owner = paired_instances(materialize(x), batch, seen)
            f_m, z_m = self.omics_branch.joint(patches, owner, omics)  # (P, d), (P, K)
        return MKDOutput(
            logits=logits,
            attention=attention,
            batch=batch,
            feature=feature,
            paired=seen,
            omics_logits=z_g,
            omics_feature=f_g,
            joint_logits=z_m,
            joint_feature=f_m,
        )

    def attend(
        self, x: Tensor | Blocks, edge_index: Tensor, batch: Tensor, n_bags: int
    ) -> tuple[Tensor, Tensor]:
        """Patches as the student embeds them (n, dim), and their weights (n, 1)."""
        return self.student.attend(x, batch, n_bags)

    def classify(self, pooled: Tensor) -> Tensor:
        """Logits of weighted sums of the embedded patches: (B, 1, dim) -> (B, K)."""
        return self.student.classify(pooled)


class Teachers(nn.Module):
    """Teachers T_G and T_M, which share no weights."""

    def __init__(
        self,
        in_features: int,
        n_genes: int,
        n_classes: int,
        *,
        dim: int,
        attention_dim: int,
        n_tokens: int,
        fusion: str,
        gate_dim: int,
        dropout: float,
    ) -> None:
        super().__init__()
        tokens, own_tokens = (OmicsTokens(n_genes, n_tokens, dim, dropout) for _ in range(2))
        path = PatchEmbedding(nn.Linear(in_features, dim), nn.ReLU(), Dropout(dropout))
        bilinear = fusion == "bilinear"
        fused = KroneckerFusion(dim, gate_dim, dim, dropout) if bilinear else ConcatFusion(dim)
        self.omics = OmicsTeacher(tokens, n_classes, attention_dim, dropout)
        self.joint = JointTeacher(path, own_tokens, fused, n_classes, attention_dim)


class OmicsTokens(nn.Module):
    """The omics vector as a bag of embedded tokens."""

    def __init__(self, n_genes: int, n_tokens: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.n_tokens, self.width = n_tokens, -(-n_genes // n_tokens)
        self.fc = nn.Linear(self.width, dim)
        self.dropout = AlphaDropout(dropout)

    def forward(self, omics: Tensor) -> tuple[Tensor, Tensor, int]:
        """(P, n_genes) -> tokens (P * T, d), their owner (P * T,), and P."""
        missing = self.n_tokens * self.width - omics.shape[1]
        tokens = F.pad(omics, (0, missing)).reshape(-1, self.width)  # (P * T, width)
        owner = torch.arange(len(omics), device=omics.device).repeat_interleave(self.n_tokens)
        return self.dropout(F.elu(self.fc(tokens))), owner, len(omics)


class OmicsTeacher(nn.Module):
    """T_G: pooled omics tokens, linear head."""

    def __init__(
        self, tokens: OmicsTokens, n_classes: int, attention_dim: int, dropout: float
    ) -> None:
        super().__init__()
        dim = tokens.fc.out_features
        self.tokens = tokens
        self.pool = AttentionPool(dim, attention_dim)
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(dim, n_classes)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw weights from N(0, 1/fan_in); biases are zero."""
        initialise_normal(self, generator)

    def forward(self, omics: Tensor) -> tuple[Tensor, Tensor]:
        """(P, n_genes) -> f_G (P, d), z_G (P, K)."""
        feature, _ = self.pool(*self.tokens(omics))
        return feature, self.head(self.dropout(feature))


class JointTeacher(nn.Module):
    """T_M: pools both modalities and fuses them; no dropout before the head."""

    def __init__(
        self,
        path: nn.Module,
        tokens: OmicsTokens,
        fusion: nn.Module,
        n_classes: int,
        attention_dim: int,
    ) -> None:
        super().__init__()
        dim = tokens.fc.out_features
        self.path, self.tokens, self.fusion = path, tokens, fusion
        self.path_pool = AttentionPool(dim, attention_dim)
        self.omics_pool = AttentionPool(dim, attention_dim)
        self.head = nn.Linear(dim, n_classes)

    def forward(self, x: Tensor, batch: Tensor, omics: Tensor) -> tuple[Tensor, Tensor]:
        """Patches of the paired bags and (P, n_genes) -> f_M (P, d), z_M (P, K)."""
        p, _ = self.path_pool(self.path(x), batch, len(omics))  # (P, d)
        g, _ = self.omics_pool(*self.tokens(omics))  # (P, d)
        feature = self.fusion(p, g)  # pathology first: the fusion is not symmetric
        return feature, self.head(feature)


class KroneckerFusion(nn.Module):
    """K(p, g): gated outer product, compressed to 256 values and joined with both vectors."""

    def __init__(self, dim: int, gate_dim: int, out_dim: int, dropout: float) -> None:
        super().__init__()
        self.product = GatedOuterProduct(dim, gate_dim, dropout)
        self.compress = nn.Linear((gate_dim + 1) ** 2, _PRODUCT_DIM)
        self.join = nn.Linear(_PRODUCT_DIM + 2 * dim, out_dim)
        self.dropout = Dropout(dropout)

    def forward(self, p: Tensor, g: Tensor) -> Tensor:
        """(P, d), (P, d) -> (P, out_dim), never negative."""
        product = self.dropout(F.relu(self.compress(self.product(p, g))))  # (P, 256)
        return self.dropout(F.relu(self.join(torch.cat([product, p, g], dim=1))))


class ConcatFusion(nn.Module):
    """Concatenation of both vectors, then two layers."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.first = nn.Linear(2 * dim, 2 * dim)
        self.second = nn.Linear(2 * dim, dim)

    def forward(self, p: Tensor, g: Tensor) -> Tensor:
        """(P, d), (P, d) -> (P, d), never negative."""
        return F.relu(self.second(F.relu(self.first(torch.cat([p, g], dim=1)))))
