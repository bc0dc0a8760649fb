"""A live progress bar for training, validation and test, where the output is a terminal.

Elsewhere (a file, a pipe, a batch system) mmengine's own log lines are what is wanted, and the hook is not used.
"""

import logging
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

REFRESH_SECONDS = 0.25


@HOOKS.register_module()
class ProgressHook(Hook):
    """Shows iterations done, rate, time left, losses and memory on one live display at the bottom of the terminal.

    Log lines keep scrolling above it: while the display is up, the logger writes through it.

    Args:
        console: where to draw; standard output by default.
    """

    priority = 'LOW'

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self.progress = Progress(
            TextColumn('{task.description}'),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn('{task.fields[rate]}'),
            TextColumn('left'),
            TimeRemainingColumn(),
            TextColumn('{task.fields[memory]}'),
            console=self.console,
        )
        self.losses = Text()
        self.live = Live(Group(self.progress, self.losses), console=self.console, refresh_per_second=4)
        self.tasks: dict[str, TaskID] = {}
        self.redirected: list[tuple[logging.StreamHandler, object]] = []
        self.next_refresh = 0.0

    def stop(self) -> None:
        """Takes the display down and gives the terminal back; harmless when it is not up."""
        self.live.stop()
        for handler, stream in self.redirected:
            handler.setStream(stream)
        self.redirected.clear()

    def _start(self, runner: Runner) -> None:
        if self.live.is_started:
            return
        self.live.start()
        # A handler keeps the stream it was made with; point it at the display's, which prints above the bar.
        for handler in runner.logger.handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream in (sys.__stdout__, sys.__stderr__):
                self.redirected.append((handler, handler.stream))
                handler.setStream(sys.stdout)

    def _open(self, runner: Runner, name: str, total: int, completed: int = 0) -> None:
        self._start(runner)
        self.tasks[name] = self.progress.add_task(name, total=total, completed=completed, rate='', memory='')

    def _advance(self, name: str, losses: Mapping[str, torch.Tensor] | None = None) -> None:
        self.progress.advance(self.tasks[name])
        now = time.monotonic()
        if now < self.next_refresh:  # reading a loss waits for the GPU: not more often than anyone can see
            return
        self.next_refresh = now + REFRESH_SECONDS
        task = next(task for task in self.progress.tasks if task.id == self.tasks[name])
        rate = f'{task.speed:.2f} it/s' if task.speed else ''
        self.progress.update(task.id, rate=rate, memory=memory_in_use())
        if losses:
            self.losses.plain = '  '.join(f'{key} {torch.as_tensor(value).item():.4f}' for key, value in losses.items())

    def _close(self, name: str) -> None:
        self.progress.remove_task(self.tasks.pop(name))
        if not self.tasks:
            self.losses.plain = ''

    def before_train(self, runner: Runner) -> None:
        self._open(runner, 'train', total=runner.max_iters, completed=runner.iter)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self._advance('train', outputs)

    def after_train(self, runner: Runner) -> None:
        self._close('train')

    def before_val_epoch(self, runner: Runner) -> None:
        self._open(runner, 'val', total=len(runner.val_dataloader))

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self._advance('val')

    def after_val_epoch(self, runner, metrics=None) -> None:
        self._close('val')

    def before_test_epoch(self, runner: Runner) -> None:
        self._open(runner, 'test', total=len(runner.test_dataloader))

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self._advance('test')

    def after_test_epoch(self, runner, metrics=None) -> None:
        self._close('test')


def memory_in_use() -> str:
    """The most memory used so far: of the GPU where there is one, else of this process (its workers not counted)."""
    if torch.cuda.is_available():
        return f'{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB GPU'
    unit = 1 if sys.platform == 'darwin' else 1024  # getrusage counts bytes on macOS, KiB elsewhere
    return f'{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30:.1f} GiB RAM'


@contextmanager
def progress_bar(runner: Runner) -> Iterator[None]:
    """Shows a runner's progress while the context lasts, if standard output is a terminal."""
    if not (sys.stdout.isatty() and is_main_process()):
        yield
        return
    hook = ProgressHook()
    runner.register_hook(hook)
    try:
        yield
    finally:
        hook.stop()
