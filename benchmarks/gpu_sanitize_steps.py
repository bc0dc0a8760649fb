"""compute-sanitizer over every kernel: accesses out of bounds, and races in shared memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import gpu_sanitize
from gpu_behaviour import need_cuda
from worker import Settings, Skip, Step

PROGRAM = 'compute-sanitizer'
#: Seconds that a tool gets. What is found makes it end with this code, which Python itself does not use.
SECONDS, FOUND = 60, 9


def sanitized(settings: Settings, tool: str) -> dict:
    need_cuda(settings, f'{PROGRAM} watches its kernels')
    if shutil.which(PROGRAM) is None:
        raise Skip(f'{PROGRAM} is not on PATH')
    # compiled here and kept on disk: the tool's time is for the kernels
    gpu_sanitize.run(settings.device)
    script = Path(__file__).with_name('gpu_sanitize.py')
    # torch and Triton ask the driver what may fail, such as which context is current before there is one
    options = ['--report-api-errors', 'no'] if tool == 'memcheck' else []
    command = [PROGRAM, '--tool', tool, *options, '--error-exitcode', str(FOUND), sys.executable, str(script)]
    return judged([*command, '--device', str(settings.device)])


def judged(command: list[str], seconds: float = SECONDS) -> dict:
    """Runs the program and judges how it ended."""
    # memory of its own for every tensor, or reads beyond its end would meet another one
    environment = os.environ | dict(PYTORCH_NO_CUDA_MEMORY_CACHING='1')
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=environment)
    except subprocess.TimeoutExpired as error:
        raise Skip(f'it had not ended after {seconds:.0f} s') from error
    lines = (done.stdout + done.stderr).strip().splitlines()
    if done.returncode == FOUND:
        reports = [line for line in lines if line.startswith('=========')]
        raise AssertionError('\n'.join(['the sanitizer found errors:', *reports[:40]]))
    if done.returncode != 0:
        raise AssertionError('\n'.join([f'it ended with code {done.returncode}:', *lines[-20:]]))
    ran = next((line for line in lines if line.startswith('ran ')), None)
    if ran is None:
        raise AssertionError('\n'.join(['the kernels were not run:', *lines[-20:]]))
    return {'ran': ran.count(';') + 1}


CHECKS = [
    Step(f'sanitize/{tool}', partial(sanitized, tool=tool), limit=SECONDS + 90) for tool in ('memcheck', 'racecheck')
]
