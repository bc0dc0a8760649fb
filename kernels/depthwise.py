"""Depthwise convolutions of channels-last maps, each with the activation that follows it.

On a GPU each is an operator with Triton kernels (`fused`, `triton_depthwise`), elsewhere torch operators. The kernels
are for the sizes of the published models, 3×3, and 3×3 beside a 7×7 convolution with stride 2; for other sizes torch's
convolutions run on every device.
"""

from __future__ import annotations

from types import ModuleType

import torch.nn.functional as F
from torch import Tensor

from .checks import check_dim, check_shape
from .fused import fuse

_KERNEL, _HALF_KERNEL = 3, 7


def depthwise_silu(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1) -> Tensor:
    """SiLU of a depthwise convolution that keeps the size of the map, or halves it (rounding up) with stride 2.

    Args:
        x: The map, (B, H, W, D).
        weight: (D, 1, k, k) with k odd; the map is padded with k // 2 zeros on each side.
        bias: (D,) or None.
        stride: 1 or 2.

    Returns:
        (B, ⌈H/stride⌉, ⌈W/stride⌉, D), in the dtype of `x`.

    Raises:
        ValueError: What the Triton kernels do not take (on a GPU): float64, shapes that do not fit.
        RuntimeError: No implementation for the device (see `backend.choose`).
    """
    if stride == 1 and weight.shape[-1] == _KERNEL:
        return _silu(x, weight, bias)
    return _silu_in_place(_convolve(x, weight, bias, stride))


def depthwise_silu_pair(
    x: Tensor, weight: Tensor, bias: Tensor | None, half_weight: Tensor, half_bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """`depthwise_silu` of the same map twice, with stride 1 and with stride 2; one read of the map on a GPU.

    Args:
        x: The map, (B, H, W, D).
        weight, bias: Of the convolution with stride 1, as in `depthwise_silu`.
        half_weight, half_bias: Of the convolution with stride 2.

    Returns:
        (B, H, W, D) and (B, ⌈H/2⌉, ⌈W/2⌉, D).

    Raises:
        ValueError, RuntimeError: As `depthwise_silu`.
    """
    if (weight.shape[-1], half_weight.shape[-1]) == (_KERNEL, _HALF_KERNEL):
        return _silu_pair(x, weight, bias, half_weight, half_bias)
    return depthwise_silu(x, weight, bias), depthwise_silu(x, half_weight, half_bias, stride=2)


def depthwise_residual_gelu(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The exact GELU of a map plus its depthwise convolution.

    Args:
        x: The map, (B, H, W, D).
        weight: (D, 1, k, k) with k odd; the map is padded with k // 2 zeros on each side.
        bias: (D,) or None.

    Returns:
        (B, H, W, D), in the dtype of `x`.

    Raises:
        ValueError, RuntimeError: As `depthwise_silu`.
    """
    if weight.shape[-1] == _KERNEL:
        return _residual_gelu(x, weight, bias)
    return _residual_gelu_formula(x, weight, bias)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1) -> Tensor:
    # a permuted channels-last map is a channels_last tensor: torch convolves it without a copy
    padding, groups = weight.shape[-1] // 2, weight.shape[0]
    return F.conv2d(x.permute(0, 3, 1, 2), weight, bias, stride, padding, groups=groups).permute(0, 2, 3, 1)


def _silu_in_place(z: Tensor) -> Tensor:
    # where a gradient is wanted, autograd would copy what is overwritten
    return F.silu(z, inplace=not z.requires_grad)


def _silu_formula(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _silu_in_place(_convolve(x, weight, bias))


def _silu_pair_formula(
    x: Tensor, weight: Tensor, bias: Tensor | None, half_weight: Tensor, half_bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    half = _silu_in_place(_convolve(x, half_weight, half_bias, stride=2))
    return _silu_in_place(_convolve(x, weight, bias)), half


def _residual_gelu_formula(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.gelu(x + _convolve(x, weight, bias))


# ---- the operators ----

_TENSORS = {'x': 'Tensor', 'weight': 'Tensor', 'bias': 'Tensor?'}


def _kernels() -> ModuleType:
    # imported where it is needed: Triton is large, and a CPU does without
    from . import triton_depthwise_launch

    return triton_depthwise_launch


def _check(x: Tensor, *parameters: Tensor | None) -> None:
    check_dim('x', x, 4, '(B, H, W, D)')
    channels = x.shape[3]
    names = ('weight', 'bias', 'half_weight', 'half_bias')
    sizes = (_KERNEL, None, _HALF_KERNEL, None)
    for name, parameter, size in zip(names, parameters, sizes, strict=False):
        if parameter is not None:
            check_shape(name, parameter, (channels, 1, size, size) if size else (channels,))


_silu = fuse(
    'depthwise_silu',
    _TENSORS,
    {},
    formula=_silu_formula,
    shapes=lambda x, *_: [x.shape],
    kernels=_kernels,
    check=_check,
)
_silu_pair = fuse(
    'depthwise_silu_pair',
    _TENSORS | {'half_weight': 'Tensor', 'half_bias': 'Tensor?'},
    {},
    formula=_silu_pair_formula,
    shapes=lambda x, *_: [x.shape, (x.shape[0], (x.shape[1] + 1) // 2, (x.shape[2] + 1) // 2, x.shape[3])],
    kernels=_kernels,
    check=_check,
    outputs=2,
)
_residual_gelu = fuse(
    'depthwise_residual_gelu',
    _TENSORS,
    {},
    formula=_residual_gelu_formula,
    shapes=lambda x, *_: [x.shape],
    kernels=_kernels,
    check=_check,
)
