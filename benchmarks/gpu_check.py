"""Checks the Triton kernels on a GPU, then times them, within a budget of time.

    benchmarks/gpu_check.sh                     # one GPU, at most nine minutes; torch and triton are all it needs
    benchmarks/gpu_check.sh --part checks       # its halves as two commands, of at most five
    benchmarks/gpu_check.sh --part timings      # and four minutes
    TRITON_INTERPRET=1 python benchmarks/gpu_check.py --device cpu --tiny    # the same checks, in Triton's interpreter

Every step ends as passed, failed, slow (out of time) or skipped (with the reason). The results are written after every
step, to a file of its own for each command: two parts with the same --out would overwrite each other. Exit code: 1 if
a step failed, 2 if none failed and one was slow, 3 if it could not begin, else 0.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from machine import describe, usable_device
from worker import RESULTS, Settings, Step, Worker

from mmmsvmamba.kernels import backend

#: Seconds that each part takes at most; both together get their sum.
PARTS = {'checks': 300.0, 'timings': 240.0}
#: Seconds of the time that are kept for Python's start and end.
MARGIN = 10.0
NOT_RUN = {'result': 'not run'}


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        # not argparse's 2, which here says that a step was slow
        self.print_usage(sys.stderr)
        self.exit(3, f'{self.prog}: error: {message}\n')


class Record:
    """The results, on disk after every step: a run that is cut off keeps what it found."""

    def __init__(self, path: Path | None, head: dict, steps: dict[str, Sequence[Step]]) -> None:
        self.path = path
        self.data = head | {'result': 'running', 'seconds': 0.0}
        self.data |= {kind: {step.name: NOT_RUN for step in of_kind} for kind, of_kind in steps.items()}
        self.kinds = list(steps)
        self.begin = time.monotonic()
        self.lock = threading.Lock()
        self._write()

    def add(self, kind: str, step: Step, found: dict) -> None:
        with self.lock:
            self.data[kind][step.name] = found
            self._write()
            print(_line(step.name, found), flush=True)

    def finish(self) -> int:
        """Writes the result of all and returns the exit code."""
        counts = dict.fromkeys(RESULTS, 0)
        for kind in self.kinds:
            for found in self.data[kind].values():
                counts[found['result']] += 1
        self.data['counts'] = counts
        self.data['result'] = next((name for name in ('failed', 'slow') if counts[name]), 'passed')
        self._write()
        where = '' if self.path is None else f'; written to {self.path}'
        print(', '.join(f'{count} {name}' for name, count in counts.items()) + f' in {self.data["seconds"]} s{where}')
        return {'failed': 1, 'slow': 2, 'passed': 0}[self.data['result']]

    def _write(self) -> None:
        self.data['seconds'] = round(time.monotonic() - self.begin, 1)
        if self.path is not None:
            part = self.path.with_name(self.path.name + '.part')
            part.write_text(json.dumps(self.data, indent=2) + '\n')
            part.replace(self.path)


def _line(name: str, found: dict) -> str:
    text = f'{found["result"]:8}{name}  {found["seconds"]:.1f} s'
    figures = found.get('figures')
    if figures:
        # tables are for the file
        shown = {key: value for key, value in figures.items() if not isinstance(value, (dict, list))}
        text += '  ' + ', '.join(f'{key} {_short(value)}' for key, value in shown.items())
    if 'reason' in found:
        text += f'\n        {found["reason"]}'
    return text + ''.join(f'\n        | {line}' for line in found.get('trace', ()))


def _short(value: object) -> str:
    return f'{value:.3g}' if isinstance(value, float) else str(value)


def run_steps(
    steps: Sequence[Step],
    settings: Settings,
    deadline: float,
    jobs: int,
    report: Callable[[Step, dict], None],
) -> None:
    """Runs steps in `jobs` processes side by side; after them one by one those that must be alone."""
    # the checks compare with torch on the CPU: all cores for each of them would be in each other's way
    threads = max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else None
    workers = [Worker(settings, threads) for _ in range(jobs)]
    waiting = iter([step for step in steps if not step.alone])
    lock = threading.Lock()

    def work(worker: Worker) -> None:
        while not worker.ended:
            with lock:
                step = next(waiting, None)
            if step is None:
                return
            found = worker.run(step, deadline)
            if not worker.ended:
                report(step, found)

    threads = ThreadPoolExecutor(jobs)
    try:
        for done in [threads.submit(work, worker) for worker in workers]:
            done.result()
        for worker in workers[1:]:
            worker.stop()
        for step in steps:
            if step.alone:
                report(step, workers[0].run(step, deadline))
    finally:
        for worker in workers:
            worker.end()
        threads.shutdown()
        for worker in workers:
            worker.stop()


def default_jobs(device: torch.device) -> int:
    """Half the cores: each process compiles on one, and its checks run torch on the CPU for what they compare with."""
    return 1 if device.type == 'cpu' else max(1, (os.cpu_count() or 1) // 2)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', default='cuda', type=usable_device)
    parser.add_argument('--tiny', action='store_true', help='sizes for the interpreter')
    parser.add_argument('--part', choices=list(PARTS), help='one half of the steps (default: both)')
    parser.add_argument(
        '--seconds', type=float, help='for all of it (default: 300 for the checks, 240 for the timings, 540 for both)'
    )
    parser.add_argument('--steps', default='*', metavar='PATTERN', help='shell pattern of the names of steps')
    parser.add_argument('--list', action='store_true', help='print the names of the steps and stop')
    parser.add_argument(
        '--jobs', type=int, help='checks side by side, for compiling takes most of their time (default: half the cores)'
    )
    parser.add_argument(
        '--out',
        type=Path,
        metavar='FILE.json',
        help='default: benchmarks/results/<device>.json, with --part <device>-<part>.json',
    )
    args = parser.parse_args(argv)
    interpreted = os.environ.get('TRITON_INTERPRET', '') not in ('', '0')
    if args.device.type == 'cpu' and not (interpreted and args.tiny):
        parser.error(
            "on a CPU the kernels run in Triton's interpreter alone, at tiny sizes: "
            'TRITON_INTERPRET=1 python benchmarks/gpu_check.py --device cpu --tiny'
        )
    if args.device.type == 'cuda' and interpreted:
        parser.error('TRITON_INTERPRET is set, so that no kernel would run on the GPU; unset it')
    os.environ[backend.VARIABLE] = 'triton'
    try:
        backend.choose(args.device)
    except RuntimeError as error:
        parser.error(str(error))
    if args.seconds is None:
        args.seconds = sum(PARTS.values()) if args.part is None else PARTS[args.part]
    if args.jobs is None:
        args.jobs = default_jobs(args.device)
    if args.jobs < 1:
        parser.error(f'--jobs must be at least 1, got {args.jobs}')
    if args.out is None and args.device.type == 'cuda':
        name = re.sub(r'[^A-Za-z0-9.]+', '-', torch.cuda.get_device_name(args.device)).strip('-')
        name += '' if args.part is None else f'-{args.part}'
        args.out = Path(__file__).parent / 'results' / f'{name}.json'
    if args.out is not None and not args.out.parent.is_dir():
        parser.error(f'there is no folder {args.out.parent} for the results')
    return args


def _deadlines(begin: float, seconds: float, parts: Sequence[str]) -> dict[str, float]:
    """When each part is over, at the latest: what the checks leave is for the timings."""
    seconds = max(seconds - MARGIN, 0.0)
    share = PARTS['checks'] / sum(PARTS.values()) if 'timings' in parts else 1.0
    return {'checks': begin + seconds * share, 'timings': begin + seconds}


def main(
    argv: Sequence[str] | None = None, checks: Sequence[Step] | None = None, timings: Sequence[Step] | None = None
) -> int:
    """Runs the steps and returns the exit code.

    Args:
        argv: The command line; None for that of this process.
        checks, timings: What is run; None for all that there is.
    """
    begin = time.monotonic()
    args = _parse(argv)
    if checks is None:
        from gpu_checks import CHECKS as checks
    if timings is None:
        from gpu_timings import TIMINGS as timings
    chosen = {
        kind: [step for step in steps if fnmatch.fnmatch(step.name, args.steps)]
        for kind, steps in {'checks': checks, 'timings': timings}.items()
        if args.part in (None, kind)
    }
    if args.list:
        print('\n'.join(step.name for steps in chosen.values() for step in steps))
        return 0
    if not any(chosen.values()):
        print(f'no step matches {args.steps!r}; --list prints their names', file=sys.stderr)
        return 3

    machine = describe(args.device)
    head = {key: machine.pop(key) for key in ('device', 'torch', 'triton')} | {'machine': machine}
    head |= {'started': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()), 'budget': args.seconds, 'tiny': args.tiny}
    record = Record(args.out, head, chosen)
    # a run that is ended from outside takes its processes along
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    settings = Settings(args.device, args.tiny)
    deadlines = _deadlines(begin, args.seconds, [kind for kind, steps in chosen.items() if steps])
    for kind, steps in chosen.items():
        # times are taken by one process at a time
        jobs = args.jobs if kind == 'checks' else 1
        run_steps(steps, settings, deadlines[kind], jobs, partial(record.add, kind))
    return record.finish()


if __name__ == '__main__':
    sys.exit(main())
