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


#: Major compute capability from which on NVIDIA's assembler was seen to spill some registers rather than take more of
#: them, so that more warps run at a time: all, with what releases of Triton before 3.6 give to it.
_SPILLING = 8 if tuple(map(int, triton.__version__.split('.')[:2])) < (3, 6) else 10


def unspilt(capability: int, everywhere: bool = False) -> dict[str, int]:
    """Launch options of a kernel that is near its spills: all registers of a thread, where that must be said.

    Args:
        capability: Major compute capability; 0 for what is not NVIDIA's.
        everywhere: Whether the assembler was seen to spill it for every capability and with every Triton.
    """
    return {'maxnreg': 255} if capability >= (1 if everywhere else _SPILLING) else {}


def cdiv(a: int, b: int) -> int:
    """⌈a / b⌉; triton.cdiv takes microseconds when it is called outside a kernel."""
    return -(-a // b)


@cache
def capability(device: torch.device) -> int:
    """The major compute capability of a GPU of NVIDIA; 0 for any other device."""
    if device.type != 'cuda' or torch.version.hip is not None:
        return 0
    return torch.cuda.get_device_capability(device)[0]


def on_device(x: Tensor) -> AbstractContextManager:
    """Triton launches on the current device, whatever device the tensors are on."""
    if not x.is_cuda or x.get_device() == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(x.device)
