"""DSMIL against reference values of the original, its gradients and its start."""

import math

import pytest
import torch
from mil_models import build, call, close, features, n_parameters
from reference import fill_role, filled
from torch.nn import functional as F

from sk_momkd.losses.mil import dsmil_terms, stream_loss
from sk_momkd.models.dsmil import DSMIL
from sk_momkd.nn.initialization import initialise


def reference(n_classes):
    model = DSMIL(32, n_classes).double().eval()
    parts = [model.instance, model.query[0], model.query[2], model.head]
    for k, parameter in enumerate([p for part in parts for p in part.parameters()], start=1):
        fill_role(parameter, k)
    return model, call(model, filled((10, 32), 0, 1, torch.float64))


def test_forward_two_classes_match_original():
    _, output = reference(2)
    close(output.max_logits[0], [0.269730041, 0.256433779])
    assert output.critical.tolist() == [[1, 6]]
    close(output.bag_logits[0], [-0.097267730, 0.021759862])
    close(output.attention[0], [0.099648413, 0.101069084])
    terms = dsmil_terms(output, torch.tensor([1]))
    close(0.5 * terms["bag"] + 0.5 * terms["max"], [0.684557154])


def test_forward_one_class_matches_original():
    _, output = reference(1)
    close(output.max_logits[0], [0.269730041])
    close(output.bag_logits[0], [-0.111495512])
    one = torch.ones(1, 1)
    loss = 0.5 * stream_loss(output.bag_logits, one) + 0.5 * stream_loss(output.max_logits, one)
    close(loss, [0.658898525])


@pytest.mark.parametrize("n_classes", [2, 3])
def test_logits_softmax_is_sigmoids_divided_by_their_sum(n_classes):
    bags = features(6), features(3, seed=4)
    output = call(build("dsmil", n_classes), *bags)
    sigmoids = output.bag_logits.sigmoid()
    close(output.logits.softmax(dim=1), sigmoids / sigmoids.sum(dim=1, keepdim=True), 1e-12)
    averaged = call(build("dsmil_average", n_classes), *bags)
    sigmoids = (averaged.bag_logits.sigmoid() + averaged.max_logits.sigmoid()) / 2
    close(averaged.logits.exp(), sigmoids, 1e-12)


def test_gradient_reaches_the_query_of_the_critical_instance():
    model, _ = reference(2)
    x = filled((10, 32), 0, 1, torch.float64).requires_grad_()
    call(model, x).bag_logits.sum().backward()
    # The original evaluates the query network a second time, on the critical instances.
    again = x.detach().clone().requires_grad_()
    key = model.query(again[[1, 6]])
    attention = (model.query(again) @ key.T / math.sqrt(128)).softmax(dim=0)
    model.head((attention.T @ again).unsqueeze(0)).sum().backward()
    torch.testing.assert_close(x.grad, again.grad, atol=1e-12, rtol=1e-10)


def test_linear_form_is_the_paper_as_printed():
    model, x = build("dsmil_linear"), features(7)
    output = call(model, x)
    scores = model.instance(x)
    query, value = model.query[0](x), model.value[1][0](x)
    bags = []
    for c in range(2):
        key = query[scores[:, c].argmax()]
        weights = (query @ key / math.sqrt(6)).softmax(dim=0)
        bags.append(weights @ value)
    close(output.bag_logits, model.head(torch.stack(bags)[None]).squeeze(2), 1e-12)


def test_critical_of_a_batch_are_rows_of_the_batch():
    model, bags = build("dsmil", 3), [features(4), features(7, seed=5)]
    output = call(model, *bags)
    scores = model.instance(torch.cat(bags))
    expected = torch.stack([scores[:4].argmax(dim=0), 4 + scores[4:].argmax(dim=0)])
    assert torch.equal(output.critical, expected)
    close(output.max_logits[1], scores[4:].amax(dim=0), 0)


def test_forward_diverged_weights_give_nan_and_no_error():
    model = build("dsmil")
    torch.nn.init.constant_(model.instance.weight, torch.nan)
    assert call(model, features(4), features(3)).max_logits.isnan().all()


def test_initial_weights_are_orthogonal_and_biases_zero():
    model = DSMIL(12, 2, query_dim=6, value_layer=True)
    initialise(model, torch.Generator().manual_seed(0))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
            continue
        rows = parameter.flatten(1)
        torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("n_classes", "settings", "count"),
    [(2, {}, 222_468), (1, {}, 216_322), (2, {"value_layer": True}, 2_583_300)],
)
def test_parameter_count_at_1536_features(n_classes, settings, count):
    assert n_parameters(DSMIL(1536, n_classes, **settings)) == count


def test_value_layer_is_relu_of_a_linear_layer():
    model, x = build("dsmil_value"), features(4)
    close(model.value(x), F.relu(model.value[1](x)), 0)
