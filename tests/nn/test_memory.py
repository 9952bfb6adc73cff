"""Memory: affinities, attention scores, K-means, moving average, usage."""

import math

import pytest
import torch
from torch import tensor
from torch.nn.functional import normalize

from sk_momkd.nn.memory import (
    ClassMemory,
    active_ratio,
    attention_scores,
    component_usage,
    ema_update,
    memory_geometry,
    perplexity,
    spherical_kmeans,
)


def memory_of(rows):
    memory = ClassMemory(*rows.shape, trainable=True)
    with torch.no_grad():
        memory.rows.copy_(rows)
    return memory


def test_affinity_is_cosine_without_gradient_into_memory():
    memory = memory_of(tensor([[[2.0, 0.0]], [[0.0, -5.0]]]))
    points = tensor([[0.6, 0.8]], requires_grad=True)
    affinity = memory.affinity(points)
    torch.testing.assert_close(affinity, tensor([[[0.6], [-0.8]]]))
    affinity.sum().backward()
    assert memory.rows.grad is None
    assert points.grad is not None


def test_scores_two_classes_is_positive_minus_negative():
    affinity = tensor([[[0.1, 0.4], [0.3, -1.0]]])
    torch.testing.assert_close(attention_scores(affinity), tensor([[0.3 - 0.4]]))


def test_scores_three_classes_is_own_minus_best_rival():
    affinity = tensor([[[0.1], [0.5], [0.9]]])
    torch.testing.assert_close(attention_scores(affinity), tensor([[-0.8, -0.4, 0.4]]))


@pytest.mark.parametrize("trainable", [True, False])
def test_memory_is_a_parameter_in_its_own_right(trainable):
    memory = ClassMemory(2, 3, 4, trainable=trainable)
    assert [name for name, _ in memory.named_parameters()] == ["rows"]
    assert memory.rows.requires_grad is trainable


@pytest.mark.parametrize("init", ["random", "k-means++"])
def test_kmeans_separated_clouds_finds_their_directions(init):
    random = torch.Generator().manual_seed(0)
    axes = torch.eye(3)
    points = (axes.repeat(50, 1) + 0.05 * torch.randn(150, 3, generator=random)) * 4
    for seed in range(5):
        centers = spherical_kmeans(
            points, 3, generator=torch.Generator().manual_seed(seed), init=init
        )
        torch.testing.assert_close(centers.norm(dim=1), torch.ones(3))
        if init == "k-means++":
            assert (centers @ axes.T).amax(dim=0).min() > 0.99


def test_kmeans_empty_cluster_keeps_its_row():
    points = normalize(tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.01]]), dim=1)
    centers = spherical_kmeans(points, 3, generator=torch.Generator().manual_seed(0))
    assert centers.isfinite().all()
    torch.testing.assert_close(centers.norm(dim=1), torch.ones(3))


def test_kmeans_fewer_points_than_clusters_fills_with_directions():
    centers = spherical_kmeans(torch.ones(2, 4), 5, generator=torch.Generator().manual_seed(0))
    assert centers.shape == (5, 4)
    torch.testing.assert_close(centers.norm(dim=1), torch.ones(5))


def test_kmeans_same_seed_gives_same_centers():
    points = torch.randn(40, 5, generator=torch.Generator().manual_seed(1))
    a, b = (spherical_kmeans(points, 4, generator=torch.manual_seed(7)) for _ in range(2))
    assert torch.equal(a, b)


def test_ema_moves_used_rows_of_the_label_by_hand():
    memory = memory_of(tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]]))
    patch = tensor([[0.8, 0.6]])
    ema_update(memory, patch, None, tensor(1), momentum=0.9)
    moved = normalize(0.9 * tensor([1.0, 0.0]) + 0.1 * patch[0], dim=0)
    torch.testing.assert_close(memory.rows[1, 0], moved)
    assert torch.equal(memory.rows[1, 1], tensor([0.0, 1.0]))  # no patch chose it
    assert torch.equal(memory.rows[0], torch.eye(2))  # the other class
    assert memory.rows.grad_fn is None


def test_ema_omics_pulls_its_nearest_row():
    memory = memory_of(tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]]))
    omics = tensor([-0.6, 0.8])
    ema_update(memory, tensor([[1.0, 0.0]]), omics, tensor(0), momentum=0.5)
    torch.testing.assert_close(memory.rows[0, 0], tensor([1.0, 0.0]))
    pulled = normalize(0.5 * tensor([0.0, 1.0]) + 0.5 * omics, dim=0)
    torch.testing.assert_close(memory.rows[0, 1], pulled)


def test_usage_is_balanced_over_slides_not_patches():
    affinity = torch.zeros(4, 1, 2)
    affinity[[0, 1, 2], 0, 0] = 1.0  # slide 0: three patches on component 0
    affinity[3, 0, 1] = 1.0  # slide 1: one patch on component 1
    usage = component_usage(affinity, tensor([0, 0, 0, 1]), 2).mean(dim=0)
    assert usage.tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize(
    ("usage", "active", "effective"),
    [([[0.25] * 4], 1.0, 4.0), ([[1.0, 0, 0, 0]], 0.25, 1.0), ([[0.5, 0.5, 0, 0]], 0.5, 2.0)],
)
def test_diagnostics_identities(usage, active, effective):
    usage = tensor(usage)
    assert active_ratio(usage) == active
    assert perplexity(usage).tolist() == pytest.approx([effective])


def test_active_ratio_threshold_separates_rare_from_never():
    usage = tensor([[0.99, 0.01, 0.0, 0.0]])  # default threshold 1 / 40
    assert active_ratio(usage) == 0.25
    assert active_ratio(usage, 0.0) == 0.5


def test_perplexity_joint_number_is_that_of_the_joint_distribution():
    usage = tensor([[0.7, 0.2, 0.1], [0.4, 0.4, 0.2]])
    joint = perplexity(usage.flatten()[None] / 2)
    a, b = perplexity(usage)
    assert joint.item() == pytest.approx(2 * math.sqrt(a * b))


def test_geometry_by_hand():
    half = math.sqrt(0.5)
    memory = memory_of(tensor([[[2.0, 0.0], [half, half]], [[-1.0, 0.0], [0.0, 1.0]]]))
    start = memory.directions().detach().clone()
    start[0, 0] = tensor([0.0, 1.0])  # the first row has turned by a right angle since
    geometry = memory_geometry(memory, start)
    assert geometry["norm"] == pytest.approx(5 / 4)
    assert geometry["cosine_within"] == pytest.approx((half + 0) / 2)
    best = [0.0, half, -half, half]  # (2, 0), (.7, .7), (-1, 0), (0, 1) with the other class
    assert geometry["cosine_between"] == pytest.approx(sum(best) / 4, abs=1e-6)
    assert geometry["drift"] == pytest.approx(1 / 4, abs=1e-6)
