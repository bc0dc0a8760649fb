"""Runs the kernels of `triton_gate`: cuts maps into programs, allocates, sums partial gradients."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
from torch import Tensor

from .triton_gate import scale_gate, scale_gate_backward
from .triton_variant import Variant, on_device

#: Pixels and channels of a block, eight values a lane in four warps; blocks of pixels that a program walks along.
_BLOCK = dict(BP=8, BD=128)
_WARPS = 4
_TILES = 8


def variants() -> Iterator[Variant]:
    """All that the published models launch: with and without the gate."""
    for gate in ({}, dict(GATE=None, DGATE=None)):
        for kernel in (scale_gate, scale_gate_backward):
            names = set(kernel.arg_names)
            yield Variant(kernel, _BLOCK | {name: x for name, x in gate.items() if name in names}, _WARPS)


def _sizes(y: Tensor) -> tuple[tuple[int], tuple[int, int, int, int]]:
    """The grid, and the sizes that the kernels take."""
    batch, height, width, channels = y.shape
    walks = triton.cdiv(height * width, _BLOCK['BP'] * _TILES)
    grid = (batch * walks * triton.cdiv(channels, _BLOCK['BD']),)
    return grid, (height * width, walks, _TILES, channels)


def _dense(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()


def _empty(x: Tensor | None) -> Tensor | None:
    return None if x is None else torch.empty(x.shape, dtype=x.dtype, device=x.device)


def scale_and_gate(y: Tensor, scale: Tensor | None, gate: Tensor | None) -> Tensor:
    """As `gate.scale_and_gate`."""
    out = _empty(y)
    if out.numel():
        grid, sizes = _sizes(y)
        with on_device(y):
            scale_gate[grid](y.contiguous(), _dense(scale), _dense(gate), out, *sizes, **_BLOCK, num_warps=_WARPS)
    return out


def scale_and_gate_backward(
    grad: Tensor, y: Tensor, scale: Tensor | None, gate: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gradients of y, scale and gate."""
    dy, d_gate, parts = _empty(y), _empty(gate), None
    if y.numel() == 0:
        return dy, None if scale is None else torch.zeros_like(scale), d_gate
    grid, sizes = _sizes(y)
    if scale is not None:
        parts = torch.empty(y.shape[0], sizes[1], y.shape[3], dtype=torch.float32, device=y.device)
    with on_device(y):
        scale_gate_backward[grid](
            grad.contiguous(),
            y.contiguous(),
            _dense(scale),
            _dense(gate),
            dy,
            parts,
            d_gate,
            *sizes,
            **_BLOCK,
            num_warps=_WARPS,
        )
    return dy, None if parts is None else parts.sum(1), d_gate
