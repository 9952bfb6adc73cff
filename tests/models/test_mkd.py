"""MKD against reference values of the original; its students and teachers apart."""

import pytest
import torch
from mkd_reference import WEIGHTS, close, f64, numbered, reference_model, run
from reference import fill_role

from sk_momkd.losses.mkd import mkd_terms
from sk_momkd.models.mkd import MKD, ConcatFusion, KroneckerFusion
from sk_momkd.nn.dropout import set_dropout_generator
from sk_momkd.nn.initialization import initialise
from sk_momkd.training.config import weighted_total


@pytest.fixture(scope="module")
def model():
    return reference_model()


def test_networks_reference_fill_match_original(model):
    output = run(model, [f64((9, 1024), 0)], f64((1, 1536), 100))
    close(output.logits[0], [-0.0664647886, -0.0820554193])
    close(output.feature[0, :4], [0.1408409132, 0.1590159016, 0.1667753193, 0.1171888756])
    close(output.feature.norm(), 2.4944725681)
    close(output.omics_logits[0], [-0.0776826401, 0.1765526068])
    expected = [-0.0971270604, -0.1638566938, 0.1593290157, -0.0528301975]
    close(output.omics_feature[0, :4], expected)
    close(output.omics_feature.norm(), 2.9187163335)
    close(output.joint_logits[0], [-0.1440372009, 0.0719130983])
    close(output.joint_feature.norm(), 1.0838045145)
    assert int((output.joint_feature != 0).sum()) == 117


def test_streams_of_the_joint_teacher_reference_fill_match_original(model):
    joint, x, omics = model.omics_branch.joint, f64((9, 1024), 0), f64((1, 1536), 100)
    p, _ = joint.path_pool(joint.path(x), torch.zeros(9, dtype=torch.long), 1)
    g, _ = joint.omics_pool(*joint.tokens(omics))
    close(p[0, :3], [0.1395226528, 0.0590977060, 0.1369221959])
    close(g[0, :3], [-0.1524848228, 0.0104846181, 0.1912829012])
    swapped = joint.head(joint.fusion(g, p))  # the wrong order, for contrast
    close(swapped[0], [-0.1439084204, 0.0727682230])


def test_concat_fusion_reference_fill_matches_original():
    model = reference_model(fusion="concat")  # another structure, so other roles
    assert isinstance(model.omics_branch.joint.fusion, ConcatFusion)
    output = run(model, [f64((9, 1024), 0)], f64((1, 1536), 100))
    close(output.joint_logits[0], [-0.0034373634, 0.0432239322])


def test_six_tokens_of_128_reference_fill_match_recoding():
    model = reference_model(1536, 768, 6)
    output = run(model, [f64((9, 1536), 0)], f64((1, 768), 100))
    close(output.logits[0], [0.0504829338, -0.1337143649])
    close(output.omics_logits[0], [0.1408927930, 0.0434419575])
    close(output.joint_logits[0], [-0.1314475940, 0.1025402335])


def test_kronecker_fusion_reference_fill_matches_original_whatever_the_width():
    fusion = KroneckerFusion(16, 2, 12, 0.0).double()
    assert fusion.compress.out_features == 256
    for role, parameter in numbered(fusion):
        fill_role(parameter, role)
    first = [0, 0.22299107, 0.1479192, 0.02715478, 0, 0, 0, 0.02577001, 0.09519929, 0.0714362]
    close(fusion(f64((3, 16), 201), f64((3, 16), 202))[0], [*first, 0, 0.25808919], 5e-9)


def test_kronecker_fusion_by_hand_appends_one_and_keeps_both_vectors():
    fusion = KroneckerFusion(2, 1, 3, 0.0)
    for parameter in fusion.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        first, second = fusion.product.first, fusion.product.second
        first.hidden.bias.fill_(2.0)  # halved by the gate sigma(0)
        second.hidden.bias.fill_(6.0)
        first.out.weight.fill_(1.0)
        second.out.weight.fill_(1.0)
        product = fusion.product(torch.ones(1, 2), torch.ones(1, 2))
        fusion.join.weight.copy_(torch.eye(3, 260, dtype=torch.float32).roll(256, dims=1))
    assert product.tolist() == [[3.0, 1.0, 3.0, 1.0]]  # (1, 1) x (3, 1), row-major
    joined = fusion(torch.tensor([[5.0, 6.0]]), torch.tensor([[7.0, 8.0]]))
    assert joined.tolist() == [[5.0, 6.0, 7.0]]


@pytest.mark.parametrize(
    ("in_features", "n_genes", "n_tokens", "fusion", "counts"),
    [
        (1024, 1536, 3, "bilinear", (328_835, 197_763, 5_214_916)),
        (1536, 1536, 3, "bilinear", (459_907, 197_763, 5_345_988)),
        (1536, 768, 6, "bilinear", (459_907, 99_459, 5_247_684)),
        (1536, 768, 3, "bilinear", (459_907, 132_227, 5_280_452)),
        (1024, 1536, 3, "concat", (328_835, 197_763, 920_068)),
    ],
)
def test_parameter_counts_match_original(in_features, n_genes, n_tokens, fusion, counts):
    model = MKD(in_features, n_genes, 2, n_tokens=n_tokens, fusion=fusion)
    parts = (model.student, model.omics_branch.omics, model.omics_branch.joint)
    assert tuple(sum(p.numel() for p in part.parameters()) for part in parts) == counts


