"""Scaling of a merged map by channel attention and by a gate.

On a GPU an operator with Triton kernels (`fused`, `triton_gate`), elsewhere torch operators.
"""

from __future__ import annotations

from types import ModuleType

import torch.nn.functional as F
from torch import Tensor

from .checks import check_dim, check_shape
from .fused import fuse


def scale_and_gate(y: Tensor, scale: Tensor | None, gate: Tensor | None) -> Tensor:
    """y · scale · silu(gate), without what is None; `gate` may be overwritten where it wants no gradient.

    Args:
        y: The map, (B, H, W, D).
        scale: A factor for every image and channel, (B, D), or None.
        gate: A map of the shape of `y`, or None.

    Returns:
        (B, H, W, D), in the dtype of `y`; `y` itself if both are None.

    Raises:
        ValueError: What the Triton kernels do not take (on a GPU): float64, shapes that do not fit.
        RuntimeError: No implementation for the device (see `backend.choose`).
    """
    if scale is None and gate is None:
        return y
    return _scale_and_gate(y, scale, gate)


def _formula(y: Tensor, scale: Tensor | None, gate: Tensor | None) -> Tensor:
    if scale is not None:
        y = y * scale[:, None, None]
    if gate is not None:
        # where a gradient is wanted, autograd would copy what is overwritten
        y = y * F.silu(gate, inplace=not gate.requires_grad)
    return y


def _kernels() -> ModuleType:
    # imported where it is needed: Triton is large, and a CPU does without
    from . import triton_gate_launch

    return triton_gate_launch


def _check(y: Tensor, scale: Tensor | None, gate: Tensor | None) -> None:
    check_dim('y', y, 4, '(B, H, W, D)')
    if scale is not None:
        check_shape('scale', scale, (y.shape[0], y.shape[3]))
    if gate is not None:
        check_shape('gate', gate, tuple(y.shape))


_scale_and_gate = fuse(
    'scale_and_gate',
    {'y': 'Tensor', 'scale': 'Tensor?', 'gate': 'Tensor?'},
    {},
    formula=_formula,
    shapes=lambda y, *_: [y.shape],
    kernels=_kernels,
    check=_check,
)
