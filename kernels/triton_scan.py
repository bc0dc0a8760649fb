"""The operators' two scans on the Triton kernels: their tensors as the kernels' views, and the gradients back.

Maps and sequences are never copied if their layout can be had by strides. A low rank of dt is projected inside the
kernels where that pays (`triton_plan.projects`), else by a matrix product before them, and again in the backward pass.

Kept from the forward to the backward pass, beyond inputs and output: the states, 4 N / `keep` bytes per element (token,
channel and route), which is 0.8 for N = 1 and N / 16 otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import triton_launch, triton_plan
from .triton_launch import Map, Scan, Walk
from .triton_launcher import planned

#: Tokens of one of the products that make the gradient of dt's projection: short ones are many, and fill the device.
_TOKENS = 1024


class _Run(NamedTuple):
    """Neighbouring groups with equally many routes: one launch. Slices of groups, routes and kept states."""

    groups: slice
    routes: slice
    states: slice
    walk: Walk


@planned
def _runs(
    routes: tuple[int, ...], group_sizes: tuple[int, ...], height: int, width: int, d_state: int, settings: tuple
) -> list[_Run]:
    blocks = triton_plan.blocks(height * width, d_state)
    if max(group_sizes) > triton_plan.MAX_ROUTES:
        raise ValueError(
            f'a group of {max(group_sizes)} routes; the Triton kernels join up to {triton_plan.MAX_ROUTES}. Set '
            'MMMSVMAMBA_BACKEND=torch to run the algorithm of the CPU path on this device'
        )
    found, group, route = [], 0, 0
    while group < len(group_sizes):
        size, count = group_sizes[group], 1
        most = triton_plan.MAX_ROUTES // size
        while count < most and group_sizes[group + count : group + count + 1] == (size,):
            count += 1
        stop = route + count * size
        walk = Walk(routes[route:stop], size, height, width, softplus=True)
        found.append(_Run(slice(group, group + count), slice(route, stop), slice(route * blocks, stop * blocks), walk))
        group, route = group + count, stop
    return found


def _runs_of(tensors: Sequence[Tensor | None], routes: Sequence[int], group_sizes: Sequence[int]) -> list[_Run]:
    _, height, width, _ = tensors[0].shape
    d_state = tensors[6].shape[2]
    return _runs(tuple(routes), tuple(group_sizes), height, width, d_state, triton_plan.settings())


# ---- scan2d ----


def _in_pixel_order(x: Tensor) -> Map:
    """A map (B, H, W, channels) or (B, H, W, groups, channels) with one stride for its pixels."""
    _, height, width, *_ = x.shape
    batch, line, pixel, *group, channel = x.stride()
    if line != width * pixel and height > 1 and width > 1:
        x = x.contiguous()
        batch, line, pixel, *group, channel = x.stride()
    return Map(x, (batch, line if width == 1 else pixel, group[0] if group else 0, channel))


def _of_groups(x: Tensor | None, groups: slice, dim: int) -> Tensor | None:
    if x is None or groups.stop - groups.start == x.shape[dim]:
        return x
    return x.narrow(dim, groups.start, groups.stop - groups.start)


def _map_scan(tensors: Sequence[Tensor | None], groups: slice) -> Scan:
    """A scan of groups as the kernels take it; a dt of low rank that they do not project is projected here."""
    u, dt, weight, bias, B, C, A, D = tensors
    if groups.stop - groups.start < A.shape[0]:
        dt, B, C = (_of_groups(x, groups, 3) for x in (dt, B, C))
        weight, bias, A, D = (_of_groups(x, groups, 0) for x in (weight, bias, A, D))
    weight, bias, A, D = (None if x is None else x.contiguous() for x in (weight, bias, A, D))
    if weight is not None and not triton_plan.projects(dt.shape[4], A.shape[2]):
        dt, weight = _projected(dt, weight), None
    else:
        dt = _in_pixel_order(dt)
    u, B, C = (_in_pixel_order(x) for x in (u, B, C))
    return Scan(u.data.shape[0], u, dt, weight, bias, A, B, C, D)


def _projected(dt: Tensor, weight: Tensor) -> Map:
    """Low rank (B, H, W, G, R) to full rank, a map for each group after the other."""
    batch, height, width, groups = dt.shape[:4]
    tokens, channels = height * width, weight.shape[1]
    low = dt.flatten(0, 2).transpose(0, 1)
    full = torch.bmm(low, weight.to(dt.dtype).transpose(1, 2))
    return Map(full, (tokens * channels, channels, batch * tokens * channels, 1))


def _gradients_of_projection(full: Tensor, dt: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of a low rank dt (B, H, W, G, R) and of its projection, from that of full rank, (batch, P, G, D)."""
    full, low = full.flatten(0, 1), dt.flatten(0, 2).to(full.dtype)
    d_low = torch.bmm(full.transpose(0, 1), weight.to(full.dtype)).transpose(0, 1)
    return d_low, torch.stack([_product_over_tokens(full[:, g], low[:, g]) for g in range(full.shape[1])])


