"""Times of the kernels on a GPU: in bytes per second over the measured bandwidth of a copy, and against others.

A kernel's time is that of a replayed CUDA graph, so that neither Python nor launches count. `floor_bytes` are those
that inputs and outputs have; the share of the copy's bandwidth tells how close to that floor a kernel comes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import scan_speed
import torch
from forced import on_backend
from gpu_values import OPERATORS
from registry import Case
from torch import Tensor
from turns import measure
from worker import Settings, Skip, Step, need_packages

SCAN = torch.ops.mmmsvmamba
#: Stage 1 of a model with 96 channels, which a mixer doubles: batch, height, width.
SHAPES = {'batch128-224': (128, 56, 56), 'batch2-1280x800': (2, 200, 320)}
CHANNELS, RANK = 192, 6
#: One route over the map and three joined ones over the map of half the size: 1.75 elements per pixel and channel.
ROUTES = {'full': ([0], [1], 1), 'half': ([2, 1, 3], [3], 2)}
#: Values of an element that the inputs and outputs of a pass hold, by its low rank: u, dt where that is full, y; u, dt,
#: dy, du, ddt.
FLOOR = {('forward', False): 3, ('forward', True): 2, ('backward', False): 5, ('backward', True): 3}


def need_cuda(settings: Settings) -> None:
    if settings.device.type != 'cuda':
        raise Skip('times are taken on a GPU: those of an interpreter mean nothing')


def device_seconds(run: Callable[[], object], device: torch.device, budget: float = 1.0) -> float:
    """Best time of the work in a CUDA graph that is replayed for about `budget` seconds."""
    beside = torch.cuda.Stream(device)
    beside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(beside):
        for _ in range(3):
            run()
    torch.cuda.current_stream(device).wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = run()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def milliseconds(count: int) -> float:
        begin.record()
        for _ in range(count):
            graph.replay()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / count

    milliseconds(1)
    once = max(milliseconds(3), 1e-3)
    # several together, for an event's own time is some microseconds
    together = max(1, min(50, int(5 / once)))
    turns = max(3, min(100, int(1e3 * budget / (once * together))))
    best = min(milliseconds(together) for _ in range(turns))
    del kept
    return best / 1e3


@cache
def copy_bandwidth(device: torch.device) -> float:
    """Bytes per second that a copy reads and writes together."""
    free = torch.cuda.mem_get_info(device)[0]
    source = torch.empty(min(2**30, free // 8), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / device_seconds(lambda: target.copy_(source), device)


def bandwidth(settings: Settings) -> dict:
    need_cuda(settings)
    return {'bytes_per_second': copy_bandwidth(settings.device)}


def over_copy(device: torch.device, seconds: float, size: float) -> dict:
    return {
        'seconds': seconds,
        'floor_bytes': size,
        'bytes_per_second': size / seconds,
        'over_copy': size / seconds / copy_bandwidth(device),
    }


# ---- the scan at the shapes of a model ----


def scan_inputs(size: tuple[int, int, int], low_rank: bool, dtype: torch.dtype, device: torch.device) -> list:
    rand = torch.Generator(device).manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rand, device=device)

    rank = RANK if low_rank else CHANNELS
    maps = [randn(*size, CHANNELS), randn(*size, 1, rank), *(randn(*size, 1, 1) for _ in 'BC')]
    u, dt, B, C = (x.to(dtype) for x in maps)
    weight = randn(1, CHANNELS, RANK) * RANK**-0.5 if low_rank else None
    return [u, dt, weight, randn(1, CHANNELS) - 2, B, C, -torch.ones(1, CHANNELS, 1, device=device), randn(1, CHANNELS)]


def stage(settings: Settings, shape: str, mode: str, low_rank: bool, dtype: torch.dtype, budget: float = 0.4) -> dict:
    """Both scans of a block of stage 1, one after the other."""
    need_cuda(settings)
    device, (batch, height, width) = settings.device, SHAPES[shape]
    found, total, elements = {}, 0.0, 0
    for name, (routes, sizes, factor) in ROUTES.items():
        size = batch, height // factor, width // factor
        inputs = scan_inputs(size, low_rank, dtype, device)
        forward = partial(SCAN.scan2d, *inputs, routes, sizes, False)
        y, states = forward(True)
        backward = partial(SCAN.scan2d_backward, torch.randn_like(y), *inputs, states, routes, sizes, False)
        run = {'forward': partial(forward, False), 'training-forward': partial(forward, True), 'backward': backward}
        found[f'{name}_seconds'] = device_seconds(run[mode], device, budget)
        total += found[f'{name}_seconds']
        elements += y.numel()
    size = FLOOR[mode.removeprefix('training-'), low_rank] * dtype.itemsize * elements
    return found | {'elements': elements} | over_copy(device, total, size)


# ---- against others ----

#: What the scans of others are imported from.
PACKAGES = {'mambapy': 'mambapy', 'mamba-ssm': 'selective_scan_cuda'}


def against(settings: Settings, length: int, backward: bool, others: tuple[str, ...]) -> dict:
    """Scans of a sequence in float32 taking turns; the times hold Python and launches, as a user's would."""
    need_cuda(settings)
    need_packages(*(PACKAGES[other] for other in others if other in PACKAGES), of_others=True)
    build = partial(scan_speed.build, length=length, backward=backward, names=[*scan_speed.OURS, *others])
    return measure(Case('', build, {}), settings.device, budget=1.0)


