"""Mixed precision: features are stored in bfloat16 or float32, sums are float32."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def upcast(x: Tensor) -> Tensor:
    """Convert `x` to float32 if its type is shorter."""
    return x.float() if x.dtype.itemsize < 4 else x


def mixed_linear(x: Tensor, linear: nn.Linear) -> Tensor:
    """Apply a linear layer in the type of `x`, whatever the type of the weights; then `upcast`."""
    if x.dtype == linear.weight.dtype:
        return upcast(linear(x))  # a call, so that hooks are called
    bias = None if linear.bias is None else linear.bias.to(x.dtype)
    return upcast(F.linear(x, linear.weight.to(x.dtype), bias))


def native_bfloat16(device: str) -> bool:
    """Whether `device` has instructions for matrix products in bfloat16."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_capability(device) >= (8, 0)  # older ones emulate it
    if device != "cpu":
        return False
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, bool)() for check in checks)
