"""The benchmark runner, on one short case: what it times is not tested, how it reports is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / 'benchmarks'

# ours sleeps half as long as the others, one of which does eight times the work: a quarter as fast as that one
FAKE = """
import sys
sys.path.insert(0, {folder!r})
import json, time, torch
from registry import CASES, Contender, case
from run import measure, report

@case('fake', targets={{'big': 1.0, 'small': 1.0, 'absent': 9.0}})
def build(device):
    return [
        Contender('ours', lambda: time.sleep(0.02), ours=True),
        Contender('big', lambda: time.sleep(0.04), work=8.0, images=2, about=dict(parameters=7)),
        Contender('small', lambda: time.sleep(0.04)),
    ]

try:
    case('fake', targets={{}})(build)
except ValueError as error:
    print(error)
result = measure(CASES['fake'], torch.device('cpu'), budget=0)
print(json.dumps(result))
print(report('fake', result))
"""


def run(*args):
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, timeout=120)


def test_results_of_a_case_of_known_times():
    done = run('-c', FAKE.format(folder=str(BENCHMARKS)))
    assert done.returncode == 0, done.stderr
    error, result, report = done.stdout.split('\n', 2)
    assert error == "there are two benchmark cases named 'fake'"
    result = json.loads(result)
    assert list(result['seconds']) == ['ours', 'big', 'small']
    assert result['turns'] == 3
    ratios = result['times_as_fast_as']['ours']
    assert ratios['big'] == pytest.approx(0.25, rel=0.3)
    assert ratios['small'] == pytest.approx(2, rel=0.3)
    assert result['images_per_second'] == {'big': 2 / result['seconds']['big']}
    assert result['about'] == {'big': {'parameters': 7}}
    assert result['targets'] == {'big': 1.0, 'small': 1.0}
    assert len(result['missed']) == 1 and result['missed'][0].endswith('times as fast as big; the target is 1')
    assert 'MISSED: ours is 0.2' in report


def test_a_run_writes_its_results(tmp_path):
    out = tmp_path / 'scan.json'
    args = ['--cases', 'scan/full/L784', '--seconds', '0', '--threads', '1', '--note', 'a test', '--out', out]
    done = run(BENCHMARKS / 'run.py', *args)
    assert done.returncode == 0 or 'some targets are missed' in done.stderr, done.stderr
    results = json.loads(out.read_text())
    assert results['note'] == 'a test'
    assert results['machine']['threads'] == 1 and results['machine']['device'] == 'cpu'
    (name,) = results['cases']
    assert name == 'scan/full/L784' and f'{name}: selective_scan' in done.stdout
    assert {'selective_scan', 'scan2d', 'naive'} <= results['cases'][name]['seconds'].keys()


@pytest.mark.parametrize(
    'args, message',
    [
        (['--cases', 'scn/*'], "no case matches 'scn/*'; the cases are "),
        (['--out', 'no/such/folder/x.json'], 'there is no folder no/such/folder'),
    ],
    ids=['cases', 'out'],
)
def test_bad_arguments(args, message):
    done = run(BENCHMARKS / 'run.py', *args)
    assert done.returncode == 2
    assert message in done.stderr and 'Traceback' not in done.stderr
