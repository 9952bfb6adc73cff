"""ABMIL against reference values of the original and the counts of its parameters."""

import pytest
import torch
from mil_models import call, close, features, n_parameters
from reference import fill_role, filled
from torch import nn

from sk_momkd.models.abmil import ABMIL

ATTENTION = [0.138012959, 0.151534445, 0.147959666, 0.144044960, 0.143058995, 0.129931397]
ATTENTION += [0.145457579]


def reference(*, gated):
    """The original's attention on given embeddings and one sigmoid output."""
    model = ABMIL(500, 1, dim=500, gated=gated, dropout=0)
    nn.init.eye_(model.embedding.weight)
    nn.init.zeros_(model.embedding.bias)
    attention = model.attention
    parts = [attention.content, attention.gate, attention.score, model.head]
    ordered = [p for part in parts if part is not None for p in part.parameters()]
    model.double()
    for k, parameter in enumerate(ordered, start=1):
        fill_role(parameter, k)
    return model


@pytest.mark.parametrize(
    ("gated", "attention", "probability"),
    [(True, ATTENTION, 0.479080048), (False, [0.134123435, 0.154503620], 0.456173374)],
)
def test_forward_reference_fill_matches_original(gated, attention, probability):
    # The given values are partly negative and go past the ReLU, straight to the attention.
    model = reference(gated=gated)
    h = filled((7, 500), 0, 1, torch.float64)
    scores = model.attention(h)
    weights = scores.softmax(dim=0)
    close(weights[: len(attention), 0], attention)
    close(model.head(weights.T @ h).sigmoid().squeeze(), probability)


@pytest.mark.parametrize("gated", [True, False])
def test_forward_is_relu_then_attention_then_weighted_mean(gated):
    model, h = reference(gated=gated), filled((7, 500), 0, 1, torch.float64)
    output = call(model, h)
    positive = h.clamp(min=0)
    weights = model.attention(positive).softmax(dim=0)
    close(output.attention, weights, 1e-12)
    close(output.logits, model.head((weights * positive).sum(dim=0, keepdim=True)), 1e-12)


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({}, 919_427),
        ({"gated": False}, 853_763),
        ({"attention_dim": 256}, 1_050_883),
        ({"attention_dim": 384}, 1_182_339),
    ],
)
def test_parameter_count_at_1536_features(settings, count):
    assert n_parameters(ABMIL(1536, 2, **settings)) == count


def test_hidden_layers_stand_before_the_last_layer_of_the_embedding():
    model = ABMIL(9, 2, dim=4, hidden_dims=(7, 5), dropout=0).double()
    widths = [layer.weight.shape for layer in (model.embedding, *model.deeper)]
    assert widths == [(7, 9), (5, 7), (4, 5)]
    h = x = features(6, 9)
    for layer in (model.embedding, *model.deeper):
        h = layer(h).clamp(min=0)
    output, weights = call(model, x), model.attention(h).softmax(dim=0)
    close(output.logits, model.head((weights * h).sum(dim=0, keepdim=True)), 1e-12)


@pytest.mark.parametrize(("given", "expected"), [(None, 0.5), (0.0, 0.0)])
def test_attention_dropout_is_that_of_the_embedding_unless_given(given, expected):
    model = ABMIL(5, 2, dim=4, dropout=0.5, attention_dropout=given)
    assert (model.dropout.p, model.attention.dropout.p) == (0.5, expected)


def test_attention_dropout_arms_have_masks_of_their_own():
    model = ABMIL(5, 2, dim=4, attention_dim=50, dropout=0.5).double().train()
    attention = model.attention
    with torch.no_grad():
        attention.content.weight.zero_()
        attention.content.bias.fill_(1)
        attention.gate.weight.zero_()
        attention.score.weight.fill_(1)
        attention.score.bias.zero_()
    share = attention(features(400, 4)).mean() / (4 * 0.5 * 50 * torch.tanh(torch.tensor(1.0)))
    assert share.item() == pytest.approx(0.25, abs=0.02)  # one mask for both would leave a half