def _product_over_tokens(a: Tensor, b: Tensor) -> Tensor:
    """aᵀ b in float32 of (tokens, D) and (tokens, R).

    One product with such short sides and so long an inner one would run on a few processors. Products of `_TOKENS`
    tokens each run on many, and are summed in a fixed order.
    """
    count = a.shape[0] // _TOKENS
    whole = count * _TOKENS
    parts = torch.bmm(
        a[:whole].unflatten(0, (count, _TOKENS)).transpose(1, 2), b[:whole].unflatten(0, (count, _TOKENS))
    )
    total = parts.sum(0, dtype=torch.float32)
    if whole < a.shape[0]:
        total += a[whole:].t() @ b[whole:]
    return total


def scan2d(
    tensors: Sequence[Tensor | None],
    routes: Sequence[int],
    group_sizes: Sequence[int],
    summed: bool,
    y: Tensor,
    states: Tensor | None,
) -> Tensor:
    """Forward pass of `ops.scan2d`.

    Args:
        tensors: u … D, as in `ops.scan2d`.
        y: Memory for the output.
        states: Takes the states to keep, or None.

    Returns:
        The output; a sum over several routes is made in float32 first and is not `y`.
    """
    u = tensors[0]
    add = summed and len(routes) > 1
    maps = torch.empty(*u.shape[:3], len(routes), u.shape[3], dtype=torch.float32, device=u.device) if add else y
    for run in _runs_of(tensors, routes, group_sizes):
        kept = None if states is None else states[run.states]
        triton_launch.forward(_map_scan(tensors, run.groups), run.walk, _of_routes(maps, run.routes), kept)
    return maps.sum(3).to(u.dtype) if add else y


def _of_routes(maps: Tensor, routes: slice) -> Map:
    """Some of K maps (B, H, W, K, D); a single map (B, H, W, D) stands for every route."""
    return _in_pixel_order(maps if maps.dim() == 4 else _of_groups(maps, routes, 3))


