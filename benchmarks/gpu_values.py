"""Checks of values and gradients: every kernel against its definition in float64, at small sizes."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from gpu_compare import Errors, compare, compare_maps, compare_sequences, error, split
from scan_cases import GROUPS, cast, map_inputs, output_gradient, selective_inputs, strided, with_gradients
from torch import Tensor
from worker import Settings, Step

from mmmsvmamba.kernels import (
    depthwise_residual_gelu,
    depthwise_silu,
    depthwise_silu_pair,
    merge_nearest_norm,
    merge_norm_bilinear,
    reference,
    scale_and_gate,
    scan2d,
    selective_scan,
)

HALVES = (torch.bfloat16, torch.float16)
WAYS = {'whole': False, 'split': True}


def maps(settings: Settings, **options):
    """A map of several blocks of channels and tokens, and neither of them full; a few pixels for the interpreter."""
    small = dict(batch=1, height=2, width=2, channels=2) if settings.tiny else dict(height=11, width=13, channels=130)
    return map_inputs(**{'dtype': torch.float32, 'd_state': 1} | small | options)


def sequences(settings: Settings, **options):
    small = dict(batch=1, channels=6, length=6) if settings.tiny else dict(batch=2, channels=132, length=203)
    return selective_inputs(**{'dtype': torch.float32, 'd_state': 1} | small | options)


# ---- the scans ----


def routes(settings: Settings, rank: int | None, on: bool) -> dict:
    errors = Errors()
    with split(on):
        for name in ('column_reversed', 'joined') if settings.tiny else GROUPS:
            groups = GROUPS[name]
            compare_maps(errors, maps(settings, groups=len(groups), rank=rank), groups, settings.device, name)
    return errors.figures()


def states_of_maps(settings: Settings, d_state: int, on: bool) -> dict:
    errors = Errors()
    with split(on):
        for rank in (None,) if settings.tiny else (None, 2):
            inputs = maps(settings, d_state=d_state, groups=2, rank=rank)
            compare_maps(errors, inputs, GROUPS['two-groups'], settings.device, f'rank {rank}', summed=True)
    return errors.figures()


def states_of_sequences(settings: Settings, d_state: int) -> dict:
    errors = Errors()
    for name, on in WAYS.items():
        with split(on):
            length = (2 if d_state > 1 else 7) if settings.tiny else 203
            inputs = sequences(settings, d_state=d_state, length=length, channels=2 if settings.tiny else 66)
            compare_sequences(errors, inputs, settings.device, name)
    return errors.figures()


def options_of_sequences(settings: Settings) -> dict:
    errors = Errors()
    without = (dict(groups=3, skip=False), dict(bias=False)) if not settings.tiny else ()
    for options in (dict(groups=2), dict(skip=False, bias=False), *without):
        for softplus in (False, True):
            inputs = sequences(settings, **options)
            compare_sequences(errors, inputs, settings.device, f'{options}, softplus {softplus}', softplus)
    return errors.figures()


def half_precision(settings: Settings, dtype: torch.dtype) -> dict:
    errors = Errors()
    for name, on in WAYS.items():
        with split(on):
            for rank in (2,) if settings.tiny else (None, 2):
                inputs = maps(settings, dtype=dtype, rank=rank)
                compare_maps(errors, inputs, GROUPS['joined'], settings.device, f'{name}, rank {rank}')
    for i in (3, 6, 7):  # parameters stay float32 under mixed precision
        inputs[i] = inputs[i].float()
    compare_maps(errors, inputs, GROUPS['column'], settings.device, 'parameters in float32', summed=True)
    for d_state in (1, 3):
        inputs = sequences(settings, dtype=dtype, d_state=d_state)
        compare_sequences(errors, inputs, settings.device, f'{d_state} states')
    return errors.figures()


def layouts(settings: Settings) -> dict:
    errors, device = Errors(), settings.device
    compare_maps(errors, strided(maps(settings, batch=2, groups=2)), GROUPS['two-groups'], device, 'strided maps')
    compare_sequences(errors, strided(sequences(settings, batch=2, groups=2)), device, 'strided sequences')

    def expanded(u: Tensor, *others: Tensor, scan=scan2d) -> Tensor:
        return scan(u[:, :1, :1].expand(u.shape), *others, [0, 3], [2])

    names = [f'input{i}' for i in range(8)]
    definition = partial(expanded, scan=reference.scan2d)
    compare(errors, expanded, definition, maps(settings), names, device, 'expanded')

    inputs = [x.to(device).requires_grad_() for x in maps(settings)]
    y = scan2d(*inputs, [1], [1])
    grad = output_gradient(y.cpu()).to(device)
    dense = torch.autograd.grad(y, inputs, grad, retain_graph=True)
    permuted = grad.permute(4, 1, 3, 0, 2).contiguous().permute(3, 1, 4, 2, 0)
    for a, b in zip(dense, torch.autograd.grad(y, inputs, permuted), strict=True):
        errors.add('permuted', error(b, a), 0.0)
    return errors.figures()


def digits(settings: Settings) -> dict:
    """Step sizes from e⁻¹⁴ to 1000: a GPU takes exponential and logarithm from approximate instructions."""
    errors, device = Errors(), settings.device
    raw, ones = torch.linspace(-14, 0, 12), torch.ones(1, 6, 12)
    inputs = [ones, raw.expand(1, 6, 12).contiguous(), torch.full((6, 1), -1e-6), ones[:, :1], ones[:, :1]]
    y = selective_scan(*(x.to(device) for x in inputs), delta_softplus=True).cpu()
    expected = reference.selective_scan(*cast(inputs, torch.float64), delta_softplus=True)
    errors.add('small steps', ((y - expected).abs() / expected).max().item(), 1e-5)
    inputs = selective_inputs(batch=1, channels=6, length=21, d_state=1, dtype=torch.float32)
    inputs[1] = torch.linspace(-1000, 1000, 21).expand(inputs[1].shape).contiguous()
    inputs[6] = torch.zeros(6)
    compare_sequences(errors, inputs, device, 'large steps')
    return errors.figures()


# ---- the rest of a block ----


def norm_bilinear(full: Tensor, half: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    high, low = (F.layer_norm(x, weight.shape, weight, bias).sum(3) for x in (full, half))
    return high + _resized(low, high, mode='bilinear', align_corners=False)


def nearest_norm(full: Tensor, half: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(full + _resized(half, full, mode='nearest'), weight.shape, weight, bias)


def convolved(x: Tensor, weight: Tensor, bias: Tensor, stride: int = 1) -> Tensor:
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, stride, weight.shape[-1] // 2, groups=x.shape[-1])
    return y.permute(0, 2, 3, 1)


def silu_pair(x: Tensor, w: Tensor, b: Tensor, v: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    return F.silu(convolved(x, w, b)), F.silu(convolved(x, v, c, stride=2))


def gated(y: Tensor, scale: Tensor, gate: Tensor) -> Tensor:
    return y * scale[:, None, None] * F.silu(gate)


def _resized(x: Tensor, like: Tensor, **mode) -> Tensor:
    return F.interpolate(x.permute(0, 3, 1, 2), size=like.shape[1:3], **mode).permute(0, 2, 3, 1)


def joined(pair, *inputs: Tensor) -> Tensor:
    """Both maps as one tensor, for one gradient."""
    return torch.cat([y.flatten(1, 2) for y in pair(*inputs)], dim=1)


#: Operator -> ours, its definition in torch, and the shapes of its inputs for B, H, W, D.
OPERATORS = {
    'merge-norm-bilinear': (
        merge_norm_bilinear,
        norm_bilinear,
        lambda b, h, w, d: [(b, h, w, 1, d), (b, -(-h // 2), -(-w // 2), 3, d), (d,), (d,)],
    ),
    'merge-nearest-norm': (
        merge_nearest_norm,
        nearest_norm,
        lambda b, h, w, d: [(b, h, w, d), (b, -(-h // 2), -(-w // 2), d), (d,), (d,)],
    ),
    'depthwise-silu': (
        depthwise_silu,
        lambda x, w, b: F.silu(convolved(x, w, b)),
        lambda b, h, w, d: [(b, h, w, d), (d, 1, 3, 3), (d,)],
    ),
    'depthwise-silu-pair': (
        partial(joined, depthwise_silu_pair),
        partial(joined, silu_pair),
        lambda b, h, w, d: [(b, h, w, d), (d, 1, 3, 3), (d,), (d, 1, 7, 7), (d,)],
    ),
    'depthwise-residual-gelu': (
        depthwise_residual_gelu,
        lambda x, w, b: F.gelu(x + convolved(x, w, b)),
        lambda b, h, w, d: [(b, h, w, d), (d, 1, 3, 3), (d,)],
    ),
    'scale-and-gate': (scale_and_gate, gated, lambda b, h, w, d: [(b, h, w, d), (b, d), (b, h, w, d)]),
}


def operator_inputs(name: str, size: tuple[int, int, int, int], dtype: torch.dtype) -> list[Tensor]:
    rand = torch.Generator().manual_seed(0)
    shapes = OPERATORS[name][2](*size)
    # weights of a convolution sum up to about 1
    scales = [shape[-1] if shape[2:] in ((3, 3), (7, 7)) else 1 for shape in shapes]
    return [(torch.randn(shape, generator=rand) / scale).to(dtype) for shape, scale in zip(shapes, scales, strict=True)]


def operator(settings: Settings, name: str) -> dict:
    errors = Errors()
    ours, definition, shapes = OPERATORS[name]
    sizes = [(1, 3, 2, 3)] if settings.tiny else [(2, 17, 13, 130), (1, 28, 28, 384), (2, 1, 9, 5)]
    for size in sizes:
        names = [f'input{i}' for i in range(len(shapes(*size)))]
        for dtype in (torch.float32, torch.bfloat16) if settings.tiny else (torch.float32, *HALVES):
            compare(
                errors,
                ours,
                definition,
                operator_inputs(name, size, dtype),
                names,
                settings.device,
                f'{size} in {str(dtype).removeprefix("torch.")}',
            )
    return errors.figures()


def deterministic(settings: Settings, check) -> dict:
    """Runs a check in memory that is NaN until it is written."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        probe = torch.empty(1000, device=settings.device)
        if not probe.isnan().all():
            raise AssertionError('torch did not fill new memory with NaN, so that this check would show nothing')
        return check(settings)
    finally:
        torch.use_deterministic_algorithms(False)


