"""G-HANet against reference values of the original, its groups of genes and small slides."""

import math

import pytest
import torch
from reference import fill_role, filled
from torch import nn

from sk_momkd.losses.ghanet import ghanet_terms
from sk_momkd.models.ghanet import GHANet, strongest
from sk_momkd.nn.dropout import set_dropout_generator
from sk_momkd.nn.initialization import initialise
from sk_momkd.training.config import weighted_total

WEIGHTS = {"ce": 1.0, "sce": 0.3, "mse": 0.3}
NO_EDGES = torch.empty(2, 0, dtype=torch.long)


def roles(model):
    """(role, parameter) in the order of the original, its dead attention left out."""
    recover, predict, head = model.recover, model.predict, model.head
    attention, ffns = recover.attention, (recover.ffn0, recover.ffn1)
    yield from numbered(1, predict.gate, predict.fc, predict.norm)
    yield from numbered(12, recover.fc, model.omics_branch)
    yield from numbered(50, attention, ffns[0])
    yield from numbered(64, ffns[1], recover.norms, head.classifier)
    yield from numbered(82, predict.linears, predict.norms, head.attention)
    yield from numbered(95, head.ffn, head.norm, head.compress, head.compress_norm)


def numbered(start, *parts):
    return enumerate((p for part in parts for p in part.parameters()), start)


@pytest.fixture(scope="module")
def model():
    columns, groups = iter(range(33)), (3, 4, 5, 6, 7, 8)
    blocks = [[next(columns) for _ in range(size)] for size in groups]
    model = GHANet(1024, 33, 2, gene_groups=blocks, dropout=0).double()
    gains = {id(m.weight) for m in model.modules() if isinstance(m, nn.LayerNorm)}
    filled_roles = []
    for role, parameter in roles(model):
        fill_role(parameter, role, gain=id(parameter) in gains)
        filled_roles.append(role)
    with torch.no_grad():  # (1, 6, 512) in the original
        model.recover.tokens.rows.copy_(filled((6, 512), 11, 3072**-0.5, torch.float64))
    assert sorted(filled_roles) == [k for k in range(1, 105) if k != 11 and not 59 <= k <= 63]
    return model


def run(model, xs, omics=None, **known):
    batch = torch.arange(len(xs)).repeat_interleave(torch.tensor([len(x) for x in xs]))
    if omics is not None:
        known = {"paired": torch.ones(len(xs), dtype=torch.bool)} | known
    return model(torch.cat(xs), NO_EDGES, batch, len(xs), omics=omics, **known)


def close(actual, expected, tol=2e-9):
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(actual.detach(), expected, atol=tol, rtol=0)


def test_forward_reference_fill_matches_original(model):
    x = filled((20, 1024), 0, 1, torch.float64)
    output = run(model, [x], torch.ones(1, 33, dtype=torch.float64))
    close(output.logits[0], [0.247941623, -0.057660980])
    close(output.reconstruction[0, :3], [-0.61114049, 0.311409385, -1.067929833])
    _, scores = model.recover(x)
    close(scores[0, :4], [-0.173485569, -0.128571052, 0.273379143, -0.275968872])


def test_parameter_count_at_1536_features_is_the_originals_without_its_dead_attention():
    model = GHANet(1536, 768, 2)
    assert model.omics_branch.sizes == (128,) * 6
    assert sum(p.numel() for p in model.parameters()) == 17_084_675 - 1_049_088


def small(n_classes=2, n_genes=7, **settings):
    settings = {"n_groups": 3, "dim": 8, "n_heads": 2, "gate_dim": 4} | settings
    model = GHANet(5, n_genes, n_classes, compressed_dim=4, **settings)
    initialise(model, torch.Generator().manual_seed(0))
    return model.eval()


def bags(*sizes):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, 5, generator=generator) for n in sizes]


def test_groups_by_default_are_nearly_equal_blocks():
    assert small().omics_branch.sizes == (3, 2, 2)
    assert small().omics_branch.genes.tolist() == list(range(7))


def test_groups_of_the_user_may_overlap_and_leave_genes_out():
    model = small(gene_groups=[[6, 0], [0, 2, 3]])
    output = run(model, bags(4), torch.arange(7.0).view(1, 7))
    assert output.omics.tolist() == [[6.0, 0.0, 0.0, 2.0, 3.0]]
    assert output.reconstruction.shape == (1, 5)
    assert (output.group_sizes, output.attention.shape) == ((2, 3), (4, 2))


