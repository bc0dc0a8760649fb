"""What the launchers of several kernels share: the current device, and a kernel as it is launched."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache

import torch
import triton
from torch import Tensor


@dataclass(frozen=True)
class Variant:
    """A kernel as it is launched, to compile it ahead of time.

    Attributes:
        constants: Of the kernel, among them pointers that are None.
        warps: Of a program.
        unspilt: Whether it is launched with `unspilt`.
    """

    kernel: triton.JITFunction
    constants: dict[str, int | bool | None]
    warps: int
    unspilt: bool = False


def unspilt(capability: int) -> dict[str, int]:
    """Launch options of a kernel that is near its spills: all registers of a thread, where that must be said.

    From sm_100 on, NVIDIA's assembler spills some registers rather than take more of them, so that more warps run at a
    time; before, it spills when it runs out of registers.

    Args:
        capability: Major compute capability; 0 for what is not NVIDIA's.
    """
    return {'maxnreg': 255} if capability >= 10 else {}


@cache
def capability(device: torch.device) -> int:
    """The major compute capability of a GPU of NVIDIA; 0 for any other device."""
    if device.type != 'cuda' or torch.version.hip is not None:
        return 0
    return torch.cuda.get_device_capability(device)[0]


def on_device(x: Tensor) -> AbstractContextManager:
    """Triton launches on the current device, whatever device the tensors are on."""
    return torch.cuda.device(x.device) if x.device.type == 'cuda' else nullcontext()
