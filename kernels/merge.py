"""The epilogue of a multi-scale scan: joins the routes of the full and the half resolution map into one.

Two rules exist in the published models. Both take channels-last maps. On a GPU each is an operator with Triton kernels
(`fused`, `triton_epilogue`), elsewhere torch operators.
"""

from __future__ import annotations

from functools import reduce
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_dim, check_shape
from .fused import fuse

#: Channels that the kernels hold at a time: the norm needs a pixel's channels in one program.
MAX_CHANNELS = 8192


def merge_norm_bilinear(full: Tensor, half: Tensor | None, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """LayerNorm of every route, sum over routes, bilinear upsampling (align_corners=False), add.

    The rule of the first MSVMamba release (arXiv:2405.14174, nano to tiny), whose text omits the norm.

    Args:
        full: Outputs of the full-resolution routes, (B, H, W, K, D).
        half: Outputs of the low-resolution routes, (B, h, w, K', D), or None.
        weight, bias: Affine parameters of the norm that all routes share, (D,).
        eps: Added to the variance.

    Returns:
        The merged map, (B, H, W, D), in the dtype of `full`.

    Raises:
        ValueError: What the Triton kernels do not take (on a GPU): float64, a half map of another size than (⌈H/2⌉,
            ⌈W/2⌉), more than `MAX_CHANNELS` channels, shapes that do not fit.
        RuntimeError: No implementation for the device (see `backend.choose`).
    """
    return _norm_bilinear(full, half, weight, bias, eps)


def merge_nearest_norm(full: Tensor, half: Tensor | None, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """Nearest upsampling of the half-resolution sum, add, one LayerNorm.

    The rule of the NeurIPS 2024 release of MSVMamba (tiny-v3 to base-v3).

    Args:
        full: Sum of the full-resolution routes, (B, H, W, D).
        half: Sum of the low-resolution routes, (B, h, w, D), or None.
        weight, bias: Affine parameters of the norm, (D,).
        eps: Added to the variance.

    Returns:
        The merged map, (B, H, W, D), in the dtype of `full`.

    Raises:
        ValueError: What the Triton kernels do not take (on a GPU): float64, a half map of another size than (⌈H/2⌉,
            ⌈W/2⌉), more than `MAX_CHANNELS` channels, shapes that do not fit.
        RuntimeError: No implementation for the device (see `backend.choose`).
    """
    return _nearest_norm(full, half, weight, bias, eps)


def _norm_bilinear_formula(full: Tensor, half: Tensor | None, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    high = _sum_routes(F.layer_norm(full, weight.shape, weight, bias, eps))
    if half is None:
        return high
    low = _sum_routes(F.layer_norm(half, weight.shape, weight, bias, eps))
    return high + _resize(low, high.shape[1:3], mode='bilinear', align_corners=False)


def _nearest_norm_formula(full: Tensor, half: Tensor | None, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    if half is not None:
        full = full + _resize(half, full.shape[1:3], mode='nearest')
    return F.layer_norm(full, weight.shape, weight, bias, eps)


def _sum_routes(maps: Tensor) -> Tensor:
    if maps.shape[3] == 0:
        return maps.sum(3)
    # pairwise sums read whole rows; a reduction over this strided dimension is several times slower on a CPU
    return reduce(torch.add, maps.unbind(3))


def _resize(x: Tensor, size: tuple[int, int], **kwargs) -> Tensor:
    # a permuted channels-last map is a channels_last tensor: torch resizes it without a copy
    return F.interpolate(x.permute(0, 3, 1, 2), size=size, **kwargs).permute(0, 2, 3, 1)


# ---- the operators ----

_TENSORS = {'full': 'Tensor', 'half': 'Tensor?', 'weight': 'Tensor', 'bias': 'Tensor'}


def _kernels() -> ModuleType:
    # imported where it is needed: Triton is large, and a CPU does without
    from . import triton_epilogue_launch

    return triton_epilogue_launch


def _check(full: Tensor, half: Tensor | None, weight: Tensor, bias: Tensor, routes: tuple[str, ...]) -> None:
    layout = ('B', 'H', 'W', *routes, 'D')
    check_dim('full', full, len(layout), f'({", ".join(layout)})')
    batch, height, width, channels = *full.shape[:3], full.shape[-1]
    check_shape('weight', weight, (channels,))
    check_shape('bias', bias, (channels,))
    if channels > MAX_CHANNELS:
        raise ValueError(
            f'full has {channels} channels; the Triton kernels of the merge take up to {MAX_CHANNELS}. Set '
            'MMMSVMAMBA_BACKEND=torch to run the algorithm of the CPU path on this device'
        )
    if half is None:
        return
    check_dim('half', half, len(layout), f'({", ".join(layout)})')
    size = ((height + 1) // 2, (width + 1) // 2)
    if (half.shape[0], *half.shape[1:3], half.shape[-1]) != (batch, *size, channels):
        raise ValueError(
            f'half has shape {tuple(half.shape)}; the Triton kernels take a map of half the size of full, rounded up: '
            f'{(batch, *size, *half.shape[3:-1], channels)}. Set MMMSVMAMBA_BACKEND=torch for other sizes'
        )


_norm_bilinear = fuse(
    'merge_norm_bilinear',
    _TENSORS,
    {'eps': 'float'},
    formula=_norm_bilinear_formula,
    shapes=lambda full, *_: [(*full.shape[:3], full.shape[4])],
    kernels=_kernels,
    check=lambda full, half, weight, bias, _: _check(full, half, weight, bias, ('K',)),
)
_nearest_norm = fuse(
    'merge_nearest_norm',
    _TENSORS,
    {'eps': 'float'},
    formula=_nearest_norm_formula,
    shapes=lambda full, *_: [full.shape],
    kernels=_kernels,
    check=lambda full, half, weight, bias, _: _check(full, half, weight, bias, ()),
)
