"""Runs the kernels of the merge: cuts maps into programs, allocates, sums partial gradients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from . import triton_variant
from .triton_epilogue import nearest_norm, nearest_norm_backward, norm_sum, norm_sum_backward
from .triton_launcher import Launch, Walks, planned
from .triton_variant import Variant, cdiv, on_device, unspilt

#: Elements that a program of four warps holds of a map.
_TILE = 1024
#: A program of the backward pass walks up to so many pixels, as long as about so many programs remain.
_WALK, _PROGRAMS = 64, 1024


@dataclass(frozen=True)
class Config:
    """What a kernel is compiled for: pixels and channels (a power of two) of a program, and its warps."""

    pixels: int
    channels: int
    warps: int

    @property
    def unspilt(self) -> bool:
        """Whether 255 registers a thread, which the backward kernels with most of them may ask for, fit a processor."""
        return self.warps <= 8

    @property
    def sizes(self) -> dict[str, int]:
        """Constants of the kernel."""
        return dict(BP=self.pixels, BD=self.channels)


def config(channels: int) -> Config:
    """The configuration for D channels: a program holds all of a pixel."""
    padded = 1 << max(channels - 1, 15).bit_length()
    return Config(min(max(_TILE // padded, 1), 16), padded, 4 * max(padded // _TILE, 1))


def variants() -> Iterator[Variant]:
    """All that the published models launch, whose maps have 96 to 1536 channels; to compile them ahead of time."""
    widths = (96, 192, 384, 768, 1536)
    for channels in widths:
        cut = config(channels)
        yield Variant(norm_sum, dict(ROUTES=3, HALF=None) | cut.sizes, cut.warps)
        yield Variant(norm_sum, dict(ROUTES=1) | cut.sizes, cut.warps)
        yield Variant(norm_sum_backward, dict(ROUTES=3, UPSAMPLED=True) | cut.sizes, cut.warps, cut.unspilt)
        yield Variant(norm_sum_backward, dict(ROUTES=1, UPSAMPLED=False) | cut.sizes, cut.warps)
    # family v3 scans as many channels as a block has, half of what family v1 does
    for channels in widths[:-1]:
        cut = config(channels)
        yield Variant(nearest_norm, cut.sizes, cut.warps)
        yield Variant(nearest_norm_backward, cut.sizes, cut.warps, cut.unspilt)


def _tiles(pixels: int, size: int) -> int:
    """Blocks of `size` pixels for a program of the backward pass: long walks keep partial sums few."""
    return max(1, min(_WALK // size, pixels // (_PROGRAMS * size)))


def _parts(programs: int, x: Tensor) -> Tensor:
    """Memory for partial sums of the gradients of weight and bias."""
    return torch.empty(2, programs, x.shape[-1], dtype=torch.float32, device=x.device)


Shape = tuple[int, ...]


@planned
def _plan_norm_sum(shape: Shape, half_size: Shape, eps: float) -> Launch:
    """Sums `shape` (B, H, W, routes, D), and a map of `half_size` (h, w)."""
    batch, height, width, routes, channels = shape
    cut, pixels = config(channels), batch * height * width
    sizes = pixels, height, width, *half_size, channels, eps
    constants = dict(ROUTES=routes) | cut.sizes
    return Launch(norm_sum, (cdiv(pixels, cut.pixels), 1, 1), sizes, constants, num_warps=cut.warps)


@planned
def _plan_norm_sum_backward(shape: Shape, full_size: Shape, eps: float, upsampled: bool, device: torch.device) -> Walks:
    batch, height, width, routes, channels = shape
    cut, pixels = config(channels), batch * height * width
    tiles = _tiles(pixels, cut.pixels)
    programs = cdiv(pixels, cut.pixels * tiles)
    options = unspilt(triton_variant.capability(device)) if upsampled and cut.unspilt else {}
    sizes = pixels, *full_size, height, width, tiles, channels, eps
    constants = dict(UPSAMPLED=upsampled, ROUTES=routes) | cut.sizes
    launch = Launch(norm_sum_backward, (programs, 1, 1), sizes, constants, num_warps=cut.warps, **options)
    return Walks(programs, launch)


@planned
def _plan_nearest_norm(shape: Shape, half_shape: Shape, eps: float) -> Launch:
    batch, height, width, channels = half_shape
    cut, pixels = config(channels), batch * height * width
    sizes = pixels, *shape[1:3], height, width, channels, eps
    return Launch(nearest_norm, (cdiv(pixels, cut.pixels), 1, 1), sizes, cut.sizes, num_warps=cut.warps)


@planned
def _plan_nearest_norm_backward(shape: Shape, half_shape: Shape, eps: float, device: torch.device) -> Walks:
    batch, height, width, channels = half_shape
    cut, pixels = config(channels), batch * height * width
    tiles = _tiles(4 * pixels, 4 * cut.pixels)
    programs = cdiv(pixels, cut.pixels * tiles)
    options = unspilt(triton_variant.capability(device)) if cut.unspilt else {}
    sizes = pixels, *shape[1:3], height, width, tiles, channels, eps
    launch = Launch(nearest_norm_backward, (programs, 1, 1), sizes, cut.sizes, num_warps=cut.warps, **options)
    return Walks(programs, launch)


def _norm_sum(maps: Tensor, half: Tensor | None, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    out = maps.new_empty(*maps.shape[:3], maps.shape[4])
    if out.numel():
        half_size = (1, 1) if half is None else half.shape[1:3]
        launch = _plan_norm_sum(maps.shape, half_size, eps)
        launch(maps.contiguous(), half, weight.contiguous(), bias.contiguous(), out)
    return out


def _norm_sum_backward(
    grad: Tensor, maps: Tensor, weight: Tensor, eps: float, upsampled: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of maps, weight and bias."""
    d_maps = torch.empty(maps.shape, dtype=maps.dtype, device=maps.device)
    if d_maps.numel() == 0:
        return d_maps, torch.zeros_like(weight), torch.zeros_like(weight)
    plan = _plan_norm_sum_backward(maps.shape, grad.shape[1:3], eps, upsampled, maps.device)
    parts = _parts(plan.programs, maps)
    plan.launch(maps.contiguous(), weight.contiguous(), grad, d_maps, *parts)
    return d_maps, *parts.sum(1)


