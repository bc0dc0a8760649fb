"""The CUDA scan of mamba-ssm, called through its compiled module `selective_scan_cuda` alone, beside ours.

The Python package around it is not needed. Forward and backward are joined to an operator with a gradient here, as
mamba-ssm's own interface does it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import gpu_kernels
import torch
from forced import forced
from gpu_compare import error
from torch import Tensor
from torch.autograd import Function
from worker import Settings, Skip, Step, need_packages

from mmmsvmamba.kernels import scan2d, selective_scan

PEER = 'mamba-ssm'


class Scan(Function):
    """u, delta (B, D, L); A (D, N), D and bias (D,) in float32; B, C (B, G, N, L); softplus of delta + bias."""

    @staticmethod
    def forward(ctx, u, delta, A, B, C, D, bias):
        import selective_scan_cuda

        out, x = selective_scan_cuda.fwd(u, delta, A, B, C, D, None, bias, True)[:2]
        ctx.save_for_backward(u, delta, A, B, C, D, bias, x)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        import selective_scan_cuda

        u, delta, A, B, C, D, bias, x = ctx.saved_tensors
        # `out` and `dz` are for a gate, which is not there
        found = selective_scan_cuda.bwd(u, delta, A, B, C, D, None, bias, grad.contiguous(), x, None, None, True, False)
        return tuple(found[:7])


def scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bias: Tensor) -> Tensor:
    return Scan.apply(u, delta, A, B, C, D, bias)


def setup(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bias: Tensor) -> tuple:
    """For `scan_speed`, whose inputs are (B, L, channels)."""
    u, delta = (x.mT.contiguous() for x in (u, delta))
    B, C = (x.mT.contiguous().unsqueeze(1) for x in (B, C))
    return scan, [u, delta, A, B, C, D, bias], lambda y: y.mT


# ---- at the shapes of a model ----


@dataclass(frozen=True)
class Contender:
    """The same work in a layout of its own.

    Attributes:
        function: Of the inputs.
        inputs: In its layout.
        to_sequences: Brings its output to (B, D, L).
        decay: Which of the inputs is A.
    """

    function: Callable[..., Tensor]
    inputs: list[Tensor]
    to_sequences: Callable[[Tensor], Tensor]
    decay: int


def problem(device: torch.device, size: tuple[int, int, int, int], dtype: torch.dtype) -> list[Tensor]:
    """u, delta, A, B, C, D, bias of sequences over maps of B, D, H, W, with one state."""
    batch, channels, height, width = size
    rand = torch.Generator(device).manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rand, device=device)

    length = height * width
    u, delta, B, C = (randn(batch, n, length).to(dtype) for n in (channels, channels, 1, 1))
    A = -0.1 - torch.rand(channels, 1, generator=rand, device=device)
    return [u, delta, A, B, C, randn(channels), randn(channels) - 2]


def contenders(inputs: list[Tensor], height: int, width: int) -> dict[str, Contender]:
    u, delta, A, B, C, D, bias = inputs
    tokens = [x.mT.contiguous().unflatten(1, (height, width)) for x in (u, delta, B, C)]
    maps = [tokens[0], *(x.unsqueeze(3) for x in tokens[1:])]

    def on_map(u, dt, bias, B, C, A, D):
        return scan2d(u, dt, None, bias, B, C, A, D, routes=[0], group_sizes=[1])

    on_map_inputs = [maps[0], maps[1], bias[None], maps[2], maps[3], A[None], D[None]]
    return {
        PEER: Contender(scan, [u, delta, A, B.unsqueeze(1), C.unsqueeze(1), D, bias], lambda y: y, 2),
        'selective_scan': Contender(partial(selective_scan, delta_softplus=True), inputs, lambda y: y, 2),
        'scan2d': Contender(on_map, on_map_inputs, lambda y: y.squeeze(3).flatten(1, 2).mT, 5),
    }


def passes(contender: Contender, device: torch.device, backward: bool) -> tuple[list[Tensor], float]:
    """The output and, where it is wanted, the gradient of A, in one layout for all; seconds of a CUDA graph."""
    inputs = [x.detach().requires_grad_(backward) for x in contender.inputs]
    with torch.no_grad():
        y = contender.function(*inputs)
    grad = torch.ones_like(y)

    def run() -> Tensor | tuple[Tensor, ...]:
        y = contender.function(*inputs)
        return torch.autograd.grad(y, inputs, grad) if backward else y

    found = [contender.to_sequences(y)]
    if backward:
        found.append(run()[contender.decay].flatten())
    return found, gpu_kernels.device_seconds(run, device, 0.5)


def beside(settings: Settings, shape: str, backward: bool) -> dict:
    """Seconds of the three, in bfloat16 with parameters in float32."""
    gpu_kernels.need_cuda(settings)
    need_packages(gpu_kernels.PACKAGES[PEER], of_others=True)
    device, (batch, height, width) = settings.device, gpu_kernels.SHAPES[shape]
    all_of_them = contenders(
        problem(device, (batch, gpu_kernels.CHANNELS, height, width), torch.bfloat16), height, width
    )
    seconds = {}
    try:
        expected, seconds[PEER] = passes(all_of_them.pop(PEER), device, backward)
    except (AttributeError, RuntimeError, TypeError) as why:  # another version of it, or a GPU that it is not for
        raise Skip(f'{PEER} does not run here: {type(why).__name__}: {why}') from why
    for name, contender in all_of_them.items():
        with forced('triton'):
            found, seconds[name] = passes(contender, device, backward)
        for what, a, b in zip(('output', 'gradient of A'), found, expected, strict=False):
            off = error(a, b)
            assert off <= 2e-2, f'{name}: the {what} is off by {off:.1e} from that of {PEER}'
    ratios = {name: seconds[PEER] / seconds[name] for name in all_of_them}
    return {
        'seconds': seconds,
        'times_as_fast_as': {name: {PEER: ratio} for name, ratio in ratios.items()},
        'targets': {},
        **{f'{name}_over_mamba_ssm': ratio for name, ratio in ratios.items()},
    }


TIMINGS = [
    Step(f'time/against/{PEER}/{mode}/{shape}', partial(beside, shape=shape, backward=mode == 'full'))
    for shape in gpu_kernels.SHAPES
    for mode in ('forward', 'full')
]
