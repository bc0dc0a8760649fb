"""Runs the kernels of the depthwise convolutions: cuts maps into programs, allocates, sums partial gradients."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .triton_depthwise import depthwise, depthwise_input_gradient
from .triton_depthwise_taps import depthwise_tap_gradients
from .triton_launcher import Launch, Walks, planned
from .triton_variant import Variant, cdiv, on_device

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


@planned
def _plan_forward(shape: tuple[int, int, int, int], half: int, gelu: bool, residual: bool) -> Launch:
    constants = dict(HALF=half, GELU=gelu, RESIDUAL=residual) | _TILE
    return Launch(depthwise, *_tiled(shape), constants, num_warps=_TILE_WARPS)


@planned
def _plan_input_gradient(shape: tuple[int, int, int, int], half: int, residual: bool) -> Launch:
    warps = _PAIR_GRADIENT_WARPS if half else _TILE_WARPS
    constants = dict(HALF=half, RESIDUAL=residual) | _TILE
    return Launch(depthwise_input_gradient, *_tiled(shape), constants, num_warps=warps)


def _tiled(shape: tuple[int, int, int, int]) -> tuple[tuple[int, int, int], tuple[int, ...]]:
    """Grid and sizes of a kernel whose programs work on tiles of a map."""
    batch, height, width, channels = shape
    half_height, half_width = (height + 1) // 2, (width + 1) // 2
    tiles = cdiv(half_height, _TILE['TILE']) * cdiv(half_width, _TILE['TILE'])
    return (batch * tiles * cdiv(channels, _TILE['BD']), 1, 1), (height, width, half_height, half_width, channels)


@planned
def _plan_taps(
    shape: tuple[int, int, int, int], out_shape: tuple[int, int, int, int], kernel: int, stride: int, activation: tuple
) -> Walks:
    constants = _walk_constants(kernel, stride, *activation)
    batch, out_height, out_width, channels = out_shape
    rows, segment = batch * out_height, min(_SEGMENT, out_width)
    segments, blocks = cdiv(out_width, segment), cdiv(channels, constants['BD'])
    per = max(1, min(_WALK // segment, rows * segments * blocks // _PROGRAMS))
    groups = cdiv(rows, per)
    sizes = *shape[1:3], out_height, out_width, rows, per, segment, channels
    grid = groups * blocks, segments, 1
    return Walks(groups * segments, Launch(depthwise_tap_gradients, grid, sizes, constants, num_warps=1))


def _by_tap(weight: Tensor | None) -> Tensor | None:
    """Weights (D, 1, k, k) as (k², D), for who reads them row by row."""
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
    out, half_out, half = _empty(x), None, 0
    if half_weight is not None:
        half, half_out = half_weight.shape[-1], _empty(x, (x.shape[0], *_half_size(x), x.shape[3]))
    if out.numel():
        parameters = weight.contiguous(), _dense(bias), _by_tap(half_weight), _dense(half_bias)
        with on_device(x):
            _plan_forward(x.shape, half, gelu, residual)(x.contiguous(), *parameters, out, half_out)
    return out, half_out


def _tap_gradients(
    x: Tensor, weight: Tensor, bias: Tensor | None, grad: Tensor, stride: int, gelu: bool, residual: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of what goes into the activation, of weight and of bias."""
    kernel = weight.shape[-1]
    plan = _plan_taps(x.shape, grad.shape, kernel, stride, (gelu, residual))
    dz = torch.empty(grad.shape, dtype=x.dtype, device=x.device)
    shape = plan.programs, kernel * kernel + 1, x.shape[3]
    parts = torch.empty(shape, dtype=torch.float32, device=x.device)
    plan.launch(x, weight.contiguous(), _dense(bias), grad.contiguous(), dz, parts)
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
        launch = _plan_input_gradient(x.shape, half, residual)
        launch(dz, half_dz, weight.contiguous(), _by_tap(half_weight), dx)
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
