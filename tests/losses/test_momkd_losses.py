"""Each term of the objective against numbers computed by hand."""

import math

import pytest
import torch
from torch import tensor

from sk_momkd.losses.momkd import (
    alignment_loss,
    alignment_margin,
    commitment_loss,
    orthogonality_loss,
    reconstruction_loss,
    soft_alignment_loss,
)
from sk_momkd.training.config import weighted_total

MEMORY = tensor([[[2.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [0.0, -3.0]]])  # rows of any length
F_EAST = tensor([[1.0, 0.0]])


def phi(cosines, tau=5.0):
    return math.log(sum(math.exp(tau * c) for c in cosines)) / tau


def test_margin_two_classes_is_phi_own_minus_phi_other():
    expected = phi([1, 0]) - phi([-1, 0])
    for y, sign in ((0, 1), (1, -1)):
        delta = alignment_margin(F_EAST, MEMORY, tensor([y]), tau_agg=5.0)
        assert delta.item() == pytest.approx(sign * expected, abs=1e-6)


def test_margin_three_classes_subtracts_log_of_rivals():
    memory = torch.cat([MEMORY, tensor([[[0.0, 1.0], [0.0, 1.0]]])])
    delta = alignment_margin(F_EAST, memory, tensor([0]), tau_agg=5.0)
    expected = phi([1, 0]) - (phi([-1, 0, 0, 0]) - math.log(2) / 5)
    assert delta.item() == pytest.approx(expected, abs=1e-6)


def test_alignment_at_extremes_stays_within_bounds():
    same = tensor([[[1.0, 0.0]], [[-1.0, 0.0]]])  # Delta = +2 for class 0, -2 for class 1
    loss = alignment_loss(F_EAST.repeat(2, 1), same, tensor([0, 1]), margin=0.3, beta=20, tau_agg=5)
    assert loss[0].item() == pytest.approx(math.log1p(math.exp(-34)), abs=1e-12)
    assert loss[1].item() == pytest.approx(20 * 2.3)


def test_alignment_equal_memories_starts_at_six():
    equal = torch.ones(2, 3, 2)
    loss = alignment_loss(F_EAST, equal, tensor([1]), margin=0.3, beta=20, tau_agg=5)
    assert loss.item() == pytest.approx(math.log1p(math.exp(6)), abs=1e-5)  # 6.0025


def test_margin_more_components_cancels_their_number():
    few = alignment_margin(F_EAST, MEMORY, tensor([0]), tau_agg=5.0)
    doubled = alignment_margin(F_EAST, MEMORY.repeat(1, 2, 1), tensor([0]), tau_agg=5.0)
    torch.testing.assert_close(few, doubled)


def test_reconstruction_is_mean_over_genes():
    loss = reconstruction_loss(tensor([[1.0, 2.0], [0.0, 0.0]]), tensor([[0.0, 0.0], [3.0, 0.0]]))
    assert loss.tolist() == [2.5, 4.5]


def test_commitment_reductions_and_means_per_bag():
    patches = tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])  # the third is 0.4 from (0, 1)
    batch, y = tensor([0, 0, 1]), tensor([0, 0])
    total = commitment_loss(patches, MEMORY, y, batch, reduction="sum")
    assert total.tolist() == pytest.approx([0.0, 0.6**2 + 0.2**2])
    mean = commitment_loss(patches, MEMORY, y, batch)
    assert mean.tolist() == pytest.approx([0.0, (0.6**2 + 0.2**2) / 2])


