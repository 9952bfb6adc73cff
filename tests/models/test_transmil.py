"""TransMIL against reference values of the original and against itself written densely."""

import pytest
import torch
from mil_models import build, call, close, features, n_parameters
from reference import fill_role, filled
from torch import nn

from sk_momkd.models.transmil import TransMIL
from sk_momkd.nn.nystrom import NystromAttention


@pytest.fixture(scope="module")
def reference():
    """The original's size at 1024 features, filled."""
    model = TransMIL(1024, 2, dropout=0).double().eval()
    position, layers = model.position, [model.attention1, model.attention2]
    first, second = ([a.qkv, a.out, a.along] for a in layers)
    parts = [position.wide, position.middle, position.narrow, model.embedding, model.norm1, *first]
    parts += [model.norm2, *second, model.norm, model.head]
    fill_role(model.class_token, 1)
    k = 2
    for part in parts:
        for name, parameter in part.named_parameters():
            fill_role(parameter, k, gain=isinstance(part, nn.LayerNorm) and name == "weight")
            k += 1
    assert k == 26
    return model


@pytest.mark.parametrize(
    ("n", "logits"),
    [
        (1, [0.212326635, 0.081069864]),
        (5, [-0.140617394, 0.599766151]),
        (50, [0.443882665, 1.005018977]),
        (300, [0.505526631, 0.704573383]),
        (600, [0.277277859, 0.552498250]),
    ],
)
@torch.no_grad()
def test_forward_reference_fill_matches_original(reference, n, logits):
    close(call(reference, filled((n, 1024), 0, 1, torch.float64)).logits[0], logits)


def first_positions(self, x, layer=NystromAttention.forward):
    """What nystrom-attention 0.0.9 returned: n positions that begin with the padding."""
    tokens, row = layer(self, nn.functional.pad(x, (0, 0, -x.shape[1] % self.n_landmarks, 0)))
    return tokens[:, : x.shape[1]], row[:, : x.shape[1]]


@pytest.mark.parametrize(
    ("n", "logits"),
    [
        (50, [0.730810534, 0.011398600]),
        (300, [0.718287218, 0.121597242]),
        (600, [0.619652116, 0.091335826]),
    ],
)
@torch.no_grad()
def test_forward_with_the_slice_of_the_pinned_package_matches_it(reference, monkeypatch, n, logits):
    monkeypatch.setattr(NystromAttention, "forward", first_positions)
    close(call(reference, filled((n, 1024), 0, 1, torch.float64)).logits[0], logits)


@pytest.mark.parametrize(("n_features", "count"), [(1536, 2_934_290), (1024, 2_672_146)])
def test_parameter_count(n_features, count):
    assert n_parameters(TransMIL(n_features, 2)) == count


def test_attention_sums_copies_into_their_patch():
    model = build("transmil")
    rows = []
    model.attention2.register_forward_hook(lambda *call: rows.append(call[2][1]))
    attention = call(model, features(7)).attention[:, 0]  # a 3 x 3 square: two copies
    share = rows[0][0, 1:8].clone()
    share[:2] += rows[0][0, 8:]
    share = share.clamp(min=0)
    close(attention, share / share.sum(), 1e-10)


def test_attention_without_a_positive_share_is_uniform():
    model = build("transmil")
    model.attention2.register_forward_hook(lambda *call: (call[2][0], -call[2][1].abs()))
    close(call(model, features(4)).attention, torch.full((4, 1), 0.25), 1e-12)


def test_class_token_starts_from_a_standard_normal():
    tokens = torch.stack([build("transmil", seed=s).class_token.flatten() for s in range(400)])
    assert abs(tokens.mean()) < 0.06
    assert abs(tokens.std() - 1) < 0.06
