"""The operators' two scans on the Triton kernels: their tensors as the kernels' views, and the gradients back.

Maps and sequences are never copied if their layout can be had by strides. A low rank of dt is projected inside the
kernels where that pays (`triton_plan.projects`), else by a matrix product before them, and again in the backward pass.

Kept from the forward to the backward pass, beyond inputs and output: the states, 4 N / `keep` bytes per element (token,
channel and route), which is 0.8 for N = 1 and N / 16 otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from . import triton_launch, triton_plan
from .routes import decode_groups
from .triton_launch import Scan, Walk


@dataclass
class _Run:
    """Neighbouring groups with equally many routes: one launch. Slices of groups, routes and kept states."""

    groups: slice
    routes: slice
    states: slice
    walk: Walk


def _runs(routes: Sequence[int], group_sizes: Sequence[int], height: int, width: int, d_state: int) -> Iterator[_Run]:
    blocks = triton_plan.blocks(height * width, d_state)
    sizes = [len(group) for group in decode_groups(routes, group_sizes)]
    if max(sizes) > triton_plan.MAX_ROUTES:
        raise ValueError(
            f'a group of {max(sizes)} routes; the Triton kernels join up to {triton_plan.MAX_ROUTES}. Set '
            'MMMSVMAMBA_BACKEND=torch to run the algorithm of the CPU path on this device'
        )
    group = route = 0
    while group < len(sizes):
        size, count = sizes[group], 1
        while sizes[group + count : group + count + 1] == [size] and (count + 1) * size <= triton_plan.MAX_ROUTES:
            count += 1
        stop = route + count * size
        walk = Walk(list(routes[route:stop]), size, height, width, softplus=True)
        yield _Run(slice(group, group + count), slice(route, stop), slice(route * blocks, stop * blocks), walk)
        group, route = group + count, stop


def _projected(scan: Scan) -> Scan:
    """Projects dt of low rank to full rank where the kernels do not."""
    if scan.dt_weight is None or triton_plan.projects(scan.dt.shape[3], scan.A.shape[2]):
        return scan
    dt = torch.einsum('bpgr,gdr->bpgd', scan.dt, scan.dt_weight.to(scan.dt.dtype))
    return replace(scan, dt=dt, dt_weight=None)


def _unproject(grads: Scan, scan: Scan) -> None:
    """Takes the gradient of a projected dt back to its low rank and to the projection."""
    if scan.dt_weight is None:
        return
    full = grads.dt
    grads.dt = torch.einsum('bpgd,gdr->bpgr', full, scan.dt_weight.to(full.dtype))
    grads.dt_weight = torch.einsum('bpgd,bpgr->gdr', full, scan.dt.to(full.dtype))


# ---- scan2d ----


def _map_scan(tensors: Sequence[Tensor | None], groups: slice) -> Scan:
    u, dt, dt_weight, dt_bias, B, C, A, D = tensors
    u = u.flatten(1, 2).unsqueeze(2)
    dt, B, C = (x[..., groups, :].flatten(1, 2) for x in (dt, B, C))
    weight = None if dt_weight is None else dt_weight[groups]
    u = u.expand(-1, -1, dt.shape[2], -1)
    return Scan(u, dt, weight, dt_bias[groups], A[groups], B, C, D[groups])


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
    height, width, channels = u.shape[1:]
    add = summed and len(routes) > 1
    maps = u.new_empty(u.shape[0], height * width, len(routes), channels, dtype=torch.float32) if add else y
    maps = maps.view(u.shape[0], height * width, len(routes), channels)
    for run in _runs(routes, group_sizes, height, width, tensors[6].shape[2]):
        kept = None if states is None else states[run.states]
        triton_launch.forward(_projected(_map_scan(tensors, run.groups)), run.walk, maps[:, :, run.routes], kept)
    return maps.sum(2).to(u.dtype).view(u.shape) if add else y


def scan2d_backward(
    grad: Tensor,
    tensors: Sequence[Tensor | None],
    states: Tensor,
    routes: Sequence[int],
    group_sizes: Sequence[int],
    summed: bool,
) -> list[Tensor | None]:
    """Gradients of `scan2d`, in the order and up to reshaping in the shapes of `tensors`."""
    u = tensors[0]
    height, width, channels = u.shape[1:]
    grad = grad.flatten(1, 2)
    if summed:
        grad = grad.unsqueeze(2).expand(-1, -1, len(routes), -1)
    du = u.new_empty(u.shape[0], height * width, len(routes), channels)
    parts = []
    for run in _runs(routes, group_sizes, height, width, tensors[6].shape[2]):
        scan = _map_scan(tensors, run.groups)
        grads = triton_launch.backward(
            _projected(scan), run.walk, grad[:, :, run.routes], states[run.states], du[:, :, run.routes]
        )
        _unproject(grads, scan)
        parts.append(grads)

    def joined(name: str, dim: int) -> Tensor:
        found = [getattr(part, name) for part in parts]
        return found[0] if len(found) == 1 else torch.cat(found, dim)

    return [
        du if len(routes) == 1 else du.sum(2, dtype=torch.float32),
        joined('dt', 2),
        None if tensors[2] is None else joined('dt_weight', 0),
        joined('dt_bias', 0),
        joined('B', 2),
        joined('C', 2),
        joined('A', 0),
        joined('skip', 0),
    ]


# ---- selective_scan ----


def _by_group(x: Tensor, groups: int) -> Tensor:
    """(batch, D, L) as (batch, L, G, D / G), without a copy."""
    return x.unflatten(1, (groups, x.shape[1] // groups)).permute(0, 3, 1, 2)


def _sequence_scan(tensors: Sequence[Tensor | None], groups: int) -> Scan:
    u, delta, A, B, C, D, bias = tensors
    if B.dim() == 3:
        B, C = B.unsqueeze(1), C.unsqueeze(1)
    bias, A, D = (None if x is None else x.unflatten(0, (groups, x.shape[0] // groups)) for x in (bias, A, D))
    B, C = B.permute(0, 3, 1, 2), C.permute(0, 3, 1, 2)
    return Scan(_by_group(u, groups), _by_group(delta, groups), None, bias, A, B, C, D)


def _states_by_group(states: Tensor, groups: int) -> Tensor:
    """The memory of kept states, (blocks, batch, D · N), as (G · blocks, batch, D / G · N)."""
    return states.view(states.shape[0] * groups, states.shape[1], states.shape[2] // groups)


def _sequence_walk(length: int, softplus: bool) -> Walk:
    return Walk([], 1, 1, length, softplus)


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
    u = tensors[0]
    du = torch.empty(u.shape, dtype=u.dtype, device=u.device)
    grads = triton_launch.backward(
        _sequence_scan(tensors, groups),
        _sequence_walk(u.shape[2], softplus),
        _by_group(grad, groups),
        _states_by_group(states, groups),
        _by_group(du, groups),
    )
    shapes = [None if x is None else x.shape for x in tensors]
    return [
        du,
        grads.dt.permute(0, 2, 3, 1).reshape(shapes[1]),
        grads.A.reshape(shapes[2]),
        grads.B.permute(0, 2, 3, 1).reshape(shapes[3]),
        grads.C.permute(0, 2, 3, 1).reshape(shapes[4]),
        None if grads.skip is None else grads.skip.reshape(shapes[5]),
        None if grads.dt_bias is None else grads.dt_bias.reshape(shapes[6]),
    ]
