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

# the code of the timings, on shapes for the interpreter and without a clock; mamba-ssm's scan is the reference
TIMINGS = (
    f"""
import sys
sys.path.append({str(Path(__file__).parent)!r})
"""
    + """
import torch
import fake_cuda_scan, gpu_kernels, gpu_timings
from mmmsvmamba.kernels import triton_plan
from unittest import mock
from worker import Settings

def once(run, device, budget=1.0):
    run()
    return 1e-3

sys.modules['selective_scan_cuda'] = fake_cuda_scan
CHOSEN = [f'time/scan/{mode}/batch2-1280x800/bfloat16/low-rank' for mode in ('forward', 'training-forward', 'backward')]
CHOSEN += ['time/scan/backward/batch2-1280x800/float32/full-rank', 'time/copy']
CHOSEN += [f'time/block/{name}/{mode}/batch128-224' for name, mode in [
    ('merge-norm-bilinear', 'forward'), ('merge-nearest-norm', 'full'), ('depthwise-silu-pair', 'full'),
    ('depthwise-residual-gelu', 'forward'), ('scale-and-gate', 'full')]]
CHOSEN += [f'time/against/mamba-ssm/{mode}/batch128-224' for mode in ('forward', 'full')]
CHOSEN += ['time/settings/warps-8+chunk-64', 'time/settings/channels-64', 'time/settings/dt-projected-outside']
replaced = dict(SHAPES={'batch2-1280x800': (1, 2, 2), 'batch128-224': (1, 2, 2)}, CHANNELS=2, device_seconds=once,
                need_cuda=lambda settings: None, copy_bandwidth=lambda device: 1e9)
before = triton_plan.settings(), triton_plan.LOW_RANK
with mock.patch.multiple(gpu_kernels, **replaced):
    for step in gpu_timings.TIMINGS:
        if step.name in CHOSEN:
            print(step.name, step.run(Settings(torch.device('cpu'), True)))
            assert (triton_plan.settings(), triton_plan.LOW_RANK) == before
"""
)


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


#: Why a check is skipped, where there is no GPU and no OpenMMLab, and the beginnings of the names of those.
SKIPPED = {
    'needs a GPU': (
        *('run/cuda-graph', 'run/image-sizes', 'run/backbone/cuda-graph', 'run/two-streams', 'run/second-gpu'),
        *('sanitize/', 'large/batch-of-2^31', 'large/image-of-2^31', 'tasks/detection', 'tasks/segmentation'),
    ),
    'is not installed': ('models/', 'run/backbone/modes', 'run/compile/', 'tasks/mmcv'),
}


@pytest.mark.slow
def test_every_check_passes_in_the_interpreter(tmp_path, triton):
    out = tmp_path / 'out.json'
    done = run(ALL, tmp_path, '--device', 'cpu', '--tiny', '--seconds', 3000, '--out', out)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(out.read_text())
    assert (results['device'], results['triton'], results['result']) == ('cpu', triton.__version__, 'passed')
    for name, found in results['checks'].items():
        reason = next((why for why, names in SKIPPED.items() if name.startswith(names)), None)
        assert found['result'] == ('passed' if reason is None else 'skipped'), name
        assert found['seconds'] >= 0 if reason is None else reason in found['reason'], name
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
    lines = done.stdout.splitlines()
    assert "'over_copy'" in done.stdout and len(lines) == 15
    settings = [line for line in lines if line.startswith('time/settings/')]
    assert len(settings) == 3 and all('batch128-224/training-forward' in line for line in settings)
    peers = [line for line in lines if line.startswith('time/against/mamba-ssm/')]
    assert len(peers) == 2 and all('scan2d_over_mamba_ssm' in line for line in peers)


def test_wrong_answers_do_not_race(tmp_path):
    scaled = 'fwd = fake_cuda_scan.fwd\nfake_cuda_scan.fwd = lambda *x: [1.1 * y for y in fwd(*x)]\nCHOSEN ='
    done = run(TIMINGS.replace('CHOSEN =', scaled, 1), tmp_path)
    assert done.returncode == 1 and 'the output is off by' in done.stderr


