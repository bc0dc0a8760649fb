"""Runs the Triton kernels: allocates, launches, sums partial gradients.

The kernels see maps as (batch, P pixels, G groups or K routes, D channels), by strides. Partial sums of gradients go to
buffers of their own and are summed in a fixed order: results are bitwise equal from run to run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import triton
from torch import Tensor

from . import triton_plan
from .triton_backward import adjoint_ends, scan_backward
from .triton_forward import pass_states, scan_forward
from .triton_variant import capability, on_device, unspilt

_FLOAT = torch.float32
#: Channels of a program that carries states from chunk to chunk.
_CARRIED = 128


@dataclass
class Scan:
    """G sequences with one set of S6 parameters each, every one along S routes over the same pixels; or the gradients.

    Shapes: u (batch, P, G, D); dt (batch, P, G, R), or (batch, P, G, D) where dt_weight is None; dt_weight (G, D, R);
    dt_bias, skip (G, D) or None; A (G, D, N); B, C (batch, P, G, N). Maps may have any strides.
    """

    u: Tensor
    dt: Tensor
    dt_weight: Tensor | None
    dt_bias: Tensor | None
    A: Tensor
    B: Tensor
    C: Tensor
    skip: Tensor | None


@dataclass
class Walk:
    """How the sequences of a `Scan` walk the pixels.

    Attributes:
        routes: Route codes, S for each of the G groups; empty where every group walks row by row (S = 1).
        per_group: S.
        softplus: Whether Δ = softplus(dt + bias).
    """

    routes: list[int]
    per_group: int
    height: int
    width: int
    softplus: bool

    @property
    def codes(self) -> int:
        return sum(code << 2 * i for i, code in enumerate(self.routes))


class _Launch:
    """What the launches of one scan have in common."""

    def __init__(self, scan: Scan, walk: Walk, configs: tuple[triton_plan.Config, ...], *maps: Tensor, d_state: int):
        self.batch, self.pixels, self.groups, self.channels = scan.u.shape
        self.states = scan.A.shape[2]
        self.rank = 0 if scan.dt_weight is None else scan.dt_weight.shape[2]
        self.device = scan.u.device
        self.config = config = triton_plan.config(configs, d_state)
        self.across = triton.cdiv(self.channels, config.channels)
        self.sequences = self.batch * self.groups
        self.keep = triton_plan.keep(d_state)
        total = walk.per_group * triton_plan.blocks(self.pixels, d_state)
        self.chunk, self.chunks = triton_plan.chunks(self.sequences * self.across, total, self.keep, self.device)
        self.parameters = [
            None if x is None else x.contiguous() for x in (scan.dt_weight, scan.dt_bias, scan.A, scan.skip)
        ]
        self.sizes = (
            walk.codes,
            self.batch,
            self.groups,
            walk.per_group,
            walk.height,
            walk.width,
            self.channels,
            d_state,
            self.chunk,
            self.chunks,
        )
        # offsets of whole images, groups and routes always have 64 bits; those inside an image only where they must
        own = self.pixels * self.groups * walk.per_group * max(self.channels, self.states)
        extents = [
            sum((x.shape[i] - 1) * x.stride(i) for i in (1, 3)) for x in (scan.u, scan.dt, scan.B, scan.C, *maps)
        ]
        self.constants = dict(
            N=self.states,
            RANK=self.rank,
            SOFTPLUS=walk.softplus,
            WIDE=max(own, *extents) >= triton_plan.WIDE,
            FAST=self.device.type == 'cuda' and torch.version.hip is None,
            BD=config.channels,
            TILE=config.tile,
            KEEP=self.keep,
            num_warps=1,
        )

    def grid(self, chunks: int) -> tuple[int, int, int]:
        return self.sequences, chunks, self.across

    def empty(self, *shape: int, dtype: torch.dtype = _FLOAT) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.device)

    def carries(self) -> tuple[Tensor | None, Tensor | None]:
        """What enters the chunks, and the sums of Δ of the chunks."""
        if self.chunks == 1:
            return None, None
        entries = self.empty(self.sequences, self.chunks, self.states, self.channels)
        return entries, self.empty(self.sequences, self.chunks, self.channels)

    def carry(self, entries: Tensor, sums: Tensor, first: int, way: int) -> None:
        grid = (self.sequences, self.states, triton.cdiv(self.channels, _CARRIED))
        pass_states[grid](
            self.parameters[2],
            entries,
            sums,
            self.groups,
            first,
            way,
            self.chunks,
            self.channels,
            self.states,
            BD=_CARRIED,
            num_warps=1,
        )


def _of_states(scan: Scan, part: slice) -> Scan:
    """The scan of some of the states; the first states bring the skip connection."""
    skip = scan.skip if part.start == 0 else None
    return replace(scan, A=scan.A[..., part], B=scan.B[..., part], C=scan.C[..., part], skip=skip)


def forward(scan: Scan, walk: Walk, y: Tensor, states: Tensor | None) -> None:
    """Scans.

    Args:
        scan: The inputs.
        walk: Along what.
        y: Takes the outputs in pixel order, (batch, P, G · S, D), any strides and dtype.
        states: Takes the state before every block, float32 (G · S · blocks, batch, N · D); None keeps nothing.
    """
    d_state = scan.A.shape[2]
    parts = triton_plan.slices(triton_plan.FORWARD, d_state)
    if states is not None:
        states = states.unflatten(2, (d_state, scan.u.shape[3]))
    if len(parts) == 1:
        _forward(scan, walk, y, states, d_state)
        return
    total = None
    for part in parts:
        of_part = torch.empty(y.shape, dtype=_FLOAT, device=y.device)
        _forward(_of_states(scan, part), walk, of_part, None if states is None else states[:, :, part], d_state)
        total = of_part if total is None else total.add_(of_part)
    y.copy_(total)


def _forward(scan: Scan, walk: Walk, y: Tensor, states: Tensor | None, d_state: int) -> None:
    run = _Launch(scan, walk, triton_plan.FORWARD, y, d_state=d_state)
    weight, bias, A, skip = run.parameters
    entries, sums = run.carries()

    def launch(ends: bool, chunks: int) -> None:
        scan_forward[run.grid(chunks)](
            scan.u,
            scan.dt,
            weight,
            bias,
            A,
            scan.B,
            scan.C,
            skip,
            y,
            None if ends else states,
            entries,
            sums,
            *scan.u.stride(),
            *scan.dt.stride(),
            *scan.B.stride(),
            *scan.C.stride(),
            *y.stride(),
            *run.sizes,
            ENDS=ends,
            **run.constants,
        )

    with on_device(scan.u):
        if entries is not None:
            launch(True, run.chunks - 1)
            run.carry(entries, sums, first=1, way=1)
        launch(False, run.chunks)


def backward(scan: Scan, walk: Walk, grad: Tensor, states: Tensor, du: Tensor) -> Scan:
    """Gradients of a scan.

    Args:
        scan, walk: As in `forward`.
        grad: Gradient of the output, (batch, P, G · S, D), any strides.
        states: What `forward` kept.
        du: Takes the gradient of u by route, (batch, P, G · S, D), any strides and dtype.

    Returns:
        The gradients in float32, with `du` in the place of u and none for dt_weight: that of dt is one of the projected
        dt, (batch, P, G, D), in the dtype of `du` where nothing was summed.
    """
    d_state = scan.A.shape[2]
    parts = triton_plan.slices(triton_plan.BACKWARD, d_state)
    states = states.unflatten(2, (d_state, scan.u.shape[3]))
    if len(parts) == 1:
        return _backward(scan, walk, grad, states, du, d_state)
    found = []
    for part in parts:
        du_of_part = torch.empty(du.shape, dtype=_FLOAT, device=du.device)
        found.append(_backward(_of_states(scan, part), walk, grad, states[:, :, part], du_of_part, d_state))
    sums = {name: sum(getattr(x, name) for x in found[1:]) + getattr(found[0], name) for name in ('u', 'dt')}
    bias = None if scan.dt_bias is None else sum(x.dt_bias for x in found)
    du.copy_(sums['u'])
    A, B, C = (torch.cat([getattr(x, name) for x in found], -1) for name in 'ABC')
    return Scan(du, sums['dt'], None, bias, A, B, C, found[0].skip)


def _backward(scan: Scan, walk: Walk, grad: Tensor, states: Tensor, du: Tensor, d_state: int) -> Scan:
    run = _Launch(scan, walk, triton_plan.BACKWARD, grad, du, d_state=d_state)
    config, maps = run.config, run.groups * walk.per_group
    weight, bias, A, skip = run.parameters
    adjoints, sums = run.carries()
    by_chunk = (run.sequences, run.chunks)
    ddt = run.empty(run.batch, run.pixels, maps, run.channels, dtype=du.dtype)
    b_parts, c_parts = (run.empty(run.across, run.batch, run.pixels, maps, run.states) for _ in 'BC')
    a_parts = run.empty(*by_chunk, run.states, run.channels)
    bias_parts, skip_parts = (None if x is None else run.empty(*by_chunk, run.channels) for x in (bias, skip))
    scratch = None
    if run.keep > config.tile:
        scratch = run.empty(*by_chunk, run.keep // config.tile, run.states, run.channels)

    with on_device(scan.u):
        if adjoints is not None:
            adjoint_ends[run.grid(run.chunks - 1)](
                scan.dt,
                weight,
                bias,
                A,
                scan.C,
                grad,
                adjoints,
                sums,
                *scan.dt.stride(),
                *scan.C.stride(),
                *grad.stride(),
                *run.sizes,
                **run.constants,
            )
            run.carry(adjoints, sums, first=run.chunks - 2, way=-1)
        scan_backward[run.grid(run.chunks)](
            scan.u,
            scan.dt,
            weight,
            bias,
            A,
            scan.B,
            scan.C,
            skip,
            grad,
            states,
            adjoints,
            scratch,
            du,
            ddt,
            b_parts,
            c_parts,
            a_parts,
            bias_parts,
            skip_parts,
            *scan.u.stride(),
            *scan.dt.stride(),
            *scan.B.stride(),
            *scan.C.stride(),
            *grad.stride(),
            *du.stride(),
            *run.sizes,
            **run.constants,
            **(unspilt(capability(run.device)) if config.unspilt else {}),
        )

    def over_routes(x: Tensor) -> Tensor:
        if walk.per_group == 1:
            return x
        return x.unflatten(2, (run.groups, walk.per_group)).sum(3, dtype=_FLOAT)

    def over_sequences(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.unflatten(0, (run.batch, run.groups)).sum((0, 2))

    return Scan(
        u=du,
        dt=over_routes(ddt),
        dt_weight=None,
        dt_bias=over_sequences(bias_parts),
        A=over_sequences(a_parts).transpose(1, 2),
        B=over_routes(b_parts.sum(0)),
        C=over_routes(c_parts.sum(0)),
        skip=over_sequences(skip_parts),
    )