def scan2d_backward(
    grad: Tensor,
    tensors: Sequence[Tensor | None],
    states: Tensor,
    routes: Sequence[int],
    group_sizes: Sequence[int],
    summed: bool,
) -> list[Tensor | None]:
    """Gradients of `scan2d`, in the order and up to reshaping in the shapes of `tensors`."""
    u, dt, weight = tensors[:3]
    if grad.stride(-1) != 1:
        # that of a sum is one value for all; the kernels are fastest on neighbouring channels
        grad = grad.contiguous()
    du = torch.empty(*u.shape[:3], len(routes), u.shape[3], dtype=u.dtype, device=u.device)
    parts, of_low_rank = [], []
    for run in _runs_of(tensors, routes, group_sizes):
        scan = _map_scan(tensors, run.groups)
        found = triton_launch.backward(
            scan, run.walk, _of_routes(grad, run.routes), states[run.states], _of_routes(du, run.routes)
        )
        if weight is not None:
            of_groups = _of_groups(dt, run.groups, 3), _of_groups(weight, run.groups, 0)
            found.dt, d_weight = _gradients_of_projection(found.dt, *of_groups)
            of_low_rank.append(d_weight)
        parts.append(found)

    def joined(found: Sequence[Tensor], dim: int) -> Tensor:
        return found[0] if len(found) == 1 else torch.cat(list(found), dim)

    def gradient(name: str, dim: int) -> Tensor:
        return joined([getattr(part, name) for part in parts], dim)

    return [
        # a GPU sums half precision in float32 and rounds once
        du if len(routes) == 1 else du.sum(3),
        gradient('dt', -2),
        joined(of_low_rank, 0) if of_low_rank else None,
        gradient('dt_bias', 0),
        gradient('B', -2),
        gradient('C', -2),
        gradient('A', 0),
        gradient('skip', 0),
    ]


# ---- selective_scan ----


def _by_group(x: Tensor, groups: int) -> Map:
    """(batch, D, L) as (batch, L, G, D / G), without a copy."""
    size = x.shape[1] // groups
    return Map(x, (x.stride(0), x.stride(2), size * x.stride(1), x.stride(1)))


def _with_states_last(x: Tensor) -> Map:
    """(batch, N, L) or (batch, G, N, L) as (batch, L, G, N), without a copy."""
    x = (x.unsqueeze(1) if x.dim() == 3 else x).permute(0, 3, 1, 2)
    return Map(x, x.stride())


def _sequence_scan(tensors: Sequence[Tensor | None], groups: int) -> Scan:
    u, delta, A, B, C, D, bias = tensors
    bias, A, D = (
        None if x is None else x.contiguous().unflatten(0, (groups, x.shape[0] // groups)) for x in (bias, A, D)
    )
    u, delta, batch = _by_group(u, groups), _by_group(delta, groups), u.shape[0]
    return Scan(batch, u, delta, None, bias, A, _with_states_last(B), _with_states_last(C), D)


def _states_by_group(states: Tensor, groups: int) -> Tensor:
    """The memory of kept states, (blocks, batch, D · N), as (G · blocks, batch, D / G · N)."""
    return states.view(states.shape[0] * groups, states.shape[1], states.shape[2] // groups)


def _sequence_walk(length: int, softplus: bool) -> Walk:
    return Walk((), 1, 1, length, softplus)


def selective_scan(
    tensors: Sequence[Tensor | None], groups: int, softplus: bool, y: Tensor, states: Tensor | None
) -> None:
    """Forward pass of `ops.selective_scan`; writes `y`, and the states to keep unless they are None."""
    walk = _sequence_walk(y.shape[2], softplus)
    states = None if states is None else _states_by_group(states, groups)
    triton_launch.forward(_sequence_scan(tensors, groups), walk, _by_group(y, groups), states)


def selective_scan_backward(
    grad: Tensor, tensors: Sequence[Tensor | None], states: Tensor, groups: int, softplus: bool
) -> list[Tensor | None]:
    """Gradients of `selective_scan`, in the order and the shapes of `tensors`."""
    u, _, A, B, _, D, bias = tensors
    du = torch.empty(u.shape, dtype=u.dtype, device=u.device)
    found = triton_launch.backward(
        _sequence_scan(tensors, groups),
        _sequence_walk(u.shape[2], softplus),
        _by_group(grad, groups),
        _states_by_group(states, groups),
        _by_group(du, groups),
    )
    return [
        du,
        found.dt.permute(0, 2, 3, 1).reshape(u.shape),
        found.A.reshape(A.shape),
        found.B.permute(0, 2, 3, 1).reshape(B.shape),
        found.C.permute(0, 2, 3, 1).reshape(B.shape),
        None if D is None else found.skip.reshape(D.shape),
        None if bias is None else found.dt_bias.reshape(bias.shape),
    ]
