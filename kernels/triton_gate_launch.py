"""Runs the kernels of `triton_gate`: cuts maps into programs, allocates, sums partial gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .triton_gate import scale_gate, scale_gate_backward
from .triton_launcher import Launch, planned
from .triton_variant import Variant, cdiv, on_device

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


class _Plan(NamedTuple):
    walks: int
    forward: Launch
    backward: Launch


@planned
def _plan(shape: tuple[int, int, int, int]) -> _Plan:
    batch, height, width, channels = shape
    walks = cdiv(height * width, _BLOCK['BP'] * _TILES)
    grid = batch * walks * cdiv(channels, _BLOCK['BD']), 1, 1
    sizes = height * width, walks, _TILES, channels
    forward, backward = (Launch(x, grid, sizes, _BLOCK, num_warps=_WARPS) for x in (scale_gate, scale_gate_backward))
    return _Plan(walks, forward, backward)


def _dense(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()


def _empty(x: Tensor | None) -> Tensor | None:
    return None if x is None else torch.empty(x.shape, dtype=x.dtype, device=x.device)


def scale_and_gate(y: Tensor, scale: Tensor | None, gate: Tensor | None) -> Tensor:
    """As `gate.scale_and_gate`."""
    out = _empty(y)
    if out.numel():
        with on_device(y):
            _plan(y.shape).forward(y.contiguous(), _dense(scale), _dense(gate), out)
    return out


def scale_and_gate_backward(
    grad: Tensor, y: Tensor, scale: Tensor | None, gate: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gradients of y, scale and gate."""
    dy, d_gate, parts = _empty(y), _empty(gate), None
    if y.numel() == 0:
        return dy, None if scale is None else torch.zeros_like(scale), d_gate
    plan = _plan(y.shape)
    if scale is not None:
        parts = torch.empty(y.shape[0], plan.walks, y.shape[3], dtype=torch.float32, device=y.device)
    with on_device(y):
        plan.backward(grad.contiguous(), y.contiguous(), _dense(scale), _dense(gate), dy, parts, d_gate)
    return dy, None if parts is None else parts.sum(1), d_gate
