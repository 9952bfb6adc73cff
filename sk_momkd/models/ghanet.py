"""G-HANet: histo-genomic knowledge distillation by reconstructing groups of genes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..nn.attention import GatedAttention
from ..nn.blocks import Blocks, embed, materialize
from ..nn.dropout import Dropout
from ..nn.segment import segment_map
from ..nn.transformer import GatedFeedForward, MultiHeadAttention, Tokens
from ..output import MILOutput


@dataclass(frozen=True)
class GHANetOutput(MILOutput):
    """Output of G-HANet; T groups of genes, P of B bags have omics.

    Attributes
    ----------
    attention : Tensor of shape (n, T)
        The hyper-edges, one map per group of genes; each sums to one over a bag.
    paired : Tensor of shape (B,), bool
        Which bags have omics.
    omics, reconstruction : Tensor of shape (P, total_group_size) or None
        One group after the other; a gene in two groups occurs twice.
    group_sizes : tuple of int
        Widths of the groups.
    """

    paired: Tensor
    omics: Tensor | None = None
    reconstruction: Tensor | None = None
    group_sizes: tuple[int, ...] = ()


class GHANet(nn.Module):
    """Slide classifier whose tokens are also trained to reconstruct groups of genes.

    One branch (CAB) pools the slide into a token per group of genes, another (HSB) along a
    hyper-edge per group; the classifier reads the mean of both. Omics is a target, never an
    input: predictions do not depend on the decoders, which can be deleted after training.

    Parameters
    ----------
    in_features : int
        Width of the patch features.
    n_genes : int
        Width of the omics vector; 0 for no decoders.
    n_classes : int
    gene_groups : sequence of sequences of int, optional
        Columns of the omics vector in each group; groups may overlap and need not cover all
        genes. By default `n_groups` contiguous blocks of nearly equal size.
    n_groups : int, default=6
        Number T of tokens if there are no `gene_groups`.
    dim : int, default=512
        Width of the tokens; `n_heads` must divide it.
    n_heads : int, default=4
    gate_dim : int, default=256
        Hidden width of the node weights.
    compressed_dim : int, default=256
        Width of a token before the classifier.
    keep : float, default=0.2
        Share of a slide's patches in a hyper-edge, at least one patch.
    dropout : float, default=0.25

    Attributes
    ----------
    omics_branch : Module or None
        A decoder per group; prediction does not use them.

    Raises
    ------
    ValueError
        If a group has no genes.

    Notes
    -----
    Ours: class logits and cross-entropy in place of the original's survival head; the default
    groups (the original has six signatures, filtered by a t-test); at least one patch per
    hyper-edge (the original fails below five patches); no cap on the number of patches; one
    rate for all dropouts. The original's second cross-attention module, which is never called,
    is left out. Bags without omics train everything but the decoders. Any number of classes.

    References
    ----------
    Wang et al. Histo-Genomic Knowledge Distillation for Cancer Prognosis from Histopathology
    Whole Slide Images. IEEE Transactions on Medical Imaging, 2025.
    """

    def __init__(
        self,
        in_features: int,
        n_genes: int,
        n_classes: int,
        *,
        gene_groups: Sequence[Sequence[int]] | None = None,
        n_groups: int = 6,
        dim: int = 512,
        n_heads: int = 4,
        gate_dim: int = 256,
        compressed_dim: int = 256,
        keep: float = 0.2,
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        if n_genes and gene_groups is None:
            gene_groups = [block.tolist() for block in torch.arange(n_genes).tensor_split(n_groups)]
        n_tokens = n_groups if gene_groups is None else len(gene_groups)  # T
        self.recover = CrossAttentionBranch(in_features, n_tokens, dim, n_heads, dropout)
        self.predict = HyperEdgeBranch(in_features, dim, gate_dim, keep, dropout)
        self.head = FusionHead(
            n_tokens, n_classes, dim=dim, n_heads=n_heads, out_dim=compressed_dim, dropout=dropout
        )
        self.omics_branch = GroupDecoders(gene_groups or (), dim, dropout) if n_genes else None

    def forward(
        self,
        x: Tensor | Blocks,  # (n, in_features), float32 or bfloat16
        edge_index: Tensor,  # not used
        batch: Tensor,  # (n,), ascending
        n_bags: int,
        *,
        y: Tensor | None = None,  # not used
        omics: Tensor | None = None,  # (P, n_genes), rows of the paired bags in order
        paired: Tensor | None = None,  # (B,) bool
        scores: Tensor | None = None,  # (T, n) of a single slide, see `choices`
    ) -> GHANetOutput:
        slides = (
            [self._slides(x, scores)]
            if n_bags == 1
            else segment_map(self._slides, materialize(x), batch, n_bags)
        )
        logits, tokens, hyper_edges = zip(*slides, strict=True)
        seen = torch.zeros(n_bags, dtype=torch.bool, device=x.device) if paired is None else paired
        target = reconstruction = None
        sizes: tuple[int, ...] = ()
        if omics is not None and len(omics) and self.omics_branch is not None:
            target = omics[:, self.omics_branch.genes]  # (P, sum of group sizes)
            reconstruction = self.omics_branch(torch.stack(tokens)[seen])  # like it
            sizes = self.omics_branch.sizes
        return GHANetOutput(
            logits=torch.stack(logits),
            attention=torch.cat(hyper_edges, dim=1).T,
            batch=batch,
            paired=seen,
            omics=target,
            reconstruction=reconstruction,
            group_sizes=sizes,
        )

    def choices(self, x: Tensor | Blocks) -> dict[str, Tensor]:
        """Scores (T, n) by which the hyper-edges of a slide choose patches, without gradient.

        `forward` takes them as an argument, so that logits are continuous in the features.
        """
        return {"scores": self.recover(x)[1]}

    def _slides(
        self, x: Tensor | Blocks, scores: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (K,), tokens (T, d), hyper-edges (T, n) of a slide, or of g slides of one size."""
        tokens, own_scores = self.recover(x)  # R (T, d), M (T, n)
        scores = own_scores if scores is None else scores
        edges, hyper_edges = self.predict(x, scores)  # Y' (T, d), G (T, n)
        return self.head((edges + tokens) / 2), tokens, hyper_edges


