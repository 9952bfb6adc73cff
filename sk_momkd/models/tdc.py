"""TDC, second stage: a path student taught adaptively by two teachers (MedIA 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..nn.blocks import Blocks, whole
from ..nn.contrast import Contrast, ContrastMemory
from ..nn.distillation import MovingAverage, PathStudent
from ..nn.segment import paired_instances
from ..output import MILOutput
from .tdc_teacher import MultimodalNet


@dataclass(frozen=True)
class Lesson:
    """What one teacher has to say about b bags of the batch.

    Attributes
    ----------
    bags : int Tensor of shape (b,)
        Their places in the batch.
    logits : Tensor of shape (b, K)
        Of the teacher, no gradient.
    contrasts : pair of Contrast
        Student against the teacher's bank, teacher against the student's.
    n_rows : int
        Bank rows that mean anything.
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
    """What the student computes and, in training, the teachers' lessons.

    Attributes
    ----------
    feature : Tensor of shape (B, dim)
        f_S, where the knowledge terms meet.
    lessons : mapping of str to Lesson
        ``"average"`` on all bags, ``"teacher"`` on those with omics.
    """

    feature: Tensor
    lessons: Mapping[str, Lesson] = field(default_factory=dict)


class TDC(nn.Module):
    """Attention MIL student of a frozen multimodal teacher and of its own moving average.

    `begin` hands over the teacher and the training labels; from then on a forward pass in
    training mode with the bags' `index` returns lessons and moves the memory banks.

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
        Bank rows to be near to: the bag's own and its nearest of the same class.
    n_negatives : int, default=4096
        Bank rows to be far from.
    contrast_temperature : float, default=0.07
    bank_momentum : float, default=0.5
    average_decay : float, default=0.99
    teacher_eval : bool, default=True
        Whether both teachers run in eval mode.

    Attributes
    ----------
    student : PathStudent
    omics_branch : Teaching
        Teachers, banks and their heads; prediction does not use them.

    Notes
    -----
    Ours: an attention MIL in place of the image network, ``teacher_eval`` (the original leaves
    the teacher in train mode), student and teachers see the whole slide, the contrast with the
    average is weighed by the average's own discrepancy, and a bag drawn twice moves its bank
    row once. Bags without omics learn from their labels and the average alone; they are neither
    positives nor negatives for the multimodal teacher. Any number of classes.

    References
    ----------
    Zhang et al. Comprehensive learning and adaptive teaching: Distilling multi-modal knowledge
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
        self.student = PathStudent(in_features, n_classes, dim, attention_dim, dropout=dropout)
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
        self.omics_branch = Teaching(average, *memories, teacher_eval=teacher_eval)

    def begin(
        self,
        labels: Tensor,  # (n_train,)
        paired: Tensor,  # (n_train,) bool
        teacher: MultimodalNet | None,
        generator: torch.Generator,
    ) -> None:
        """Take over the first stage's teacher, which is frozen, and fill the banks at random."""
        branch = self.omics_branch
        branch.average_memory.begin(labels, torch.ones_like(paired), generator)
        if teacher is not None and branch.teacher_memory is not None:
            branch.teacher = teacher.requires_grad_(False)
            branch.teacher_memory.begin(labels, paired, generator)
        branch.train(self.training)

    def update_average(self) -> None:
        """Move the average; once before the first step (a copy) and after every step."""
        self.omics_branch.average.update(self.student)

    def forward(
        self,
        x: Tensor | Blocks,  # (n, in_features), float32 or bfloat16
        edge_index: Tensor,  # not used
        batch: Tensor,  # (n,), ascending
        n_bags: int,
        *,
        y: Tensor | None = None,  # not used: the banks know the labels
        omics: Tensor | None = None,  # (P, n_genes), rows of the paired bags in order
        paired: Tensor | None = None,  # (B,) bool
        index: Tensor | None = None,  # (B,), numbers of the bags in the training set
    ) -> TDCOutput:
        feature, logits, attention = self.student(x, batch, n_bags)  # f_S, z_S, (n, 1)
        lessons: dict[str, Lesson] = {}
        if self.training and index is not None:
            lessons = self.omics_branch(feature, index, whole(x), batch, omics=omics, paired=paired)
        return TDCOutput(logits, attention, batch, feature, lessons)


class Teaching(nn.Module):
    """All that the student leaves behind: teachers, memory banks and their heads."""

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

    def train(self, mode: bool = True) -> Teaching:
        """As usual, but the teachers stay in eval mode where `teacher_eval` says so."""
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
    ) -> dict[str, Lesson]:
        """Lessons of the average on all bags and of the teacher on those with omics."""
        everyone = torch.arange(len(index), device=x.device)
        f_e, z_e, _ = self.average(x, batch, len(index))  # (B, d), (B, K)
        contrasts = self.average_memory(index, feature, f_e)
        lessons = {"average": _lesson(self.average_memory, everyone, z_e, contrasts)}
        if self.teacher is None or self.teacher_memory is None or omics is None or paired is None:
            return lessons
        if len(omics):
            with torch.no_grad():
                f_f, z_f = self.teacher.fuse(*paired_instances(x, batch, paired), omics)
            bags = paired.nonzero().squeeze(1)  # (P,)
            contrasts = self.teacher_memory(index[bags], feature[bags], f_f)
            lessons["teacher"] = _lesson(self.teacher_memory, bags, z_f, contrasts)
        return lessons


def _lesson(
    memory: ContrastMemory, bags: Tensor, logits: Tensor, contrasts: tuple[Contrast, Contrast]
) -> Lesson:
    return Lesson(bags, logits, contrasts, memory.n_rows(), memory.temperature)
