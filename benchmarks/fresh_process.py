"""Measures time and memory of a piece of work in a process of its own, where no other work's peak hides its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from typing import Any, TypeVar

import torch
from memory import Peak
from registry import WorkBuilder

T = TypeVar('T')


class Failed(Exception):
    """What ran in the other process did not come to its end; the message says why."""


def in_fresh_process(function: Callable[..., T], *args: Any, timeout: float) -> T:
    """Calls a function in a new process, which shares nothing with this one, and waits for it.

    Args:
        function: A function of a module, or a partial of one.
        args: What it is called with; all of it and the result are pickled.
        timeout: Seconds after which the process is killed.

    Raises:
        Failed: The function raised, the process was killed, or the time is over.
    """
    others = active_children()
    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
        future = pool.submit(function, *args)
        if not wait([future], timeout).done:
            for process in active_children():
                if process not in others:
                    process.kill()
            raise Failed(f'it took more than {timeout:g} s; --timeout allows more')
        error = future.exception()
    if isinstance(error, BrokenProcessPool):
        raise Failed('its process was killed, perhaps because the memory of the machine was spent')
    if error is not None:
        raise Failed(f'{type(error).__name__}: {error}') from error
    return future.result()


def measure(build: WorkBuilder, device: torch.device, threads: int | None, budget: float, min_turns: int = 2) -> dict:
    """Measures a piece of work in this process.

    Args:
        build: Makes it.
        device: Where.
        threads: Threads of torch on a CPU; None for its default.
        budget: Seconds after which no further turn begins.
        min_turns: Turns that it gets however long they take. The first warms caches and counts only where it is the
            only one.

    Returns:
        Best time in seconds of a turn, and the same by image and by 10⁶ pixels; memory in MB (10⁶ bytes) before the
        first turn and at its peak over all turns, and by how much it grew: on a GPU that of tensors, otherwise RSS;
        and what the work says about itself.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    work = build(device)
    peak = Peak(device)
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < min_turns or time.perf_counter() - begin < budget:
        times.append(_seconds(work.run, device))
    best = min(times[1:] or times)
    memory = peak.read()
    kind = 'allocated' if device.type == 'cuda' else 'rss'
    growth = memory[f'{kind}_peak'] - memory[f'{kind}_before']
    return {
        'images': work.images,
        'pixels': work.pixels,
        'turns': len(times),
        'seconds': best,
        'images_per_second': work.images / best,
        'seconds_per_megapixel': best / (work.pixels / 1e6),
        'memory_mb': memory,
        'growth_mb': round(growth, 1),
        'growth_mb_per_megapixel': round(growth / (work.pixels / 1e6), 1),
        'about': dict(work.about),
    }


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    result = run()
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    stop = time.perf_counter()
    del result  # outside the time, and before the next turn allocates
    return stop - start
