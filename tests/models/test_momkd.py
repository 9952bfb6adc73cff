"""MoMKD against reference values of the original, its gradient routing and its symmetries."""

import math

import pytest
import torch
from reference import fill_role, filled, hash_values
from torch import nn

from sk_momkd.losses.momkd import commitment_loss, momkd_terms, orthogonality_loss
from sk_momkd.models.momkd import MoMKD
from sk_momkd.nn.initialization import initialise
from sk_momkd.training.config import weighted_total

RELEASE = {"ce": 0.5, "mse": 0.05, "align_omics": 0.05, "align_wsi": 0.2, "memory": 0.1}


def roles(model):
    """(parameter, role) in the order of the original; role 1, log tau, keeps its value."""

    def two_layers(part):
        linear1, norm, linear2 = part[0], part[1], part[4]
        return [*linear1.parameters(), *norm.parameters(), *linear2.parameters()]

    encoder, omics = model.encoder, model.omics_branch
    first = [*two_layers(omics.encoder), *encoder.gat1.parameters(), *encoder.gat2.parameters()]
    first += [*encoder.residual.parameters(), *encoder.norm1.parameters()]
    first += [*encoder.norm2.parameters(), *two_layers(omics.decoder)]
    for projector in (omics.projector, model.patch_projector, model.slide_projector):
        first += projector.parameters()
    head = [p for part in model.head for p in part.parameters()]
    return [*zip(first, range(2, 38), strict=True), *zip(head, range(40, 46), strict=True)]


@pytest.fixture
def model():
    model = MoMKD(
        24,
        20,
        2,
        dim=16,
        projection_dim=8,
        n_components=4,
        head_hidden_dim=12,
        dropout=0,
        omics_dropout=0,
        head_dropout=0,
        learn_tau=True,
    )
    gains = {id(m.weight) for m in model.modules() if isinstance(m, nn.LayerNorm)}
    for parameter, k in roles(model):
        fill_role(parameter, k, gain=id(parameter) in gains)
    with torch.no_grad():  # class 1 is the positive memory
        model.memory.rows[1] = filled((4, 8), 38, 1 / math.sqrt(32))
        model.memory.rows[0] = filled((4, 8), 39, 1 / math.sqrt(32))
    model.memory.renormalize()
    return model.train()


def ring():
    """12 patches; patch i sends to i + 1, i + 2 and i + 5."""
    edges = [(i, (i + d) % 12) for i in range(12) for d in (1, 2, 5)]
    return torch.tensor(edges).T


def run(model, y, x=None, edges=None):
    x = filled((12, 24), 0, 1) if x is None else x
    edges = ring() if edges is None else edges
    batch, omics = torch.zeros(len(x), dtype=torch.long), filled((1, 20), 1000, 1)
    label = torch.tensor([y])
    output = model(x, edges, batch, 1, y=label, omics=omics, paired=torch.tensor([True]))
    return output, momkd_terms(output, label)


def close(actual, expected, tol=1e-5):
    torch.testing.assert_close(
        actual.detach().double(), torch.tensor(expected, dtype=torch.float64), atol=tol, rtol=0
    )


def test_fill_first_values_match():
    expected = [-0.999786328, -0.9064422094, -0.8112055677]
    close(torch.tensor(hash_values(3, 0)), expected, 1e-9)
    assert hash_values(320, 0).sum() == pytest.approx(-4.644129363105)


def test_forward_reference_fill_matches_original(model):
    output, _ = run(model, 1)
    close(output.logits[0], [-0.28729114, -0.12323279])
    attention = [0.00822898, 0.02570644, 0.0409203, 0.00536612, 0.03404678, 0.01458575]
    close(output.attention[:6, 0], attention)
    nearest = output.affinity.argmax(dim=2)
    assert nearest[:, 1].tolist() == [1, 1, 1, 3, 1, 1, 1, 1, 3, 2, 1, 1]
    assert nearest[:, 0].tolist() == [3, 1, 2, 3, 3, 0, 0, 0, 1, 1, 0, 1]
    close(output.omics_projection[0, :4], [0.00368512, -0.03787888, -0.13304971, 0.44456807])
    close(output.slide_projection[0, :4], [-0.45707539, -0.25067687, 0.02289566, -0.07942294])