def test_a_setting_is_put_back_when_a_step_fails():
    import gpu_settings

    from mmmsvmamba.kernels import triton_plan

    before = {name: getattr(triton_plan, name) for name in ('WARPS', 'CHUNK', 'LOW_RANK', 'FORWARD', 'BACKWARD')}
    for constants in gpu_settings.SETTINGS.values():
        with pytest.raises(ZeroDivisionError), gpu_settings.tried(constants):
            assert {name: getattr(triton_plan, name) for name in constants} == constants
            1 / 0  # noqa: B018
    assert {name: getattr(triton_plan, name) for name in before} == before


def test_the_settings_that_are_tried():
    import gpu_settings

    tried = gpu_settings.SETTINGS
    grid = {(x['WARPS'], x['CHUNK']) for x in tried.values() if 'WARPS' in x}
    assert grid == {(warps, chunk) for warps in (8, 16, 32) for chunk in (64, 256)}
    for channels in (64, 128):
        forward, *others = tried[f'channels-{channels}']['FORWARD']
        assert (forward.states, forward.channels) == (1, channels) and all(x.states > 1 for x in others)
    assert tried['dt-projected-outside'] == {'LOW_RANK': 0} and tried['dt-projected-inside']['LOW_RANK'] >= 6


# ---- the order, and the parts ----


def names_of(tmp_path, *args):
    done = run(ALL, tmp_path, '--device', 'cpu', '--tiny', '--list', *args)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_parts(tmp_path):
    checks, timings = (names_of(tmp_path, '--part', part) for part in ('checks', 'timings'))
    assert names_of(tmp_path) == [*checks, *timings]
    assert all(name.startswith('time/') for name in timings) and not any(name.startswith('time/') for name in checks)
    assert len(set(checks)) == len(checks) and len(set(timings)) == len(timings)


def test_a_part_alone_writes_its_own_results(tmp_path):
    out = tmp_path / 'checks.json'
    args = ['--device', 'cpu', '--tiny', '--part', 'checks', '--steps', 'large/*31', '--out', out]
    done = run(ALL, tmp_path, *args)
    assert done.returncode == 0, done.stderr
    results = json.loads(out.read_text())
    assert 'timings' not in results and results['budget'] == 300
    assert results['counts'] == {'passed': 0, 'failed': 0, 'slow': 0, 'skipped': 2}


def test_the_time_of_the_parts():
    from gpu_check import PARTS, _deadlines

    assert PARTS == {'checks': 300, 'timings': 240}
    assert _deadlines(5, 310, ['checks']) == {'checks': 305, 'timings': 305}
    assert _deadlines(5, 250, ['timings'])['timings'] == 245
    both = _deadlines(0, 540, ['checks', 'timings'])
    assert both['timings'] == 530 and 290 < both['checks'] < 300


def test_jobs(monkeypatch):
    import gpu_check
    import torch

    for cores, jobs in ((16, 8), (64, 32), (2, 1), (1, 1)):
        monkeypatch.setattr(os, 'cpu_count', lambda cores=cores: cores)
        assert gpu_check.default_jobs(torch.device('cuda')) == jobs
        assert gpu_check.default_jobs(torch.device('cpu')) == 1


def test_timings_come_in_the_order_of_what_they_decide(tmp_path):
    timings = names_of(tmp_path, '--part', 'timings')
    begins = [
        *('time/copy', 'time/scan/forward/batch128-224/bfloat16/', 'time/scan/backward/batch2-1280x800/bfloat16/'),
        *('time/backbones/infer/224/timm', 'time/backbones/train/224/timm', 'time/cpu/', 'time/block/'),
        *(
            'time/breakdown/backbone/tiny/full',
            'time/growth/msvmamba-t/forward/224',
            'time/growth/timm-swin-t/train/1536',
        ),
        *('time/tasks/detection', 'time/against/mamba-ssm/forward/batch128-224', 'time/against/mambapy/'),
    ]
    places = [next(i for i, name in enumerate(timings) if name.startswith(begin)) for begin in begins]
    assert places == sorted(places)
    later = ('time/scan/backward/batch128-224/float32/', 'time/settings/', 'time/against/compiled/', '/compiled/224/')
    for part in later:
        assert min(i for i, name in enumerate(timings) if part in name) > max(places)
    # what compiles for minutes, and rivals that were there before, come after all that is quick
    settings = max(i for i, name in enumerate(timings) if name.startswith('time/settings/'))
    for part in ('/mmpretrain', '/compiled/'):
        assert min(i for i, name in enumerate(timings) if part in name) > settings
    # the loop of Python launches kernels by the thousand
    assert {name.rpartition('/')[2] for name in timings if '/naive/' in name} == {'L784'}


