"""What dispatch launches for the published models, and how much that is: the tests beside this one compile all of it.

Nothing runs on a GPU: the models are run with launches that are noted down, and maps that stay as they were allocated.
"""

import os
from contextlib import contextmanager
from unittest import mock

import pytest
import torch
from scan_cases import leaves, selective_inputs
from scan_compile import cases, forbids_spills
from triton.runtime.jit import JITFunction

from mmmsvmamba import MSVMamba
from mmmsvmamba.kernels import (
    backend,
    selective_scan,
    triton_depthwise_launch,
    triton_epilogue_launch,
    triton_gate_launch,
    triton_launch,
    triton_plan,
)

#: What dispatch may choose from for the scan, and around it without the sizes of a program.
LIMIT = 24
SCAN = {'scan_forward', 'scan_backward', 'adjoint_ends', 'pass_states'}
#: Constants that say how large a program is.
SIZES = {'BP', 'BD', 'TILE'}


def constants_of(kernel, args, options):
    """Constants of a launch by name, among them pointers that are None."""
    given = dict(zip(kernel.arg_names, args, strict=False)) | options
    constant = {parameter.name for parameter in kernel.params if parameter.is_constexpr}
    return {name: given[name] for name in kernel.arg_names if name in constant or given[name] is None}


@contextmanager
def noted():
    """A list that takes kernel, constants, warps and whether spills are forbidden of what would run on sm_100."""
    found = []

    def note(kernel, *args, grid, warmup, **options):
        constants = constants_of(kernel, args, options)
        found.append((kernel.__name__, constants, options['num_warps'], 'maxnreg' in options))

    with (
        mock.patch.dict(os.environ, {backend.VARIABLE: 'triton'}),
        mock.patch.object(backend, '_interpreted', return_value=True),
        mock.patch.object(triton_launch, 'capability', return_value=10),
        mock.patch.object(triton_epilogue_launch, 'capability', return_value=10),
        mock.patch.object(JITFunction, 'run', note),
    ):
        yield found


@pytest.fixture(scope='module')
def launched():
    """All launches of forward and backward passes of the published models, with one block in every stage."""
    with noted() as found:
        for arch in MSVMamba.arch_settings:
            model = MSVMamba(dict(base=arch, depths=[1] * 4))
            for split in (False, True):
                with mock.patch.object(triton_plan, 'SPLIT', split):
                    sum(y.sum() for y in model(torch.zeros(1, 3, 64, 64))).backward()
            with torch.no_grad():
                model(torch.zeros(1, 3, 64, 64))
    return found


def distinct(choices, without=()):
    """Launches, once each; with `without`, as if those constants, warps and the rest were alike."""
    return {
        (
            kernel,
            frozenset((name, x) for name, x in constants.items() if name not in without),
            *(() if without else rest),
        )
        for kernel, constants, *rest in choices
    }


def test_around_the_scan(launched):
    modules = (triton_depthwise_launch, triton_epilogue_launch, triton_gate_launch)
    variants = [(v.kernel.__name__, v.constants, v.warps, v.unspilt) for module in modules for v in module.variants()]
    models = [choice for choice in launched if choice[0] not in SCAN]
    assert distinct(models) <= distinct(variants)
    # what no published model has: one depthwise convolution with SiLU, of a mixer without half-resolution routes
    (beside,) = distinct(variants) - distinct(models)
    assert beside[0] == 'depthwise' and ('HALF', 0) in beside[1] and ('GELU', False) in beside[1]
    # the norms' kernels hold all channels of a pixel: one size of program for each power of two
    assert len(distinct(models)) == 39
    assert len(distinct(models, without=SIZES)) == 17 <= LIMIT


def test_scan(launched):
    assert len(cases()) == 13 <= LIMIT
    inputs = selective_inputs(length=300, d_state=24, groups=1, dtype=torch.float32)
    with noted() as many, mock.patch.object(triton_plan, 'SPLIT', True):
        selective_scan(*leaves(inputs)).sum().backward()
    compiled = set()
    for case in cases():
        ends = case.kernel == 'forward_ends'
        kernel = 'scan_forward' if ends else case.kernel
        sizes = (128,) if kernel == 'pass_states' else (case.config.channels, case.config.tile)
        compiled.add((kernel, ends, case.states, case.rank > 0, sizes, forbids_spills(case)))

    def choices(launches):
        for kernel, constants, warps, unspilt in launches:
            if kernel in SCAN:
                assert warps == 1
                sizes = tuple(constants[name] for name in ('BD', 'TILE') if name in constants)
                project = constants.get('RANK', 0) > 0
                yield kernel, constants.get('ENDS', False), constants.get('N', 1), project, sizes, unspilt

    # the published models have one state; 24 states are 16 and 8 of them forward and three times 8 backward
    assert set(choices(launched)) == {choice for choice in compiled if choice[2] == 1}
    eight = {choice for choice in choices(many) if choice[:3] in {('scan_forward', ends, 8) for ends in (False, True)}}
    assert set(choices(many)) - eight == {choice for choice in compiled if choice[2] > 1 or choice[0] == 'pass_states'}
