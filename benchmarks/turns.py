"""Lets the contenders of a case take turns in one process, so that a busy machine slows all of them alike."""

from __future__ import annotations

import time

import torch
from registry import Case, Contender

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
    """Best times of all contenders in seconds, images per second of those that take images, and how many times as fast
    as each other one ours are.

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
        'images_per_second': {c.name: c.images / min(times[c.name]) for c in contenders if c.images is not None},
        'about': {c.name: dict(c.about) for c in contenders if c.about},
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