def small(n_classes=2, **settings):
    model = MKD(5, 7, n_classes, dim=8, attention_dim=4, n_tokens=3, gate_dim=2, **settings)
    initialise(model, torch.Generator().manual_seed(0))
    return model.eval()


def bags(*sizes):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, 5, generator=generator) for n in sizes]


@pytest.mark.parametrize("n_classes", [2, 3])
def test_batch_of_bags_equals_bags_alone(n_classes):
    model, xs = small(n_classes), bags(1, 4, 2)
    omics = torch.randn(2, 7, generator=torch.Generator().manual_seed(2))
    together = run(model, xs, omics, paired=torch.tensor([True, False, True]))
    attention = together.attention.split([1, 4, 2])
    for b, x in enumerate(xs):
        alone = run(model, [x], None)
        torch.testing.assert_close(alone.logits[0], together.logits[b])
        torch.testing.assert_close(alone.attention, attention[b])
    for p, b in enumerate((0, 2)):
        alone = run(model, [xs[b]], omics[p : p + 1])
        for name in ("omics_logits", "omics_feature", "joint_logits", "joint_feature"):
            torch.testing.assert_close(getattr(alone, name)[0], getattr(together, name)[p])


@pytest.mark.parametrize("n", [1, 2, 4, 8, 9])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_small_bags_are_finite(n, n_classes):
    output = run(small(n_classes), bags(n), torch.ones(1, 7))
    assert output.joint_logits.isfinite().all()
    assert output.logits.shape == (1, n_classes)
    torch.testing.assert_close(output.attention.sum(dim=0), torch.ones(1))


def test_permuted_patches_keep_logits():
    model, (x,) = small(), bags(9)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(3))
    plain, permuted = run(model, [x], None), run(model, [x[order]], None)
    torch.testing.assert_close(permuted.logits, plain.logits)
    torch.testing.assert_close(permuted.attention, plain.attention[order])


def test_order_of_genes_matters_to_tokens_and_the_last_is_padded():
    tokens = small().omics_branch.omics.tokens
    rows, owner, n = tokens(torch.arange(14.0).view(2, 7))
    assert (n, owner.tolist(), tokens.width) == (2, [0, 0, 0, 1, 1, 1], 3)
    last = torch.nn.functional.elu(tokens.fc(torch.tensor([6.0, 0, 0])))
    torch.testing.assert_close(rows[2], last)


def test_without_omics_branch_prediction_is_the_same():
    model, xs = small(), bags(4, 3)
    before = run(model, xs, None).logits
    del model.omics_branch
    assert torch.equal(run(model, xs, None).logits, before)
    assert small().omics_branch is not None
    assert MKD(5, 0, 2).omics_branch is None


def test_initialise_draws_student_normal_and_joint_teacher_uniform():
    model = MKD(64, 768, 2)
    initialise(model, torch.Generator().manual_seed(0))
    assert model.student.fc.weight.std().item() == pytest.approx(1 / 8, rel=0.05)
    assert not model.student.fc.bias.any()
    omics, joint = model.omics_branch.omics, model.omics_branch.joint
    assert omics.tokens.fc.weight.std().item() == pytest.approx(128**-0.5, rel=0.05)
    assert not omics.head.bias.any()
    gate = joint.fusion.product.first.gate.weight
    assert gate.abs().max().item() == pytest.approx(1 / 16, rel=1e-3)
    assert joint.path[0].bias.any()


def test_training_draws_from_the_given_generator_alone():
    model, xs, omics = small().train(), bags(4, 3), torch.ones(2, 7)
    draws = []
    for _ in range(2):
        set_dropout_generator(model, torch.Generator().manual_seed(5))
        state = torch.get_rng_state()
        draws.append(run(model, xs, omics).joint_logits)
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(*draws)
    assert not torch.equal(draws[0], run(model, xs, omics).joint_logits)


def test_three_classes_and_semi_paired_bags_give_finite_terms():
    model, xs = small(3).train(), bags(3, 4, 2)
    y, paired = torch.tensor([0, 2, 1]), torch.tensor([True, False, True])
    terms = mkd_terms(run(model, xs, torch.ones(2, 7), paired=paired), y)
    assert {name: len(values) for name, values in terms.items()} == {
        "ce": 3,
        "ce_omics": 2,
        "ce_joint": 2,
        "clod": 2,
        "orthogonality": 1,
        "skd": 1,
        "coral": 1,
    }
    total = weighted_total(terms, WEIGHTS)
    total.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_one_paired_bag_leaves_group_terms_out_and_none_leaves_the_student():
    model, y = small(), torch.tensor([0, 1])
    one = run(model, bags(3, 4), torch.ones(1, 7), paired=torch.tensor([False, True]))
    assert mkd_terms(one, y).keys() == WEIGHTS.keys() - {"skd", "coral"}
    none = run(model, bags(3, 4), torch.empty(0, 7), paired=torch.tensor([False, False]))
    assert mkd_terms(none, y).keys() == {"ce"}
    assert mkd_terms(run(model, bags(3, 4), None), y).keys() == {"ce"}
