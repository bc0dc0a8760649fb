"""The command line of the embedded data set, run as a user runs it."""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
TOOL = REPOSITORY / 'tools/make_shapes.py'
COMMAND = [sys.executable, str(TOOL)]
ENVIRONMENT = os.environ | {'PYTHONPATH': str(REPOSITORY)}


def make_shapes(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_draws_reports_reuses_and_refuses(tmp_path):
    arguments = ['--train', '8', '--val', '2', '--layouts', 'coco', 'imagenet']
    run = make_shapes(tmp_path, *arguments)
    assert run.returncode == 0, run.stderr
    assert 'train scenes: 8/8' in run.stdout
    assert 'train 8 scenes' in run.stdout
    assert 'colour alone: mIoU' in run.stdout
    assert len(list((tmp_path / 'data/shapes/coco/train2017').iterdir())) == 8

    again = make_shapes(tmp_path, *arguments)
    assert again.returncode == 0
    assert again.stdout == 'data/shapes is complete already: reused\n'

    other = make_shapes(tmp_path, *arguments, '--seed', '1')
    assert other.returncode == 1
    assert other.stdout == ''
    assert other.stderr.startswith(f'error: {tmp_path}/data/shapes already holds another data set')
    assert '--force' in other.stderr
    assert make_shapes(tmp_path, *arguments, '--seed', '1', '--force').returncode == 0


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--train', '0'], 'argument --train: must be at least 1, got 0'),
        (['--size', '20'], 'argument --size: must be 64 to 1024, got 20'),
        (['--layouts', 'voc'], "invalid choice: 'voc'"),
    ],
)
def test_bad_arguments(tmp_path, monkeypatch, capsys, arguments, message):
    spec = importlib.util.spec_from_file_location('make_shapes', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        tool.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_leaves_nothing(tmp_path, number):
    process = subprocess.Popen(
        [*COMMAND, '--out', 'shapes', '--train', '400', '--val', '100000'],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a suite that runs in the background of a shell ignores SIGINT, and so would this process
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with process:
        try:
            assert process.stdout.readline() == 'train scenes: 100/400\n'
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert errors == 'interrupted: nothing was written\n'
    assert list(tmp_path.iterdir()) == []