@pytest.mark.parametrize(
    ("y", "memory", "omics", "wsi", "ce", "total"),
    [
        (1, 0.60002714, 7.5208750, 13.9849596, 0.6144786, 3.5647786),
        (0, 0.48584193, 4.4909401, 0.1287329, 0.7785369, 0.7126468),
    ],
)
def test_terms_reference_fill_match_original(model, y, memory, omics, wsi, ce, total):
    _, terms = run(model, y)
    close(terms["memory"][0], memory)
    close(terms["align_omics"][0], omics, 1e-4)
    close(terms["align_wsi"][0], wsi, 1e-4)
    close(terms["ce"][0], ce)
    close(terms["mse"][0], 0.4900108)
    close(weighted_total(terms, RELEASE), total, 1e-4)


def test_printed_memory_loss_reference_fill_matches_recoding(model):
    output, _ = run(model, 1)
    y, settings = torch.tensor([1]), {"assignment": "euclidean", "reduction": "sum"}
    commitment = commitment_loss(output.projection, output.memory, y, output.batch, **settings)
    close(commitment[0], 1.06341124)
    close(orthogonality_loss(output.memory, y, reduction="sum")[0], 0.74736118)


def test_inference_reference_fill_equals_training_without_dropout(model):
    trained, _ = run(model, 1)
    alone = model.eval()(filled((12, 24), 0, 1), ring(), torch.zeros(12, dtype=torch.long), 1)
    close(trained.logits, alone.logits, tol=1e-6)  # few patches are trained in compiled loops


GROUPS = {
    "encoder": lambda m: m.encoder.parameters(),
    "patch_projector": lambda m: m.patch_projector.parameters(),
    "slide_projector": lambda m: m.slide_projector.parameters(),
    "head": lambda m: m.head.parameters(),
    "omics_encoder": lambda m: m.omics_branch.encoder.parameters(),
    "omics_projector": lambda m: m.omics_branch.projector.parameters(),
    "decoder": lambda m: m.omics_branch.decoder.parameters(),
    "tau": lambda m: [m.log_tau],
}

# Gradient norms of the original for y = 1. Whatever is not listed must get no gradient at all.
ROUTES = {
    "ce": {"encoder": 2.143026, "patch_projector": 0.368920, "head": 1.455300, "tau": None},
    "align_omics": {"omics_encoder": 197.868, "omics_projector": 57.654},
    "align_wsi": {
        "encoder": 65.2951,
        "patch_projector": 14.7048,
        "slide_projector": 35.1696,
        "tau": None,
    },
    "mse": {"omics_encoder": 3.4976, "decoder": 5.2566},
    "memory": {"encoder": 0.882580, "patch_projector": 0.396673},
}
MEMORY_ROUTES = {
    "ce": None,
    "mse": None,
    "align_omics": (13.6139, 14.9112),
    "align_wsi": (11.3442, 11.3763),
    "memory": (0.0, 1.968209),
}


@pytest.mark.parametrize("term", ROUTES)
def test_gradients_of_one_term_reach_exactly_their_parameters(model, term):
    _, terms = run(model, 1)
    terms[term].sum().backward()
    for name, parameters in GROUPS.items():
        gradients = [p.grad for p in parameters(model)]
        if name not in ROUTES[term]:
            assert all(g is None for g in gradients), f"{term} leaks into {name}"
            continue
        norm = torch.stack([g.norm() for g in gradients if g is not None]).norm()
        assert norm > 0
        if ROUTES[term][name] is not None:
            assert float(norm) == pytest.approx(ROUTES[term][name], rel=2e-4)
    gradient = model.memory.rows.grad
    if MEMORY_ROUTES[term] is None:
        assert gradient is None
    else:
        norms = gradient.norm(dim=(1, 2)).tolist()
        assert norms == pytest.approx(MEMORY_ROUTES[term], rel=2e-4)


