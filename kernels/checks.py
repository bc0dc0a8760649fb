"""Checks of the scans' inputs: each names the argument, what it is and what it must be."""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor

_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def check_dim(name: str, x: Tensor, dim: int, layout: str) -> None:
    if x.dim() != dim:
        raise ValueError(f'{name} must be {layout}, got shape {tuple(x.shape)}')


def check_states(d_state: int) -> None:
    if d_state == 0:
        raise ValueError('A has no states: its last dimension, N, must be at least 1')


def check_shape(name: str, x: Tensor, shape: tuple[int, ...]) -> None:
    if x.shape != shape:
        raise ValueError(f'{name} must have shape {tuple(shape)}, got {tuple(x.shape)}')


def check_dtypes(**tensors: Tensor | None) -> None:
    device = tensors['u'].device
    for name, x in tensors.items():
        if x is None:
            continue
        if x.dtype not in _DTYPES:
            known = ', '.join(str(dtype).removeprefix('torch.') for dtype in _DTYPES)
            raise ValueError(f'{name} has dtype {x.dtype}; the scan takes {known}')
        if x.device != device:
            raise ValueError(f'{name} is on {x.device}, but u is on {device}; move all inputs to one device')


def check_no_float64(**tensors: Tensor | None) -> None:
    """The Triton kernels compute in float32."""
    for name, x in tensors.items():
        if x is not None and x.dtype == torch.float64:
            refuse_float64(name)


def refuse_float64(name: str) -> NoReturn:
    raise ValueError(
        f'{name} has dtype torch.float64; the Triton kernels take float32, float16 and bfloat16. Set '
        'MMMSVMAMBA_BACKEND=torch to run the algorithm of the CPU path on this device'
    )
