"""Runs the tests of the Triton kernels in two processes of their own: interpreted, and compiled ahead of time.

Triton reads TRITON_INTERPRET when a kernel is decorated, so that one process cannot do both. Neither needs a GPU.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mmmsvmamba.kernels import backend

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
ENVIRONMENTS = {
    'interpreted': {'TRITON_INTERPRET': '1', 'MMMSVMAMBA_BACKEND': 'triton'},
    'compiled': {'KERNELS_COMPILED': os.environ.get('KERNELS_COMPILED', '1')},
}
#: torch 2.1 to 2.6 bring releases that do not compile the kernels.
FLOOR = '.'.join(map(str, backend.TRITON))
#: `make kernels-full` sets more, and may take its time.
USUAL = ENVIRONMENTS['compiled']['KERNELS_COMPILED'] == '1'
OURS = {'TRITON_INTERPRET', 'MMMSVMAMBA_BACKEND', 'KERNELS_COMPILED'}


@pytest.fixture(scope='module')
def children(tmp_path_factory):
    """Both at once: each runs on one core."""
    triton = pytest.importorskip('triton', FLOOR, reason='the Triton kernels are tested where Triton is installed')
    print(f'Triton {triton.__version__}')
    common = {name: value for name, value in os.environ.items() if name not in OURS}
    # kernels are compiled anew: a cache would hide that they no longer compile
    common |= dict(OMP_NUM_THREADS='1', TRITON_CACHE_DIR=str(tmp_path_factory.mktemp('triton')))
    started = {}
    for folder, variables in ENVIRONMENTS.items():
        command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '--durations=5', str(HERE / folder)]
        log = (tmp_path_factory.mktemp(folder) / 'log').open('w+')
        process = subprocess.Popen(command, env=common | variables, stdout=log, stderr=subprocess.STDOUT, text=True)
        started[folder] = process, log
    yield started
    for process, log in started.values():
        process.kill()
        process.wait()
        log.close()


@pytest.mark.parametrize('folder', ENVIRONMENTS)
def test_in_a_process_of_its_own(children, folder):
    if folder == 'interpreted' and backend._release(sys.modules['triton'].__version__) < (3, 4):
        pytest.skip('the interpreter of Triton 3.3 does not run the kernels, its compiler does')
    process, log = children[folder]
    process.wait(timeout=1800 if USUAL else None)
    log.seek(0)
    report = log.read()
    print(report)
    # pytest ends with 5 where it found no test
    assert process.returncode == 0, f'{folder} tests ended with {process.returncode}; their report is above'
    assert int(re.search(r'(\d+) passed', report)[1]) > 0
    assert 'skipped' not in report.splitlines()[-1]
