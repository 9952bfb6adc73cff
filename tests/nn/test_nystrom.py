"""Nystroem attention against its matrices written out, values and gradients."""

import pytest
import torch
from mil_models import close, features
from torch.nn import functional as F

from sk_momkd.nn.initialization import initialise
from sk_momkd.nn.nystrom import NystromAttention, pseudo_inverse


def attention(n_landmarks=4, kernel_size=5, n_iterations=6):
    layer = NystromAttention(
        8, 2, n_landmarks, kernel_size=kernel_size, n_iterations=n_iterations, dropout=0
    )
    initialise(layer, torch.Generator().manual_seed(0))
    return layer.double()


def dense(layer, x):
    """All matrices at once, and the product A1 Z A3."""
    n, m = len(x), layer.n_landmarks
    x = torch.cat([x.new_zeros(-n % m, 8), x])
    q, k, v = (part.unflatten(1, (2, 4)).transpose(0, 1) for part in layer.qkv(x).chunk(3, dim=1))
    q = q / 2
    q_land, k_land = (torch.stack(part.chunk(m, dim=1), dim=1).mean(dim=2) for part in (q, k))
    a1 = (q @ k_land.transpose(1, 2)).softmax(dim=2)
    a2 = (q_land @ k_land.transpose(1, 2)).softmax(dim=2)
    a3 = (q_land @ k.transpose(1, 2)).softmax(dim=2)
    whole = a1 @ pseudo_inverse(a2, layer.n_iterations) @ a3  # (heads, n', n')
    taps, half = layer.along.weight[:, 0, :, 0], layer.along.weight.shape[2] // 2
    wide = F.pad(v, (0, 0, half, half))
    conv = sum(taps[:, i, None, None] * wide[:, i : i + v.shape[1]] for i in range(2 * half + 1))
    out = layer.out((whole @ v + conv).transpose(0, 1).flatten(1))
    return out[-n:], whole.mean(dim=0)[-n, -n:]


@pytest.mark.parametrize("n_landmarks", [4, 16])
@pytest.mark.parametrize("n", [1, 2, 4, 5, 13, 19, 33, 34])
def test_forward_equals_dense_matrices_with_gradients(n, n_landmarks):
    # Of 16 landmarks 15, 14, 12, 11, 3, 6, 5 and 4 are padding alone.
    layer = attention(n_landmarks)
    x, weights = (features(2 * n, 8, seed=s).unflatten(0, (2, n)) for s in (1, 2))
    out, row = layer(x)
    expected, expected_row = map(torch.stack, zip(*(dense(layer, one) for one in x), strict=True))
    close(out, expected, 1e-12)
    close(row, expected_row, 1e-12)
    grad = torch.autograd.grad((out * weights).sum(), list(layer.parameters()))
    other = torch.autograd.grad((expected * weights).sum(), list(layer.parameters()))
    for one, two in zip(grad, other, strict=True):
        close(one, two, 1e-10)


def test_forward_under_no_grad_equals_forward_with_gradient():
    layer, x = attention().float(), features(13, 8).float()[None]
    with torch.no_grad():
        alone = layer(x)[0]
    torch.testing.assert_close(alone, layer(x)[0], atol=1e-6, rtol=0)


def test_pseudo_inverse_many_iterations_inverts():
    a = features(6, 3).view(2, 3, 3).softmax(dim=2) + 2 * torch.eye(3, dtype=torch.float64)
    a = a / a.sum(dim=2, keepdim=True)
    close(pseudo_inverse(a, 30), torch.linalg.inv(a), 1e-9)


def test_pseudo_inverse_start_is_scaled_over_all_heads():
    a = features(8, 4).view(2, 4, 4).softmax(dim=2)
    close(pseudo_inverse(a, 0), a.transpose(1, 2) / a.sum(dim=1).max(), 1e-12)
