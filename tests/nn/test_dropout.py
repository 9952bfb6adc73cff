"""Masks from counters; AlphaDropout."""

import pytest
import torch

from sk_momkd.nn.dropout import AlphaDropout, Mask, counter_bits


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


def test_mask_drops_the_given_share_and_depends_on_key_and_position_alone():
    mask, counter = Mask(0.3, (1, 2)), torch.arange(50_000)
    kept = mask.factors(counter, torch.float32)
    assert torch.equal(kept, mask.factors(counter, torch.float32))
    assert torch.equal(kept[7:90], mask.factors(counter[7:90], torch.float32))
    assert (kept == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert kept.max().item() == pytest.approx(1 / 0.7)
    other = Mask(0.3, (1, 3)).factors(counter, torch.float32)
    agreement = ((kept == 0) & (other == 0)).float().mean().item()
    assert agreement == pytest.approx(0.09, abs=0.01)  # independent


def test_mask_keys_as_tensors_give_the_mask_of_the_numbers():
    numbers, counter = (2**32 - 5, 17), torch.arange(1000)
    tensors = torch.tensor(numbers).int().unbind()
    expected = Mask(0.4, numbers).factors(counter, torch.float64)
    assert torch.equal(Mask(0.4, tensors).factors(counter, torch.float64), expected)
    bits = counter_bits(counter, numbers)
    assert torch.equal(expected == 0, bits < int(0.4 * 2**32))


def test_counter_bits_are_uniform_and_uncorrelated_between_neighbours():
    bits = counter_bits(torch.arange(200_000), (123, 456)).double() / 2**32
    histogram = torch.histc(bits, 20, 0, 1) / len(bits)
    assert (histogram - 0.05).abs().max() < 0.003
    for lag in (1, 2, 512):
        pairs = torch.stack([bits[:-lag], bits[lag:]])
        assert abs(torch.corrcoef(pairs)[0, 1]) < 0.01