#: Operator -> values read and written for each pixel and channel of the map in a forward pass.
PER_PIXEL = {
    'merge-norm-bilinear': 2.75,
    'merge-nearest-norm': 2.25,
    'depthwise-silu': 2,
    'depthwise-silu-pair': 2.25,
    'depthwise-residual-gelu': 2,
    'scale-and-gate': 3,
}


def operator(settings: Settings, name: str, shape: str, mode: str) -> dict:
    """An operator of a block in bfloat16, and what it is in torch's operators."""
    need_cuda(settings)
    device, size = settings.device, (*SHAPES[shape], CHANNELS)
    function = OPERATORS[name][0]
    shapes = OPERATORS[name][2](*size)
    inputs = [torch.randn(x, device=device).to(torch.bfloat16).requires_grad_(mode == 'full') for x in shapes]

    def run() -> object:
        y = function(*inputs)
        return torch.autograd.grad(y, inputs, y) if mode == 'full' else y

    ours = device_seconds(run, device, 0.3)
    torchs = device_seconds(partial(on_backend, 'torch', run), device, 0.3)
    found = {'torch_seconds': torchs, 'times_as_fast_as_torch': torchs / ours}
    if mode == 'full' or name == 'depthwise-silu-pair':  # the pair's two maps are joined here, which is no part of it
        return {'seconds': ours} | found
    count = PER_PIXEL[name] * size[0] * size[1] * size[2] * size[3]
    return over_copy(device, ours, 2 * count) | found


def _scan_steps(shape: str, dtype: torch.dtype) -> list[Step]:
    kind = str(dtype).removeprefix('torch.')
    return [
        Step(
            f'time/scan/{mode}/{shape}/{kind}/{"low-rank" if low_rank else "full-rank"}',
            partial(stage, shape=shape, mode=mode, low_rank=low_rank, dtype=dtype),
        )
        for low_rank in (True, False)
        for mode in ('forward', 'training-forward', 'backward')
    ]


def _against_steps(others: tuple[str, ...], required: bool, lengths: tuple[int, ...]) -> list[Step]:
    return [
        Step(
            f'time/against/{"+".join(others)}/{"full" if backward else "forward"}/L{length}',
            partial(against, length=length, backward=backward, others=others),
            required=required,
        )
        for length in lengths
        for backward in (False, True)
    ]


SCANS = {
    dtype: [step for shape in SHAPES for step in _scan_steps(shape, dtype)] for dtype in (torch.bfloat16, torch.float32)
}
BLOCK = [
    Step(f'time/block/{name}/{mode}/batch128-224', partial(operator, name=name, shape='batch128-224', mode=mode))
    for mode in ('forward', 'full')
    for name in OPERATORS
]
#: In turns, with what else may be installed. The plain loop of Python launches thousands of kernels: short ones only.
PEERS = [
    *_against_steps(('mamba-ssm',), False, (3136, 64000)),
    *_against_steps(('mambapy',), False, (3136, 64000)),
    *_against_steps(('slabs',), True, (3136, 64000)),
    *_against_steps(('naive',), True, (784,)),
]
#: Compiling takes most of their time.
COMPILED_PEERS = _against_steps(('compiled',), False, (784, 3136))
#: The bandwidth that all else is compared with; it is taken again by every process that needs it.
COPY = [Step('time/copy', bandwidth)]