def merge_norm_bilinear(full: Tensor, half: Tensor | None, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """The merge of family v1, as `merge.merge_norm_bilinear`."""
    with on_device(full):
        # the sum at half resolution is the one map between the two launches
        low = None if half is None else _norm_sum(half, None, weight, bias, eps)
        return _norm_sum(full, low, weight, bias, eps)


def merge_norm_bilinear_backward(
    grad: Tensor, full: Tensor, half: Tensor | None, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Gradients of full, half, weight and bias."""
    grad = grad.contiguous()
    with on_device(full):
        d_full, d_weight, d_bias = _norm_sum_backward(grad, full, weight, eps, upsampled=False)
        d_half = None
        if half is not None:
            d_half, *more = _norm_sum_backward(grad, half, weight, eps, upsampled=True)
            d_weight, d_bias = d_weight + more[0], d_bias + more[1]
    return d_full, d_half, d_weight, d_bias


def merge_nearest_norm(full: Tensor, half: Tensor | None, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """The merge of family v3, as `merge.merge_nearest_norm`."""
    if half is None:
        return merge_norm_bilinear(full.unsqueeze(3), None, weight, bias, eps)
    out = torch.empty(full.shape, dtype=full.dtype, device=full.device)
    if out.numel():
        launch = _plan_nearest_norm(full.shape, half.shape, eps)
        with on_device(full):
            launch(full.contiguous(), half.contiguous(), weight.contiguous(), bias.contiguous(), out)
    return out


def merge_nearest_norm_backward(
    grad: Tensor, full: Tensor, half: Tensor | None, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Gradients of full, half, weight and bias."""
    if half is None:
        found = merge_norm_bilinear_backward(grad, full.unsqueeze(3), None, weight, bias, eps)
        return found[0].squeeze(3), *found[1:]
    d_full, d_half = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (full, half))
    if d_full.numel() == 0:
        return d_full, d_half, torch.zeros_like(weight), torch.zeros_like(bias)
    plan = _plan_nearest_norm_backward(full.shape, half.shape, eps, full.device)
    parts = _parts(plan.programs, full)
    with on_device(full):
        maps = full.contiguous(), half.contiguous(), weight.contiguous(), grad.contiguous()
        plan.launch(*maps, d_full, d_half, *parts)
    return d_full, d_half, *parts.sum(1)
