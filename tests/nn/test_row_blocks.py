"""Loops of the graph encoder in plain torch: exact in float64, whatever the blocks."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch_geometric.nn import GATv2Conv

from sk_momkd.nn import row_blocks
from sk_momkd.nn.backend import numba_version
from sk_momkd.nn.dropout import set_dropout_generator
from sk_momkd.nn.edges import Edges
from sk_momkd.nn.encoders import GraphEncoder
from sk_momkd.nn.initialization import initialise

N, DIM = 30, 8
KINDS = ["plain", "neighbors", "isolated", "self loops", "duplicates", "hub", "none"]


class Textbook(nn.Module):
    """The encoder written with torch-geometric; parameters named as in `GraphEncoder`."""

    def __init__(self, width, heads, identity):
        super().__init__()
        self.gat1 = GATv2Conv(width, DIM // heads, heads=heads)
        self.gat2 = GATv2Conv(DIM, DIM // heads, heads=heads)
        self.residual = nn.Identity() if identity else nn.Linear(width, DIM)
        self.norm1, self.norm2 = nn.LayerNorm(DIM), nn.LayerNorm(DIM)

    def forward(self, x, edge_index):
        first = F.elu(self.norm1(self.gat1(x, edge_index))) + self.residual(x)
        second = F.elu(self.norm2(self.gat2(first, edge_index))) + first
        return torch.maximum(first, second)


def graph(kind, n=N):
    random = torch.Generator().manual_seed(3)
    edges = torch.randint(0, n, (2, 150), generator=random)
    if kind == "neighbors":  # everyone receives from three others
        nodes = torch.arange(n).repeat(3)
        return torch.stack([(nodes + torch.arange(1, 4).repeat_interleave(n)) % n, nodes])
    if kind == "isolated":
        return edges[:, (edges > 4).all(dim=0)]
    if kind == "self loops":
        return torch.cat([edges, torch.arange(n).repeat(2, 1)], dim=1)
    if kind == "duplicates":
        return edges.repeat(1, 3)
    if kind == "hub":
        return torch.stack([torch.arange(1, n), torch.zeros(n - 1, dtype=torch.long)])
    return edges[:, :0] if kind == "none" else edges


def pair(width=7, heads=2, identity=False):
    ours = GraphEncoder(width, DIM, heads, 0.0, "torch", identity=identity)
    initialise(ours, torch.Generator().manual_seed(0))
    for parameter in ours.parameters():  # also biases and layer norms shall matter
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
        parameter.data.add_(noise, alpha=0.1)
    theirs = Textbook(width, heads, identity)
    theirs.load_state_dict(ours.state_dict())
    return ours.double(), theirs.double()


def numbers(*shape, seed=1):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def backward(module, x, edges):
    x = x.clone().requires_grad_()
    module.zero_grad()
    out = module(x, edges)
    (out * numbers(*out.shape, seed=2)).sum().backward()
    return out.detach(), {"x": x.grad} | {k: p.grad.clone() for k, p in module.named_parameters()}


def assert_same(ours, theirs):
    torch.testing.assert_close(ours[0], theirs[0], atol=1e-12, rtol=1e-10)
    for name, gradient in theirs[1].items():
        torch.testing.assert_close(ours[1][name], gradient, atol=1e-10, rtol=1e-8, msg=name)


@pytest.mark.parametrize(("heads", "identity"), [(1, False), (2, False), (2, True)])
@pytest.mark.parametrize("kind", KINDS)
def test_encoder_same_weights_equals_torch_geometric(kind, heads, identity):
    width = DIM if identity else 7
    ours, theirs = pair(width, heads, identity)
    x, edges = numbers(N, width), graph(kind)
    assert_same(backward(ours, x, edges), backward(theirs, x, edges))


@pytest.mark.parametrize("kind", ["neighbors", "plain", "hub"])
def test_encoder_blocks_of_any_size_give_the_same(kind, monkeypatch):
    ours, _ = pair()
    set_dropout_generator(ours, torch.Generator().manual_seed(3))
    ours.train()
    for part in (ours.dropout, ours.gat1.dropout, ours.gat2.dropout):
        part.p = 0.4
    results = []
    for size in (2**20, 3 * 4 * DIM * 8, 1):  # one block, some nodes each, one node each
        monkeypatch.setattr(row_blocks, "_CACHE", size)
        set_dropout_generator(ours, torch.Generator().manual_seed(3))
        results.append(backward(ours, numbers(N, 7), graph(kind)))
    assert_same(results[1], results[0])
    assert_same(results[2], results[0])


@pytest.mark.skipif(numba_version() is None, reason="numba is absent or disabled")
@pytest.mark.parametrize("identity", [False, True])
def test_encoder_gradients_at_ties_of_the_maximum_are_those_of_compiled_loops(identity):
    ours, _ = pair(DIM, 2, identity)
    ours = ours.float()
    with torch.no_grad():
        for norm in (ours.norm1, ours.norm2):  # ELU(LayerNorm) is 0 in half of the columns
            norm.weight[::2], norm.bias[::2] = 0, 0
    x, edges = numbers(N, DIM).float(), graph("plain")
    found = backward(ours, x, edges)
    ours.backend = "numba"
    expected = backward(ours, x, edges)
    torch.testing.assert_close(found[0], expected[0], atol=2e-6, rtol=1e-5)
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_encoder_one_changed_node_changes_what_is_two_steps_away_and_no_more():
    ours, _ = pair()
    edges, x = torch.tensor([[0, 0, 1, 3], [1, 2, 3, 4]]), numbers(6, 7)
    other = x.clone()
    other[0] += 1
    changed = (ours(x, edges) != ours(other, edges)).any(dim=1)
    assert changed.tolist() == [True, True, True, True, False, False]


def test_encoder_dropout_draws_from_its_own_generator():
    ours, _ = pair()
    ours.dropout.p = 0.5

    def run(seed):
        set_dropout_generator(ours, torch.Generator().manual_seed(seed))
        return ours(numbers(N, 7), graph("plain"))

    state = torch.get_rng_state()
    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))
    assert torch.equal(torch.get_rng_state(), state)


def test_encoder_holds_no_tensor_of_the_size_of_the_edges(monkeypatch):
    n, dim = 4096, 64
    made = GraphEncoder(16, dim, 2, 0.0, "torch")
    initialise(made, torch.Generator().manual_seed(0))
    edges = Edges.of(graph("neighbors", n), n)
    largest = 0

    class Sizes(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.untyped_storage().nbytes())
            return out

    x = numbers(n, 16).float()
    monkeypatch.setattr(row_blocks, "_CACHE", 2**17)
    with Sizes():
        made(x, edges).sum().backward()
    assert largest == 3 * n * dim * 4  # the projections; four edges of each node would be more


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of torch itself
def test_encoder_by_torch_compile_equals_the_operations_one_by_one():
    ours, _ = pair()
    x, edges = numbers(N, 7), graph("plain")
    expected = backward(ours, x, edges)
    ours.backend = "torch_compile"
    assert_same(backward(ours, x, edges), expected)