class CrossAttentionBranch(nn.Module):
    """CAB: trainable tokens that attend to the slide in two passes of one attention."""

    def __init__(
        self, in_features: int, n_tokens: int, dim: int, n_heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.fc = nn.Linear(in_features, dim)
        self.dropout = Dropout(dropout)
        self.tokens = Tokens(n_tokens, dim)
        self.attention = MultiHeadAttention(dim, n_heads, dropout)
        self.ffn0, self.ffn1 = (GatedFeedForward(dim, dropout) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(6))

    def forward(self, x: Tensor | Blocks) -> tuple[Tensor, Tensor]:
        """(n, in_features) -> R (T, d) and M (T, n), scores of the second pass, mean over heads."""
        ln1, ln2, ln3, ln4, ln5, ln6 = self.norms
        tokens = self.tokens.rows  # T (T, d)
        patches = ln2(self.dropout(F.relu(embed(x, self.fc))))  # LN2(P) (n, d)
        r1, _ = self.attention(ln1(tokens), patches)  # (T, d)
        r1 = self.ffn0(ln3(r1)) + r1
        r2, scores = self.attention(ln4(tokens + r1), patches)  # (T, d), (heads, T, n)
        r2 = self.ffn1(ln5(r2)) + r2
        return ln6(r2), scores.mean(dim=-3)


class HyperEdgeBranch(nn.Module):
    """HSB: patches pooled along hyper-edges, from gated attention and the tokens' scores."""

    def __init__(
        self, in_features: int, dim: int, gate_dim: int, keep: float, dropout: float
    ) -> None:
        super().__init__()
        self.keep = keep
        self.fc = nn.Linear(in_features, dim)
        self.norm = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)
        self.gate = GatedAttention(dim, gate_dim)
        self.linears = nn.ModuleList(nn.Linear(dim, dim) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))

    def forward(self, x: Tensor | Blocks, scores: Tensor) -> tuple[Tensor, Tensor]:
        """(n, in_features), M (T, n) -> Y' (T, d), G (T, n)."""
        h = self.dropout(F.relu(self.norm(embed(x, self.fc))))  # H (n, d)
        e1 = self.gate(h).transpose(-1, -2).softmax(dim=-1)  # (1, n)
        e2 = strongest(scores.detach(), self.keep).softmax(dim=-1)  # (T, n), no gradient
        hyper_edges = (e1 + e2) / 2  # G (T, n)
        y = hyper_edges @ h  # Y (T, d)
        out = y
        for linear, norm in zip(self.linears, self.norms, strict=True):
            out = F.relu(norm(linear(out)))
        return out + y, hyper_edges


def strongest(scores: Tensor, keep: float) -> Tensor:
    """Keep the top share of each row, at least one entry and all ties; the rest becomes -1e5.

    (T, n) -> (T, n)
    """
    k = max(1, int(keep * scores.shape[-1]))
    threshold = scores.topk(k, dim=-1).values[..., -1:]
    return scores.where(scores >= threshold, -1e5)


class FusionHead(nn.Module):
    """Self-attention over the fused tokens, compression, and a classifier of all tokens."""

    def __init__(
        self,
        n_tokens: int,
        n_classes: int,
        *,
        dim: int,
        n_heads: int,
        out_dim: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(dim, n_heads, dropout)
        self.ffn = GatedFeedForward(dim, dropout)
        self.norm = nn.LayerNorm(dim)
        self.compress = nn.Linear(dim, out_dim)
        self.compress_norm = nn.LayerNorm(out_dim)
        self.dropout = Dropout(dropout)
        self.classifier = nn.Linear(n_tokens * out_dim, n_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """F (T, d) -> (K,)."""
        tokens = self.attention(tokens, tokens)[0] + tokens
        tokens = self.ffn(self.norm(tokens)) + tokens
        tokens = self.dropout(F.relu(self.compress_norm(self.compress(tokens))))  # (T, out_dim)
        return self.classifier(tokens.flatten(-2))


class GroupDecoders(nn.Module):
    """One decoder per group of genes, from the token of the group to its expression.

    Attributes
    ----------
    genes : int Tensor of shape (sum of group sizes,)
        Column of the omics vector that each output reconstructs.
    """

    genes: Tensor

    def __init__(self, groups: Sequence[Sequence[int]], dim: int, dropout: float) -> None:
        super().__init__()
        self.sizes = tuple(len(group) for group in groups)
        if 0 in self.sizes:
            raise ValueError(
                f"Gene group {self.sizes.index(0)} of {len(groups)} has no genes, so that its "
                "decoder has nothing to learn. Leave it out, or take fewer groups than genes."
            )
        genes = [gene for group in groups for gene in group]
        self.register_buffer("genes", torch.tensor(genes, dtype=torch.long))
        self.decoders = nn.ModuleList(
            nn.Sequential(
                nn.Linear(dim, dim),
                nn.LayerNorm(dim),
                nn.ELU(),
                Dropout(dropout),
                nn.Linear(dim, size),
            )
            for size in self.sizes
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """(P, T, d) -> (P, sum of group sizes)."""
        parts = zip(self.decoders, tokens.unbind(dim=1), strict=True)
        return torch.cat([decoder(token) for decoder, token in parts], dim=1)
