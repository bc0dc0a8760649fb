"""Runs steps in a process of their own, each under a time limit, so that none takes the others with it.

A step that hangs, dies or breaks the GPU's context costs its process; the next step gets a new one.
"""

from __future__ import annotations

import importlib
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context, parent_process

import torch

#: What a step can end with. 'slow' is out of time, also before it began.
RESULTS = ('passed', 'failed', 'slow', 'skipped')


class Skip(Exception):
    """Raised by a step that cannot run here; the message says why."""


def need_packages(*names: str, of_others: bool = False) -> None:
    """Skips a step where a package is not installed.

    Args:
        names: What is imported.
        of_others: Whether a package that is there but cannot be loaded, as one whose compiled code is for another
            torch, is a reason to skip as well. Otherwise its error is raised: ours should run with it.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            # not one that it imports in its turn
            if error.name is not None and f'{name}.'.startswith(f'{error.name}.'):
                raise Skip(f'{error.name} is not installed') from error
            if not of_others:
                raise
            raise Skip(f'{name} cannot be loaded: {error}') from error
        except (ImportError, OSError, AssertionError) as error:
            # AssertionError: mmdet's and mmseg's of versions that do not fit
            if not of_others:
                raise
            raise Skip(f'{name} cannot be loaded: {type(error).__name__}: {error}') from error


@dataclass(frozen=True)
class Settings:
    """What every step is given.

    Attributes:
        device: Where it runs.
        tiny: Whether sizes are for Triton's interpreter, which a busy CPU may slow: limits of steps are longer.
    """

    device: torch.device
    tiny: bool

    @property
    def patience(self) -> float:
        return 5.0 if self.tiny else 1.0


#: Returns figures for the JSON; raises `Skip`, or anything else where it failed. It travels to another process: a
#: function of a module, or a partial of one.
StepFunction = Callable[[Settings], dict]


@dataclass(frozen=True)
class Step:
    """A check or a timing.

    Attributes:
        name: Parts joined by slashes, from the general to the special.
        run: The work.
        limit: Seconds that it may take at most, the start of its process not counted.
        alone: Whether no other step may run beside it.
        required: Whether an error is a failure. If not, it is a reason to skip: a rival that does not run here.
    """

    name: str
    run: StepFunction
    limit: float = 90.0
    alone: bool = False
    required: bool = True


class Worker:
    """A process that runs steps, started when the first one comes and again after one that it did not survive."""

    #: Seconds that a process may take to start and to import torch.
    START = 120.0

    def __init__(self, settings: Settings, threads: int | None = None) -> None:
        """`threads` are those of torch on the CPU; None leaves them to torch."""
        self.settings = settings
        self.threads = threads
        self.pool: ProcessPoolExecutor | None = None
        self.pid = 0
        self.busy = self.ended = False

    def run(self, step: Step, deadline: float) -> dict:
        """Runs a step.

        Args:
            step: Which.
            deadline: On the clock of `time.monotonic`; the step is killed there, if not before by its own limit.

        Returns:
            'result' (one of `RESULTS`), 'seconds', and 'reason' or 'figures'.
        """
        if time.monotonic() >= deadline:
            return _slow(0.0, 'not started: the time for all steps was over')
        begin = time.monotonic()
        started = self._start(deadline)
        if started is not None:
            return started
        if self.ended:
            return _slow(0.0, 'not started: all was ended')
        own = step.limit * self.settings.patience
        limit = min(own, max(deadline - time.monotonic(), 0.0))
        began = time.monotonic()
        self.busy = True
        future = self.pool.submit(step.run, self.settings)
        done = wait([future], limit).done
        seconds = time.monotonic() - began
        if not done:
            self.stop()
            why = 'its limit' if limit == own else 'when the time was over'
            return _slow(seconds, f'killed after {limit:.0f} s, {why}')
        found = _outcome(future, step.required) | {'seconds': round(seconds, 3)}
        if found['result'] in ('failed', 'skipped') and not self._usable(begin + Worker.START):
            self.stop()
        self.busy = False
        return found

    def end(self) -> None:
        """Ends the process for good, and at once where it runs a step; also from another thread than that of `run`."""
        self.ended = True
        if self.busy:
            self._kill()

    def stop(self) -> None:
        """Ends the process, at once where it runs a step; the next step gets a new one."""
        if self.pool is None:
            return
        if self.busy:
            self._kill()
        self.pool.shutdown(wait=True, cancel_futures=True)
        self.pool, self.pid, self.busy = None, 0, False

    def _kill(self) -> None:
        with suppress(ProcessLookupError):  # it may have died by itself
            os.kill(self.pid, signal.SIGKILL)

    def _start(self, deadline: float) -> dict | None:
        """Starts the process if there is none; what became of the step if that fails."""
        if self.pool is not None:
            return None
        self.pool = ProcessPoolExecutor(
            1, mp_context=get_context('spawn'), initializer=_begin, initargs=(self.threads,)
        )
        self.pid = 0
        future = self.pool.submit(os.getpid)
        limit = min(Worker.START * self.settings.patience, deadline - time.monotonic())
        if not wait([future], limit).done:
            # its number is not known yet: it is waited for, that it is not left behind
            return self._give_up(future, f'its process did not start within {limit:.0f} s')
        if future.exception() is not None:
            self.pool.shutdown(wait=True)
            self.pool = None
            return {'result': 'failed', 'seconds': 0.0, 'reason': 'its process did not start; its error is printed'}
        self.pid = future.result()
        return None

    def _give_up(self, future: Future, reason: str) -> dict:
        future.add_done_callback(lambda done: done.exception() is None and os.kill(done.result(), signal.SIGKILL))
        self.pool.shutdown(wait=False)
        self.pool = None
        return _slow(0.0, reason)

    def _usable(self, until: float) -> bool:
        """Whether the process lives and its GPU still answers: an illegal access breaks all that comes after it."""
        device = self.settings.device
        question = partial(torch.cuda.synchronize, device) if device.type == 'cuda' else os.getpid
        try:
            future = self.pool.submit(question)
        except BrokenProcessPool:
            return False
        done = wait([future], max(until - time.monotonic(), 5.0)).done
        return bool(done) and future.exception() is None


def _begin(threads: int | None) -> None:
    """Ends this process when the one that started it ends, however that happens; sets its threads."""
    if threads is not None:
        torch.set_num_threads(threads)

    def watch() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _slow(seconds: float, reason: str) -> dict:
    return {'result': 'slow', 'seconds': round(seconds, 3), 'reason': reason}


def _outcome(future: Future, required: bool) -> dict:
    error = future.exception()
    if error is None:
        return {'result': 'passed', 'figures': future.result()}
    if isinstance(error, Skip):
        return {'result': 'skipped', 'reason': str(error)}
    if isinstance(error, BrokenProcessPool):
        reason = 'its process was killed or crashed'
    elif isinstance(error, AssertionError):
        reason = str(error)
    else:
        reason = f'{type(error).__name__}: {error}'
    # the last lines of the other process say where
    trace = [] if isinstance(error, AssertionError) else str(error.__cause__ or '').strip('"\n ').splitlines()[-12:]
    found = {'result': 'failed' if required else 'skipped', 'reason': reason or type(error).__name__}
    return found | ({'trace': trace} if trace else {})
