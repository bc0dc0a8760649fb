"""Measures time and memory of the three tasks, and of Vim against DeiT, each piece of work in a fresh process.

The same commands on CPU and GPU:

    python benchmarks/tasks.py --device cpu --out benchmarks/results/tasks_cpu.json
    python benchmarks/tasks.py --device cuda --out benchmarks/results/tasks_cuda.json --cases 'growth/backbone/*'

A program of its own beside `run.py`: there contenders take turns in one process, so that a busy machine slows all of
them alike, which is right for comparing times and useless for memory. What fails is reported and the rest goes on; the
exit code is then 1.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
from collections.abc import Mapping, Sequence
from math import log
from pathlib import Path

import task_speed  # noqa: F401  registers its workloads
import torch
import vim_deit  # noqa: F401
from arguments import check_out_and_threads
from fresh_process import Failed, in_fresh_process, measure
from machine import describe, usable_device
from registry import WORKLOADS


def growth(cases: Mapping[str, dict]) -> dict[str, dict]:
    """How time and memory follow the number of pixels, for each series `growth/<what>/<mode>/<side>`.

    Args:
        cases: Results by name; what failed or is no part of a series is left out.

    Returns:
        For each series of at least two sides the cost of 10⁶ pixels by side, and the exponents p of pixelsᵖ between the
        two largest sides: 1 where a model is linear, 2 where it is quadratic.
    """
    series: dict[str, dict[int, dict]] = {}
    for name, result in cases.items():
        if name.startswith('growth/') and 'error' not in result:
            what, _, side = name.removeprefix('growth/').rpartition('/')
            series.setdefault(what, {})[int(side)] = result
    table = {}
    for what, by_side in series.items():
        sides = sorted(by_side)
        if len(sides) < 2:
            continue
        table[what] = {'sides': sides}
        for cost, per_megapixel in (('seconds', 'seconds_per_megapixel'), ('growth_mb', 'growth_mb_per_megapixel')):
            table[what][per_megapixel] = [by_side[side][per_megapixel] for side in sides]
            small, large = (by_side[side] for side in sides[-2:])
            table[what][f'{cost}_exponent'] = (
                log(large[cost] / small[cost]) / log(large['pixels'] / small['pixels']) if small[cost] > 0 else None
            )
    return table


def report(name: str, result: Mapping) -> str:
    if 'error' in result:
        return f'{name}: FAILED: {result["error"]}'
    memory = ', '.join(f'{kind.replace("_", " ")} {size:,.0f} MB' for kind, size in result['memory_mb'].items())
    return (
        f'{name}: {1e3 * result["seconds"]:,.1f} ms, {result["images_per_second"]:.3g} images/s '
        f'({result["turns"]} turns); {memory}; by megapixel {1e3 * result["seconds_per_megapixel"]:,.0f} ms '
        f'and {result["growth_mb_per_megapixel"]:,.0f} MB'
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--cases', default='*', metavar='PATTERN', help='shell pattern of case names (default: all)')
    parser.add_argument('--list', action='store_true', help='print the names of the cases and stop')
    parser.add_argument('--device', default='cpu', type=usable_device)
    parser.add_argument('--threads', type=int, help='threads of torch on a CPU (default: what torch takes)')
    parser.add_argument('--seconds', type=float, default=3.0, help='about how long a case is timed (default: 3)')
    parser.add_argument('--timeout', type=float, default=600.0, help='seconds that a case may take (default: 600)')
    parser.add_argument('--note', help='goes into the results: what else the machine was doing, for example')
    parser.add_argument('--out', type=Path, metavar='FILE.json', help='where the results go')
    args = parser.parse_args(argv)

    names = fnmatch.filter(WORKLOADS, args.cases)
    if not names:
        parser.error(f'no case matches {args.cases!r}; the cases are {", ".join(WORKLOADS)}')
    if args.list:
        print('\n'.join(names))
        return
    check_out_and_threads(parser, args)

    machine = describe(args.device)
    machine['threads'] = args.threads or torch.get_num_threads()
    results = {'machine': machine, 'note': args.note, 'cases': {}}
    for name in names:
        try:
            result = in_fresh_process(
                measure, WORKLOADS[name], args.device, args.threads, args.seconds, timeout=args.timeout
            )
        except Failed as error:
            result = {'error': str(error)}
        results['cases'][name] = result
        results['growth'] = growth(results['cases'])
        print(report(name, result), flush=True)
        if args.out is not None:
            args.out.write_text(json.dumps(results, indent=2) + '\n')
    for what, series in results['growth'].items():
        time, memory = (series[f'{cost}_exponent'] for cost in ('seconds', 'growth_mb'))
        print(
            f'{what}: from {series["sides"][-2]}² to {series["sides"][-1]}² time grows as pixels^{time:.2f}'
            + (f', memory as pixels^{memory:.2f}' if memory is not None else '')
        )
    failed = [name for name, result in results['cases'].items() if 'error' in result]
    if failed:
        sys.exit(f'{len(failed)} of {len(names)} cases failed: {", ".join(failed)}')


if __name__ == '__main__':
    main()
