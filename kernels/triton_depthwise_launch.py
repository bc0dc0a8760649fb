"""Runs the kernels of the depthwise convolutions: cuts maps into programs, allocates, sums partial gradients."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
from torch import Tensor

from .triton_depthwise import depthwise, depthwise_input_gradient
from .triton_depthwise_taps import depthwise_tap_gradients
from .triton_variant import Variant, on_device

#: Blocks of 2 × 2 pixels on a side of a program's tile, and its channels: a lane of four warps has eight values of
#: each, and half as many where windows on two gradients would fill its registers.
_TILE = dict(TILE=4, BD=64)
_TILE_WARPS = 4
_PAIR_GRADIENT_WARPS = 8
#: Channels of a program that walks. Its window and sums fill the registers: of a lane with one channel for 7 × 7.
_WALK_CHANNELS = {3: 64, 7: 32}
#: Pixels that such a program walks along in one row, and in all of its rows, as long as about so many programs remain.
#: Partial sums take 8 bytes per tap, channel and program.
_SEGMENT, _WALK, _PROGRAMS = 64, 512, 1024


def variants() -> Iterator[Variant]:
    """All that the published models launch: both convolutions with SiLU, and the ConvFFN's with GELU."""
    none = dict(HALF_WEIGHT=None, HALF_BIAS=None, HALF_OUT=None)
    yield Variant(depthwise, dict(HALF=7, GELU=False, RESIDUAL=False) | _TILE, _TILE_WARPS)
    yield Variant(depthwise, dict(HALF=0, GELU=True, RESIDUAL=True) | _TILE | none, _TILE_WARPS)
    none = dict(HALF_WEIGHT=None, HALF_DZ=None)
    yield Variant(depthwise_input_gradient, dict(HALF=7, RESIDUAL=False) | _TILE, _PAIR_GRADIENT_WARPS)
    yield Variant(depthwise_input_gradient, dict(HALF=0, RESIDUAL=True) | _TILE | none, _TILE_WARPS)
    for kernel, stride, gelu in ((3, 1, False), (3, 1, True), (7, 2, False)):
        yield Variant(depthwise_tap_gradients, _walk_constants(kernel, stride, gelu, residual=gelu), warps=1)
    # the siblings' single convolution without bias
    none = dict(HALF_WEIGHT=None, HALF_BIAS=None, HALF_OUT=None, BIAS=None)
    yield Variant(depthwise, dict(HALF=0, GELU=False, RESIDUAL=False) | _TILE | none, _TILE_WARPS)


def _walk_constants(kernel: int, stride: int, gelu: bool, residual: bool) -> dict[str, int | bool]:
    return dict(KERNEL=kernel, STRIDE=stride, GELU=gelu, RESIDUAL=residual, BD=_WALK_CHANNELS[kernel])


def _half_size(x: Tensor) -> tuple[int, int]:
    return (x.shape[1] + 1) // 2, (x.shape[2] + 1) // 2


def _tiles(x: Tensor) -> tuple[int]:
    down, across = (triton.cdiv(side, _TILE['TILE']) for side in _half_size(x))
    return (x.shape[0] * down * across * triton.cdiv(x.shape[3], _TILE['BD']),)


def _by_tap(weight: Tensor | None) -> Tensor | None:
    """Weights (D, 1, k, k) as (k², D): a program then reads whole rows of them."""
    return None if weight is None else weight.flatten(1).t().contiguous()


