"""The epilogue of a multi-scale scan: joins the routes of the full and the half resolution map into one.

Two rules exist in the published models. Both take channels-last maps and run in torch operators on any device.
"""

from __future__ import annotations

from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor


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
    """
    high = _sum_routes(F.layer_norm(full, weight.shape, weight, bias, eps))
    if half is None:
        return high
    low = _sum_routes(F.layer_norm(half, weight.shape, weight, bias, eps))
    return high + _resize(low, high.shape[1:3], mode='bilinear', align_corners=False)


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
    """
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
