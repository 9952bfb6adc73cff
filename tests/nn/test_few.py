"""Training on few patches in compiled loops gives what the layers and losses of torch give."""

from itertools import product

import pytest
import torch
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import weight_norm

from sk_momkd.losses.momkd import momkd_terms
from sk_momkd.models.momkd import MoMKD
from sk_momkd.nn.backend import numba_version
from sk_momkd.nn.initialization import initialise
from sk_momkd.training.config import weighted_total

pytestmark = pytest.mark.skipif(numba_version() is None, reason="numba is absent or disabled")

WEIGHTS = {"ce": 0.5, "mse": 0.3, "memory": 0.2, "align_omics": 0.7, "align_wsi": 0.4}
PRINTED = {"assignment": "euclidean", "commit_reduction": "sum", "commit_memories": "all"}
SUMS = {"ortho_reduction": "sum", "ortho_memories": "all"}
SOFT = {"teacher_alignment": True}


def step(backend, paired, options, *, weights=WEIGHTS, prepare=None, **network):
    """Terms and gradients of a step on three bags."""
    sizes = {"dim": 8, "projection_dim": 6, "n_components": 3, "omics_hidden_dim": 9}
    # Without dropout in the graph: at a ReLU that is exactly 0 the encoders differ.
    module = MoMKD(5, 7, 2, **sizes, dropout=0.0, backend=backend, **network)
    random = torch.Generator().manual_seed(0)
    initialise(module, random)
    if prepare is not None:
        prepare(module)
    for part in module.modules():
        if hasattr(part, "generator"):
            part.generator = random
    batch, y = torch.tensor([0, 0, 0, 0, 1, 1, 2]), torch.tensor([1, 0, 1])
    seen = torch.tensor(paired)
    output = module.train()(
        torch.randn(7, 5, generator=random),
        torch.tensor([[0, 1, 2, 4], [1, 2, 3, 5]]),
        batch,
        3,
        y=y,
        paired=seen,
        omics=torch.randn(int(seen.sum()), 7, generator=random),
    )
    target = torch.rand(3, 2, generator=random).softmax(dim=1) if options else None
    terms = momkd_terms(output, y, target, **options)
    weighted_total(terms, weights).backward()
    return output, terms, {name: p.grad for name, p in module.named_parameters()}


@pytest.mark.parametrize(
    ("paired", "options"),
    [
        *product([[True, False, True]], [{}, PRINTED, SUMS, SOFT, PRINTED | SUMS | SOFT]),
        ([False] * 3, {}),
        ([True] * 3, {"beta": 200.0}),
    ],
)
def test_few_patches_terms_and_gradients_equal_those_of_torch(paired, options):
    learn_tau = bool(options)
    ours = step("numba", paired, options, learn_tau=learn_tau)
    theirs = step("torch", paired, options, learn_tau=learn_tau)
    assert ours[0].few
    assert not theirs[0].few
    for name in ("logits", "attention", "affinity", "reconstruction", "omics_projection"):
        torch.testing.assert_close(getattr(ours[0], name), getattr(theirs[0], name))
    require_equal(ours, theirs)


def require_equal(ours, theirs):
    """Terms and gradients are equal; what has no gradient in one has none in the other."""
    for ours_, theirs_ in zip(ours[1:], theirs[1:], strict=True):
        assert set(ours_) == set(theirs_)
        for name, value in theirs_.items():
            if value is None:
                assert ours_[name] is None, name
            else:
                near = 5e-6 * max(1.0, value.detach().abs().max().item())
                torch.testing.assert_close(ours_[name], value, atol=near, rtol=0, msg=name)


@pytest.mark.parametrize("head", ["mlp", "linear"])
@pytest.mark.parametrize("terms", [{"ce"}, {"mse"}, {"align_omics"}, {"align_wsi"}, {"memory"}])
def test_few_patches_a_single_term_reaches_what_it_reaches_in_torch(terms, head):
    weights = {name: weight * (name in terms) for name, weight in WEIGHTS.items()}
    given = {"weights": weights, "head": head, "learn_tau": True}
    ours = step("numba", [True, False, True], {}, **given)
    require_equal(ours, step("torch", [True, False, True], {}, **given))


def test_three_classes_or_no_gradients_takes_the_layers_of_torch():
    module = MoMKD(5, 0, 3, dim=8, projection_dim=6, n_components=3)
    initialise(module, torch.Generator().manual_seed(0))
    given = (torch.randn(4, 5), torch.empty(2, 0, dtype=torch.int64), torch.zeros(4).long(), 1)
    assert not module.train()(*given, y=torch.tensor([2])).few
    module = MoMKD(5, 0, 2, dim=8, projection_dim=6, n_components=3)
    initialise(module, torch.Generator().manual_seed(0))
    assert module.train()(*given, y=torch.tensor([1])).few
    assert not module.eval()(*given).few
    with torch.no_grad():
        assert not module.train()(*given).few


