"""The scans against their plain-loop definitions in float64: values and every gradient, shapes drawn at random."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scan_cases import (
    GROUPS,
    SCAN2D_NAMES,
    SELECTIVE_NAMES,
    assert_close,
    assert_same_results,
    cast,
    leaves,
    map_inputs,
    selective_inputs,
    slabs,
    strided,
)

from mmmsvmamba.kernels import Route, encode_groups, reference, scan2d, selective_scan, slab

TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}
DTYPES = pytest.mark.parametrize('dtype', TOLERANCES, ids=str)

few_examples = settings(max_examples=40, deadline=None, derandomize=True, database=None)
#: Elements of a slab and tokens between two kept states: from one token at a time to everything at once.
cuts = st.tuples(st.sampled_from([1, 150, 1000, 10**6]), st.sampled_from([1, 3, 8, 64]))
d_states = st.sampled_from([1, 1, 3, 4, 16])


@st.composite
def selective_cases(draw):
    groups = draw(st.sampled_from([None, 1, 2, 3]))
    return dict(
        batch=draw(st.integers(1, 3)),
        channels=draw(st.integers(1, 4)) * (groups or 1),
        length=draw(st.integers(1, 70)),
        d_state=draw(d_states),
        groups=groups,
        skip=draw(st.booleans()),
        bias=draw(st.booleans()),
        seed=draw(st.integers(0, 99)),
    )


@st.composite
def map_cases(draw):
    groups = draw(st.lists(st.lists(st.sampled_from(Route), min_size=1, max_size=3), min_size=1, max_size=3))
    sides = st.integers(1, 6)
    height, width = draw(st.one_of(st.tuples(sides, sides), st.sampled_from([(1, 23), (23, 1)])))
    case = dict(
        batch=draw(st.integers(1, 3)),
        height=height,
        width=width,
        channels=draw(st.integers(1, 6)),
        rank=draw(st.sampled_from([None, 1, 3])),
        d_state=draw(d_states),
        seed=draw(st.integers(0, 99)),
    )
    return case, groups


def check_selective(inputs, softplus, tolerance):
    ours, definition = (partial(f, delta_softplus=softplus) for f in (selective_scan, reference.selective_scan))
    assert_same_results(ours, definition, inputs, SELECTIVE_NAMES, tolerance)


def check_scan2d(inputs, groups, summed, tolerance):
    routes, sizes = encode_groups(groups)
    ours, definition = (partial(f, routes=routes, group_sizes=sizes, summed=summed) for f in (scan2d, reference.scan2d))
    assert_same_results(ours, definition, inputs, SCAN2D_NAMES, tolerance)


@DTYPES
@few_examples
@given(case=selective_cases(), softplus=st.booleans(), layout=st.booleans(), cut=cuts)
def test_selective_scan(dtype, case, softplus, layout, cut):
    inputs = selective_inputs(**case, dtype=dtype)
    with slabs(*cut):
        check_selective(strided(inputs) if layout else inputs, softplus, TOLERANCES[dtype])


@DTYPES
@few_examples
@given(case=map_cases(), summed=st.booleans(), layout=st.booleans(), cut=cuts)
def test_scan2d(dtype, case, summed, layout, cut):
    case, groups = case
    inputs = map_inputs(**case, groups=len(groups), dtype=dtype)
    with slabs(*cut):
        check_scan2d(strided(inputs) if layout else inputs, groups, summed, TOLERANCES[dtype])


# two widths, both cut into several slabs of which the last is short: few states a token, and many
WIDTHS = [(1, slab.SLAB_ELEMENTS // 256), (16, slab.SLAB_ELEMENTS // 1024)]


@pytest.mark.parametrize('d_state, channels', WIDTHS)
@pytest.mark.parametrize('groups', GROUPS.values(), ids=GROUPS)
def test_every_route_over_slabs_as_they_are(groups, d_state, channels):
    inputs = map_inputs(batch=2, height=9, width=17, channels=channels, groups=len(groups), rank=3, d_state=d_state)
    check_scan2d(inputs, groups, False, 1e-10)


@pytest.mark.parametrize('d_state, channels', WIDTHS)
def test_sequence_over_slabs_as_they_are(d_state, channels):
    check_selective(selective_inputs(batch=2, channels=channels, length=133, d_state=d_state), True, 1e-10)


def test_parameters_of_other_dtypes():
    inputs = map_inputs(channels=4, groups=2, dtype=torch.bfloat16)
    for i in (3, 6, 7):  # dt_bias, A and D stay in float32 under mixed precision
        inputs[i] = inputs[i].float()
    check_scan2d(inputs, GROUPS['two-groups'], False, 1e-2)
    inputs = selective_inputs(dtype=torch.float16)
    for i in (2, 5, 6):
        inputs[i] = inputs[i].float()
    check_selective(inputs, True, 1e-2)


def test_sums_of_low_precision_maps_round_once():
    inputs = map_inputs(height=4, width=6, groups=2, dtype=torch.bfloat16)
    codes = encode_groups(GROUPS['two-groups'])
    exact = reference.scan2d(*cast(inputs, torch.float32), *codes, summed=True).bfloat16()
    assert_close(scan2d(*inputs, *codes, summed=True), exact, 2**-8)


def test_steps_far_from_zero():
    # softplus is 0 and the identity at the ends: no overflow, no NaN, in values or gradients
    inputs = selective_inputs(length=21, dtype=torch.float32)
    inputs[1] = torch.linspace(-1000, 1000, 21).expand(inputs[1].shape).contiguous()
    inputs[6] = torch.zeros(6)
    check_selective(inputs, True, 1e-5)


def test_sequence_of_a_large_map():
    inputs = selective_inputs(batch=1, channels=4, length=64_000, d_state=1)
    expected = reference.selective_scan(*inputs, delta_softplus=True)
    assert_close(selective_scan(*cast(inputs, torch.float32), delta_softplus=True), expected, 1e-5)


def test_expanded_inputs():
    u, _, A, B, C, D, bias = selective_inputs()
    inputs = [u, torch.tensor(0.3).double().expand(u.shape), A, B[:1].expand(B.shape), C, D, bias]
    check_selective(inputs, False, 1e-10)


def check_nothing(scan, inputs, shape):
    y = scan(*inputs)
    assert y.shape == shape
    for x, grad in zip(inputs, torch.autograd.grad(y.sum(), inputs), strict=True):
        assert torch.equal(grad, torch.zeros_like(x))


@pytest.mark.parametrize('empty', ['batch', 'channels', 'length'])
def test_selective_scan_of_nothing(empty):
    shape = dict(batch=2, channels=6, length=13) | {empty: 0}
    check_nothing(selective_scan, leaves(selective_inputs(**shape)), tuple(shape.values()))


@pytest.mark.parametrize('summed', [False, True])
@pytest.mark.parametrize('empty', ['batch', 'height', 'width', 'channels'])
def test_scan2d_of_nothing(empty, summed):
    shape = dict(batch=2, height=3, width=4, channels=5) | {empty: 0}
    *positions, channels = shape.values()
    scan = partial(scan2d, routes=[0, 3], group_sizes=[2], summed=summed)
    check_nothing(scan, leaves(map_inputs(**shape)), (*positions, channels) if summed else (*positions, 2, channels))
