"""AlphaDropout: moments and values."""

import pytest
import torch

from sk_momkd.nn.dropout import AlphaDropout


def test_alpha_dropout_keeps_mean_and_variance_and_takes_two_values_of_a_constant():
    dropout = AlphaDropout(0.25).train()
    dropout.generator = torch.Generator().manual_seed(0)
    noise = torch.randn(200_000, generator=torch.Generator().manual_seed(1))
    out = dropout(noise)
    assert out.mean().item() == pytest.approx(0, abs=0.01)
    assert out.std().item() == pytest.approx(1, abs=0.01)
    constant = dropout(torch.ones(1000)).unique()
    saturation, p = -1.7580993408473766, 0.25
    scale = (0.75 * (1 + p * saturation**2)) ** -0.5
    shift = -scale * saturation * p
    expected = [scale * saturation + shift, scale + shift]
    assert constant.tolist() == pytest.approx(expected, abs=1e-6)


def test_alpha_dropout_in_eval_mode_is_the_identity():
    x = torch.randn(4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(AlphaDropout(0.5).eval()(x), x)
