"""The Triton kernels of the scan, compiled ahead of time: registers, spills, shared memory, instructions per element.

No GPU is needed. All that dispatch chooses from is compiled for one target, a fixed choice for the others;
KERNELS_COMPILED=targets compiles everything for all, KERNELS_COMPILED=full other dtypes and numbers of states too
(`make kernels-full`).
"""

import os

import pytest
from scan_compile import Case, cases, compile_case

FULL = os.environ.get('KERNELS_COMPILED') == 'full'
EVERYWHERE = FULL or os.environ.get('KERNELS_COMPILED') == 'targets'
TARGETS = ('sm_80', 'sm_100', 'gfx942')
#: Compiled for every target in every run.
CHOSEN = [
    Case('scan_forward'),
    Case('scan_forward', rank=6),
    Case('forward_ends'),
    Case('scan_backward'),
    Case('adjoint_ends'),
    Case('pass_states'),
]
#: Instructions of the loop over tokens, per element of a lane, for sm_90 and one state or as many as the kernel holds.
BUDGETS = {
    Case('scan_forward'): 40,
    Case('scan_forward', rank=6): 52,
    Case('forward_ends'): 35,
    Case('forward_ends', rank=6): 47,
    Case('adjoint_ends'): 35,
    Case('adjoint_ends', rank=6): 47,
    Case('scan_backward'): 72,
    Case('scan_backward', rank=6): 85,
    Case('pass_states'): 22,
    Case('scan_forward', 16): 290,
    Case('forward_ends', 16): 185,
    Case('adjoint_ends', 8): 150,
    Case('scan_backward', 8): 590,
}


def check(case, target, **changes):
    done = compile_case(case, target, **changes)
    print(f'{target} {case}: {done}')
    assert sum(done.code.opcodes.values()) > 20
    assert done.code.fits(target), done
    return done


def test_budgets_are_of_all_cases():
    assert set(BUDGETS) == set(cases())
    assert set(CHOSEN) <= set(cases())


@pytest.mark.parametrize('case', cases(), ids=str)
def test_hopper(case):
    done = check(case, 'sm_90')
    budget = BUDGETS[case]
    assert 0.75 * budget < done.per_element <= budget, 'instructions per element'
    if case.kernel != 'scan_backward':
        # a lane owns its channels: nothing passes between lanes, nobody waits
        assert not {'SHFL', 'BAR', 'LDS', 'STS'} & set(done.code.opcodes)
    # the approximations of the special function unit, of which a polynomial needs none
    assert done.code.opcodes['MUFU'] >= (2 + case.states) * done.elements or case.kernel == 'pass_states'


@pytest.mark.parametrize('target', TARGETS)
@pytest.mark.parametrize('case', cases() if EVERYWHERE else CHOSEN, ids=str)
def test_other_targets(case, target):
    check(case, target)


if FULL:

    @pytest.mark.parametrize('target', ['sm_90', *TARGETS])
    @pytest.mark.parametrize('dtype', ['fp16', 'fp32'])
    @pytest.mark.parametrize('case', cases(), ids=str)
    def test_dtypes(case, dtype, target):
        check(case, target, dtype=dtype)

    @pytest.mark.parametrize('states', [2, 3, 4, 5, 6, 7])
    @pytest.mark.parametrize('kernel', ['scan_forward', 'forward_ends', 'scan_backward', 'adjoint_ends'])
    def test_fewer_states(kernel, states):
        check(Case(kernel, states), 'sm_90')

    @pytest.mark.parametrize('rank', [1, 2, 3, 4, 5])
    @pytest.mark.parametrize('kernel', ['scan_forward', 'scan_backward'])
    def test_lower_ranks(kernel, rank):
        check(Case(kernel, rank=rank), 'sm_90')

    @pytest.mark.parametrize('change', [dict(WIDE=True), dict(SOFTPLUS=False)], ids=str)
    @pytest.mark.parametrize('case', cases(), ids=str)
    def test_wide_offsets_and_plain_steps(case, change):
        done = compile_case(case, 'sm_90', **change)
        print(f'sm_90 {case} {change}: {done}')
        assert done.code.spills == 0
