"""What the launchers of several kernels share: the current device, and a kernel as it is launched."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import triton
from torch import Tensor


@dataclass(frozen=True)
class Variant:
    """A kernel as it is launched, to compile it ahead of time: constants, among them pointers that are None; warps."""

    kernel: triton.JITFunction
    constants: dict[str, int | bool | None]
    warps: int


def on_device(x: Tensor) -> AbstractContextManager:
    """Triton launches on the current device, whatever device the tensors are on."""
    return torch.cuda.device(x.device) if x.device.type == 'cuda' else nullcontext()
