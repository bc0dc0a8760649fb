"""Checks of the scans' inputs: each names the argument, what it is and what it must be."""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor

_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
#: What the Triton kernels take.
TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def check_dim(name: str, x: Tensor, dim: int, layout: str) -> None:
    if x.dim() != dim:
        raise ValueError(f'{name} must be {layout}, got shape {tuple(x.shape)}')


def check_states(d_state: int) -> None:
    if d_state == 0:
        raise ValueError('A has no states: its last dimension, N, must be at least 1')


def check_shape(name: str, x: Tensor, shape: tuple[int, ...]) -> None:
    if x.shape != shape:
        raise ValueError(f'{name} must have shape {tuple(shape)}, got {tuple(x.shape)}')


def check_dtypes(**tensors: Tensor | None) -> str | None:
    """Refuses what no scan takes; the name of a float64 tensor, which the Triton kernels do not take."""
    device, float64 = tensors['u'].device, None
    for name, x in tensors.items():
        if x is None:
            continue
        if x.dtype not in _DTYPES:
            known = ', '.join(str(dtype).removeprefix('torch.') for dtype in _DTYPES)
            raise ValueError(f'{name} has dtype {x.dtype}; the scan takes {known}')
        if x.device != device:
            raise ValueError(f'{name} is on {x.device}, but u is on {device}; move all inputs to one device')
        if x.dtype == torch.float64:
            float64 = float64 or name
    return float64


def refuse_dtype(name: str, dtype: torch.dtype) -> NoReturn:
    """Refuses what is not in `TRITON_DTYPES`; the Triton kernels compute in float32."""
    hint = ''
    if dtype == torch.float64:
        hint = '. Set MMMSVMAMBA_BACKEND=torch to run the algorithm of the CPU path on this device'
    raise ValueError(f'{name} has dtype {dtype}; the Triton kernels take float32, float16 and bfloat16{hint}')
