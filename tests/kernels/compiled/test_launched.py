"""What dispatch launches, compiled as it would be launched: for the published models, and with every absent argument.

All of it is compiled for one target in every run. KERNELS_COMPILED=targets compiles it for all, and channels that are
no multiples of 16; KERNELS_COMPILED=full float16 too.
"""

import os

import pytest
import torch
from driver_stand_in import stand_in
from jitted_kernels import jitted
from launched import ARCHS, AUTOCAST, of_arguments, of_model, run, shallow
from machine_code import TARGETS, read

from mmmsvmamba.kernels import triton_depthwise_launch, triton_epilogue_launch, triton_gate_launch

FULL = os.environ.get('KERNELS_COMPILED') == 'full'
EVERYWHERE = FULL or os.environ.get('KERNELS_COMPILED') == 'targets'
#: What dispatch may choose from around the scan, without the sizes of a program.
LIMIT = 24
#: Constants that say how large a program is.
SIZES = {'BP', 'BD', 'TILE'}
AROUND = (triton_depthwise_launch, triton_epilogue_launch, triton_gate_launch)

OF_MODELS = [x for family, arch in ARCHS for dtype in AUTOCAST.values() for x in of_model(family, arch, dtype)]
OF_ARGUMENTS = of_arguments(64, torch.bfloat16)
if EVERYWHERE:
    OF_ARGUMENTS += of_arguments(30, torch.float32)
if FULL:
    OF_ARGUMENTS += of_arguments(64, torch.float16)
VARIANTS = list(dict.fromkeys([*OF_MODELS, *OF_ARGUMENTS]))


@pytest.mark.parametrize('target', TARGETS if EVERYWHERE else ['sm_90'])
@pytest.mark.parametrize('variant', VARIANTS, ids=str)
def test_compiles_without_spills(variant, target):
    done = read(variant.compile(TARGETS[target]), target)
    assert done.opcodes.total() > 20
    assert done.fits(target), done


def constants(variant):
    names = [name for name, _ in variant.signature]
    return {names[path[0]]: value for path, value in variant.constants}


def test_every_kernel_is_launched():
    # functions that kernels call have no sizes to specialise on
    kernels = {x.__name__ for x in jitted() if any(p.do_not_specialize for p in x.params)}
    assert kernels == {x.kernel.__name__ for x in VARIANTS}


def test_no_argument_is_always_there():
    """What may be absent is absent in some variant and there in another."""
    optional = dict(
        scan_forward={'DT_WEIGHT', 'DT_BIAS', 'SKIP', 'STATES', 'SUMS'},
        adjoint_ends={'DT_WEIGHT', 'DT_BIAS'},
        scan_backward={'DT_WEIGHT', 'DT_BIAS', 'SKIP', 'SCRATCH'},
        depthwise={'BIAS', 'HALF_WEIGHT', 'HALF_BIAS', 'HALF_OUT'},
        depthwise_input_gradient={'HALF_DZ', 'HALF_WEIGHT'},
        depthwise_tap_gradients={'BIAS'},
        norm_sum={'HALF'},
        scale_gate={'SCALE', 'GATE'},
        scale_gate_backward={'SCALE', 'SCALE_PARTS', 'GATE', 'DGATE'},
    )
    for kernel, names in optional.items():
        absent = [{n for n, x in constants(v).items() if x is None} for v in VARIANTS if v.kernel.__name__ == kernel]
        assert set().union(*absent) == names, kernel
        assert not set.intersection(*absent), kernel


def test_sizes_of_images_compile_nothing_anew():
    """But for what splits a sequence, where the first image was too small for that."""
    family, arch = ARCHS[0]
    model = shallow(family, arch)
    with stand_in() as noted:
        counts = []
        for size in ((64, 64), (96, 128), (224, 160), (33, 47)):
            run(model.train(), [torch.zeros(1, 3, *size)], train=True)
            counts.append(len(set(noted.compiled)))
    assert all(b - a <= 3 for a, b in zip(counts, counts[1:], strict=False)) and counts[-1] == counts[-2], counts


def test_around_the_scan():
    variants = {(v.kernel.__name__, frozenset(v.constants.items())) for module in AROUND for v in module.variants()}
    models = {
        (v.kernel.__name__, frozenset(constants(v).items()))
        for v in OF_MODELS
        if v.kernel.__name__ in {name for name, _ in variants}
    }
    # the tests of budgets are of what the models launch, but for VMamba's and Vim's maps
    assert variants <= models
    without_sizes = {(name, frozenset((n, x) for n, x in found if n not in SIZES)) for name, found in models}
    assert len(without_sizes) <= LIMIT
