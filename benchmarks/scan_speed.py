"""The selective scan of a sequence: ours, the plain loop, and other scans where they are installed.

All contenders do the same work in float32, with step sizes of full rank, softplus, bias and skip, each on inputs in the
layout that it asks for.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import torch
import torch.nn.functional as F
from forced import on_backend
from registry import Contender, case
from torch import Tensor

from mmmsvmamba.kernels import scan2d, selective_scan

T = TypeVar('T')

BATCH, CHANNELS, D_STATE = 2, 192, 1
#: Tokens of a sequence -> the map that it comes from.
MAPS = {784: (28, 28), 3136: (56, 56), 16384: (128, 128), 64000: (200, 320)}

#: A function, its inputs, and what brings its output into the layout (B, L, D).
Setup = tuple[Callable[..., Tensor], list[Tensor], Callable[[Tensor], Tensor]]


def selective_scan_setup(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bias: Tensor) -> Setup:
    u, delta, B, C = (x.mT.contiguous() for x in (u, delta, B, C))
    return partial(selective_scan, delta_softplus=True), [u, delta, A, B, C, D, bias], lambda y: y.mT


def scan2d_setup(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bias: Tensor) -> Setup:
    size = MAPS[u.shape[1]]
    u, delta, B, C = (x.unflatten(1, size) for x in (u, delta, B, C))

    def scan(u, dt, bias, B, C, A, D):
        return scan2d(u, dt, None, bias, B, C, A, D, routes=[0], group_sizes=[1])

    inputs = [u, delta.unsqueeze(3), bias[None], B.unsqueeze(3), C.unsqueeze(3), A[None], D[None]]
    return scan, inputs, lambda y: y.squeeze(3).flatten(1, 2)


def naive_setup(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bias: Tensor) -> Setup:
    """The loop of `mmmsvmamba.kernels.reference`, on the same inputs as `selective_scan`.

    It unbinds its inputs once: the reference's index for every token makes the backward quadratic in L.
    """
    u, delta, B, C = (x.mT.contiguous() for x in (u, delta, B, C))

    def scan(u, delta, A, B, C, D, bias):
        step = F.softplus(delta + bias[:, None])
        h = u.new_zeros(u.shape[0], *A.shape)
        ys = []
        for u_t, step_t, B_t, C_t in zip(*(x.unbind(2) for x in (u, step, B, C)), strict=True):
            h = torch.exp(step_t.unsqueeze(-1) * A) * h + (step_t * u_t).unsqueeze(-1) * B_t.unsqueeze(1)
            ys.append((h * C_t.unsqueeze(1)).sum(-1))
        return torch.stack(ys, dim=-1) + D[:, None] * u

    return scan, [u, delta, A, B, C, D, bias], lambda y: y.mT


def mambapy_setup(*inputs: Tensor) -> Setup:
    from mambapy.pscan import pscan

    def scan(u, delta, A, B, C, D, bias):
        step = F.softplus(delta + bias).unsqueeze(-1)
        h = pscan(torch.exp(step * A), step * B.unsqueeze(2) * u.unsqueeze(-1))
        return (h @ C.unsqueeze(-1)).squeeze(-1) + D * u

    return scan, list(inputs), lambda y: y


def compiled_setup(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bias: Tensor) -> Setup:
    """The recurrence under torch.compile, so many tokens at a time as it compiles in seconds."""
    tokens = 16
    u, delta, B, C = (x.mT.contiguous() for x in (u, delta, B, C))

    @torch.compile(dynamic=False)
    def block(h, u, step, A, B, C):
        ys = []
        for u_t, step_t, B_t, C_t in zip(*(x.unbind(2) for x in (u, step, B, C)), strict=True):
            h = torch.exp(step_t.unsqueeze(-1) * A) * h + (step_t * u_t).unsqueeze(-1) * B_t.unsqueeze(1)
            ys.append((h * C_t.unsqueeze(1)).sum(-1))
        return h, torch.stack(ys, dim=-1)

    def scan(u, delta, A, B, C, D, bias):
        step = F.softplus(delta + bias[:, None])
        h, ys = u.new_zeros(u.shape[0], *A.shape), []
        for parts in zip(*(x.split(tokens, 2) for x in (u, step, B, C)), strict=True):
            u_part, step_part, B_part, C_part = parts
            h, y = block(h, u_part, step_part, A, B_part, C_part)
            ys.append(y)
        return torch.cat(ys, dim=2) + D[:, None] * u

    return scan, [u, delta, A, B, C, D, bias], lambda y: y.mT


def mamba_ssm_setup(*inputs: Tensor) -> Setup:
    from gpu_peer import setup

    return setup(*inputs)


SETUPS = {'selective_scan': selective_scan_setup, 'scan2d': scan2d_setup, 'naive': naive_setup}
if importlib.util.find_spec('mambapy') is not None:
    SETUPS['mambapy'] = mambapy_setup
#: Others, for GPUs: `slabs` is what ours are on a CPU.
GPU_SETUPS = {'slabs': selective_scan_setup, 'compiled': compiled_setup, 'mamba-ssm': mamba_ssm_setup}
OURS = ('selective_scan', 'scan2d')


def build(device: torch.device, length: int, backward: bool, names: Sequence[str] | None = None) -> list[Contender]:
    """The contenders `names`, by default all of `SETUPS`."""
    torch.manual_seed(0)
    u, B, C = (torch.randn(BATCH, length, size) for size in (CHANNELS, D_STATE, D_STATE))
    delta, A = torch.randn(BATCH, length, CHANNELS) - 2, -0.1 - torch.rand(CHANNELS, D_STATE)
    problem = [x.to(device) for x in (u, delta, A, B, C, torch.rand(CHANNELS), torch.rand(CHANNELS))]
    expected, contenders = None, []
    for name in names or SETUPS:
        function, inputs, to_tokens = (SETUPS | GPU_SETUPS)[name](*problem)
        # around the backward too, which asks for the backend again
        call = partial(on_backend, 'torch') if name == 'slabs' else _call
        y = call(function, *inputs)
        expected = to_tokens(y) if expected is None else expected
        torch.testing.assert_close(to_tokens(y), expected, rtol=1e-3, atol=1e-3)  # no race between wrong answers
        inputs = [x.detach().requires_grad_(backward) for x in inputs]
        run = (
            partial(call, full, function, inputs, torch.ones_like(y)) if backward else partial(call, function, *inputs)
        )
        contenders.append(Contender(name, run, ours=name in OURS))
    return contenders


def _call(function: Callable[..., T], *args) -> T:
    return function(*args)


def full(function: Callable[..., Tensor], inputs: list[Tensor], grad: Tensor) -> tuple[Tensor, ...]:
    """Forward and backward."""
    return torch.autograd.grad(function(*inputs), inputs, grad)


for _length in MAPS:
    for _mode in ('forward', 'full'):
        case(f'scan/{_mode}/L{_length}', targets={'naive': 5.0, 'mambapy': 1.0})(
            partial(build, length=_length, backward=_mode == 'full')
        )