def test_group_without_genes_raises_and_names_it():
    with pytest.raises(ValueError, match="Gene group 1 of 3 has no genes"):
        small(gene_groups=[[0], [], [1]])
    with pytest.raises(ValueError, match="Gene group 2 of 3"):
        small(n_genes=2)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_batch_of_bags_equals_bags_alone(n_classes):
    model, xs = small(n_classes), bags(2, 6, 2)
    omics = torch.ones(2, 7)
    together = run(model, xs, omics, paired=torch.tensor([True, False, True]))
    attention = together.attention.split([2, 6, 2])
    for b, x in enumerate(xs):
        alone = run(model, [x], torch.ones(1, 7))
        torch.testing.assert_close(alone.logits[0], together.logits[b])
        torch.testing.assert_close(alone.attention, attention[b])
        if b != 1:
            row = together.reconstruction[b // 2]
            torch.testing.assert_close(alone.reconstruction[0], row)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 8, 9])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_small_bags_are_finite(n, n_classes):
    output = run(small(n_classes), bags(n), torch.ones(1, 7))
    assert output.logits.isfinite().all()
    assert output.reconstruction.isfinite().all()
    torch.testing.assert_close(output.attention.sum(dim=0), torch.ones(3))


def test_permuted_patches_keep_logits():
    model, (x,) = small(), bags(9)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(3))
    plain, permuted = run(model, [x]), run(model, [x[order]])
    torch.testing.assert_close(permuted.logits, plain.logits)
    torch.testing.assert_close(permuted.attention, plain.attention[order])


def test_strongest_keeps_a_fifth_but_at_least_one_and_ties():
    row = torch.tensor([[3.0, 1.0, 3.0, 2.0]])
    assert strongest(row, 0.2).tolist() == [[3.0, -1e5, 3.0, -1e5]]
    long = torch.arange(10.0).view(1, 10)
    assert (strongest(long, 0.2) > -1e5).nonzero()[:, 1].tolist() == [8, 9]
    assert (strongest(long[:, :9], 0.2) > -1e5).sum() == 1


def test_gradient_routes_of_each_term():
    model = small()
    output = run(model.train(), bags(6), torch.ones(1, 7))
    terms = ghanet_terms(output, torch.tensor([1]))
    for term, trained in (("ce", (True, True, False)), ("sce", (True, False, True))):
        model.zero_grad(set_to_none=True)
        terms[term].sum().backward(retain_graph=True)
        parts = (model.recover, model.predict, model.omics_branch)
        arrived = [any(p.grad is not None for p in part.parameters()) for part in parts]
        assert tuple(arrived) == trained


def test_hyper_edges_send_no_gradient_into_the_scores():
    model = small()
    scores = torch.randn(3, 6, generator=torch.Generator().manual_seed(2)).requires_grad_()
    y, _ = model.predict(bags(6)[0], scores)
    y.sum().backward()
    assert scores.grad is None


def test_without_omics_branch_prediction_is_the_same():
    model, xs = small(), bags(4, 6)
    before = run(model, xs).logits
    del model.omics_branch
    assert torch.equal(run(model, xs).logits, before)
    assert torch.equal(run(small(), xs, torch.ones(2, 7)).logits, before)
    without = small(n_genes=0)
    assert without.omics_branch is None
    assert run(without, xs).attention.shape == (10, 3)


def test_bags_without_omics_train_the_classifier_alone():
    model, y = small().train(), torch.tensor([0, 1])
    one = run(model, bags(3, 6), torch.ones(1, 7), paired=torch.tensor([False, True]))
    lengths = {name: len(values) for name, values in ghanet_terms(one, y).items()}
    assert lengths == {"ce": 2, "sce": 1, "mse": 1}
    assert weighted_total(ghanet_terms(one, y), WEIGHTS).isfinite()
    none = run(model, bags(3, 6), torch.empty(0, 7), paired=torch.tensor([False, False]))
    assert ghanet_terms(none, y).keys() == {"ce"}


def test_training_draws_from_the_given_generator_alone():
    model, xs = small().train(), bags(6)
    draws = []
    for _ in range(2):
        set_dropout_generator(model, torch.Generator().manual_seed(5))
        state = torch.get_rng_state()
        draws.append(run(model, xs).logits)
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(*draws)


def test_initialise_draws_tokens_from_standard_normal():
    model = GHANet(5, 0, 2)
    initialise(model, torch.Generator().manual_seed(0))
    assert model.recover.tokens.rows.std().item() == pytest.approx(1, rel=0.05)
    assert model.recover.fc.weight.abs().max().item() <= 1 / math.sqrt(5)
