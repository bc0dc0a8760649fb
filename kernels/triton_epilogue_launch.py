"""Runs the kernels of the merge: cuts maps into programs, allocates, sums partial gradients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from .triton_epilogue import nearest_norm, nearest_norm_backward, norm_sum, norm_sum_backward
from .triton_variant import Variant, capability, on_device, unspilt

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
        """Whether the backward kernels with most registers are near their spills: with many pixels in a program."""
        return self.channels <= 256

    @property
    def sizes(self) -> dict[str, int]:
        """Constants of the kernel."""
        return dict(BP=self.pixels, BD=self.channels)


def config(channels: int) -> Config:
    """The configuration for D channels: a program holds all of a pixel."""
    padded = triton.next_power_of_2(max(channels, 16))
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


def _parts(programs: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """Partial sums of the gradients of weight and bias."""
    return tuple(torch.empty(programs, x.shape[-1], dtype=torch.float32, device=x.device) for _ in range(2))


def _norm_sum(maps: Tensor, half: Tensor | None, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    batch, height, width, routes, channels = maps.shape
    out = maps.new_empty(batch, height, width, channels)
    pixels = batch * height * width
    if out.numel() == 0:
        return out
    cut = config(channels)
    half_size = (1, 1) if half is None else half.shape[1:3]
    norm_sum[(triton.cdiv(pixels, cut.pixels),)](
        maps.contiguous(),
        half,
        weight.contiguous(),
        bias.contiguous(),
        out,
        pixels,
        height,
        width,
        *half_size,
        channels,
        eps,
        ROUTES=routes,
        **cut.sizes,
        num_warps=cut.warps,
    )
    return out


def _norm_sum_backward(
    grad: Tensor, maps: Tensor, weight: Tensor, eps: float, upsampled: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of maps, weight and bias."""
    batch, height, width, routes, channels = maps.shape
    d_maps = torch.empty(maps.shape, dtype=maps.dtype, device=maps.device)
    pixels = batch * height * width
    if d_maps.numel() == 0:
        return d_maps, torch.zeros_like(weight), torch.zeros_like(weight)
    cut = config(channels)
    tiles = _tiles(pixels, cut.pixels)
    programs = triton.cdiv(pixels, cut.pixels * tiles)
    weight_parts, bias_parts = _parts(programs, maps)
    norm_sum_backward[(programs,)](
        maps.contiguous(),
        weight.contiguous(),
        grad,
        d_maps,
        weight_parts,
        bias_parts,
        pixels,
        *grad.shape[1:3],
        height,
        width,
        tiles,
        channels,
        eps,
        UPSAMPLED=upsampled,
        ROUTES=routes,
        **cut.sizes,
        num_warps=cut.warps,
        **(unspilt(capability(maps.device)) if upsampled and cut.unspilt else {}),
    )
    return d_maps, weight_parts.sum(0), bias_parts.sum(0)


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
    if out.numel() == 0:
        return out
    batch, height, width, channels = half.shape
    pixels, cut = batch * height * width, config(channels)
    with on_device(full):
        nearest_norm[(triton.cdiv(pixels, cut.pixels),)](
            full.contiguous(),
            half.contiguous(),
            weight.contiguous(),
            bias.contiguous(),
            out,
            pixels,
            *full.shape[1:3],
            height,
            width,
            channels,
            eps,
            **cut.sizes,
            num_warps=cut.warps,
        )
    return out


def merge_nearest_norm_backward(
    grad: Tensor, full: Tensor, half: Tensor | None, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Gradients of full, half, weight and bias."""
    if half is None:
        found = merge_norm_bilinear_backward(grad, full.unsqueeze(3), None, weight, bias, eps)
        return found[0].squeeze(3), *found[1:]
    d_full, d_half = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (full, half))
    batch, height, width, channels = half.shape
    if d_full.numel() == 0:
        return d_full, d_half, torch.zeros_like(weight), torch.zeros_like(bias)
    pixels, cut = batch * height * width, config(channels)
    tiles = _tiles(4 * pixels, 4 * cut.pixels)
    programs = triton.cdiv(pixels, cut.pixels * tiles)
    weight_parts, bias_parts = _parts(programs, full)
    with on_device(full):
        nearest_norm_backward[(programs,)](
            full.contiguous(),
            half.contiguous(),
            weight.contiguous(),
            grad.contiguous(),
            d_full,
            d_half,
            weight_parts,
            bias_parts,
            pixels,
            *full.shape[1:3],
            height,
            width,
            tiles,
            channels,
            eps,
            **cut.sizes,
            num_warps=cut.warps,
            **(unspilt(capability(full.device)) if cut.unspilt else {}),
        )
    return d_full, d_half, weight_parts.sum(0), bias_parts.sum(0)
