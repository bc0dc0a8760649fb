"""The GPU check, on a CPU: its checks in Triton's interpreter, and what becomes of steps that go wrong."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmmsvmamba.kernels import backend

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / 'benchmarks'

# as on a machine with torch and triton alone; processes that are started import this script again
ALONE = f"""
import sys
sys.path.insert(0, {str(BENCHMARKS)!r})

class Hide:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'timm'):
            return None
        return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Hide(finder) for finder in sys.meta_path]
"""

ALL = """
from gpu_check import main

if __name__ == '__main__':
    code = main()
    assert 'mmengine' not in sys.modules and 'pytest' not in sys.modules
    sys.exit(code)
"""

# one step of every ending; a kernel's result is made wrong by a thousandth
BROKEN = """
import os, signal, time
from functools import partial
import torch
from gpu_check import main
from gpu_compare import Errors, compare
from mmmsvmamba.kernels import reference, scan2d
from scan_cases import SCAN2D_NAMES, map_inputs
from worker import Skip, Step

def scan(factor, settings):
    errors = Errors()
    options = dict(routes=[3], group_sizes=[1])
    inputs = map_inputs(batch=1, height=2, width=2, channels=2, d_state=1, dtype=torch.float32)
    definition = partial(reference.scan2d, **options)
    compare(errors, lambda *x: factor * scan2d(*x, **options), definition, inputs, SCAN2D_NAMES, settings.device)
    return errors.figures()

def sleep(settings):
    time.sleep(100)

def die(settings):
    os.kill(os.getpid(), signal.SIGKILL)

def skip(settings):
    raise Skip('not today')

def stumble(settings):
    return {}['missing']

STEPS = dict(
    right=Step('right', partial(scan, 1.0)),
    wrong=Step('wrong', partial(scan, 1.001)),
    sleep=Step('sleep', sleep, limit=1.0),
    die=Step('die', die),
    skip=Step('skip', skip, alone=True),
    stumble=Step('stumble', stumble),
    rival=Step('rival', stumble, required=False),
)

if __name__ == '__main__':
    names = sys.argv.pop().split(',')
    sys.exit(main(checks=[STEPS[name] for name in names], timings=[]))
"""

# the code of the timings, on shapes for the interpreter and without a clock
TIMINGS = """
import torch
import gpu_timings
from unittest import mock
from worker import Settings

def once(run, device, budget=1.0):
    run()
    return 1e-3

CHOSEN = [f'time/scan/{mode}/batch2-1280x800/bfloat16/low-rank' for mode in ('forward', 'training-forward', 'backward')]
CHOSEN += ['time/scan/backward/batch2-1280x800/float32/full-rank', 'time/copy']
CHOSEN += [f'time/block/{name}/{mode}/batch128-224' for name, mode in [
    ('merge-norm-bilinear', 'forward'), ('merge-nearest-norm', 'full'), ('depthwise-silu-pair', 'full'),
    ('depthwise-residual-gelu', 'forward'), ('scale-and-gate', 'full')]]
replaced = dict(SHAPES={'batch128-224': (1, 2, 2), 'batch2-1280x800': (1, 2, 2)}, CHANNELS=2, device_seconds=once,
                need_cuda=lambda settings: None, copy_bandwidth=lambda device: 1e9)
with mock.patch.multiple(gpu_timings, **replaced):
    for step in gpu_timings.TIMINGS:
        if step.name in CHOSEN:
            print(step.name, step.run(Settings(torch.device('cpu'), True)))
