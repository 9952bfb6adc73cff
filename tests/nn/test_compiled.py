"""The compiled graph encoder equals the textbook composition of torch-geometric's layers."""

import copy
import pickle
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch_geometric.nn import GATv2Conv

from sk_momkd.nn.backend import choose_backend, numba_version
from sk_momkd.nn.dropout import Mask, counter_bits, set_dropout_generator
from sk_momkd.nn.edges import Edges
from sk_momkd.nn.encoders import GraphEncoder
from sk_momkd.nn.initialization import initialise
from sk_momkd.nn.workspace import Workspace

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
def test_encoder_without_edges_owes_nothing_to_attention(backend):
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
    with pytest.raises(RuntimeError, match="backward once"):
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


def test_choose_backend_says_why_numba_cannot_serve(monkeypatch):
    assert choose_backend("auto", torch.ones(1, dtype=torch.float64)) == "torch"
    if numba_version() is not None:
        with pytest.raises(RuntimeError, match=r"float32 and bfloat16.*float64"):
            choose_backend("numba", torch.ones(1, dtype=torch.float64))
    monkeypatch.setattr("sk_momkd.nn.backend.numba_version", lambda: None)
    assert choose_backend("auto", torch.ones(1)) == "torch"
    with pytest.raises(RuntimeError, match="not installed"):
        choose_backend("numba", torch.ones(1))
    with pytest.raises(ValueError, match="backend must be one of"):
        choose_backend("fast", torch.ones(1))


def test_edges_sorted_both_ways_describe_the_same_edges():
    edge_index = torch.tensor([[0, 2, 2, 1, 3], [1, 1, 1, 1, 0]])  # a duplicate, a self loop
    edges = Edges.of(edge_index, 4)
    expected = sorted([(0, 1), (2, 1), (2, 1), (3, 0), (0, 0), (1, 1), (2, 2), (3, 3)])
    assert sorted(zip(*(end.tolist() for end in edges.pairs()), strict=True)) == expected
    by_sender = [
        (j, int(edges.receiver[k]))
        for j in range(4)
        for k in range(edges.out_offsets[j], edges.out_offsets[j + 1])
    ]
    assert sorted(by_sender) == expected
    sender, receiver = edges.pairs()
    assert [(int(sender[e]), int(receiver[e])) for e in edges.place] == by_sender


def test_edges_join_numbers_nodes_and_edges_on():
    one, two = Edges.of(torch.tensor([[0], [1]]), 2), Edges.of(torch.tensor([[2], [0]]), 3)
    both = Edges.join([one, two])
    expected = Edges.of(torch.tensor([[0, 4], [1, 2]]), 5)
    for name in ("in_offsets", "sender", "out_offsets", "receiver", "place"):
        assert torch.equal(getattr(both, name), getattr(expected, name)), name


def test_mask_drops_the_given_share_and_depends_on_key_and_place_alone():
    mask = Mask(0.3, (1, 2))
    x = torch.ones(1000, 50)
    kept = mask.apply(x)
    assert torch.equal(kept, mask.apply(x))
    assert torch.equal(kept[:7], mask.apply(x[:7]))
    assert (kept == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert kept.max().item() == pytest.approx(1 / 0.7)
    other = Mask(0.3, (1, 3)).apply(x)
    agreement = ((kept == 0) & (other == 0)).float().mean().item()
    assert agreement == pytest.approx(0.09, abs=0.01)  # independent


def test_counter_bits_are_uniform_and_uncorrelated_between_neighbours():
    bits = counter_bits(torch.arange(200_000), (123, 456)).double() / 2**32
    histogram = torch.histc(bits, 20, 0, 1) / len(bits)
    assert (histogram - 0.05).abs().max() < 0.003
    for lag in (1, 2, 512):
        pairs = torch.stack([bits[:-lag], bits[lag:]])
        assert abs(torch.corrcoef(pairs)[0, 1]) < 0.01


@needs_numba
def test_counter_bits_kernel_and_torch_agree():
    from numba import njit

    from sk_momkd.nn.kernels.primitives import bits

    @njit
    def fill(out, key):
        for i in range(out.size):
            out[i] = bits(i, key)

    out = np.empty(1000, dtype=np.uint32)
    fill(out, np.array([77, 2**32 - 1], dtype=np.uint32))
    assert out.tolist() == counter_bits(torch.arange(1000), (77, 2**32 - 1)).tolist()


def test_workspace_lends_no_memory_twice_and_reuses_what_came_back():
    workspace = Workspace()
    a = workspace.take((4, 4), torch.float32)
    b = workspace.take((2, 2), torch.float32)
    assert a.data_ptr() != b.data_ptr()
    workspace.give(a)
    assert workspace.take((2, 8), torch.float32).data_ptr() == a.data_ptr()
    workspace.give(b)
    larger = workspace.take((100, 10), torch.bfloat16)
    assert larger.shape == (100, 10)
    assert larger.dtype == torch.bfloat16
    assert pickle.loads(pickle.dumps(workspace))._free == []
    with pytest.raises(KeyError):
        workspace.give(a, a)


def test_workspace_shared_by_threads_lends_no_memory_twice():
    workspace = Workspace()

    def work(number):
        for _ in range(1000):
            buffer = workspace.take((8,), torch.float32)
            buffer.fill_(number)
            time.sleep(0)  # the others' turn
            assert (buffer == number).all()
            workspace.give(buffer)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
    finally:
        sys.setswitchinterval(before)


@needs_numba
def test_kernels_where_nothing_can_be_cached_still_compile(monkeypatch):
    from sk_momkd.nn.kernels import primitives as words

    real = words.njit

    def without_a_place(*args, **options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return real(*args, **options)

    monkeypatch.setattr(words, "njit", without_a_place)
    assert words.compiled(lambda x: x + 1)(2) == 3


@needs_numba
@pytest.mark.parametrize("openmp", [True, False])
def test_rows_are_shared_among_threads_each_once(monkeypatch, openmp):
    from sk_momkd.nn import threads

    if not openmp:
        monkeypatch.setattr(threads, "_openmp", lambda: None)
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(3)
    try:
        threads.over_rows(lambda rows: seen.append(rows), 5000)
        with pytest.raises(KeyboardInterrupt):
            threads.over_rows(_interrupt, 5000)
    finally:
        torch.set_num_threads(before)
    covered = sorted(seen)
    assert covered[0][0] == 0
    assert covered[-1][1] == 5000
    assert all(a[1] == b[0] for a, b in pairwise(covered))


@needs_numba
def test_rows_few_pieces_still_ask_for_the_whole_team(monkeypatch):
    from sk_momkd.nn import threads

    teams, seen, before = [], [], torch.get_num_threads()

    def parallel(body, _, n_threads, flags):
        teams.append(n_threads)
        body(None)

    monkeypatch.setattr(threads, "_openmp", lambda: SimpleNamespace(GOMP_parallel=parallel))
    torch.set_num_threads(4)
    try:
        threads.over_rows(seen.append, 300)
        threads.over_rows(seen.append, 200)  # one piece needs no team
    finally:
        torch.set_num_threads(before)
    assert teams == [4]
    assert seen == [(0, 256), (256, 300), (0, 200)]


def _interrupt(rows):
    raise KeyboardInterrupt


@needs_numba
def test_kernel_that_fails_in_a_thread_raises(monkeypatch, capfd):
    from sk_momkd.nn import threads

    monkeypatch.setattr(threads, "_openmp", lambda: None)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ZeroDivisionError):
            threads.over_rows(lambda rows: 1 / 0, 5000)
    finally:
        torch.set_num_threads(before)
