"""MKD's objective on a group of four slides: values and gradients of the original."""

import pytest
import torch
from mkd_reference import WEIGHTS, close, f64, reference_model, run

from sk_momkd.losses.mkd import (
    coral_loss,
    mkd_terms,
    overlap_loss,
    similarity_loss,
    soft_label_loss,
)
from sk_momkd.training.config import weighted_total


@pytest.fixture(scope="module")
def model():
    return reference_model()


@pytest.fixture(scope="module")
def group(model):
    """Output and labels of the four slides of the reference."""
    omics = torch.cat([f64((1, 1536), 50 + i) for i in range(4)])
    output = run(model, [f64((5 + i, 1024), 40 + i) for i in range(4)], omics)
    return output, torch.tensor([1, 0, 1, 0])


def norms(model, loss):
    """Gradient norm of each network, 0 where no gradient arrives at all."""
    parts = (model.student, model.omics_branch.omics, model.omics_branch.joint)
    model.zero_grad(set_to_none=True)
    loss.backward(retain_graph=True)
    squares = [[p.grad.square().sum() for p in m.parameters() if p.grad is not None] for m in parts]
    return [float(torch.stack(square).sum().sqrt()) if square else None for square in squares]


def test_logits_of_a_group_reference_fill_match_original(group):
    output, _ = group
    expected = [0.0417627703, -0.1288340338, -0.0321148650, -0.0845793188]
    expected += [-0.0689606484, -0.1397946629, -0.0303711090, -0.1659739497]
    close(output.logits.flatten(), expected)
    expected = [0.0316895321, 0.2722842302, -0.0184290206, 0.0231605997]
    expected += [0.0524429215, 0.0883331192, 0.0002636832, -0.0409161275]
    close(output.omics_logits.flatten(), expected)
    expected = [-0.1168627405, 0.1055502331, -0.1240315617, 0.0482292422]
    expected += [-0.1368484596, 0.1137410898, -0.1487529684, 0.0906694993]
    close(output.joint_logits.flatten(), expected)


def test_terms_of_a_group_reference_fill_match_original(group):
    terms = mkd_terms(*group)
    expected = {
        "ce": 0.7015429560,
        "ce_omics": 0.6605896696,
        "ce_joint": 0.6916954399,
        "skd": 0.5732274528,
        "clod": 0.0404378884,
        "orthogonality": 6 * 0.4540228164,
        "coral": 0.0466838675,
    }
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert terms[name].mean().item() == pytest.approx(value, abs=2e-9), name
    assert weighted_total(terms, WEIGHTS).item() == pytest.approx(3.1682000906, abs=2e-9)
    warmer = mkd_terms(*group, temperature=6.0)
    assert warmer["clod"].mean().item() == pytest.approx(0.0404427276, abs=2e-9)
    assert weighted_total(warmer, WEIGHTS).item() == pytest.approx(3.1682049298, abs=2e-9)


def test_pairs_of_a_group_reference_fill_match_original(group):
    output, _ = group
    p, g, m = output.feature, output.omics_feature, output.joint_feature
    z_p, z_g, z_m = output.logits, output.omics_logits, output.joint_logits
    pairs, routes = ((m, p), (g, p), (g, m)), ((z_m, z_p), (z_p, z_m), (z_g, z_p), (z_p, z_g))
    found = [4 * similarity_loss(p, f) for f in (m, g)]
    found += [overlap_loss(*pair) for pair in pairs]
    found += [coral_loss(*pair) for pair in pairs]
    found += [soft_label_loss(*route, temperature=4.0).mean() for route in routes]
    expected = [0.0087068049, 0.5645206478]
    expected += [1.334423066, 1.039228087, 0.3504857452]
    expected += [0.0127473409, 0.0223572300, 0.0115792966]
    expected += [0.0140242587, 0.0140268535, 0.0061930086, 0.0061937676]
    close(torch.stack(found), expected)


def test_gradient_of_the_total_matches_original(model, group):
    actual = norms(model, weighted_total(mkd_terms(*group), WEIGHTS))
    assert actual == pytest.approx([2.2238881063, 3.9470537479, 1.5430592236], abs=2e-9)
    heads = (model.student.head, model.omics_branch.omics.head, model.omics_branch.joint.head)
    for head, value in zip(heads, (0.1530637701, -0.0613759616, -0.1371758505), strict=True):
        close(head.bias.grad, [value, -value])


# Gradient norms of the original for P, G, M; None where nothing may arrive.
ROUTES = {
    "skd": [1.0279776041, 3.6563223779, 0.3682134877],
    "orthogonality": [8.4170099413, 11.4406661287, 8.0801102716],
    "coral": [0.0837427814, 0.1018190789, 0.0355980808],
}


@pytest.mark.parametrize("term", ROUTES)
def test_gradients_of_one_term_match_original(model, group, term):
    assert norms(model, mkd_terms(*group)[term].sum()) == pytest.approx(ROUTES[term], abs=2e-9)


def test_gradients_of_soft_labels_match_original_and_reach_the_learner_alone(model, group):
    z_p, z_g, z_m = (getattr(group[0], n) for n in ("logits", "omics_logits", "joint_logits"))
    routes = [(z_m, z_p), (z_p, z_m), (z_g, z_p), (z_p, z_g)]  # target, learner
    losses = [soft_label_loss(*route, temperature=4.0).mean() for route in routes]
    expected = [(0, 0.3341531558), (2, 0.2221738388), (0, 0.2029117889), (1, 0.2128352718)]
    for loss, (learner, value) in zip(losses, expected, strict=True):
        actual = norms(model, loss)
        assert actual.pop(learner) == pytest.approx(value, abs=2e-9)
        assert actual == [None, None]


def test_gradients_of_classification_stay_in_their_network(model, group):
    for place, term in enumerate(("ce", "ce_omics", "ce_joint")):
        arrived = [norm is not None for norm in norms(model, mkd_terms(*group)[term].mean())]
        assert arrived == [network == place for network in range(3)]
