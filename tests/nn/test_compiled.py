"""The compiled graph encoder equals the textbook composition of torch-geometric's layers."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch_geometric.nn import GATv2Conv

from sk_momkd.nn.backend import numba_version
from sk_momkd.nn.dropout import set_dropout_generator
from sk_momkd.nn.edges import Edges
from sk_momkd.nn.encoders import GraphEncoder
from sk_momkd.nn.initialization import initialise

needs_numba = pytest.mark.skipif(numba_version() is None, reason="numba is absent or disabled")
BACKENDS = [pytest.param("numba", marks=needs_numba), "torch"]
N, WIDTH, DIM = 1200, 24, 32


class Textbook(nn.Module):
    """METHOD's encoder, written with torch-geometric; parameters named as in `GraphEncoder`."""

    def __init__(self):
        super().__init__()
        self.gat1 = GATv2Conv(WIDTH, DIM // 2, heads=2)
        self.gat2 = GATv2Conv(DIM, DIM // 2, heads=2)
        self.residual = nn.Linear(WIDTH, DIM)
        self.norm1, self.norm2 = nn.LayerNorm(DIM), nn.LayerNorm(DIM)

    def forward(self, x, edge_index):
        first = F.elu(self.norm1(self.gat1(x, edge_index))) + self.residual(x)
        second = F.elu(self.norm2(self.gat2(first, edge_index))) + first
        return torch.maximum(first, second)


def graph(kind):
    random = torch.Generator().manual_seed(5)
    edges = torch.randint(0, N, (2, 4 * N), generator=random)
    if kind == "isolated":
        return edges[:, (edges > N // 2).all(dim=0)]
    if kind == "self loops":
        return torch.cat([edges, torch.arange(0, N, 2).repeat(2, 1)], dim=1)
    if kind == "duplicates":
        return edges.repeat(1, 3)
    if kind == "hub":  # in-degree and out-degree of 1,000
        ring = torch.stack([torch.arange(N), torch.arange(N).roll(1)])
        spokes = torch.stack([torch.arange(1, 1001), torch.zeros(1000, dtype=torch.long)])
        return torch.cat([ring, spokes, spokes.flip(0)], dim=1)
    if kind == "none":
        return edges[:, :0]
    return edges


def encoder(backend, dropout=0.0, seed=0):
    made = GraphEncoder(WIDTH, DIM, 2, dropout, backend)
    initialise(made, torch.Generator().manual_seed(seed))
    for parameter in made.parameters():  # also biases and layer norms shall matter
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed + 1))
        parameter.data.add_(noise, alpha=0.1)
    return made


def features():
    return torch.randn(N, WIDTH, generator=torch.Generator().manual_seed(9))


def direction():
    return torch.randn(N, DIM, generator=torch.Generator().manual_seed(7))


def backward(module, x, edges):
    """Gradients of a random projection of the output, and the output."""
    module.zero_grad()
    out = module(x, edges)
    (out.float() * direction()).sum().backward()
    return out.detach(), {name: p.grad.clone() for name, p in module.named_parameters()}


def relative(a, b):
    return ((a - b).norm() / b.norm().clamp(min=1e-12)).item()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["plain", "isolated", "self loops", "duplicates", "hub", "none"])
def test_encoder_any_graph_equals_torch_geometric(kind, backend):
    textbook, ours = Textbook(), encoder(backend)
    textbook.load_state_dict(ours.state_dict())  # names and shapes are the same
    x, edges = features(), graph(kind)
    x1, x2 = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected, expected_gradients = backward(textbook, x1, edges)
    out, gradients = backward(ours, x2, edges)
    torch.testing.assert_close(out, expected, atol=2e-6, rtol=1e-5)
    assert relative(x2.grad, x1.grad) < 1e-5
    for name, gradient in expected_gradients.items():
        if kind == "none" and name in ("gat1.att", "gat2.att", "gat1.lin_r.weight"):
            continue  # with nothing but themselves to attend to: zero but for rounding
        if kind == "none" and "lin_r" in name:
            continue
        assert relative(gradients[name], gradient) < 1e-5, name


@pytest.mark.parametrize("backend", BACKENDS)
def test_encoder_without_edges_does_not_depend_on_attention(backend):
    _, gradients = backward(encoder(backend), features(), graph("none"))
    for name in ("gat1.att", "gat2.att", "gat1.lin_r.weight", "gat2.lin_r.bias"):
        assert gradients[name].abs().max() < 1e-4, name


@needs_numba
def test_encoder_dropout_masks_are_those_of_the_other_backend():
    edges, results = graph("plain"), []
    for backend in ("numba", "torch"):
        module = encoder(backend, dropout=0.4).train()
        set_dropout_generator(module, torch.Generator().manual_seed(3))
        results.append(backward(module, features(), edges))
    (out, gradients), (expected, expected_gradients) = results
    torch.testing.assert_close(out, expected, atol=2e-6, rtol=1e-5)
    for name, gradient in expected_gradients.items():
        assert relative(gradients[name], gradient) < 1e-5, name


@pytest.mark.parametrize("backend", BACKENDS)
def test_encoder_with_dropout_gradient_is_the_finite_difference(backend):
    module = encoder(backend, dropout=0.4).train()
    x, edges = features(), graph("plain")

    def loss():
        set_dropout_generator(module, torch.Generator().manual_seed(3))  # the same masks again
        return (module(x, edges).double() * direction()).sum()

    module.zero_grad()
    loss().backward()
    for name in ("gat1.att", "gat1.lin_l.weight", "gat2.lin_r.bias", "norm1.weight"):
        parameter = module.get_parameter(name)
        step = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
        step *= 2e-3 / step.norm()
        values = []
        for sign in (1, -2):
            parameter.data.add_(step, alpha=sign)
            values.append(loss().item())
        parameter.data.add_(step)
        expected = float((parameter.grad * step).sum())
        assert (values[0] - values[1]) / 2 == pytest.approx(expected, rel=2e-2, abs=2e-3), name


@pytest.mark.parametrize("backend", BACKENDS)
def test_encoder_bfloat16_is_close_to_float32(backend):
    module, edges = encoder(backend), graph("plain")
    wide = module(features(), edges)
    short = module(features().bfloat16(), edges)
    assert short.dtype == torch.bfloat16
    assert relative(short.float(), wide) < 1e-2


@needs_numba
def test_encoder_same_seed_any_number_of_threads_same_bits():
    before, results = torch.get_num_threads(), []
    try:
        for n_threads in (1, 2, 3):
            torch.set_num_threads(n_threads)
            module = encoder("numba", dropout=0.4).train()
            set_dropout_generator(module, torch.Generator().manual_seed(3))
            out, gradients = backward(module, features(), graph("hub"))
            # products of torch may differ by threads; the loops over edges may not
            results.append((out, gradients["gat2.att"], gradients["norm2.weight"]))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        for a, b in zip(result, results[0], strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


@needs_numba
def test_encoder_two_forwards_before_a_backward_do_not_share_buffers():
    module, edges, x = encoder("numba"), graph("plain"), features()
    _, alone = backward(module, x, edges)
    module.zero_grad()
    kept = module(x, edges)
    module(x * 2, edges)  # its buffers are others
    (kept * direction()).sum().backward()
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter.grad, alone[name]), name


@needs_numba
def test_encoder_second_backward_raises():
    module = encoder("numba")
    out = module(features(), graph("plain")).sum()
    out.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass"):
        out.backward()


@pytest.mark.parametrize("backend", BACKENDS)
def test_encoder_features_too_large_for_float32_give_nan(backend):
    with torch.no_grad():
        out = encoder(backend)(features() * 1e25, graph("plain"))
    assert out.isnan().all()


@needs_numba
def test_encoder_forward_without_backward_leaves_no_buffer_lent():
    module = encoder("numba")
    for _ in range(2):
        module(features(), graph("plain"))
    assert len(module.workspace._lent) == 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["gat1.att", "norm2.weight", "gat2.lin_l.weight"])
def test_encoder_weight_written_over_before_backward_raises(backend, name):
    module = encoder(backend)
    out = module(features(), graph("plain")).sum()
    with torch.no_grad():
        module.get_parameter(name).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.backward()


@needs_numba
def test_encoder_with_bfloat16_weights_reads_them_as_numbers():
    module, x = encoder("numba").bfloat16(), features().bfloat16()
    short, _ = backward(module, x, graph("plain"))
    wide, _ = backward(module.float(), x, graph("plain"))  # the same numbers
    torch.testing.assert_close(short, wide)


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        (torch.tensor([[0], [N]]), f"names nodes 0 to {N}"),
        (torch.tensor([[-1], [0]]), "names nodes -1 to 0"),
        (Edges.of(torch.tensor([[0], [1]]), N + 1), f"graph of {N + 1} nodes.*of {N}"),
    ],
)
def test_encoder_edges_of_another_graph_raise(edges, message):
    with pytest.raises(ValueError, match=message):
        encoder("auto")(features(), edges)


def test_encoder_copies_and_pickles_without_buffers():
    module = encoder("auto")
    out = module(features(), graph("plain")).detach()
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(features(), graph("plain")), out)