def slide(n, dtype, backend, prepare=None):
    """Gradients of a step on one bag of `n` patches in a row."""
    module = MoMKD(16, 7, 2, dim=16, projection_dim=8, n_components=3, dropout=0.0, backend=backend)
    random = torch.Generator().manual_seed(0)
    initialise(module, random)
    if prepare is not None:
        prepare(module)
    for part in module.modules():
        if hasattr(part, "generator"):
            part.generator = random
    x, omics = torch.randn(n, 16, generator=random), torch.randn(1, 7, generator=random)
    edges, y = torch.stack([torch.arange(n - 1), torch.arange(1, n)]), torch.tensor([1])
    known = {"y": y, "paired": torch.tensor([True]), "omics": omics}
    output = module.train()(x.to(dtype), edges, torch.zeros(n).long(), 1, **known)
    weighted_total(momkd_terms(output, y), WEIGHTS).backward()
    return output.few, {name: p.grad for name, p in module.named_parameters()}


@pytest.mark.parametrize(("n", "few"), [(300, True), (1024, True), (1025, False)])
def test_up_to_1024_patches_loops_give_the_gradients_of_torch(n, few):
    took_loops, ours = slide(n, torch.float32, "numba")
    assert took_loops is few
    require_near(ours, slide(n, torch.float32, "torch")[1])


def require_near(ours, theirs):
    """Gradients are equal to rounding; what has none in one has none in the other."""
    for name, gradient in theirs.items():
        if gradient is None:
            assert ours[name] is None, name
        else:
            assert (ours[name] - gradient).norm() <= 1e-5 * max(gradient.norm(), 1e-3), name


@pytest.mark.parametrize("n", [7, 300, 1024])
def test_loops_after_a_graph_in_bfloat16_are_those_of_torch_in_float32(n, monkeypatch):
    def widen(module):
        module.encoder.register_forward_hook(lambda *called: called[-1].float())

    took_loops, ours = slide(n, torch.bfloat16, "numba")
    assert took_loops
    monkeypatch.setattr(MoMKD, "_suits_loops", lambda *_: False)
    took_loops, theirs = slide(n, torch.bfloat16, "numba", prepare=widen)
    assert not took_loops
    # Gradients of the graph are rounded to bfloat16, where a last bit may differ.
    require_near(ours, {k: g for k, g in theirs.items() if not k.startswith("encoder.")})


def test_more_than_1024_patches_in_bfloat16_take_the_layers_of_torch():
    assert not slide(1025, torch.bfloat16, "numba")[0]


HOOKS = {
    "forward": lambda part, call: part.register_forward_hook(lambda *_: call()),
    "before": lambda part, call: part.register_forward_pre_hook(lambda *_: call()),
    "backward": lambda part, call: part.register_full_backward_hook(lambda *_: call()),
    "before_backward": lambda part, call: part.register_full_backward_pre_hook(lambda *_: call()),
}
PLACES = ["patch_projector", "slide_projector", "head", "head.3", "omics_branch.encoder.0"]
PLACES += ["omics_branch.projector", "omics_branch.decoder"]


@pytest.mark.filterwarnings("ignore:Full backward hook is firing when gradients are computed")
@pytest.mark.parametrize("kind", HOOKS)
@pytest.mark.parametrize("place", PLACES)
def test_hooks_of_parts_are_called_and_change_no_number(place, kind):
    calls = []

    def prepare(module):
        HOOKS[kind](module.get_submodule(place), lambda: calls.append(place))

    hooked = step("numba", [True, False, True], {}, prepare=prepare)
    assert calls == [place]
    assert hooked[0].few is place.startswith("omics_branch")  # each part for itself
    require_equal(hooked, step("numba", [True, False, True], {}))


def test_part_with_a_parametrization_is_called():
    def prepare(module):
        weight_norm(module.slide_projector)

    ours, theirs = (step(b, [True] * 3, {}, prepare=prepare) for b in ("numba", "torch"))
    assert not ours[0].few
    require_equal(ours, theirs)


def test_a_value_that_is_no_number_stays_one():
    module = MoMKD(5, 0, 2, dim=8, projection_dim=6, n_components=3, head_dropout=0.0)
    initialise(module, torch.Generator().manual_seed(0))
    with torch.no_grad():
        module.head[1].weight[0, 0] = torch.nan
    edges = torch.empty(2, 0, dtype=torch.int64)
    output = module.train()(torch.randn(4, 5), edges, torch.zeros(4).long(), 1, y=torch.tensor([1]))
    assert output.few
    assert output.logits.isnan().all()


def test_order_in_which_a_layer_holds_its_weights_changes_no_number():
    def prepare(module):
        for layer in (module.head[1], module.slide_projector, module.omics_branch.encoder[0]):
            prune.identity(layer, "weight")
            prune.remove(layer, "weight")  # registered anew, after the bias

    ours, theirs = (step(b, [True] * 3, {}, prepare=prepare) for b in ("numba", "torch"))
    assert ours[0].few
    require_equal(ours, theirs)


def test_under_autocast_the_layers_of_torch_are_taken():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, theirs = (step(b, [True, False, True], {}) for b in ("numba", "torch"))
    assert not ours[0].few
    for name, value in theirs[1].items():
        torch.testing.assert_close(ours[1][name], value, rtol=0.05, atol=0.05, msg=name)