@pytest.mark.parametrize(
    ("sizes", "total", "at_inference"),
    [
        ({}, 2_503_171, 1_384_707),
        ({"dim": 512, "projection_dim": 64}, 4_372_803, 2_992_067),
    ],
)
def test_parameter_count_at_1536_features_matches_paper_and_release(sizes, total, at_inference):
    model = MoMKD(1536, 768, 2, **sizes)
    count = sum(p.numel() for p in model.parameters())
    training_only = sum(p.numel() for p in model.omics_branch.parameters())
    # Prediction needs neither the omics branch nor the slide projection, which `transform` reads.
    training_only += sum(p.numel() for p in model.slide_projector.parameters())
    assert count == total
    assert count - training_only == at_inference


def test_forward_permuted_patches_permutes_attention_and_keeps_logits(model):
    x, order = filled((12, 24), 0, 1), torch.randperm(12, generator=torch.manual_seed(0))
    inverse = order.argsort()
    plain, _ = run(model.eval(), 1)
    permuted, _ = run(model, 1, x[order], inverse[ring()])
    torch.testing.assert_close(permuted.logits, plain.logits, atol=1e-6, rtol=0)
    torch.testing.assert_close(permuted.attention, plain.attention[order], atol=1e-6, rtol=0)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_forward_batch_of_bags_equals_bags_alone(n_classes):
    model = MoMKD(5, 4, n_classes, dim=8, projection_dim=4, n_components=3, dropout=0)
    initialise(model, torch.Generator().manual_seed(0))
    model.eval()
    sizes, x = [1, 4, 2], torch.randn(7, 5, generator=torch.Generator().manual_seed(1))
    batch = torch.repeat_interleave(torch.arange(3), torch.tensor(sizes))
    none = torch.empty(2, 0, dtype=torch.long)
    together = model(x, none, batch, 3)
    start = 0
    for b, size in enumerate(sizes):
        part = x[start : start + size]
        alone = model(part, none, torch.zeros(size, dtype=torch.long), 1)
        torch.testing.assert_close(alone.logits[0], together.logits[b])
        torch.testing.assert_close(alone.attention, together.attention[start : start + size])
        torch.testing.assert_close(alone.slide_projection[0], together.slide_projection[b])
        start += size
    assert together.attention.shape == (7, 1 if n_classes == 2 else 3)


@pytest.mark.parametrize("n", [1, 2, 4, 8, 9])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_forward_small_bags_are_finite(n, n_classes):
    model = MoMKD(5, 0, n_classes, dim=8, projection_dim=4, n_components=3)
    initialise(model, torch.Generator().manual_seed(0))
    output = model.eval()(
        torch.randn(n, 5), torch.empty(2, 0, dtype=torch.long), torch.zeros(n, dtype=torch.long), 1
    )
    assert output.logits.isfinite().all()
    torch.testing.assert_close(output.attention.sum(dim=0), torch.ones(output.attention.shape[1]))


def test_forward_three_classes_logit_c_reads_map_c():
    model = MoMKD(5, 0, 3, dim=8, projection_dim=4, n_components=3)
    initialise(model, torch.Generator().manual_seed(0))
    model.eval()
    x, batch = torch.randn(6, 5, generator=torch.Generator().manual_seed(2)), torch.zeros(6).long()
    edges = torch.empty(2, 0, dtype=torch.long)
    output = model(x, edges, batch, 1)
    pooled = output.attention.T @ model.encoder(x, edges)  # (classes, dim)
    torch.testing.assert_close(output.logits[0], model.head(pooled).diagonal())
    labelled = model(x, edges, batch, 1, y=torch.tensor([2]))
    expected = nn.functional.normalize(model.slide_projector(pooled[2]), dim=0)
    torch.testing.assert_close(labelled.slide_projection[0], expected)
    mean = nn.functional.normalize(model.slide_projector(pooled.mean(dim=0)), dim=0)
    torch.testing.assert_close(output.slide_projection[0], mean)


def test_forward_without_omics_branch_predicts_the_same(model):
    x, batch = filled((12, 24), 0, 1), torch.zeros(12, dtype=torch.long)
    before = model.eval()(x, ring(), batch, 1).logits
    del model.omics_branch
    assert torch.equal(model(x, ring(), batch, 1).logits, before)


def test_tau_beyond_range_is_clamped(model):
    with torch.no_grad():
        model.log_tau.fill_(5.0)
    assert model.tau() == 2.0
