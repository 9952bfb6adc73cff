"""WiKG against reference values of the original and against its dense formulation."""

import math

import pytest
import torch
from mil_models import build, call, close, features, n_parameters
from reference import fill_role, filled
from torch import nn
from torch.nn import functional as F

from sk_momkd.models.wikg import WiKG

UNUSED = 394_240  # gate_U, gate_V and gate_W of the authors' module


def reference(**settings):
    model = WiKG(20, 2, dim=16, n_neighbors=3, **settings).double().eval()
    parts = [model.embedding, model.head, model.tail, None, None, None]
    parts += [model.of_sum, model.of_product, model.norm, model.classifier]
    parts += [] if model.readout is None else [model.readout[0], model.readout[2]]
    for i, part in enumerate(parts):
        if part is not None:
            fill_role(part.weight, 2 * i + 1, gain=isinstance(part, nn.LayerNorm))
            fill_role(part.bias, 2 * i + 2)
    return model


@pytest.mark.parametrize(
    ("settings", "logits"),
    [
        ({}, [-0.806379269, -0.531295064]),
        ({"readout": "mean"}, [-0.806427523, -0.531315384]),
        ({"attention": "dot"}, [-0.805363984, -0.533373173]),
    ],
)
def test_forward_reference_fill_matches_original(settings, logits):
    model = reference(**settings)
    close(call(model, filled((9, 20), 0, 1, torch.float64)).logits[0], logits)


@pytest.mark.parametrize(("readout", "count"), [("attention", 2_365_443), ("mean", 2_233_858)])
def test_parameter_count_at_1536_features_is_the_originals_without_the_unused(readout, count):
    assert n_parameters(WiKG(1536, 2, readout=readout)) == count - UNUSED


def test_width_of_one_has_a_gate_of_one():
    model = WiKG(5, 2, dim=1).double().eval()
    assert model.readout[0].out_features == 1
    assert call(model, features(3)).logits.isfinite().all()


def dense(model, x):
    """Messages by the N x N matrix, as the original has them."""
    x = F.leaky_relu(model.embedding(x))
    x = (x + x.mean(dim=0)) / 2
    h, t = model.head(x), model.tail(x)
    values, chosen = (h @ t.T / math.sqrt(h.shape[1])).topk(min(model.n_neighbors, len(x)), dim=1)
    p, n = values.softmax(dim=1).unsqueeze(2), t[chosen]
    g = torch.tanh(2 * h.unsqueeze(1) + p * (n - h.unsqueeze(1)))
    dot = model.attention == "dot"
    u = (n * g).sum(dim=2) if dot else n.sum(dim=2) * g.sum(dim=2)
    e = (u.softmax(dim=1).unsqueeze(2) * n).sum(dim=1)
    y = F.leaky_relu(model.of_sum(h + e)) + F.leaky_relu(model.of_product(h * e))
    a = (
        model.readout(y).softmax(dim=0)
        if model.readout is not None
        else torch.ones_like(y) / len(y)
    )
    return model.classifier(model.norm((a * y).sum(dim=0, keepdim=True)))


@pytest.mark.parametrize("scores_at_once", [1, 40, 100, 2**24])
@pytest.mark.parametrize("name", ["wikg", "wikg_dot"])
@pytest.mark.parametrize("n", [2, 23])
def test_blocks_of_any_size_equal_the_dense_matrix(name, scores_at_once, n):
    model, x = build(name), features(n)
    model.scores_at_once = scores_at_once
    expected = dense(model, x)
    weights = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    expected_grad = torch.autograd.grad((expected * weights).sum(), list(model.parameters()))
    output = call(model, x).logits
    grad = torch.autograd.grad((output * weights).sum(), list(model.parameters()))
    close(output, expected, 1e-12)
    for one, other in zip(grad, expected_grad, strict=True):
        close(one, other, 1e-11)


def test_mean_readout_attends_to_all_alike():
    attention = call(build("wikg_dot"), features(4), features(2)).attention[:, 0]
    close(attention, [0.25] * 4 + [0.5] * 2, 1e-12)
