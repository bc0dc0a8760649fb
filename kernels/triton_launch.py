"""Runs the Triton kernels of the scan: allocates, launches, sums partial gradients.

Partial sums of gradients go to buffers of their own and are summed in a fixed order: results are bitwise equal from run
to run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from . import triton_plan, triton_variant
from .triton_backward import adjoint_ends, scan_backward
from .triton_forward import pass_states, scan_forward
from .triton_launcher import Launch, planned
from .triton_variant import cdiv, on_device, unspilt

_FLOAT = torch.float32
#: Of a program that carries states from chunk to chunk: its channels, and chunks whose loads are issued together.
_CARRY = dict(BD=32, AHEAD=32)

#: Strides of maps are multiples of it where their channels are.
_STEP = 16

Strides = tuple[int, int, int, int]


class Map(NamedTuple):
    """Maps or sequences as the kernels see them: (batch, P pixels, G groups or K routes, channels) by any strides.

    The last dimension of `data` is that of channels or states, the others may be shaped otherwise.
    """

    data: Tensor
    strides: Strides


@dataclass
class Scan:
    """G sequences with one set of S6 parameters each, every one along S routes over the same pixels.

    Shapes: u (batch, P, G, D); dt (batch, P, G, R), or (batch, P, G, D) where dt_weight is None; dt_weight (G, D, R);
    dt_bias, skip (G, D) or None; A (G, D, N); B, C (batch, P, G, N). Parameters are contiguous.
    """

    batch: int
    u: Map
    dt: Map
    dt_weight: Tensor | None
    dt_bias: Tensor | None
    A: Tensor
    B: Map
    C: Map
    skip: Tensor | None

    def of_states(self, part: slice) -> Scan:
        """The scan of some of the states; the first states bring the skip connection."""
        B, C = (Map(x.data[..., part], x.strides) for x in (self.B, self.C))
        return replace(self, A=self.A[..., part].contiguous(), B=B, C=C, skip=self.skip if part.start == 0 else None)


@dataclass
class Gradients:
    """Of a `Scan`: dt (batch, P, G, D), also where it was of low rank; B, C (batch, P, G, N); the others as there."""

    dt: Tensor
    dt_bias: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    skip: Tensor


class Walk(NamedTuple):
    """How the sequences of a `Scan` walk the pixels.

    Attributes:
        routes: Route codes, S for each of the G groups; empty where every group walks row by row (S = 1).
        per_group: S.
        softplus: Whether Δ = softplus(dt + bias).
    """

    routes: tuple[int, ...]
    per_group: int
    height: int
    width: int
    softplus: bool


class _Layout(NamedTuple):
    """All that the launches of a scan depend on, but the pointers.

    Attributes:
        shape: G, D and N of this launch.
        rank: Of dt, where the kernels project it, else 0.
        strides: Of u, dt, B, C and the maps behind them.
        d_state: States of all launches together.
        settings: `triton_plan.settings()`.
    """

    batch: int
    shape: tuple[int, int, int]
    rank: int
    walk: Walk
    strides: tuple[Strides, ...]
    d_state: int
    device: torch.device
    settings: tuple


def _layout(scan: Scan, walk: Walk, d_state: int, *others: Map) -> _Layout:
    rank = 0 if scan.dt_weight is None else scan.dt_weight.shape[2]
    strides = scan.u.strides, scan.dt.strides, scan.B.strides, scan.C.strides, *[x.strides for x in others]
    return _Layout(scan.batch, scan.A.shape, rank, walk, strides, d_state, scan.A.device, triton_plan.settings())


class _Cut:
    """How a scan is cut into programs, and what all of its launches are given."""

    def __init__(self, configs: tuple[triton_plan.Config, ...], layout: _Layout) -> None:
        batch, (self.groups, self.channels, self.states), rank, walk, strides, d_state, device, _ = layout
        self.device, self.nothing = device, torch.empty(0, dtype=_FLOAT, device=device)
        # of maps that are loaded by blocks of channels
        u, dt, _, _, *others = strides
        blocks = [u, *others] if rank else [u, dt, *others]
        unit = all(x[3] == 1 for x in blocks)
        self.config = config = triton_plan.config(configs, d_state, unit)
        pixels = walk.height * walk.width
        self.across = cdiv(self.channels, config.channels)
        self.sequences = batch * self.groups
        self.keep = triton_plan.keep(d_state)
        total = walk.per_group * triton_plan.blocks(pixels, d_state)
        self.chunk, self.chunks = triton_plan.chunks(self.sequences * self.across, total, self.keep, device)
        codes = sum(code << 2 * i for i, code in enumerate(walk.routes))
        self.sizes = codes, batch, self.groups, walk.per_group, walk.height, walk.width, self.channels, d_state
        self.sizes += self.chunk, self.chunks
        # offsets of whole images, groups and routes always have 64 bits; those inside an image only where they must
        width = max(self.channels, self.states)
        extent = pixels * max(x[1] for x in strides) + width * max(x[3] for x in strides)
        self.step = 1 if any(stride % _STEP for x in blocks for stride in x[:3]) else _STEP
        self.constants = dict(
            N=self.states,
            RANK=rank,
            SOFTPLUS=walk.softplus,
            WIDE=max(extent, pixels * self.groups * walk.per_group * width) >= triton_plan.WIDE,
            UNIT=unit,
            STEP=self.step,
            FAST=triton_variant.capability(device) > 0,
            BD=config.channels,
            TILE=config.tile,
            KEEP=self.keep,
        )

    def steps(self, strides: Strides) -> Strides:
        """The strides of a map that is loaded by blocks of channels, as the kernels take them."""
        batch, pixel, group, channel = strides
        return batch // self.step, pixel // self.step, group // self.step, channel

    def grid(self, chunks: int) -> tuple[int, int, int]:
        return self.sequences, chunks, self.across

    def carry(self, first: int, way: int) -> Launch:
        """Carries states from chunk to chunk; `first` and `way` as in `pass_states`."""
        grid = self.sequences, self.states, cdiv(self.channels, _CARRY['BD'])
        sizes = self.groups, first, way, self.chunks, self.channels, self.states
        return Launch(pass_states, grid, sizes, _CARRY, num_warps=1)

    def carries(self) -> tuple[Tensor, Tensor | None]:
        """Memory for what enters the chunks, and for the sums of Δ of the chunks. A single chunk needs none, but the
        kernel is the same."""
        if self.chunks == 1:
            return self.nothing, None
        shape, options = (self.sequences, self.chunks), dict(dtype=_FLOAT, device=self.device)
        return torch.empty(*shape, self.states, self.channels, **options), torch.empty(*shape, self.channels, **options)


class _Plan(NamedTuple):
    """The launches of a scan: `ends` and `carry` find what enters the chunks, where there are several."""

    cut: _Cut
    ends: Launch | None
    carry: Launch | None
    scan: Launch


@planned
def _plan_forward(layout: _Layout) -> _Plan:
    cut = _Cut(triton_plan.FORWARD, layout)
    u, dt, B, C, y = layout.strides
    sizes = *cut.steps(u), *(dt if layout.rank else cut.steps(dt)), *B, *C, *cut.steps(y), *cut.sizes

    def launch(ends: bool, chunks: int) -> Launch:
        return Launch(scan_forward, cut.grid(chunks), sizes, cut.constants | dict(ENDS=ends), num_warps=1)

    if cut.chunks == 1:
        return _Plan(cut, None, None, launch(False, 1))
    return _Plan(cut, launch(True, cut.chunks - 1), cut.carry(first=1, way=1), launch(False, cut.chunks))


@planned
def _plan_backward(layout: _Layout) -> _Plan:
    cut = _Cut(triton_plan.BACKWARD, layout)
    u, dt, B, C, grad, du = layout.strides
    u, grad, du = (cut.steps(x) for x in (u, grad, du))
    dt = dt if layout.rank else cut.steps(dt)
    options = {}
    if cut.config.unspilt:
        options = unspilt(triton_variant.capability(layout.device), everywhere=not cut.constants['UNIT'])
    sizes = *u, *dt, *B, *C, *grad, *du, *cut.sizes
    scan = Launch(scan_backward, cut.grid(cut.chunks), sizes, cut.constants, num_warps=1, **options)
    if cut.chunks == 1:
        return _Plan(cut, None, None, scan)
    ends = Launch(adjoint_ends, cut.grid(cut.chunks - 1), (*dt, *C, *grad, *cut.sizes), cut.constants, num_warps=1)
    return _Plan(cut, ends, cut.carry(first=cut.chunks - 2, way=-1), scan)


def forward(scan: Scan, walk: Walk, y: Map, states: Tensor | None) -> None:
    """Scans.

    Args:
        scan: The inputs.
        walk: Along what.
        y: Takes the outputs in pixel order, (batch, P, G · S, D), of any dtype.
        states: Takes the state before every block, float32 (G · S · blocks, batch, N · D); None keeps nothing.
    """
    channels, d_state = scan.A.shape[1:]
    parts = triton_plan.slices(triton_plan.FORWARD, d_state)
    if states is not None:
        states = states.unflatten(2, (d_state, channels))
    if len(parts) == 1:
        _forward(scan, walk, y, states, d_state)
        return
    total = None
    for part in parts:
        of_part = Map(torch.empty_strided(y.data.shape, y.data.stride(), dtype=_FLOAT, device=y.data.device), y.strides)
        _forward(scan.of_states(part), walk, of_part, None if states is None else states[:, :, part], d_state)
        total = of_part.data if total is None else total.add_(of_part.data)
    y.data.copy_(total)


def _forward(scan: Scan, walk: Walk, y: Map, states: Tensor | None, d_state: int) -> None:
    plan = _plan_forward(_layout(scan, walk, d_state, y))
    entries, sums = plan.cut.carries()
    inputs = scan.u.data, scan.dt.data, scan.dt_weight, scan.dt_bias, scan.A, scan.B.data, scan.C.data
    with on_device(scan.A):
        if plan.ends is not None:
            plan.ends(*inputs, None, y.data, None, entries, sums)
            plan.carry(scan.A, entries, sums)
        plan.scan(*inputs, scan.skip, y.data, states, entries, None)


def backward(scan: Scan, walk: Walk, grad: Map, states: Tensor, du: Map) -> Gradients:
    """Gradients of a scan.

    Args:
        scan, walk: As in `forward`.
        grad: Gradient of the output, (batch, P, G · S, D).
        states: What `forward` kept.
        du: Takes the gradient of u by route, (batch, P, G · S, D), of any dtype.

    Returns:
        The other gradients: that of dt in the dtype of `du`, all else in float32.
    """
    channels, d_state = scan.A.shape[1:]
    parts = triton_plan.slices(triton_plan.BACKWARD, d_state)
    states = states.unflatten(2, (d_state, channels))
    if len(parts) == 1:
        return _backward(scan, walk, grad, states, du, d_state)
    found, du_sum = [], None
    for part in parts:
        memory = torch.empty_strided(du.data.shape, du.data.stride(), dtype=_FLOAT, device=du.data.device)
        of_part = Map(memory, du.strides)
        found.append(_backward(scan.of_states(part), walk, grad, states[:, :, part], of_part, d_state))
        du_sum = memory if du_sum is None else du_sum.add_(memory)
    du.data.copy_(du_sum)
    dt, bias = (sum(getattr(x, name) for x in found) for name in ('dt', 'dt_bias'))
    A, B, C = (torch.cat([getattr(x, name) for x in found], -1) for name in 'ABC')
    return Gradients(dt, bias, A, B, C, found[0].skip)


def _backward(scan: Scan, walk: Walk, grad: Map, states: Tensor, du: Map, d_state: int) -> Gradients:
    u, dt, B, C, device = scan.u, scan.dt, scan.B, scan.C, scan.A.device
    plan = _plan_backward(_layout(scan, walk, d_state, grad, du))
    cut, n, maps, pixels = plan.cut, scan.A.shape[2], plan.cut.groups * walk.per_group, walk.height * walk.width

    def empty(*shape: int, dtype: torch.dtype = _FLOAT) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    adjoints, sums = cut.carries()
    ddt = empty(scan.batch, pixels, maps, cut.channels, dtype=du.data.dtype)
    # dB and dC; dA of every state, dbias and dskip
    by_token = empty(2, cut.across, scan.batch, pixels, maps, n)
    by_chunk = empty(scan.batch, cut.groups, cut.chunks, n + 2, cut.channels)
    scratch = None
    if cut.keep > cut.config.tile:
        scratch = empty(cut.sequences, cut.chunks, cut.keep // cut.config.tile, n, cut.channels)
    with on_device(scan.A):
        if plan.ends is not None:
            plan.ends(dt.data, scan.dt_weight, scan.dt_bias, scan.A, C.data, grad.data, adjoints, sums)
            plan.carry(scan.A, adjoints, sums)
        inputs = u.data, dt.data, scan.dt_weight, scan.dt_bias, scan.A, B.data, C.data, scan.skip, grad.data
        plan.scan(*inputs, states, adjoints, scratch, du.data, ddt, by_token, by_chunk)
    dB, dC = _over_routes(by_token.sum(1), walk.per_group)
    parameters = by_chunk.sum((0, 2))
    dA, dbias, dskip = parameters[:, :n].transpose(1, 2), parameters[:, n], parameters[:, n + 1]
    return Gradients(_over_routes(ddt, walk.per_group), dbias, dA, dB, dC, dskip)


def _over_routes(x: Tensor, per_group: int) -> Tensor:
    """(…, G · S, channels) summed to (…, G, channels); half precision is summed in float32 and rounded once."""
    return x if per_group == 1 else x.unflatten(-2, (-1, per_group)).sum(-2)