def test_models_are_checked_before_what_is_seldom_met(tmp_path):
    checks = names_of(tmp_path, '--part', 'checks')
    begins = [
        'scan2d/routes/',
        'models/float32/',
        'models/bfloat16/',
        'channels/scan2d/',
        'tasks/',
        'sanitize/',
        'large/',
    ]
    places = [next(i for i, name in enumerate(checks) if name.startswith(begin)) for begin in begins]
    assert places == sorted(places)


# ---- the sanitizer, and variants of kernels ----


def test_the_script_for_the_sanitizer_runs_every_kernel(tmp_path):
    script = BENCHMARKS / 'gpu_sanitize.py'
    environment = os.environ | dict(OMP_NUM_THREADS='1', TRITON_INTERPRET='1', MMMSVMAMBA_BACKEND='triton')
    command = [sys.executable, script, '--device', 'cpu']
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    for name in ('scan2d, 16 states, split True', 'selective_scan, 1 states', 'merge-norm-bilinear', 'scale-and-gate'):
        assert name in done.stdout


@pytest.mark.parametrize(
    'says, code, error',
    [
        ('ran a; b', 0, None),
        ('========= Invalid __global__ write', 9, 'the sanitizer found errors:\n========= Invalid __global__ write'),
        ('no device', 1, 'it ended with code 1:\nno device'),
        ('nothing', 0, 'the kernels were not run:\nnothing'),
    ],
    ids=['clean', 'found', 'broken', 'nothing'],
)
def test_what_the_sanitizer_says(says, code, error):
    import gpu_sanitize_steps

    command = [sys.executable, '-c', f'print({says!r}); raise SystemExit({code})']
    if error is None:
        assert gpu_sanitize_steps.judged(command) == {'ran': 2}
    else:
        with pytest.raises(AssertionError) as found:
            gpu_sanitize_steps.judged(command)
        assert str(found.value) == error


def test_a_sanitizer_that_does_not_end_is_skipped():
    import gpu_sanitize_steps
    from worker import Skip

    with pytest.raises(Skip, match='had not ended after 1 s'):
        gpu_sanitize_steps.judged([sys.executable, '-c', 'import time; time.sleep(60)'], seconds=1)


VARIANTS = f"""
import sys
sys.path.insert(0, {str(BENCHMARKS)!r})
import torch
import gpu_models, gpu_running
from driver_stand_in import stand_in
from worker import Settings

settings = Settings(torch.device('cpu'), True)
with stand_in():
    model = gpu_models.make('msvmamba-nano', settings)
    sizes = (32, 32), (64, 64), (48, 40)
    # however often it is asked in one process
    first, second = (gpu_running.variants_by_size(model, settings.device, sizes, 100) for _ in range(2))
    assert first == second
    print(first)
with stand_in():
    gpu_running.variants_by_size(model, settings.device, ((32, 32), (64, 64)), -1)
"""


def test_variants_are_counted():
    pytest.importorskip('mmcv')
    environment = {name: value for name, value in os.environ.items() if name != 'TRITON_INTERPRET'}
    command = [sys.executable, '-c', VARIANTS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1 and 'AssertionError: more than -1 new variants for 64x64: ' in done.stderr, done.stderr
    assert "'32x32': {" in done.stdout and "'scan_forward'" in done.stdout


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
