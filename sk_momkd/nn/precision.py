"""Storage in bfloat16, sums in float32."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def linear_as(x: Tensor, linear: nn.Linear) -> Tensor:
    """The linear map in the type of `x`, whatever the type of the weights."""
    bias = None if linear.bias is None else linear.bias.to(x.dtype)
    return F.linear(x, linear.weight.to(x.dtype), bias)


def wide(x: Tensor) -> Tensor:
    """`x` as float32 where it is shorter."""
    return x.float() if x.dtype.itemsize < 4 else x


def native_bfloat16(device: str) -> bool:
    """Whether matrix products in bfloat16 have instructions of their own on `device`."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_capability(device) >= (8, 0)  # older ones emulate it
    if device != "cpu":
        return False
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, bool)() for check in checks)
