"""The progress display: what it shows, and that it gives the terminal back."""

import io
import sys

import pytest
from mmengine.runner import Runner
from rich.console import Console
from tiny_data import toy_config

from mmmsvmamba.engine import progress


@pytest.fixture
def screen():
    return Console(file=io.StringIO(), force_terminal=True, width=120)


def test_shows_rate_losses_memory_and_time_left(tmp_path, screen, monkeypatch):
    monkeypatch.setattr(progress, 'REFRESH_SECONDS', 0.0)
    runner = Runner(**toy_config(tmp_path))
    hook = progress.ProgressHook(screen)
    runner.register_hook(hook)
    shown = []
    after_iter = hook.after_train_iter

    def after_train_iter(*args, **kwargs):
        after_iter(*args, **kwargs)
        with screen.capture() as capture:
            screen.print(hook.live.renderable)
        shown.append(capture.get())

    hook.after_train_iter = after_train_iter
    runner.train()
    hook.stop()
    assert len(shown) == 8
    assert '3/8' in shown[2] and '8/8' in shown[7]
    assert 'loss_toy 3.0000' in shown[2]
    assert 'it/s' in shown[7] and 'left' in shown[7]
    assert 'GiB' in shown[7]


def test_counts_on_after_a_resume_and_shows_validation(tmp_path, screen):
    Runner(**toy_config(tmp_path)).train()
    config = toy_config(tmp_path) | dict(resume=True, experiment_name='resumed')
    config['train_cfg']['max_iters'] = 12
    runner = Runner(**config)
    hook = progress.ProgressHook(screen)
    opened = []
    open_task = hook._open
    hook._open = lambda runner, name, total, completed=0: (
        opened.append((name, completed, total)),
        open_task(runner, name, total, completed),
    )
    runner.register_hook(hook)
    runner.train()
    hook.stop()
    assert opened == [('train', 8, 12), ('val', 0, 8)]
    assert not hook.tasks  # nothing stays on the screen


def test_gives_the_terminal_back_after_an_error(tmp_path, screen):
    runner = Runner(**toy_config(tmp_path))
    handlers = [(handler, handler.stream) for handler in runner.logger.handlers]
    stdout = sys.stdout
    hook = progress.ProgressHook(screen)
    runner.register_hook(hook)
    hook.before_train(runner)
    assert hook.live.is_started
    hook.stop()
    assert not hook.live.is_started
    assert sys.stdout is stdout
    assert [(handler, handler.stream) for handler in runner.logger.handlers] == handlers
    assert '\x1b[?25h' in screen.file.getvalue()  # the cursor is visible again
    hook.stop()


@pytest.mark.parametrize('terminal', [True, False])
def test_only_used_in_a_terminal(tmp_path, monkeypatch, terminal):
    runner = Runner(**toy_config(tmp_path))
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: terminal)
    with progress.progress_bar(runner):
        used = [hook for hook in runner.hooks if isinstance(hook, progress.ProgressHook)]
    assert bool(used) == terminal
