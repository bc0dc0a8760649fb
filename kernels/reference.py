"""The definition of every operator as a plain loop: what all other implementations are tested against.

S6 recurrence (Gu & Dao, "Mamba", arXiv:2312.00752, eq. 2 with the zero-order hold of A and the Euler step of B), for
channel d and state n:

    Δ_t = softplus(dt_t + bias)    h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t u_t    y_t = Σ_n C_t h_t + D u_t    h_0 = 0

Everything runs in the dtype of its inputs (float64 in, float64 throughout), is differentiable by autograd, and is slow
on purpose.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .routes import Route, decode_groups


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> Tensor:
    """Selective scan of channel-first sequences; see `mmmsvmamba.kernels.selective_scan`."""
    channels = u.shape[1]
    if B.dim() == 3:
        B, C = B.unsqueeze(1), C.unsqueeze(1)
    # group g serves the channels g * D/G ... (g + 1) * D/G - 1
    B = B.repeat_interleave(channels // B.shape[1], dim=1)
    C = C.repeat_interleave(channels // C.shape[1], dim=1)
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    if delta_softplus:
        delta = F.softplus(delta)
    h = u.new_zeros(u.shape[0], channels, A.shape[1])
    ys = []
    for t in range(u.shape[2]):
        step, x = delta[:, :, t, None], u[:, :, t, None]
        h = torch.exp(step * A) * h + step * B[..., t] * x
        ys.append((h * C[..., t]).sum(-1))
    y = torch.stack(ys, dim=-1)
    return y if D is None else y + D[:, None] * u


def scan2d(
    u: Tensor,
    dt: Tensor,
    dt_weight: Tensor | None,
    dt_bias: Tensor,
    B: Tensor,
    C: Tensor,
    A: Tensor,
    D: Tensor,
    routes: Sequence[int],
    group_sizes: Sequence[int],
    summed: bool = False,
) -> Tensor:
    """Scan of a channels-last map along routes; see `mmmsvmamba.kernels.scan2d`."""
    height, width = u.shape[1:3]
    maps = []
    for g, group in enumerate(decode_groups(routes, group_sizes)):
        h = u.new_zeros(u.shape[0], u.shape[3], A.shape[-1])
        for route in group:
            pixels = {}
            for i, j in _walk(route, height, width):
                low_rank = dt[:, i, j, g]
                raw = low_rank if dt_weight is None else low_rank @ dt_weight[g].t()
                step = F.softplus(raw + dt_bias[g])[..., None]
                x = u[:, i, j]
                h = torch.exp(step * A[g]) * h + step * B[:, i, j, g, None] * x[..., None]
                pixels[i, j] = (h * C[:, i, j, g, None]).sum(-1) + D[g] * x
            rows = [torch.stack([pixels[i, j] for j in range(width)], 1) for i in range(height)]
            maps.append(torch.stack(rows, dim=1))
    y = torch.stack(maps, dim=3)
    return y.sum(3) if summed else y


def merge_norm_bilinear(full: Tensor, half: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """LayerNorm of each route, sum, bilinear upsampling, add; see `mmmsvmamba.kernels.merge_norm_bilinear`."""
    low = _layer_norm(half, weight, bias, eps).sum(3)
    height, width = full.shape[1:3]
    rows = []
    for i in range(height):
        top, bottom, down = _bilinear_source(i, height, low.shape[1])
        row = []
        for j in range(width):
            left, right, across = _bilinear_source(j, width, low.shape[2])
            upper = low[:, top, left] * (1 - across) + low[:, top, right] * across
            lower = low[:, bottom, left] * (1 - across) + low[:, bottom, right] * across
            row.append(upper * (1 - down) + lower * down)
        rows.append(torch.stack(row, dim=1))
    return _layer_norm(full, weight, bias, eps).sum(3) + torch.stack(rows, dim=1)


def merge_nearest_norm(full: Tensor, half: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """Sum, nearest upsampling, add, LayerNorm; see `mmmsvmamba.kernels.merge_nearest_norm`."""
    height, width = full.shape[1:3]
    rows = [
        torch.stack([half[:, i * half.shape[1] // height, j * half.shape[2] // width] for j in range(width)], 1)
        for i in range(height)
    ]
    return _layer_norm(full + torch.stack(rows, dim=1), weight, bias, eps)


def _walk(route: Route, height: int, width: int) -> list[tuple[int, int]]:
    if route.by_column:
        pixels = [(i, j) for j in range(width) for i in range(height)]
    else:
        pixels = [(i, j) for i in range(height) for j in range(width)]
    return pixels[::-1] if route.reversed else pixels


def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * weight + bias


def _bilinear_source(index: int, size: int, source_size: int) -> tuple[int, int, float]:
    """Half-pixel centres (align_corners=False): the two source positions and the weight of the second."""
    position = max((index + 0.5) * source_size / size - 0.5, 0.0)
    first = min(int(position), source_size - 1)
    return first, min(first + 1, source_size - 1), position - first
