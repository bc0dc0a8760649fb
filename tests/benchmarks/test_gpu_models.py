"""The checks of models and of absent arguments find what is wrong: in the interpreter, with kernels made wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmmsvmamba.kernels import backend

BENCHMARKS = Path(__file__).parents[2] / 'benchmarks'

# runs checks, each with one output of one kernel times a factor, and prints what they say
SCRIPT = f"""
import contextlib, importlib, json, sys
from unittest import mock
sys.path.insert(0, {str(BENCHMARKS)!r})
import gpu_arguments
import torch
from worker import Settings

def scaled(kernel, factor, which):
    def run(*args):
        found = kernel(*args)
        if which is None:
            # every other channel: a norm behind it would undo a factor of all
            found = found.clone()
            found[..., ::2] *= factor
            return found
        return [factor * x if i == which and x is not None else x for i, x in enumerate(found)]
    return run

for module, name, options, wrong in json.loads(sys.argv[1]):
    check = getattr(importlib.import_module(module), name)
    only = options.pop('only', gpu_arguments.OPTIONAL)
    with contextlib.ExitStack() as stack:
        chosen = {{operator: gpu_arguments.OPTIONAL[operator] for operator in only}}
        stack.enter_context(mock.patch.object(gpu_arguments, 'OPTIONAL', chosen))
        if wrong is not None:
            where, kernel, factor, which = wrong
            where = importlib.import_module(f'mmmsvmamba.kernels.{{where}}')
            ours = getattr(where, kernel)
            stack.enter_context(mock.patch.object(where, kernel, scaled(ours, factor, which)))
        try:
            check(Settings(torch.device('cpu'), True), **options)
            print('passed')
        except AssertionError as error:
            print(json.dumps(str(error)))
"""


@pytest.fixture(autouse=True)
def triton():
    floor = '.'.join(map(str, backend.TRITON))
    pytest.importorskip('triton', floor, reason='the Triton kernels are tested where Triton is installed')


def findings(check, *wrong):
    """What a check (module, function, options) says of kernels as they are, and of each (module of a kernel, its name,
    factor, number of its output or None) that is made wrong; (options, …) changes the check's options too."""
    cases = [(*check, None)]
    for options, *kernel in ((w if isinstance(w[0], dict) else ({}, *w)) for w in wrong):
        cases.append((*check[:2], check[2] | options, kernel))
    variables = dict(TRITON_INTERPRET='1', MMMSVMAMBA_BACKEND='triton', OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
    command = [sys.executable, '-c', SCRIPT, json.dumps(cases)]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=1000)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_model_in_float32():
    pytest.importorskip('mmcv')
    passed, scan, decay = findings(
        ('gpu_models', 'single', dict(name='vim-tiny')),
        ('triton_scan', 'scan2d', 1.01, None),
        ('triton_scan', 'scan2d_backward', 1.01, 6),
    )
    assert passed == 'passed'
    assert 'map 0 is off by' in scan and 'gradient of the images is off by' in scan
    # only what takes the wrong gradient is wrong
    assert 'scan.A_log is off by 1.00e-02' in decay and 'map 0' not in decay and 'images' not in decay


@pytest.mark.slow
def test_a_hierarchical_model_in_float32():
    pytest.importorskip('mmcv')
    passed, taps, merge = findings(
        ('gpu_models', 'single', dict(name='vmamba-tiny-s1l8')),
        ('triton_depthwise_launch', 'depthwise_silu_backward', 1.01, 1),
        ('triton_epilogue_launch', 'merge_nearest_norm_backward', 1.01, 0),
    )
    assert passed == 'passed'
    assert 'gradient of stages.0.blocks.0.mixer.full_res.conv.weight is off by 1.00e-02' in taps
    assert 'gradient of the images is off by' in merge
    assert 'map 0' not in taps + merge


@pytest.mark.slow
def test_a_model_in_bfloat16():
    pytest.importorskip('mmcv')
    # at this size roundings alone are hundredths
    passed, wrong = findings(('gpu_models', 'half', dict(name='vim-tiny')), ('triton_scan', 'scan2d', 2.0, None))
    assert passed == 'passed'
    assert 'is off by' in wrong


@pytest.mark.slow
def test_absent_arguments_of_a_block():
    names = ['scale-and-gate', 'scale-and-gate', 'depthwise-silu-pair', 'merge-norm-bilinear']
    kernels = [
        ('triton_gate_launch', 'scale_and_gate', 1.02, None),
        ('triton_gate_launch', 'scale_and_gate_backward', 1.02, 0),
        ('triton_depthwise_launch', 'depthwise_silu_pair_backward', 1.02, 3),
        ('triton_epilogue_launch', 'merge_norm_bilinear_backward', 1.02, 2),
    ]
    wrong = [(dict(only=[name]), *kernel) for name, kernel in zip(names, kernels, strict=True)]
    passed, *found = findings(('gpu_arguments', 'absent_in_operators', {}), *wrong)
    assert passed == 'passed'
    for name, text in zip(names, found, strict=True):
        assert f'{name} without' in text and 'in float32: ' in text


@pytest.mark.slow
def test_absent_arguments_of_a_scan():
    passed, wrong = findings(
        ('gpu_arguments', 'absent_in_sequences', {}), ('triton_scan', 'selective_scan_backward', 1.01, 2)
    )
    assert passed == 'passed'
    assert 'D False, delta_bias False' in wrong and 'dA is off by' in wrong
