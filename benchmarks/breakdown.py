"""Shares of the operators in the time of a block of stage 1, or of a whole backbone, forward and backward.

    python benchmarks/breakdown.py --device cpu --threads 1 --out benchmarks/results/breakdown_cpu.json
    python benchmarks/breakdown.py --device cuda --batch 128 --out benchmarks/results/breakdown_cuda.json

An operator's time is that of itself, not of what it calls: on a GPU of the kernels that it launches, elsewhere of the
CPU. Its name is the profiler's: a Triton kernel counts for the operator of `mmmsvmamba` that launches it.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from arguments import check_out_and_threads
from machine import describe, usable_device
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

#: Turns before the profile, which warm caches and compile kernels, and in it.
WARM, TURNS = 2, 3
#: Operators below this share are summed up.
SMALL = 0.005
REST = 'all others'
ARCHS = ('tiny', 'tiny-v3')
#: Profiled by their name here, `<part>/<arch>/<mode>`.
CASES = [f'{part}/{arch}/{mode}' for part in ('block', 'backbone') for arch in ARCHS for mode in ('forward', 'full')]


def build(case: str, device: torch.device, size: int, batch: int, autocast: bool) -> Callable[[], None]:
    """One turn of a case.

    Args:
        case: Of `CASES`; 'full' is forward and backward.
        device: Where.
        size: Side of the images.
        batch: How many.
        autocast: Whether bfloat16 autocast is on.
    """
    from mmmsvmamba import MSVMamba  # where it is needed: the GPU check also runs where mmengine is not installed

    part, arch, mode = case.split('/')
    torch.manual_seed(0)
    model = MSVMamba(arch, out_indices=(3,)).to(device)
    x = torch.randn(batch, 3, size, size, device=device)
    if part == 'block':
        model, x = _first_block(model, x)
    model.train(mode == 'full')
    x.requires_grad_(mode == 'full' and part == 'block')

    def run() -> None:
        with torch.set_grad_enabled(mode == 'full'), torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            y = model(x)
        if mode == 'full':
            y = y[-1] if isinstance(y, tuple) else y
            y.backward(torch.ones_like(y))
            model.zero_grad(set_to_none=True)
            x.grad = None

    return run


def _first_block(model: nn.Module, images: Tensor) -> tuple[nn.Module, Tensor]:
    """The first block of stage 1, and what goes into it."""
    block, found = model.stages[0].blocks[0], []
    with block.register_forward_pre_hook(lambda _, args: found.append(args[0].detach())), torch.no_grad():
        model.eval()(images)
    return block, found[0].contiguous()


def measure(run: Callable[[], object], device: torch.device, turns: int = TURNS) -> dict:
    """Profiles a piece of work.

    Returns:
        'seconds' of all operators in one turn, and by operator, the longest first: its 'seconds', its 'share' and how
        often it is called, 'calls'.
    """
    on_gpu = device.type == 'cuda'
    for _ in range(WARM):
        run()
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
    if on_gpu:
        torch.cuda.synchronize(device)
    with profile(activities=activities) as found:
        for _ in range(turns):
            run()
        if on_gpu:
            torch.cuda.synchronize(device)
    # kernels are events of their own too, and would count twice
    events = [event for event in found.key_averages() if event.device_type == DeviceType.CPU]
    times = [(event.key, _microseconds(event, on_gpu) / 1e6 / turns, event.count / turns) for event in events]
    total = sum(seconds for _, seconds, _ in times)
    if total == 0:
        raise RuntimeError('the profiler saw no operator; on a GPU it needs CUPTI, and no other profiler beside it')
    operators: dict[str, dict] = {}
    for key, seconds, calls in sorted(times, key=lambda row: -row[1]):
        row = operators.setdefault(key if seconds >= SMALL * total else REST, dict(seconds=0.0, share=0.0, calls=0.0))
        row['seconds'] += seconds
        row['share'] += seconds / total
        row['calls'] += calls
    return {'seconds': total, 'operators': operators}


def _microseconds(event: object, on_gpu: bool) -> float:
    if not on_gpu:
        return event.self_cpu_time_total
    # torch before 2.4 says cuda
    return event.self_device_time_total if hasattr(event, 'self_device_time_total') else event.self_cuda_time_total


def report(case: str, result: dict) -> str:
    rows = (
        f'    {100 * row["share"]:5.1f} %  {1e3 * row["seconds"]:9.3f} ms  {row["calls"]:5.0f} ×  {name}'
        for name, row in result['operators'].items()
    )
    return '\n'.join([f'{case}: {1e3 * result["seconds"]:.2f} ms', *rows])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--cases', default='*', metavar='PATTERN', help='shell pattern of case names (default: all)')
    parser.add_argument('--list', action='store_true', help='print the names of the cases and stop')
    parser.add_argument('--device', default='cpu', type=usable_device)
    parser.add_argument('--threads', type=int, help='threads of torch on a CPU (default: all cores)')
    parser.add_argument('--size', type=int, default=224, help='side of the images (default: 224)')
    parser.add_argument('--batch', type=int, default=1, help='images (default: 1)')
    parser.add_argument('--out', type=Path, metavar='FILE.json', help='where the results go')
    args = parser.parse_args(argv)
    names = fnmatch.filter(CASES, args.cases)
    if not names:
        parser.error(f'no case matches {args.cases!r}; the cases are {", ".join(CASES)}')
    if args.list:
        print('\n'.join(names))
        return
    check_out_and_threads(parser, args)
    if args.size < 32 or args.batch < 1:
        parser.error(f'--size must be at least 32 and --batch at least 1, got {args.size} and {args.batch}')
    if args.threads is not None:
        torch.set_num_threads(args.threads)

    results = {'machine': describe(args.device), 'size': args.size, 'batch': args.batch, 'breakdown': {}}
    for name in names:
        # in bfloat16 where the published models are trained so; a CPU takes float32
        run = partial(build, name, args.device, args.size, args.batch)
        results['breakdown'][name] = measure(run(autocast=args.device.type == 'cuda'), args.device)
        print(report(name, results['breakdown'][name]), flush=True)
        if args.out is not None:
            args.out.write_text(json.dumps(results, indent=2) + '\n')


if __name__ == '__main__':
    main()