def test_commitment_euclidean_uses_rows_of_their_length():
    patch, y = tensor([[1.0, 0.0]]), tensor([0])
    near = commitment_loss(patch, MEMORY, y, tensor([0]), assignment="euclidean", reduction="sum")
    assert near.item() == pytest.approx(1.0)  # row (2, 0) is 1 away, (0, 1) sqrt(2)
    far = tensor([[[5.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]])
    loss = commitment_loss(patch, far, y, tensor([0]), assignment="euclidean", reduction="sum")
    assert loss.item() == pytest.approx(2.0)  # (0, 1) is now nearer than (5, 0)


def test_commitment_all_memories_takes_the_nearest_row_of_any_class():
    patches = tensor([[-1.0, 0.0], [0.0, 1.0]])
    settings = {"assignment": "euclidean", "reduction": "sum"}
    y, batch = tensor([0, 1]), tensor([0, 1])  # each nearest to a row of the other class
    label = commitment_loss(patches, MEMORY, y, batch, **settings)
    assert label.tolist() == [2.0, 2.0]  # rows (0, 1) and (-1, 0)
    assert commitment_loss(patches, MEMORY, y, batch, memories="all", **settings).tolist() == [0, 0]


def test_commitment_moves_patches_and_never_the_memory():
    memory = MEMORY.clone().requires_grad_()
    patches = tensor([[0.6, 0.8]], requires_grad=True)
    commitment_loss(patches, memory, tensor([0]), tensor([0])).sum().backward()
    assert memory.grad is None
    assert patches.grad.abs().sum() > 0


def test_orthogonality_both_forms_by_hand():
    half = math.sqrt(0.5)
    memory = tensor([[[1.0, 0.0], [half, half]], [[1.0, 0.0], [0.0, 1.0]]])  # cos 0.707; 0
    y = tensor([0, 1])
    literal = orthogonality_loss(memory, y, reduction="sum")
    assert literal.tolist() == pytest.approx([1.0, 0.0], abs=1e-6)  # two ordered pairs of 0.5
    mean = orthogonality_loss(memory, y)
    assert mean.tolist() == pytest.approx([10 / 4 * 1.0, 0.0], abs=1e-5)
    both = orthogonality_loss(memory, y, reduction="sum", memories="all")
    assert both.tolist() == pytest.approx([1.0, 1.0], abs=1e-6)


def test_printed_sums_are_128_and_25_6_times_the_means_at_the_paper_s_sizes():
    random = torch.Generator().manual_seed(0)
    patches, rows = (
        torch.nn.functional.normalize(torch.randn(shape, generator=random), dim=-1)
        for shape in ((9, 128), (2, 16, 128))
    )
    y, batch = tensor([0, 1]), tensor([0] * 5 + [1] * 4)
    commitment = [commitment_loss(patches, rows, y, batch, reduction=r) for r in ("sum", "mean")]
    orthogonality = [orthogonality_loss(rows, y, reduction=r) for r in ("sum", "mean")]
    torch.testing.assert_close(commitment[0], 128 * commitment[1])
    torch.testing.assert_close(orthogonality[0], 25.6 * orthogonality[1], rtol=1e-4, atol=1e-4)


def test_orthogonality_label_memory_leaves_the_other_alone():
    memory = torch.randn(2, 3, 4, generator=torch.manual_seed(0)).requires_grad_()
    orthogonality_loss(memory, tensor([1])).sum().backward()
    assert torch.equal(memory.grad[0], torch.zeros(3, 4))
    assert memory.grad[1].abs().sum() > 0


def test_total_weights_means_over_bags_and_skips_zero_weights():
    terms = {"a": tensor([1.0, 3.0]), "b": tensor([10.0], requires_grad=True)}
    total = weighted_total(terms, {"a": 0.5, "b": 0.0})
    assert total.item() == 1.0
    assert not total.requires_grad


def test_soft_alignment_of_a_hard_label_is_the_alignment():
    align = {"margin": 0.3, "beta": 20.0, "tau_agg": 5.0}
    f, y = F_EAST.repeat(2, 1), tensor([0, 1])
    hard = alignment_loss(f, MEMORY, y, **align)
    torch.testing.assert_close(soft_alignment_loss(f, MEMORY, torch.eye(2), **align), hard)
    mixed = soft_alignment_loss(f, MEMORY, torch.full((2, 2), 0.5), **align)
    torch.testing.assert_close(mixed, hard.mean().expand(2))