def written_whole(settings: Settings) -> dict:
    """Values, gradients and kept states hold no memory that nobody wrote."""
    errors = Errors()
    for name, on in WAYS.items():
        with split(on):
            compare_maps(errors, maps(settings, groups=2), GROUPS['two-groups'], settings.device, name)
            compare_sequences(errors, sequences(settings, d_state=3), settings.device, name)
    for name, (ours, definition, shapes) in OPERATORS.items():
        size = (1, 3, 2, 3) if settings.tiny else (2, 17, 13, 130)
        names = [f'input{i}' for i in range(len(shapes(*size)))]
        compare(errors, ours, definition, operator_inputs(name, size, torch.float32), names, settings.device, name)
    inputs = [x.to(settings.device) for x in maps(settings)]
    _, states = torch.ops.mmmsvmamba.scan2d(*inputs, [1], [1], False, True)
    errors.add('states', 0.0 if states.isfinite().all() else float('inf'), 0.0)
    return errors.figures()


def empty(settings: Settings) -> dict:
    errors = Errors()
    for scan, inputs in (
        (partial(scan2d, routes=[0, 3], group_sizes=[2]), maps(settings, batch=0)),
        (selective_scan, sequences(settings, batch=0)),
    ):
        y, grads = with_gradients(lambda *x, scan=scan: scan(*(v.to(settings.device) for v in x)).cpu(), inputs)
        errors.add('output', float(y.numel()), 0.0)
        for x, grad in zip(inputs, grads, strict=True):
            errors.add('gradients', error(grad, torch.zeros_like(x)), 0.0)
    for name, (ours, definition, _) in OPERATORS.items():
        inputs = operator_inputs(name, (0, 5, 3, 5), torch.float32)
        compare(errors, ours, definition, inputs, [f'input{i}' for i in range(len(inputs))], settings.device, name)
    return errors.figures()


CHECKS = [
    *(
        Step(f'scan2d/routes/{rank_name}/{name}', partial(routes, rank=rank, on=on))
        for rank_name, rank in (('full', None), ('low-rank', 3))
        for name, on in WAYS.items()
    ),
    Step('selective_scan/options', options_of_sequences),
    *(Step(f'scans/{str(d).removeprefix("torch.")}', partial(half_precision, dtype=d)) for d in HALVES),
    *(Step(f'selective_scan/states/{n}', partial(states_of_sequences, d_state=n)) for n in (1, 4, 8, 16, 64)),
    *(
        Step(f'scan2d/states/{n}/{name}', partial(states_of_maps, d_state=n, on=on))
        for n in (4, 8, 16)
        for name, on in WAYS.items()
    ),
    *(Step(f'block/{name}', partial(operator, name=name)) for name in OPERATORS),
    Step('scans/layouts', layouts),
    Step('scans/digits', digits),
    Step('memory/nan', partial(deterministic, check=written_whole)),
    Step('empty-batch', empty),
]
