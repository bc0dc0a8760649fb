"""Times the benchmark cases and compares ours with the others.

    python benchmarks/run.py --cases 'scan/forward/*' --threads 2 --out scan.json

The contenders of a case take turns in one process, so that a busy machine slows all of them alike, and the best time of
each counts. Where mambapy is installed (`pip install --no-deps -r requirements/bench.txt`) it takes part.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
import time
from pathlib import Path

import backbone_speed  # noqa: F401  registers its cases
import scan_speed  # noqa: F401
import torch
from machine import describe, usable_device
from registry import CASES, Case, Contender

#: Turns that every contender gets, and after which a case stops however short it is.
MIN_TURNS, MAX_TURNS = 3, 50


def seconds(contender: Contender, device: torch.device) -> float:
    start = time.perf_counter()
    result = contender.run()
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    stop = time.perf_counter()
    del result  # outside the time, and before the next contender allocates
    return stop - start


def measure(case: Case, device: torch.device, budget: float) -> dict:
    """Best times of all contenders in seconds, and how many times as fast as each other one ours are.

    Args:
        case: What is measured.
        device: Where.
        budget: Seconds after which no further turn begins.
    """
    contenders = case.build(device)
    times = {contender.name: [] for contender in contenders}
    for contender in contenders:
        seconds(contender, device)  # warms caches, allocator and thread pool
    start = time.perf_counter()
    for turn in range(MAX_TURNS):
        if turn >= MIN_TURNS and time.perf_counter() - start > budget:
            break
        for contender in contenders:
            times[contender.name].append(seconds(contender, device))
    cost = {c.name: min(times[c.name]) / c.work for c in contenders}
    ratios = {
        ours.name: {other.name: cost[other.name] / cost[ours.name] for other in contenders if not other.ours}
        for ours in contenders
        if ours.ours
    }
    missed = [
        f'{ours} is {ratio:.2f} times as fast as {other}; the target is {case.targets[other]:g}'
        for ours, others in ratios.items()
        for other, ratio in others.items()
        if ratio < case.targets.get(other, 0)
    ]
    return {
        'seconds': {name: min(values) for name, values in times.items()},
        'work': {c.name: c.work for c in contenders},
        'turns': len(times[contenders[0].name]),
        'times_as_fast_as': ratios,
        'targets': {other: target for other, target in case.targets.items() if other in times},
        'missed': missed,
    }


def report(name: str, result: dict) -> str:
    times = '  '.join(f'{contender} {1e3 * best:.2f} ms' for contender, best in result['seconds'].items())
    lines = [f'{name}: {times}  ({result["turns"]} turns)']
    for ours, others in result['times_as_fast_as'].items():
        lines.append(f'    {ours}: ' + ', '.join(f'{ratio:.2f} × {other}' for other, ratio in others.items()))
    lines += [f'    MISSED: {text}' for text in result['missed']]
    return '\n'.join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--cases', default='*', metavar='PATTERN', help='shell pattern of case names (default: all)')
    parser.add_argument('--list', action='store_true', help='print the names of the cases and stop')
    parser.add_argument('--device', default='cpu', type=usable_device)
    parser.add_argument('--threads', type=int, help='threads of torch on a CPU (default: all cores)')
    parser.add_argument('--seconds', type=float, default=20.0, help='about how long a case may take (default: 20)')
    parser.add_argument('--out', type=Path, metavar='FILE.json', help='where the results go')
    args = parser.parse_args()

    names = fnmatch.filter(CASES, args.cases)
    if not names:
        parser.error(f'no case matches {args.cases!r}; the cases are {", ".join(CASES)}')
    if args.list:
        print('\n'.join(names))
        return
    if args.out is not None and not args.out.parent.is_dir():
        parser.error(f'there is no folder {args.out.parent} for the results')
    if args.threads is not None:
        if args.threads < 1:
            parser.error(f'--threads must be at least 1, got {args.threads}')
        torch.set_num_threads(args.threads)

    results = {'machine': describe(args.device), 'cases': {}}
    for name in names:
        results['cases'][name] = measure(CASES[name], args.device, args.seconds)
        print(report(name, results['cases'][name]), flush=True)
        if args.out is not None:
            args.out.write_text(json.dumps(results, indent=2) + '\n')
    if any(result['missed'] for result in results['cases'].values()):
        sys.exit('some targets are missed')


if __name__ == '__main__':
    main()
