"""Patch features in blocks, and the linear layer that reads them."""

import torch
from torch import nn

from sk_momkd.nn.blocks import Blocks, PatchEmbedding, embed


def test_embed_is_the_linear_map_in_the_type_of_the_patches():
    linear = nn.Linear(5, 3)
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(embed(x, linear), linear(x))
    short = embed(x.bfloat16(), linear)
    assert short.dtype == torch.float32
    torch.testing.assert_close(short, linear(x), atol=0.05, rtol=0.05)
    double = nn.Linear(5, 3, bias=False).double()
    assert torch.equal(embed(x.double(), double), double(x.double()))


def test_embed_blocks_equals_embed_of_all_rows():
    layers = PatchEmbedding(nn.Linear(5, 3), nn.ReLU())
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    blocks = Blocks((7, 5), torch.float32, lambda: iter([x[:4].numpy(), x[4:].numpy()]))
    torch.testing.assert_close(layers(blocks), nn.Sequential(*layers)(x))