def _dense(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()


def _empty(x: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
    return torch.empty(x.shape if shape is None else shape, dtype=x.dtype, device=x.device)


def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    half_weight: Tensor | None,
    half_bias: Tensor | None,
    gelu: bool,
    residual: bool,
) -> tuple[Tensor, Tensor | None]:
    out, half_out = _empty(x), None
    half = 0
    if half_weight is not None:
        half, half_out = half_weight.shape[-1], _empty(x, (x.shape[0], *_half_size(x), x.shape[3]))
    if out.numel():
        with on_device(x):
            depthwise[_tiles(x)](
                x.contiguous(),
                _by_tap(weight),
                _dense(bias),
                _by_tap(half_weight),
                _dense(half_bias),
                out,
                half_out,
                *x.shape[1:3],
                *_half_size(x),
                x.shape[3],
                HALF=half,
                GELU=gelu,
                RESIDUAL=residual,
                **_TILE,
                num_warps=_TILE_WARPS,
            )
    return out, half_out


def _tap_gradients(
    x: Tensor, weight: Tensor, bias: Tensor | None, grad: Tensor, stride: int, gelu: bool, residual: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of what goes into the activation, of weight and of bias."""
    kernel = weight.shape[-1]
    constants = _walk_constants(kernel, stride, gelu, residual)
    batch, out_height, out_width, channels = grad.shape
    rows, segment = batch * out_height, min(_SEGMENT, out_width)
    segments, blocks = triton.cdiv(out_width, segment), triton.cdiv(channels, constants['BD'])
    per = max(1, min(_WALK // segment, rows * segments * blocks // _PROGRAMS))
    groups = triton.cdiv(rows, per)
    dz = torch.empty(grad.shape, dtype=x.dtype, device=x.device)
    parts = torch.empty(groups * segments, kernel * kernel + 1, channels, dtype=torch.float32, device=x.device)
    depthwise_tap_gradients[(groups * blocks, segments)](
        x,
        _by_tap(weight),
        _dense(bias),
        grad.contiguous(),
        dz,
        parts,
        *x.shape[1:3],
        out_height,
        out_width,
        rows,
        per,
        segment,
        channels,
        **constants,
        num_warps=1,
    )
    sums = parts.sum(0)
    return dz, sums[:-1].t().reshape(weight.shape), None if bias is None else sums[-1].clone()


def _backward(
    grad: Tensor,
    half_grad: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    half_weight: Tensor | None,
    half_bias: Tensor | None,
    gelu: bool,
    residual: bool,
) -> tuple[Tensor | None, ...]:
    """Gradients of x, weight, bias, half_weight and half_bias."""
    dx = _empty(x)
    if x.numel() == 0:
        return dx, *(None if y is None else torch.zeros_like(y) for y in (weight, bias, half_weight, half_bias))
    x = x.contiguous()
    half, half_dz, half_gradients = 0, None, (None, None)
    with on_device(x):
        dz, *gradients = _tap_gradients(x, weight, bias, grad, 1, gelu, residual)
        if half_weight is not None:
            half = half_weight.shape[-1]
            half_dz, *half_gradients = _tap_gradients(x, half_weight, half_bias, half_grad, 2, gelu, False)
        depthwise_input_gradient[_tiles(x)](
            dz,
            half_dz,
            _by_tap(weight),
            _by_tap(half_weight),
            dx,
            *x.shape[1:3],
            *_half_size(x),
            x.shape[3],
            HALF=half,
            RESIDUAL=residual,
            **_TILE,
            num_warps=_PAIR_GRADIENT_WARPS if half else _TILE_WARPS,
        )
    return dx, *gradients, *half_gradients


def depthwise_silu(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As `depthwise.depthwise_silu`."""
    return _forward(x, weight, bias, None, None, gelu=False, residual=False)[0]


def depthwise_silu_backward(grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor | None, ...]:
    """Gradients of x, weight and bias."""
    return _backward(grad, None, x, weight, bias, None, None, gelu=False, residual=False)[:3]


def depthwise_silu_pair(
    x: Tensor, weight: Tensor, bias: Tensor | None, half_weight: Tensor, half_bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """As `depthwise.depthwise_silu_pair`."""
    return _forward(x, weight, bias, half_weight, half_bias, gelu=False, residual=False)


def depthwise_silu_pair_backward(
    grad: Tensor,
    half_grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    half_weight: Tensor,
    half_bias: Tensor | None,
) -> tuple[Tensor | None, ...]:
    """Gradients of x, weight, bias, half_weight and half_bias."""
    return _backward(grad, half_grad, x, weight, bias, half_weight, half_bias, gelu=False, residual=False)


def depthwise_residual_gelu(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As `depthwise.depthwise_residual_gelu`."""
    return _forward(x, weight, bias, None, None, gelu=True, residual=True)[0]


def depthwise_residual_gelu_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor | None, ...]:
    """Gradients of x, weight and bias."""
    return _backward(grad, None, x, weight, bias, None, None, gelu=True, residual=True)[:3]
