"""DTFD-MIL against reference values of the original, its gradients and its shuffles."""

import pytest
import torch
from mil_models import build, call, close, features, n_parameters
from reference import fill_role, filled
from torch import nn

from sk_momkd.losses.mil import dtfd_terms
from sk_momkd.models.dtfd import DTFD
from sk_momkd.nn.patch_subsampling import Chunks

TIER1 = [[-0.173808885, -0.054453069], [-0.221255441, -0.045542279]]
TIER1 += [[-0.237128435, 0.005512671], [-0.150596931, -0.079034961]]


class InOrder(nn.Module):
    """Four chunks of 13 patches as they stand, as numpy's array_split cuts them."""

    def forward(self, batch, n_bags):
        sizes = torch.tensor([4, 3, 3, 3])
        return [Chunks(torch.arange(4).repeat_interleave(sizes), torch.zeros(4).long())]


def reference(**settings):
    model = DTFD(24, 2, dim=16, n_chunks=4, **settings).double().eval()
    model.split = InOrder()

    def attention(part):
        return [part.content, part.gate, part.score]

    parts = [model.classifier, *attention(model.attention), model.reduction]
    parts += [*attention(model.tier2_attention), model.tier2_classifier]
    ordered = [p for part in parts for p in part.parameters()]
    for k, parameter in enumerate(ordered, start=1):
        fill_role(parameter, k)
    output = call(model, filled((13, 24), 0, 1, torch.float64))
    return output, dtfd_terms(output, torch.tensor([1]))


@pytest.mark.parametrize(
    ("settings", "logits", "tier2"),
    [
        ({"distillation": "AFS"}, [0.086644892, 0.003317222], 0.735678702),
        (
            {"distillation": "MaxS", "total_instances": 4},
            [0.123829303, -0.002328741],
            0.758214366,
        ),
        ({"distillation": "MaxMinS", "total_instances": 4}, [0.119853143, 0.028955912], None),
        ({"distillation": "MaxMinS", "total_instances": 8}, [0.067438954, -0.013433144], None),
    ],
)
def test_forward_reference_fill_matches_original(settings, logits, tier2):
    output, terms = reference(**settings)
    close(output.tier1_logits, TIER1)
    close(terms["tier1"], [0.620392040])
    close(output.logits[0], logits)
    if tier2 is not None:
        close(terms["tier2"], [tier2])
    close(output.attention.sum(), 1, 1e-12)


def test_parameter_count_at_1536_features():
    model = DTFD(1536, 2)
    assert n_parameters(model) == 1_051_398
    sizes = {name: sum(p.numel() for p in group) for name, group in model.branches().items()}
    expected = {"reduction": 786_432, "attention": 131_457, "classifier": 1_026, "tier2": 132_483}
    assert sizes == expected


@pytest.mark.parametrize("distillation", ["AFS", "MaxS", "MaxMinS"])
@pytest.mark.parametrize("joint", [False, True])
def test_tier_2_loss_reaches_tier_1_only_if_joint(distillation, joint):
    model = DTFD(5, 2, dim=8, attention_dim=6, distillation=distillation, joint=joint).double()
    terms = dtfd_terms(call(model, features(20)), torch.tensor([1]))
    terms["tier2"].sum().backward()
    groups = model.branches()
    assert all(p.grad is not None and p.grad.any() for p in groups["tier2"][:-3])
    assert all((p.grad is not None) == joint for p in groups["reduction"])
    # Which patches are best is no differentiable choice: only AFS passes through the attention.
    assert all(
        (p.grad is not None) == (joint and distillation == "AFS") for p in groups["attention"]
    )
    assert all(p.grad is None for p in groups["classifier"])


def test_tier_1_loss_leaves_tier_2_alone():
    model = DTFD(5, 2, dim=8, attention_dim=6).double()
    dtfd_terms(call(model, features(20)), torch.tensor([1]))["tier1"].sum().backward()
    groups = model.branches()
    assert all(p.grad is None for p in groups.pop("tier2"))
    assert all(p.grad is not None for group in groups.values() for p in group)


@pytest.mark.parametrize("n", [1, 3, 4, 5])
def test_chunks_of_few_patches_are_single_patches(n):
    model = build("dtfd").train()
    output = call(model, features(n))
    assert len(output.tier1_logits) == min(4, n)


def test_inference_probabilities_are_the_mean_of_the_shuffles():
    model, x = build("dtfd", 3), features(11)
    together = call(model, x)
    shuffles = []
    for chunks in model.split(torch.zeros(11).long(), 1):
        model.split = Fixed(chunks)
        shuffles.append(call(model, x))
    assert len(shuffles) == 5
    mean = torch.stack([s.logits.softmax(dim=1) for s in shuffles]).mean(dim=0)
    close(together.logits.exp(), mean, 1e-12)
    close(together.attention, torch.stack([s.attention for s in shuffles]).mean(dim=0), 1e-12)
    assert not torch.allclose(shuffles[0].logits, shuffles[1].logits)
    assert len(together.tier1_logits) == len(together.chunk_bag) == 5 * 4


class Fixed(nn.Module):
    def __init__(self, chunks):
        super().__init__()
        self.chunks = chunks

    def forward(self, batch, n_bags):
        return [self.chunks]


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(("kind", "both_ends"), [("MaxS", False), ("MaxMinS", True)])
def test_distilled_patches_are_the_extremes_of_the_activation(n_classes, kind, both_ends):
    model = DTFD(
        5, n_classes, dim=8, attention_dim=6, n_chunks=2, distillation=kind, total_instances=4
    )
    model, x = model.double().eval(), features(11)
    chunks = model.split(torch.zeros(11).long(), 1)[0]
    model.split = Fixed(chunks)
    output = call(model, x)
    f = model.reduction(x).relu()
    expected = set()
    ranked_by = 1
    if n_classes == 3:
        ranked_by = output.tier1_logits.softmax(dim=1).mean(dim=0).argmax()
    for c in range(2):
        rows = (chunks.of_instance == c).nonzero().flatten()
        a = model.attention(f[rows]).softmax(dim=0)
        cam = (a * f[rows] @ model.classifier.weight.T).softmax(dim=1)[:, ranked_by]
        order = rows[cam.argsort(descending=True)].tolist()
        expected |= set(order[:2] + (order[-2:] if both_ends else []))
    assert set(output.attention[:, 0].nonzero().flatten().tolist()) == expected
