"""TDC: comprehensive learning and adaptive teaching, in two stages (MedIA 2024).

First stage: a multimodal teacher. Second stage: a histology student of that frozen teacher.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..nn.attention import AttentionMIL
from ..nn.blocks import Blocks, materialize
from ..nn.contrast import Contrast, ContrastMemory
from ..nn.dropout import AlphaDropout, Dropout
from ..nn.initialization import initialise_normal
from ..nn.kronecker import Bilinear, GatedOuterProduct
from ..nn.moving_average import MovingAverage
from ..nn.patch_subsampling import PatchSubsampling, mark_highest, mark_highest_in_bags
from ..nn.precision import upcast
from ..nn.segment import paired_instances
from ..output import MILOutput


class Logits(NamedTuple):
    """Logits of the three heads: path (B, K); omics and fused (P, K), None without omics."""

    path: Tensor
    omics: Tensor | None
    fused: Tensor | None


@dataclass(frozen=True)
class TDCTeacherOutput(MILOutput):
    """Output of the first stage; P of B bags have omics.

    Attributes
    ----------
    logits : Tensor of shape (B, K)
        From the fused head if the bag has omics, else from the path head.
    attention, batch : Tensor of shape (n', 1) and (n',)
        Of the instances in the subsample.
    paired : Tensor of shape (B,), bool
        Which bags have omics.
    heads : Logits
        Of the network.
    average : Logits or None
        Of its moving average on another subsample, in training.
    masked : tuple of Tensor of shape (P, K)
        Fused logits of the two masked passes, if masking is on.
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
        In the path and fusion networks; AlphaDropout in the omics network.
    average_decay : float, default=0.99
    view : float, default=0.8
        Share of a slide's patches in each subsample.
    masked_patches, masked_genes : float, default=0.01, 1/16
        Share of the patches of a slide and of the genes that the masked passes set to 0, at
        least one.

    Attributes
    ----------
    net : MultimodalNet
        The teacher.
    average : MovingAverage
    masking : bool
        Whether the masked passes run. False at the start; the paper turns them on in epoch 2.

    Notes
    -----
    Ours: patches in place of superpixels, and random subsamples of the patches as views; an
    attention MIL in place of the image network; a masked patch or gene becomes 0; bags without
    omics train the path head and its average; a batch norm uses its running statistics for a
    batch of one bag. Any number of classes.

    References
    ----------
    Xing et al. Comprehensive learning and adaptive teaching: Distilling multi-modal knowledge
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
        self.subsample = PatchSubsampling(view)
        self.net = MultimodalNet(
            AttentionMIL(in_features, n_classes, dim, attention_dim, dropout=dropout),
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
        seen, seen_batch = self.subsample(x, batch, n_bags)  # (n', in_features), (n',)
        heads, attention = self.net(seen, seen_batch, omics, paired)  # (B, K) ..., (n', 1)
        average = None
        if self.training:
            average, _ = self.average(*self.subsample(x, batch, n_bags), omics, paired)
        masked: tuple[Tensor, ...] = ()
        if self.training and self.masking and y is not None and omics is not None and len(omics):
            masked = self._masked(*paired_instances(seen, seen_batch, paired), omics, y[paired])
        fused = heads.path[:0] if heads.fused is None else heads.fused  # (P, K)
        return TDCTeacherOutput(
            logits=heads.path.index_put((paired,), fused),
            attention=attention,
            batch=seen_batch,
            paired=paired,
            heads=heads,
            average=average,
            masked=masked,
            omics_norm=nn.utils.parameters_to_vector(self.net.omics.parameters()).norm(1).view(1),
        )

    def update_average(self) -> None:
        """Update the moving average: before the first step, which copies, and after every step."""
        self.average.update(self.net)

    def _masked(self, x: Tensor, batch: Tensor, omics: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Fused logits of the paired bags without the patches, then the genes, of largest slope."""
        patch_slope, gene_slope = self._slopes(x, batch, omics, y)  # (n',), (P, n_genes)
        patches = mark_highest_in_bags(patch_slope, batch, len(y), self.masked_patches)
        genes = mark_highest(gene_slope, self.masked_genes)
        _, without_patches = self.net.fuse(x.masked_fill(patches.unsqueeze(1), 0), batch, omics)
        _, without_genes = self.net.fuse(x, batch, omics.masked_fill(genes, 0))
        return without_patches, without_genes

    def _slopes(self, x: Tensor, batch: Tensor, omics: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Signed gradient of the fused loss in eval mode: by patch (n',), by gene (P, n_genes)."""
        x, omics = x.detach().requires_grad_(), omics.detach().requires_grad_()
        self.net.eval()
        try:
            _, logits = self.net.fuse(x, batch, omics)
        finally:
            self.net.train()
        loss = F.cross_entropy(logits, y, reduction="sum")  # bags do not mix in eval mode
        by_patch, by_gene = torch.autograd.grad(loss, (x, omics))
        return upcast(by_patch).sum(dim=1), by_gene


class MultimodalNet(nn.Module):
    """Path, omics and fused features, each with a head."""

    def __init__(self, path: AttentionMIL, omics: OmicsNet, fusion: FusionNet) -> None:
        super().__init__()
        self.path, self.omics, self.fusion = path, omics, fusion

    def forward(
        self, x: Tensor, batch: Tensor, omics: Tensor | None, paired: Tensor
    ) -> tuple[Logits, Tensor]:
        """(n, in_features), (n,), (P, n_genes), (B,) -> `Logits`, attention (n, 1)."""
        feature, path, attention = self.path(x, batch, len(paired))  # (B, d), (B, K), (n, 1)
        if omics is None or not len(omics):
            return Logits(path, None, None), attention
        omics_feature, omics_logits = self.omics(omics)  # (P, d), (P, K)
        _, fused = self.fusion(feature[paired], omics_feature)  # (P, K)
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
        initialise_normal(self, generator)

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
        initialise_normal(self, generator)
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
    """Batch norm over bags; a batch of one bag uses the running statistics."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) > 1:
            return super().forward(x)
        mean, var = self.running_mean, self.running_var
        return F.batch_norm(x, mean, var, self.weight, self.bias, eps=self.eps)


@dataclass(frozen=True)
class DistillationTargets:
    """Output of one teacher for b bags of the batch.

    Attributes
    ----------
    bags : int Tensor of shape (b,)
        Positions of these bags in the batch.
    logits : Tensor of shape (b, K)
        Of the teacher, without gradient.
    contrasts : pair of Contrast
        Of the student with the teacher's memory bank, and of the teacher with the student's.
    n_rows : int
        Number of bank rows in use.
    temperature : float
        Of the contrasts.
    """

    bags: Tensor
    logits: Tensor
    contrasts: tuple[Contrast, Contrast]
    n_rows: int
    temperature: float


@dataclass(frozen=True)
class TDCOutput(MILOutput):
    """Output of the student and, in training, of its teachers.

    Attributes
    ----------
    feature : Tensor of shape (B, dim)
        f_S, at which the gradients of the distillation terms are compared.
    targets : mapping of str to DistillationTargets
        ``"average"`` for all bags, ``"teacher"`` for those with omics.
    """

    feature: Tensor
    targets: Mapping[str, DistillationTargets] = field(default_factory=dict)


class TDC(nn.Module):
    """Attention MIL student of a frozen multimodal teacher and of its own moving average.

    `begin` hands over the teacher and the training labels. After it, a forward pass in training
    mode with the bags' `index` also returns the teachers' targets and updates the memory banks.

    Parameters
    ----------
    in_features, n_genes, n_classes : int
        ``n_genes=0`` for no multimodal teacher.
    dim : int, default=128
        Width of the features; the teacher's is the same.
    attention_dim : int, default=128
    dropout : float, default=0.25
        On the embedding and in the attention.
    n_positives : int, default=6
        Number of bank rows that attract a bag: its own and the nearest ones of its class.
    n_negatives : int, default=4096
        Number of bank rows that repel it.
    contrast_temperature : float, default=0.07
    bank_momentum : float, default=0.5
    average_decay : float, default=0.99
    teacher_eval : bool, default=True
        Whether both teachers run in eval mode.

    Attributes
    ----------
    student : AttentionMIL
    omics_branch : Teachers
        Teachers, memory banks and their heads; prediction does not use them.

    Notes
    -----
    Ours: an attention MIL in place of the image network, ``teacher_eval`` (the original leaves
    the teacher in train mode), student and teachers read all patches, the contrast with the
    average is weighted by the average's own discrepancy, and a bag drawn twice updates its bank
    row once. Bags without omics learn from their labels and the average alone; they are neither
    positives nor negatives for the multimodal teacher. Any number of classes.

    References
    ----------
    Xing et al. Comprehensive learning and adaptive teaching: Distilling multi-modal knowledge
    for pathological glioma grading. Medical Image Analysis 91:102990, 2024.
    """

    needs_index = True  # the engine passes the bags' numbers in the training set

    def __init__(
        self,
        in_features: int,
        n_genes: int,
        n_classes: int,
        *,
        dim: int = 128,
        attention_dim: int = 128,
        dropout: float = 0.25,
        n_positives: int = 6,
        n_negatives: int = 4096,
        contrast_temperature: float = 0.07,
        bank_momentum: float = 0.5,
        average_decay: float = 0.99,
        teacher_eval: bool = True,
    ) -> None:
        super().__init__()
        self.student = AttentionMIL(in_features, n_classes, dim, attention_dim, dropout=dropout)
        memories = [
            ContrastMemory(
                dim,
                n_positives=n_positives,
                n_negatives=n_negatives,
                temperature=contrast_temperature,
                momentum=bank_momentum,
            )
            for _ in range(2 if n_genes else 1)
        ]
        average = MovingAverage(self.student, average_decay)
        self.omics_branch = Teachers(average, *memories, teacher_eval=teacher_eval)

    def begin(
        self,
        labels: Tensor,  # (n_train,)
        paired: Tensor,  # (n_train,) bool
        teacher: MultimodalNet | None,
        generator: torch.Generator,
    ) -> None:
        """Freeze the first stage's teacher and fill the memory banks with random rows."""
        branch = self.omics_branch
        branch.average_memory.begin(labels, torch.ones_like(paired), generator)
        if teacher is not None and branch.teacher_memory is not None:
            branch.teacher = teacher.requires_grad_(False)
            branch.teacher_memory.begin(labels, paired, generator)
        branch.train(self.training)

    def update_average(self) -> None:
        """Update the moving average: before the first step, which copies, and after every step."""
        self.omics_branch.average.update(self.student)

    def forward(
        self,
        x: Tensor | Blocks,  # (n, in_features), float32 or bfloat16
        edge_index: Tensor,  # not used
        batch: Tensor,  # (n,), ascending
        n_bags: int,
        *,
        y: Tensor | None = None,  # not used: the memory banks hold the labels
        omics: Tensor | None = None,  # (P, n_genes), rows of the paired bags in order
        paired: Tensor | None = None,  # (B,) bool
        index: Tensor | None = None,  # (B,), numbers of the bags in the training set
    ) -> TDCOutput:
        feature, logits, attention = self.student(x, batch, n_bags)  # f_S, z_S, (n, 1)
        targets: dict[str, DistillationTargets] = {}
        if self.training and index is not None:
            x = materialize(x)  # the teachers read it, too
            targets = self.omics_branch(feature, index, x, batch, omics=omics, paired=paired)
        return TDCOutput(logits, attention, batch, feature, targets)

    def attend(
        self, x: Tensor | Blocks, edge_index: Tensor, batch: Tensor, n_bags: int
    ) -> tuple[Tensor, Tensor]:
        """Patches as the student embeds them (n, dim), and their weights (n, 1)."""
        return self.student.attend(x, batch, n_bags)

    def classify(self, pooled: Tensor) -> Tensor:
        """Logits of weighted sums of the embedded patches: (B, 1, dim) -> (B, K)."""
        return self.student.classify(pooled)


class Teachers(nn.Module):
    """Everything that prediction does not need: teachers, memory banks and their heads."""

    def __init__(
        self,
        average: MovingAverage,
        average_memory: ContrastMemory,
        teacher_memory: ContrastMemory | None = None,
        *,
        teacher_eval: bool,
    ) -> None:
        super().__init__()
        self.average, self.average_memory = average, average_memory
        self.teacher: MultimodalNet | None = None
        self.teacher_memory = teacher_memory
        self.teacher_eval = teacher_eval

    def train(self, mode: bool = True) -> Teachers:
        """Set the mode as usual, but with `teacher_eval` leave the teachers in eval mode."""
        super().train(mode)
        for teacher in (self.average, self.teacher):
            if teacher is not None:
                teacher.train(mode and not self.teacher_eval)
        return self

    def forward(
        self,
        feature: Tensor,  # f_S (B, d)
        index: Tensor,  # (B,)
        x: Tensor,  # (n, in_features)
        batch: Tensor,  # (n,)
        *,
        omics: Tensor | None,  # (P, n_genes)
        paired: Tensor | None,  # (B,) bool
    ) -> dict[str, DistillationTargets]:
        """Targets from the average for all bags, from the teacher for those with omics."""
        all_bags = torch.arange(len(index), device=x.device)  # (B,)
        f_e, z_e, _ = self.average(x, batch, len(index))  # (B, d), (B, K)
        contrasts = self.average_memory(index, feature, f_e)
        targets = {"average": _targets(self.average_memory, all_bags, z_e, contrasts)}
        if self.teacher is None or self.teacher_memory is None or omics is None or paired is None:
            return targets
        if len(omics):
            with torch.no_grad():
                f_f, z_f = self.teacher.fuse(*paired_instances(x, batch, paired), omics)
            bags = paired.nonzero().squeeze(1)  # (P,)
            contrasts = self.teacher_memory(index[bags], feature[bags], f_f)
            targets["teacher"] = _targets(self.teacher_memory, bags, z_f, contrasts)
        return targets


def _targets(
    memory: ContrastMemory, bags: Tensor, logits: Tensor, contrasts: tuple[Contrast, Contrast]
) -> DistillationTargets:
    return DistillationTargets(bags, logits, contrasts, memory.n_rows(), memory.temperature)
