"""Contrastive memory banks: one row per training sample and modality."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .dropout import Stochastic


def contrast_scores(anchor: Tensor, bank: Tensor, rows: Tensor, temperature: float) -> Tensor:
    """Unnormalised scores ``exp(<bank row, anchor> / temperature)``.

    (b, d), (n, d), (b, m) row numbers -> (b, m)
    """
    return ((anchor @ bank.T).gather(1, rows) / temperature).exp()


def nearest_of_class(
    bank: Tensor, labels: Tensor, index: Tensor, candidates: Tensor, n_positives: int
) -> tuple[Tensor, Tensor]:
    """Bank rows of a sample's class that are most similar to its own row, which comes first.

    Rows of other classes and rows that are no candidates have similarity 0. They fill up where
    fewer than `n_positives` rows of the class have a positive similarity.

    Parameters
    ----------
    bank : Tensor of shape (n, d)
    labels : Tensor of shape (n,)
    index : Tensor of shape (b,)
        Row numbers of the samples.
    candidates : bool Tensor of shape (n,)
        Rows in use.
    n_positives : int

    Returns
    -------
    rows : Tensor of shape (b, p)
        ``p = min(n_positives, n)``.
    similarity : Tensor of shape (b, p)
        Cosines, at least 0.
    """
    allowed = (labels[index].unsqueeze(1) == labels) & candidates  # (b, n)
    directions = F.normalize(bank, dim=1)
    cosine = (directions[index] @ directions.T) * allowed
    # Sorted and stable: topk breaks ties differently from device to device.
    similarity, rows = cosine.sort(dim=1, descending=True, stable=True)
    return rows[:, :n_positives], similarity[:, :n_positives].clamp(min=0)


def draw_negatives(
    index: Tensor, candidates: Tensor, n_negatives: int, generator: torch.Generator | None
) -> Tensor:
    """Draw other candidates of any class; with replacement if there are too few.

    The draw runs on the generator's device. With a single candidate, m is 0.

    Parameters
    ----------
    index : Tensor of shape (b,)
        Row numbers of the samples, all of them candidates.
    candidates : bool Tensor of shape (n,)
    n_negatives : int
    generator : Generator, optional

    Returns
    -------
    Tensor of shape (b, m)
    """
    where = torch.device("cpu") if generator is None else generator.device
    rows = candidates.nonzero().squeeze(1)
    others = len(rows) - 1
    if others == 0:
        return index.new_empty(len(index), 0)
    if others < n_negatives:
        shape = (len(index), n_negatives)
        drawn = torch.randint(others, shape, generator=generator, device=where)
    else:
        drawn = torch.rand(len(index), others, generator=generator, device=where).argsort(dim=1)
        drawn = drawn[:, :n_negatives]
    drawn = drawn.to(index.device)
    own = torch.searchsorted(rows, index).unsqueeze(1)
    return rows[drawn + (drawn >= own)]  # skip the sample itself


def updated_rows(bank: Tensor, index: Tensor, embedding: Tensor, momentum: float) -> Tensor:
    """New bank with ``norm(momentum row + (1 - momentum) embedding)`` in the rows of a batch.

    A sample that occurs twice in the batch is updated once, with the mean of its embeddings.
    (n, d), (b,), (b, d) -> (n, d)
    """
    count = torch.bincount(index, minlength=len(bank)).unsqueeze(1)
    mean = torch.zeros_like(bank).index_add(0, index, embedding) / count.clamp(min=1)
    moved = F.normalize(momentum * bank + (1 - momentum) * mean, dim=1)
    return torch.where(count > 0, moved, bank)


def random_rows(n: int, dim: int, generator: torch.Generator) -> Tensor:
    """Initial rows of a bank, drawn from U(+-1/sqrt(dim / 3)): (n, dim)."""
    bound = (dim / 3) ** -0.5
    return (2 * torch.rand(n, dim, generator=generator) - 1) * bound


@dataclass(frozen=True)
class Contrast:
    """Features of one network and the memory bank of the other; b bags, n bank rows.

    Attributes
    ----------
    anchor : Tensor of shape (b, d)
        Features of the bags, of length one.
    bank : Tensor of shape (n, d)
        Before the update with these bags; without gradient.
    rows : int Tensor of shape (b, p + m)
        Bank rows of the p positives, then of the m negatives.
    similarity : Tensor of shape (b, p)
        Weights of the positives, the cosines within the bank.
    normaliser : Tensor of shape ()
        Z, computed from the first batch.
    """

    anchor: Tensor
    bank: Tensor
    rows: Tensor
    similarity: Tensor
    normaliser: Tensor


class ContrastMemory(Stochastic):
    """Memory banks of a student and of its teacher, with a row per training bag.

    Attributes
    ----------
    student_bank, teacher_bank : Tensor of shape (n_train, dim)
    labels, candidates : Tensor of shape (n_train,)
        Classes, and which rows are in use.
    normaliser : Tensor of shape (2,)
        Z of the two contrasts; 0 until the first batch sets it.
    """

    student_bank: Tensor
    teacher_bank: Tensor
    labels: Tensor
    candidates: Tensor
    normaliser: Tensor

    def __init__(
        self, dim: int, *, n_positives: int, n_negatives: int, temperature: float, momentum: float
    ) -> None:
        super().__init__()
        self.n_positives, self.n_negatives = n_positives, n_negatives
        self.temperature, self.momentum = temperature, momentum
        self.student_head, self.teacher_head = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.register_buffer("student_bank", torch.empty(0, dim))
        self.register_buffer("teacher_bank", torch.empty(0, dim))
        self.register_buffer("labels", torch.empty(0, dtype=torch.long))
        self.register_buffer("candidates", torch.empty(0, dtype=torch.bool))
        self.register_buffer("normaliser", torch.zeros(2))

    def begin(self, labels: Tensor, candidates: Tensor, generator: torch.Generator) -> None:
        """Fill the banks at random for these training bags; the generator is on the CPU."""
        n, dim = len(labels), self.student_bank.shape[1]
        self.student_bank = random_rows(n, dim, generator).to(self.student_bank)
        self.teacher_bank = random_rows(n, dim, generator).to(self.teacher_bank)
        self.labels, self.candidates = labels.to(self.labels), candidates.to(self.candidates)
        self.normaliser = torch.zeros_like(self.normaliser)

    def n_rows(self) -> int:
        """Number of rows in use."""
        return int(self.candidates.sum())

    def forward(self, index: Tensor, student: Tensor, teacher: Tensor) -> tuple[Contrast, Contrast]:
        """Rows (b,), f_S (b, dim), f_T (b, dim) -> both contrasts; updates the banks."""
        negatives = draw_negatives(index, self.candidates, self.n_negatives, self.generator)
        return self.contrasts(index, student, teacher, negatives)

    def contrasts(
        self, index: Tensor, student: Tensor, teacher: Tensor, negatives: Tensor
    ) -> tuple[Contrast, Contrast]:
        """Contrasts with given negatives (b, m)."""
        from_student = F.normalize(self.student_head(student), dim=1)  # (b, dim)
        from_teacher = F.normalize(self.teacher_head(teacher), dim=1)  # (b, dim)
        first = self._contrast(0, from_student, self.teacher_bank, index, negatives)
        second = self._contrast(1, from_teacher, self.student_bank, index, negatives)
        # New tensors, not in place: the contrasts hold the rows before the update.
        self.student_bank = updated_rows(
            self.student_bank, index, from_student.detach(), self.momentum
        )
        self.teacher_bank = updated_rows(
            self.teacher_bank, index, from_teacher.detach(), self.momentum
        )
        return first, second

    def _contrast(
        self, which: int, anchor: Tensor, bank: Tensor, index: Tensor, negatives: Tensor
    ) -> Contrast:
        positives, similarity = nearest_of_class(
            bank, self.labels, index, self.candidates, self.n_positives
        )
        rows = torch.cat([positives, negatives], dim=1)  # (b, p + m)
        if not self.normaliser[which]:
            raw = contrast_scores(anchor.detach(), bank, rows, self.temperature)
            self.normaliser[which] = self.n_rows() * raw.mean()
        return Contrast(anchor, bank, rows, similarity, self.normaliser[which].clone())
