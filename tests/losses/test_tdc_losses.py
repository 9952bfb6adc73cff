"""TDC's objectives against the original: contrast, discrepancy and votes of the gradients."""

import pytest
import torch
from reference import filled
from torch import tensor
from torch.nn import functional as F

from sk_momkd.losses.tdc import agreement, contrastive_loss, discrepancy, tdc_teacher_terms
from sk_momkd.models.tdc import Logits, TDCTeacherOutput
from sk_momkd.nn.contrast import ContrastMemory, contrast_scores

INDEX = tensor([0, 4, 7, 1])


@pytest.fixture
def memory():
    """The reference's banks: 10 samples of 3 classes, 6 -> 5 features (float32)."""
    memory = ContrastMemory(6, n_positives=2, n_negatives=7, temperature=0.07, momentum=0.5)
    for k, head in ((1, "student_head"), (3, "teacher_head")):
        linear = torch.nn.Linear(6, 5)
        with torch.no_grad():
            linear.weight.copy_(filled((5, 6), k, 6**-0.5))
            linear.bias.copy_(filled((5,), k + 1, 0.1))
        setattr(memory, head, linear)
    memory.begin(
        tensor([0, 0, 0, 0, 1, 1, 1, 2, 2, 2]),
        torch.ones(10, dtype=torch.bool),
        torch.Generator().manual_seed(0),
    )
    memory.student_bank = F.normalize(filled((10, 5), 20, 1), dim=1)
    memory.teacher_bank = F.normalize(filled((10, 5), 21, 1), dim=1)
    return memory


def test_contrast_matches_original(memory):
    negatives = (INDEX.unsqueeze(1) + torch.arange(1, 8)) % 10
    before = memory.student_bank
    both = memory.contrasts(INDEX, filled((4, 6), 1, 1), filled((4, 6), 2, 1), negatives)
    losses = [
        contrastive_loss(
            contrast_scores(c.anchor, c.bank, c.rows, 0.07) / c.normaliser, c.similarity, 10
        )
        for c in both
    ]
    per_sample = tensor([1, 1.5, 2, 1.2]) * (losses[0] + losses[1])
    expected = [29.609219, 24.446604, 59.401680, 35.095856]
    assert per_sample.tolist() == pytest.approx(expected, rel=1e-6)
    assert per_sample.mean().item() == pytest.approx(37.138340, rel=1e-6)
    assert memory.normaliser.tolist() == pytest.approx([111662.84, 10965.981], rel=2e-6)
    row = [0.67912561, -0.2772432, 0.52118021, -0.42013037, 0.11741478]
    assert memory.student_bank[0].tolist() == pytest.approx(row, abs=1e-6)
    assert torch.equal(both[1].bank, before)  # the loss sees the rows from before the update
    kept = [i for i in range(10) if i not in INDEX]
    assert torch.equal(memory.student_bank[kept], before[kept])


def test_normaliser_stays_as_the_first_batch_set_it(memory):
    negatives = (INDEX.unsqueeze(1) + torch.arange(1, 8)) % 10
    memory.contrasts(INDEX, filled((4, 6), 1, 1), filled((4, 6), 2, 1), negatives)
    first = memory.normaliser.clone()
    memory.contrasts(INDEX, filled((4, 6), 5, 1), filled((4, 6), 6, 1), negatives)
    assert torch.equal(memory.normaliser, first)
    assert "normaliser" in memory.state_dict()


def test_contrast_by_hand():
    # p_n = 1/4, two negatives: noise 1/2; positives score 1/2 and 3/2, negatives 1/2 each
    scores = tensor([[0.5, 1.5, 0.5, 0.5]])
    loss = contrastive_loss(scores, tensor([[1.0, 0.0]]), 4)
    assert loss.item() == pytest.approx(3 * 0.6931472)
    even = contrastive_loss(scores, tensor([[0.5, 0.5]]), 4)
    assert even.item() == pytest.approx(2.5 * 0.6931472 + 0.5 * 0.2876821)
    assert contrastive_loss(scores[:, :2], tensor([[1.0, 1.0]]), 4).item() == 0


def test_agreement_matches_original():
    f = filled((3, 4), 1, 1, torch.float64).requires_grad_()
    squares = [(f - filled((3, 4), k, 1, torch.float64)).square() for k in range(2, 7)]
    losses = [square.sum(dim=1) for square in squares[:4]] + [squares[4].mean()]
    gradients = [torch.autograd.grad(loss.sum(), f, retain_graph=True)[0] for loss in losses]
    votes = agreement(torch.stack(gradients), threshold=0.25)[:4]
    assert votes.T.tolist() == [[5, 5, 4, 4], [1, 1, 1, 1], [5, 5, 5, 5]]
    total = (votes * torch.stack(losses[:4])).sum() / 3
    assert total.item() == pytest.approx(40.917726890, abs=1e-9)


def test_agreement_zero_gradient_gets_no_vote():
    gradients = tensor([[[1.0, 0.0]], [[2.0, 0.0]], [[0.0, 0.0]]])
    assert agreement(gradients, threshold=0.25).tolist() == [[2], [2], [0]]


def test_discrepancy_matches_original():
    student = tensor([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3]], dtype=torch.float64).log()
    teacher = tensor([[0.7, 0.2, 0.1], [0.4, 0.3, 0.3]], dtype=torch.float64).log()
    values = discrepancy(student, teacher, tensor([0, 1]), largest=1.0)
    assert values.tolist() == pytest.approx([0.741937344, 0.0], abs=1e-9)
    assert discrepancy(student, teacher, tensor([0, 1]), largest=0.5).tolist() == [0.5, 0.0]
    learned = student.requires_grad_()
    assert not discrepancy(learned, teacher, tensor([0, 1]), largest=1.0).requires_grad


def test_teacher_terms_by_hand():
    even, sure = torch.zeros(1, 2), tensor([[0.0, 3.0]])
    output = TDCTeacherOutput(
        logits=even,
        attention=torch.ones(1, 1),
        batch=tensor([0]),
        paired=tensor([True]),
        heads=Logits(even, even, sure),
        average=Logits(even, sure, sure),
        masked=(sure, even),
        omics_norm=tensor([7.0]),
    )
    terms = {k: v.item() for k, v in tdc_teacher_terms(output, tensor([1])).items()}
    p = sure.softmax(dim=1)[0]
    divergence = float((p * (2 * p).log()).sum())  # of `sure` against `even`
    expected = {
        "ce_path": 0.6931472,
        "kl_path": 0.0,
        "ce_omics": 0.6931472,
        "kl_omics": divergence,
        "ce_fused": float(-p[1].log()),
        "kl_fused": 0.0,
        "kl_masked": divergence,
        "l1": 7.0,
    }
    assert terms == pytest.approx(expected, abs=1e-6)
