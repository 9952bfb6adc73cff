"""TDC, first stage: a multimodal teacher by comprehensive learning (MedIA 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..nn.distillation import AlphaDropout, MovingAverage, PathStudent, normal_weights
from ..nn.dropout import Dropout
from ..nn.kronecker import Bilinear, GatedOuterProduct
from ..nn.patch_subsampling import RandomView, highest, highest_in_bags
from ..nn.precision import wide
from ..nn.segment import paired_instances
from ..output import MILOutput


class Logits(NamedTuple):
    """Logits of the three heads: path (B, K); omics and fused (P, K), None without omics."""

    path: Tensor
    omics: Tensor | None
    fused: Tensor | None


@dataclass(frozen=True)
class TDCTeacherOutput(MILOutput):
    """What the first stage computes; P of B bags have omics.

    Attributes
    ----------
    logits : Tensor of shape (B, K)
        Of the fused head where a bag has omics, else of the path head.
    attention, batch : Tensor of shape (n', 1) and (n',)
        Of the instances of the view.
    paired : Tensor of shape (B,), bool
    heads : Logits
        Of the network.
    average : Logits or None
        Of its moving average on another view, in training.
    masked : tuple of Tensor of shape (P, K)
        Fused logits of the two masked passes, where masking is on.
    omics_norm : Tensor of shape (1,)
        Sum of the absolute weights of the omics network.
    """

    paired: Tensor
    heads: Logits
    average: Logits | None
    masked: tuple[Tensor, ...]
    omics_norm: Tensor


class TDCTeacher(nn.Module):
    """Multimodal network that learns from its labels, its own average and masked inputs.

    Parameters
    ----------
    in_features, n_genes, n_classes : int
        There is no teacher without genes.
    dim : int, default=128
        Width of the three features.
    attention_dim : int, default=128
    omics_hidden_dims : sequence of int, default=(64, 48, 32)
        Hidden widths of the omics network.
    dropout, omics_dropout : float, default=0.25, 0.1
        In path and fusion networks; AlphaDropout in the omics network.
    average_decay : float, default=0.99
    view : float, default=0.8
        Share of a slide's patches in a view.
    masked_patches, masked_genes : float, default=0.01, 1/16
        Share of the patches of a slide and of the genes that the masked passes do without,
        at least one.

    Attributes
    ----------
    net : MultimodalNet
        The teacher.
    average : MovingAverage
    masking : bool
        Whether the masked passes run; off at first. The paper turns it on in epoch 2.

    Notes
    -----
    Ours: patches in place of superpixels and a random part of the patches as a view; an
    attention MIL in place of the image network; a masked patch or gene becomes 0; bags without
    omics train the path head and its average; a batch norm that meets a single bag uses its
    running statistics. Any number of classes.

    References
    ----------
    Zhang et al. Comprehensive learning and adaptive teaching: Distilling multi-modal knowledge
    for pathological glioma grading. Medical Image Analysis 91:102990, 2024.
    """

    reads_omics = True  # the engine passes them at validation, too

    def __init__(
        self,
        in_features: int,
        n_genes: int,
        n_classes: int,
        *,
        dim: int = 128,
        attention_dim: int = 128,
        omics_hidden_dims: Sequence[int] = (64, 48, 32),
        dropout: float = 0.25,
        omics_dropout: float = 0.1,
        average_decay: float = 0.99,
        view: float = 0.8,
        masked_patches: float = 0.01,
        masked_genes: float = 1 / 16,
    ) -> None:
        super().__init__()
        self.masked_patches, self.masked_genes = masked_patches, masked_genes
        self.masking = False
        self.view = RandomView(view)
        self.net = MultimodalNet(
            PathStudent(in_features, n_classes, dim, attention_dim, dropout=dropout),
            OmicsNet((n_genes, *omics_hidden_dims, dim), n_classes, omics_dropout),
            FusionNet(dim, n_classes, dropout),
        )
        self.average = MovingAverage(self.net, average_decay)

    def forward(
        self,
        x: Tensor,  # (n, in_features)
        edge_index: Tensor,  # not used
        batch: Tensor,  # (n,), ascending
        n_bags: int,
        *,
        y: Tensor | None = None,  # (B,), given in training
        omics: Tensor | None = None,  # (P, n_genes), rows of the paired bags in order
        paired: Tensor | None = None,  # (B,) bool
    ) -> TDCTeacherOutput:
        if paired is None or omics is None:
            paired, omics = torch.zeros(n_bags, dtype=torch.bool, device=x.device), None
        seen, seen_batch = self.view(x, batch, n_bags)  # (n', in_features), (n',)
        heads, attention = self.net(seen, seen_batch, omics, paired)
        average = None
        if self.training:
            average, _ = self.average(*self.view(x, batch, n_bags), omics, paired)
        masked: tuple[Tensor, ...] = ()
        if self.training and self.masking and y is not None and omics is not None and len(omics):
            masked = self._masked(*paired_instances(seen, seen_batch, paired), omics, y[paired])
        fused = heads.path[:0] if heads.fused is None else heads.fused
        return TDCTeacherOutput(
            logits=heads.path.index_put((paired,), fused),
            attention=attention,
            batch=seen_batch,
            paired=paired,
            heads=heads,
            average=average,
            masked=masked,
            omics_norm=torch.cat([p.flatten() for p in self.net.omics.parameters()])
            .norm(1)
            .view(1),
        )

    def update_average(self) -> None:
        """Move the average; once before the first step (a copy) and after every step."""
        self.average.update(self.net)

    def _masked(self, x: Tensor, batch: Tensor, omics: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Fused logits without the most telling patches, and without such genes; paired bags."""
        patch_slope, gene_slope = self._slopes(x, batch, omics, y)  # (n',), (P, n_genes)
        patches = highest_in_bags(patch_slope, batch, len(y), self.masked_patches)
        genes = highest(gene_slope, self.masked_genes)
        _, without_patches = self.net.fuse(x.masked_fill(patches.unsqueeze(1), 0), batch, omics)
        _, without_genes = self.net.fuse(x, batch, omics.masked_fill(genes, 0))
        return without_patches, without_genes

    def _slopes(self, x: Tensor, batch: Tensor, omics: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Signed gradient of the fused loss by patch and by gene, network in eval mode."""
        x, omics = x.detach().requires_grad_(), omics.detach().requires_grad_()
        self.net.eval()
        try:
            _, logits = self.net.fuse(x, batch, omics)
        finally:
            self.net.train()
        loss = F.cross_entropy(logits, y, reduction="sum")  # bags do not mix in eval mode
        by_patch, by_gene = torch.autograd.grad(loss, (x, omics))
        return wide(by_patch).sum(dim=1), by_gene


class MultimodalNet(nn.Module):
    """Path, omics and fused features, each with a head."""

    def __init__(self, path: PathStudent, omics: OmicsNet, fusion: FusionNet) -> None:
        super().__init__()
        self.path, self.omics, self.fusion = path, omics, fusion

    def forward(
        self, x: Tensor, batch: Tensor, omics: Tensor | None, paired: Tensor
    ) -> tuple[Logits, Tensor]:
        """(n, in_features), (n,), (P, n_genes), (B,) -> `Logits`, attention (n, 1)."""
        feature, path, attention = self.path(x, batch, len(paired))
        if omics is None or not len(omics):
            return Logits(path, None, None), attention
        omics_feature, omics_logits = self.omics(omics)
        _, fused = self.fusion(feature[paired], omics_feature)
        return Logits(path, omics_logits, fused), attention

    def fuse(self, x: Tensor, batch: Tensor, omics: Tensor) -> tuple[Tensor, Tensor]:
        """Patches of the paired bags and (P, n_genes) -> fused feature (P, d), logits (P, K)."""
        feature, _, _ = self.path(x, batch, len(omics))
        return self.fusion(feature, self.omics(omics)[0])


class OmicsNet(nn.Module):
    """Self-normalizing network on the omics vector."""

    def __init__(self, dims: Sequence[int], n_classes: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(dims))
        self.dropout = AlphaDropout(dropout)
        self.head = nn.Linear(dims[-1], n_classes)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """N(0, 1/fan_in) weights, zero biases."""
        normal_weights(self, generator)

    def forward(self, omics: Tensor) -> tuple[Tensor, Tensor]:
        """(P, n_genes) -> feature (P, d), logits (P, K)."""
        h = omics
        for layer in self.layers:
            h = self.dropout(F.elu(layer(h)))
        feature = F.relu(h)
        return feature, self.head(feature)


class FusionNet(nn.Module):
    """Kronecker fusion with batch norms and without skip connections."""

    def __init__(self, dim: int, n_classes: int, dropout: float) -> None:
        super().__init__()
        self.product = GatedOuterProduct(dim, dim, dropout)
        self.compress = nn.Linear((dim + 1) ** 2, dim)
        self.norm1 = BagNorm(dim)
        self.join = nn.Linear(dim, dim)
        self.norm2 = BagNorm(dim)
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(dim, n_classes)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """N(0, 1/fan_in) weights and zero biases; bilinear forms and norms as torch has them."""
        normal_weights(self, generator)
        for part in self.modules():
            if isinstance(part, Bilinear):
                part.reset_parameters(generator)
            elif isinstance(part, BagNorm):
                part.reset_running_stats()
                part.reset_parameters()

    def forward(self, p: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """(P, d), (P, d) -> feature (P, d), logits (P, K)."""
        product = self.compress(self.product(F.relu(p), F.relu(g)))  # (P, d)
        feature = self.norm2(self.join(self.dropout(F.relu(self.norm1(product)))))
        return feature, self.head(feature)


class BagNorm(nn.BatchNorm1d):
    """Batch norm over bags; a single one is scaled by the running statistics."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) > 1:
            return super().forward(x)
        mean, var = self.running_mean, self.running_var
        return F.batch_norm(x, mean, var, self.weight, self.bias, eps=self.eps)
