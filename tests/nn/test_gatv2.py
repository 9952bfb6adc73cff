"""The graph layer equals torch-geometric's GATv2Conv on any edges, forward and backward."""

import pytest
import torch
from torch_geometric.nn import GATv2Conv

from sk_momkd.nn.gatv2 import GATv2


def random_graph(kind, n=30):
    random = torch.Generator().manual_seed(3)
    edges = torch.randint(0, n, (2, 150), generator=random)
    if kind == "isolated":
        return edges[:, (edges > 4).all(dim=0)]
    if kind == "self loops":
        return torch.cat([edges, torch.arange(n).repeat(2, 1)], dim=1)
    if kind == "duplicates":
        return edges.repeat(1, 3)
    if kind == "hub":
        return torch.stack([torch.arange(1, n), torch.zeros(n - 1, dtype=torch.long)])
    if kind == "none":
        return torch.empty(2, 0, dtype=torch.long)
    return edges


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("kind", ["plain", "isolated", "self loops", "duplicates", "hub", "none"])
def test_layer_same_weights_equals_torch_geometric(kind, heads):
    theirs = GATv2Conv(7, 8 // heads, heads=heads).double()
    ours = GATv2(7, 8, heads, dropout=0.0).double()
    ours.load_state_dict(theirs.state_dict())  # names and shapes are the same
    edges = random_graph(kind)
    x = torch.randn(30, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x1, x2 = x.clone().requires_grad_(), x.clone().requires_grad_()
    out1, out2 = theirs(x1, edges), ours(x2, edges)
    torch.testing.assert_close(out1, out2, atol=1e-12, rtol=1e-10)
    weight = torch.randn(out1.shape, dtype=torch.float64, generator=torch.manual_seed(2))
    (out1 * weight).sum().backward()
    (out2 * weight).sum().backward()
    torch.testing.assert_close(x1.grad, x2.grad, atol=1e-12, rtol=1e-10)
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(parameter.grad, ours.get_parameter(name).grad)


def test_reset_parameters_bounds_are_those_of_torch_geometric():
    theirs, ours = GATv2Conv(400, 64, heads=2), GATv2(400, 128, 2, dropout=0.0)
    ours.reset_parameters(torch.Generator().manual_seed(0))
    for name, parameter in theirs.named_parameters():
        mine = ours.get_parameter(name)
        assert mine.shape == parameter.shape
        expected = parameter.abs().max()  # both uniform: the largest of many nears the bound
        torch.testing.assert_close(mine.abs().max(), expected, rtol=0.05, atol=1e-9)


def test_layer_one_changed_node_changes_exactly_its_receivers():
    layer = GATv2(4, 4, 1, dropout=0.0)
    layer.reset_parameters(torch.Generator().manual_seed(0))
    edges = torch.tensor([[0, 0, 1], [1, 2, 3]])
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    other = x.clone()
    other[0] += 1
    changed = (layer(x, edges) != layer(other, edges)).any(dim=1)
    assert changed.tolist() == [True, True, True, False, False]


def test_dropout_on_attention_draws_from_its_own_generator():
    layer = GATv2(4, 4, 1, dropout=0.5)
    layer.reset_parameters(torch.Generator().manual_seed(0))
    edges, x = random_graph("plain", 10), torch.ones(10, 4)

    def run(seed):
        layer.dropout.generator = torch.Generator().manual_seed(seed)
        return layer(x, edges)

    state = torch.get_rng_state()
    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))
    assert torch.equal(torch.get_rng_state(), state)


def test_layer_without_gradients_some_receivers_after_the_others_gives_the_same(monkeypatch):
    layer = GATv2(7, 8, 2, dropout=0.3).eval()
    layer.reset_parameters(torch.Generator().manual_seed(0))
    x = torch.randn(30, 7, generator=torch.Generator().manual_seed(1))
    expected = layer(x, random_graph("hub"))
    monkeypatch.setattr("sk_momkd.nn.gatv2._ROWS", 7)
    with torch.no_grad():
        torch.testing.assert_close(layer(x, random_graph("hub")), expected)
        kept = []
        for _ in range(2):  # while dropping, the entries are counted over all edges
            layer.train().dropout.generator = torch.Generator().manual_seed(5)
            kept.append(layer(x, random_graph("plain")))
            monkeypatch.undo()
        assert torch.equal(*kept)