"""


def run(script, folder, *args, interpret=True, seconds=1000):
    path = folder / 'script.py'
    path.write_text(ALONE + script)
    variables = dict(OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='', MMMSVMAMBA_BACKEND='triton')
    environment = {name: value for name, value in os.environ.items() if name != 'TRITON_INTERPRET'} | variables
    if interpret:
        environment['TRITON_INTERPRET'] = '1'
    command = [sys.executable, str(path), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=environment)


@pytest.fixture(autouse=True)
def triton():
    floor = '.'.join(map(str, backend.TRITON))
    return pytest.importorskip('triton', floor, reason='the Triton kernels are tested where Triton is installed')


@pytest.mark.slow
def test_every_check_passes_in_the_interpreter(tmp_path, triton):
    out = tmp_path / 'out.json'
    done = run(ALL, tmp_path, '--device', 'cpu', '--tiny', '--seconds', 3000, '--out', out)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(out.read_text())
    assert (results['device'], results['triton'], results['result']) == ('cpu', triton.__version__, 'passed')
    needs_gpu = {'run/cuda-graph', 'large/batch-of-2^31', 'large/image-of-2^31'}
    for name, found in results['checks'].items():
        assert found['result'] == ('skipped' if name in needs_gpu else 'passed'), name
        assert 'needs a GPU' in found['reason'] if name in needs_gpu else found['seconds'] >= 0
    assert results['counts']['passed'] > 25
    assert 0 < results['checks']['scan2d/routes/full/split']['figures']['largest_error'] <= 1e-5
    assert all(found['result'] == 'skipped' for found in results['timings'].values())


@pytest.mark.parametrize(
    'names, code',
    [
        ('right,wrong,sleep,die,stumble,rival,skip', 1),
        ('sleep,right', 2),
        ('right,skip,rival', 0),
    ],
    ids=['failed', 'slow', 'passed'],
)
def test_endings_of_steps(tmp_path, names, code):
    out = tmp_path / 'out.json'
    done = run(BROKEN, tmp_path, '--device', 'cpu', '--tiny', '--seconds', 3000, '--out', out, names)
    assert done.returncode == code, done.stdout + done.stderr
    results = json.loads(out.read_text())
    assert results['result'] == {0: 'passed', 1: 'failed', 2: 'slow'}[code]
    found = {name: step['result'] for name, step in results['checks'].items()}
    endings = dict(right='passed', wrong='failed', sleep='slow', die='failed', stumble='failed')
    endings |= dict(rival='skipped', skip='skipped')
    assert found == {name: endings[name] for name in names.split(',')}
    assert sum(results['counts'].values()) == len(found)
    if code == 1:
        reasons = {name: step.get('reason') for name, step in results['checks'].items()}
        assert 'du is off by 1.00e-03, more than 1e-05' in reasons['wrong']
        assert 'killed after 5 s' in reasons['sleep']
        assert 'killed or crashed' in reasons['die']
        assert reasons['stumble'] == "KeyError: 'missing'"
        assert any("{}['missing']" in line for line in results['checks']['stumble']['trace'])
        assert reasons['skip'] == 'not today'


def test_a_killed_run_leaves_no_process(tmp_path):
    out = tmp_path / 'out.json'
    note = f"def sleep(settings):\n    open({str(tmp_path / 'pid')!r}, 'w').write(f'{{os.getpid()}} ')"
    marked = BROKEN.replace('def sleep(settings):', note)
    (tmp_path / 'script.py').write_text(ALONE + marked.replace('limit=1.0', 'limit=90.0'))
    environment = os.environ | dict(OMP_NUM_THREADS='1', TRITON_INTERPRET='1')
    command = [sys.executable, tmp_path / 'script.py', '--device', 'cpu', '--tiny', '--out', out, 'sleep']
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        pid = wait_for(lambda: (tmp_path / 'pid').read_text() if (tmp_path / 'pid').exists() else '')
        process.kill()
    assert wait_for(lambda: not Path(f'/proc/{pid.strip()}').exists())
    assert json.loads(out.read_text())['checks']['sleep'] == {'result': 'not run'}


def wait_for(condition, seconds=300):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


def test_time_that_is_over(tmp_path):
    out = tmp_path / 'out.json'
    done = run(BROKEN, tmp_path, '--device', 'cpu', '--tiny', '--seconds', 0, '--out', out, 'right,wrong')
    assert done.returncode == 2, done.stderr
    results = json.loads(out.read_text())
    assert {step['result'] for step in results['checks'].values()} == {'slow'}
    assert 'not started' in results['checks']['right']['reason']


def test_timings_run(tmp_path):
    done = run(TIMINGS, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "'over_copy'" in done.stdout and done.stdout.count('\n') == 10


@pytest.mark.parametrize(
    'args, interpret, message',
    [
        ([], False, 'sees 0 GPUs, and cuda is none of them'),
        (['--device', 'cpu'], False, 'TRITON_INTERPRET=1 python benchmarks/gpu_check.py --device cpu --tiny'),
        (['--device', 'cpu'], True, '--device cpu --tiny'),
        (['--device', 'cpu', '--tiny', '--out', 'no/such/folder/x.json'], True, 'there is no folder no/such/folder'),
        (['--device', 'cpu', '--tiny', '--steps', 'scn*'], True, "no step matches 'scn*'"),
    ],
    ids=['no-gpu', 'not-interpreted', 'not-tiny', 'out', 'steps'],
)
def test_bad_arguments(tmp_path, args, interpret, message):
    done = run(ALL, tmp_path, *args, interpret=interpret)
    assert done.returncode == 3
    assert message in done.stderr and 'Traceback' not in done.stderr


def test_the_command_measures_this_checkout(tmp_path):
    """From another folder, by the shell script, whichever copy is installed."""
    environment = os.environ | dict(PYTHON=sys.executable, CUDA_VISIBLE_DEVICES='', TRITON_INTERPRET='1')
    command = [BENCHMARKS / 'gpu_check.sh', '--device', 'cpu', '--tiny', '--list']
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert {'scan2d/routes/full/whole', 'run/repeats', 'time/copy'} <= set(done.stdout.split())
    linked = ROOT / 'build' / 'gpu_check' / 'mmmsvmamba'
    assert (linked / 'kernels').resolve() == ROOT / 'kernels'
    assert (linked / '__init__.py').resolve() == ROOT / 'mmmsvmamba' / '__init__.py'
