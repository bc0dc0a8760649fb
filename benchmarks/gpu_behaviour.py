"""Checks of what small values do not show: repeats, long and huge inputs, CUDA graphs, compilation, autocast; and of
what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from unittest import mock

import torch
from forced import forced
from gpu_compare import TOLERANCES, Errors, compare, error, on_device, split
from gpu_values import HALVES, OPERATORS, WAYS, maps, operator_inputs, sequences
from scan_cases import SCAN2D_NAMES, SELECTIVE_NAMES, Inputs, cast, map_inputs, selective_inputs, with_gradients
from torch import Tensor
from worker import Settings, Skip, Step

from mmmsvmamba.kernels import merge_norm_bilinear, reference, scan2d, selective_scan

JOINED = dict(routes=[2, 1, 3], group_sizes=[3])
GIB = 2**30


def values(function: Callable[..., Tensor], inputs: Inputs, grad: Tensor | None = None) -> list[Tensor]:
    """The output and the gradients of all inputs, which want one."""
    y = function(*inputs)
    grads = torch.autograd.grad(y, [x for x in inputs if x is not None], torch.ones_like(y) if grad is None else grad)
    return [y.detach(), *grads]


def moved(inputs: Inputs, device: torch.device, dtype: torch.dtype | None = None) -> Inputs:
    return [None if x is None else x.to(device, dtype).detach().requires_grad_() for x in inputs]


def assert_equal(found: Sequence[Tensor], expected: Sequence[Tensor], what: str) -> None:
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        if not torch.equal(a, b):
            differ = (a != b).sum().item()
            where = 'output' if i == 0 else f'gradient {i}'
            raise AssertionError(f'{what}: the {where} differs in {differ} of {a.numel()} values, by {error(a, b):.1e}')


def need_cuda(settings: Settings, why: str) -> None:
    if settings.device.type != 'cuda':
        raise Skip(f'needs a GPU: {why}')


def need_memory(settings: Settings, size: float) -> None:
    need_cuda(settings, 'the interpreter would take hours for 2³¹ elements')
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info(settings.device)[0]
    if free < size:
        raise Skip(f'needs {size / GIB:.0f} GiB of GPU memory, and {free / GIB:.0f} are free')


# ---- again and again ----


def repeats(settings: Settings) -> dict:
    """Forward and backward give the same bits every time, split or not, beside other work on the GPU."""
    times, device = (2 if settings.tiny else 100), settings.device
    dtype = torch.float32 if settings.tiny else torch.bfloat16
    size = {} if settings.tiny else dict(batch=2, height=56, width=56, channels=192, dtype=dtype)
    length = {} if settings.tiny else dict(length=3136, channels=192, dtype=dtype)
    runs = {
        'scan2d': (partial(scan2d, **JOINED), maps(settings, **size)),
        'selective_scan': (partial(selective_scan, delta_softplus=True), sequences(settings, d_state=2, **length)),
    }
    if not settings.tiny:
        runs |= {name: (OPERATORS[name][0], operator_inputs(name, (2, 56, 56, 192), dtype)) for name in OPERATORS}
    for name, (function, cpu_inputs) in runs.items():
        inputs = moved(cpu_inputs, device)
        for way, on in {'split': True, 'by occupancy': None}.items() if 'scan' in name else [('', None)]:
            with split(on):
                first = values(function, inputs)
                for _ in range(times - 1):
                    assert_equal(values(function, inputs), first, f'{name} {way}')
    return {'repeats': times}


def twice_in_one_graph(settings: Settings) -> dict:
    def twice(scan, u, dt, dt_weight, dt_bias, B, C, A, D):
        y = scan(u, dt, dt_weight, dt_bias, B, B, A, D, [3, 0], [2], True)
        return scan(y.tanh(), dt, dt_weight, dt_bias, C, B, A, D, [1], [1], True) + y

    errors, device = Errors(), settings.device
    ours, definition = partial(twice, scan2d), partial(twice, reference.scan2d)
    compare(errors, ours, definition, maps(settings), SCAN2D_NAMES, device)
    return errors.figures()


# ---- long and huge ----


def long(settings: Settings) -> dict:
    """A map of 64,000 pixels: against slabs in float64, and a few channels of a sequence against the loop."""
    errors, device = Errors(), settings.device
    size = dict(height=2, width=2, channels=2) if settings.tiny else dict(height=200, width=320, channels=192)
    inputs = map_inputs(**size, batch=1, d_state=1, rank=6)
    scan = partial(scan2d, routes=[0, 2, 1, 3], group_sizes=[4])
    with forced('torch'):
        expected = values(scan, moved(inputs, device, torch.float64))
    for dtype in (torch.float32,) if settings.tiny else (torch.float32, torch.bfloat16):
        ours = moved(inputs, device, dtype)
        if dtype != torch.float32:
            with forced('torch'):
                expected = values(scan, moved(cast(inputs, dtype), device, torch.float64))
        for way, on in {**WAYS, 'by occupancy': None}.items():
            with split(on):
                for name, a, b in zip(('output', *SCAN2D_NAMES), values(scan, ours), expected, strict=True):
                    # sums over a quarter of a million terms in float32
                    tolerance = TOLERANCES[dtype] * (1 if name in ('output', 'u', 'dt', 'B', 'C') else 10)
                    errors.add(f'{name} {way}', error(a, b), tolerance, str(dtype))
    length = 12 if settings.tiny else 64000
    inputs = selective_inputs(batch=1, channels=3, length=length, d_state=1, dtype=torch.float32)
    with torch.no_grad():
        y = on_device(selective_scan, device)(*inputs)
        errors.add('sequence', error(y, reference.selective_scan(*cast(inputs, torch.float64))), 1e-5)
    return errors.figures()


def many_images(settings: Settings) -> dict:
    """A batch of more than 2³¹ elements: its last image is as if it were alone, in value and gradient."""
    batch, height, width, channels = 90, 200, 320, 384
    count = batch * height * width * channels
    assert count > 2**31
    need_memory(settings, 18 * count)  # u, y, their gradients, that of dt, states, and room
    device, rank = settings.device, 6
    parameters = moved(map_inputs(1, 1, 1, channels, rank=rank, d_state=1, dtype=torch.float32), device)
    maps_of = [torch.empty(batch, height, width, channels, device=device, dtype=torch.bfloat16).normal_()]
    maps_of += [torch.randn(batch, height, width, 1, n, device=device).bfloat16() for n in (rank, 1, 1)]

    def run(u, dt, B, C):
        u, dt, B, C = (x.detach().requires_grad_() for x in (u, dt, B, C))
        _, _, dt_weight, dt_bias, _, _, A, D = (x if x is None else x.detach() for x in parameters)
        y = scan2d(u, dt, dt_weight, dt_bias, B, C, A, D, routes=[0], group_sizes=[1])
        found = [y.detach()]
        found += torch.autograd.grad(y, [u, dt, B, C], y.detach())
        return [x[-1:].clone() for x in found]

    with split(False):
        last, alone = run(*maps_of), run(*(x[-1:] for x in maps_of))
    assert_equal(last[:2], alone[:2], 'the last of 90 images')
    errors = Errors()
    # matrix products and sums around the kernels may take another order for another batch
    for name, a, b in zip(('output', 'u', 'dt', 'B', 'C'), last, alone, strict=True):
        errors.add(name, error(a, b), TOLERANCES[torch.bfloat16])
    return errors.figures() | {'elements': count}


def huge_image(settings: Settings) -> dict:
    """One image of more than 2³¹ elements, where offsets inside an image take 64 bits: a few channels as if alone."""
    length, channels, few = 2**20 + 3, 2048, slice(2040, 2048)
    count = length * channels
    need_memory(settings, 12 * count)
    device = settings.device
    u, delta = (torch.empty(1, channels, length, device=device, dtype=torch.bfloat16).normal_() for _ in 'ud')
    B, C = (torch.randn(1, 1, length, device=device).bfloat16() for _ in 'BC')
    A = -0.1 - torch.rand(channels, 1, device=device)
    with torch.no_grad():
        y = selective_scan(u, delta, A, B, C, delta_softplus=True)[:, few].clone()
        alone = selective_scan(u[:, few].clone(), delta[:, few].clone(), A[few], B, C, delta_softplus=True)
    errors = Errors()
    errors.add('output', error(y, alone), TOLERANCES[torch.bfloat16])
    return errors.figures() | {'elements': count}


# ---- how it is run ----


def cuda_graph(settings: Settings) -> dict:
    """Forward and backward captured once and replayed on other values."""
    need_cuda(settings, 'a CPU has no CUDA graphs')
    device, done = settings.device, []
    runs = {
        'scan2d': (partial(scan2d, **JOINED), maps(settings, height=56, width=56, channels=192)),
        'selective_scan': (selective_scan, sequences(settings, length=3136)),
        **{name: (OPERATORS[name][0], operator_inputs(name, (2, 28, 28, 192), torch.float32)) for name in OPERATORS},
    }
    for name, (function, cpu_inputs) in runs.items():
        inputs = moved(cpu_inputs, device)
        beside = torch.cuda.Stream(device)
        beside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(beside):
            for _ in range(3):
                values(function, inputs)
        torch.cuda.current_stream(device).wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = values(function, inputs)
        with torch.no_grad():
            inputs[0].mul_(0.5).add_(0.25)
        graph.replay()
        torch.cuda.synchronize(device)
        assert_equal(found, values(function, inputs), f'{name}, replayed')
        done.append(name)
    return {'replayed': len(done)}


def compiled(settings: Settings) -> dict:
    """torch.compile(fullgraph=True) around a scan and a merge; by inductor on a GPU."""

    def model(scan, merge, u, dt, dt_weight, dt_bias, B, C, A, D, weight, bias):
        y = scan(u.tanh(), dt, dt_weight, dt_bias, B, C, A, D, [2, 1], [2])
        return merge(y, None, weight, bias).sin()

    def merge(full, half, weight, bias):
        return torch.nn.functional.layer_norm(full, weight.shape, weight, bias).sum(3)

    inputs = maps(settings)
    inputs += [torch.linspace(0.5, 1.5, inputs[0].shape[-1]), torch.linspace(-1, 1, inputs[0].shape[-1])]
    names = [*SCAN2D_NAMES, 'weight', 'bias']
    backend = 'inductor' if settings.device.type == 'cuda' else 'aot_eager'
    torch._dynamo.reset()
    ours = torch.compile(partial(model, scan2d, merge_norm_bilinear), fullgraph=True, backend=backend)
    errors = Errors()
    compare(errors, ours, partial(model, reference.scan2d, merge), inputs, names, settings.device)
    return errors.figures() | {'backend': backend}


def autocast(settings: Settings, dtype: torch.dtype) -> dict:
    """A scan of projected maps under autocast; inputs in float32 are scanned in float32."""
    errors, kind = Errors(), settings.device.type

    def model(scan, x, weight, dt, dt_weight, dt_bias, B, C, A, D):
        return scan(x @ weight, dt, dt_weight, dt_bias, B, C, A, D, **JOINED).to(x.dtype)

    def cast_model(*inputs):
        with torch.autocast(kind, dtype):
            return model(scan2d, *inputs)

    u, *others = maps(settings)
    weight = torch.eye(u.shape[-1]) + 0.01
    names = ['x', 'weight', *SCAN2D_NAMES[1:]]
    compare(
        errors,
        cast_model,
        partial(model, reference.scan2d),
        [u, weight, *others],
        names,
        settings.device,
        'projected',
        TOLERANCES[dtype],
    )
    scan = on_device(partial(scan2d, **JOINED), settings.device)
    plain = with_gradients(scan, [u, *others])
    with torch.autocast(kind, dtype):
        found = with_gradients(scan, [u, *others])
    assert_equal([found[0], *found[1]], [plain[0], *plain[1]], 'float32 inputs')
    return errors.figures()


# ---- what is refused ----

#: Operator -> the names of its inputs.
ARGUMENTS = {
    'merge-norm-bilinear': ('full', 'half', 'weight', 'bias'),
    'merge-nearest-norm': ('full', 'half', 'weight', 'bias'),
    'depthwise-silu': ('x', 'weight', 'bias'),
    'depthwise-silu-pair': ('x', 'weight', 'bias', 'half_weight', 'half_bias'),
    'depthwise-residual-gelu': ('x', 'weight', 'bias'),
    'scale-and-gate': ('y', 'scale', 'gate'),
}


@contextmanager
def no_launch() -> Iterator[None]:
    from mmmsvmamba.kernels import triton_launcher

    def launched(*_: object) -> None:
        raise AssertionError('a kernel was launched')

    with mock.patch.object(triton_launcher.Launch, '__call__', launched):
        yield


def assert_refused(function: Callable[..., object], inputs: Inputs, error: str, case: str) -> None:
    """One ValueError comes, whose message begins as the pattern says."""
    try:
        function(*inputs)
    except ValueError as found:
        if not re.match(error, str(found)):
            raise AssertionError(f'{case}: the error is {str(found)!r}, which does not begin with {error!r}') from found
    else:
        raise AssertionError(f'{case} was taken')


def refused(settings: Settings) -> dict:
    """Every input in float64 and on another device, and too many routes: an error that names it, and no launch."""
    device, count = torch.empty(0, device=settings.device).device, 0
    others = ['meta', *(['cpu'] if device.type == 'cuda' else [])]
    runs = {
        'scan2d': (partial(scan2d, **JOINED), maps(settings), SCAN2D_NAMES),
        'selective_scan': (selective_scan, sequences(settings), SELECTIVE_NAMES),
        **{
            name: (OPERATORS[name][0], operator_inputs(name, (1, 3, 2, 3), torch.float32), ARGUMENTS[name])
            for name in OPERATORS
        },
    }
    with no_launch():
        for operator, (function, cpu_inputs, names) in runs.items():
            inputs = [x.to(device) for x in cpu_inputs]
            for i, name in enumerate(names):

                def with_other(x: Tensor, i: int = i, inputs: Inputs = inputs) -> Inputs:
                    return [*inputs[:i], x, *inputs[i + 1 :]]

                case, double = f'{operator}, {name}', with_other(inputs[i].double())
                assert_refused(function, double, f'{name} has dtype torch.float64; ', f'{case} in float64')
                for other in others:
                    # the others are measured by the first input
                    where = f'{names[1]} is on {device}, but .* is on {other}' if i == 0 else f'{name} is on {other}, '
                    assert_refused(function, with_other(inputs[i].to(other)), where, f'{case} on {other}')
                count += 1 + len(others)
        too_many = partial(scan2d, routes=[0] * 16, group_sizes=[16])
        inputs = [x.to(device) for x in maps(settings)]
        assert_refused(too_many, inputs, 'a group of 16 routes; .* up to 15', 'a group of 16 routes')
    return {'refused': count + 1}


CHECKS = [
    Step('run/repeats', repeats),
    Step('run/twice-in-one-graph', twice_in_one_graph),
    Step('run/cuda-graph', cuda_graph),
    Step('run/compile', compiled),
    *(Step(f'run/autocast/{str(dtype).removeprefix("torch.")}', partial(autocast, dtype=dtype)) for dtype in HALVES),
    Step('refused', refused),
    Step('large/64000-tokens', long),
    Step('large/batch-of-2^31', many_images, alone=True),
    Step('large/image-of-2^31', huge_image, alone=True),
]
