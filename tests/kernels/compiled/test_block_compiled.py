"""The Triton kernels around the scan, compiled ahead of time: registers, spills, shared memory, instructions.

No GPU is needed. What the published models launch is compiled for one target, for fewer widths of a map, and a fixed
choice for the others; KERNELS_COMPILED=targets compiles everything for all, KERNELS_COMPILED=full for other dtypes too.
"""

import os

import pytest
from block_compile import compile_kernel
from machine_code import CAPABILITIES, TARGETS

from mmmsvmamba.kernels import triton_depthwise_launch, triton_epilogue_launch, triton_gate_launch
from mmmsvmamba.kernels.triton_variant import unspilt

FULL = os.environ.get('KERNELS_COMPILED') == 'full'
EVERYWHERE = FULL or os.environ.get('KERNELS_COMPILED') == 'targets'
MAPS = {
    'X',
    'HALF',
    'OUT',
    'GRAD',
    'DX',
    'FULL',
    'DFULL',
    'DHALF',
    'HALF_OUT',
    'DZ',
    'HALF_DZ',
    'Y',
    'DY',
    'GATE',
    'DGATE',
}
#: By kernel and constants: instructions of the innermost loop or, where there is none, of the kernel, for one lane.
BUDGETS = {
    ('depthwise', 7, False): 320,
    ('depthwise', 0, True): 2200,
    ('depthwise', 0, False): 2000,
    ('depthwise_input_gradient', 7): 270,
    ('depthwise_input_gradient', 0): 1050,
    ('depthwise_tap_gradients', 3, False): 165,
    ('depthwise_tap_gradients', 3, True): 215,
    ('depthwise_tap_gradients', 7, False): 340,
    ('norm_sum', 3): 560,
    ('norm_sum', 1): 600,
    ('norm_sum_backward', 3): 1000,
    ('norm_sum_backward', 1): 480,
    ('nearest_norm',): 950,
    ('nearest_norm_backward',): 1600,
    ('scale_gate',): 250,
    ('scale_gate_backward',): 400,
}


def key(variant):
    names = ('HALF', 'KERNEL', 'ROUTES', 'GELU')
    return (variant.kernel.__name__, *(variant.constants[n] for n in names if variant.constants.get(n) is not None))


NORMS = [*triton_epilogue_launch.variants()]
VARIANTS = [*triton_depthwise_launch.variants(), *NORMS, *triton_gate_launch.variants()]
#: One width of a map for four warps, one for eight; the others differ in the padding of the channels alone.
WIDTHS = (256, 2048)
HOPPER = [v for v in VARIANTS if EVERYWHERE or v not in NORMS or v.constants['BD'] in WIDTHS]
CHOSEN = (
    'depthwise',
    'depthwise_input_gradient',
    'depthwise_tap_gradients',
    'norm_sum_backward',
    'nearest_norm_backward',
)


def chosen():
    """The largest variant of each of the kernels that take most registers."""
    for name in CHOSEN:
        mine = [v for v in HOPPER if v.kernel.__name__ == name and v.constants.get('ROUTES') != 1]
        yield max(mine, key=lambda v: v.constants.get('HALF', v.constants.get('KERNEL', 0)))


OTHERS = [(target, v) for target in TARGETS if target != 'sm_90' for v in (VARIANTS if EVERYWHERE else chosen())]


def name(value):
    return value if isinstance(value, str) else f'{"-".join(map(str, key(value)))}-{value.constants["BD"]}'


def check(variant, target, **options):
    if variant.unspilt:
        options |= unspilt(CAPABILITIES[target])
    done = compile_kernel(variant.kernel, variant.constants, variant.warps, target, MAPS, **options)
    print(target, name(variant), done, done.inner_loop)
    assert done.opcodes.total() > 20
    assert done.fits(target), done
    return done


def test_budgets_are_of_all_variants():
    assert {key(v) for v in VARIANTS} == set(BUDGETS)


@pytest.mark.parametrize('variant', HOPPER, ids=name)
def test_hopper(variant):
    done = check(variant, 'sm_90')
    assert (done.inner_loop or done.opcodes.total()) <= BUDGETS[key(variant)]


@pytest.mark.parametrize('target, variant', OTHERS, ids=name)
def test_other_targets(target, variant):
    check(variant, target)


@pytest.mark.parametrize('dtype', ['fp32', 'fp16'] if FULL else ['fp32'])
@pytest.mark.parametrize('variant', VARIANTS if FULL else chosen(), ids=name)
def test_other_dtypes(variant, dtype):
    check(variant, 'sm_90', dtype=dtype)
