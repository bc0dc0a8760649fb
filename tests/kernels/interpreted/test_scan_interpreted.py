"""The Triton kernels of the scan in Triton's interpreter, against the plain-loop definitions in float64.

Programs are made small, so that small shapes have several blocks of channels, tiles, blocks of tokens and chunks.
Memory is NaN before it is written.
"""

from functools import partial
from unittest import mock

import pytest
import torch
from scan_cases import (
    GROUPS,
    SCAN2D_NAMES,
    SELECTIVE_NAMES,
    assert_same_results,
    cast,
    leaves,
    map_inputs,
    output_gradient,
    selective_inputs,
    strided,
    with_gradients,
)
from torch._subclasses.fake_tensor import FakeTensorMode

from mmmsvmamba.kernels import backend, encode_groups, reference, scan2d, selective_scan, triton_plan

TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}
DTYPES = pytest.mark.parametrize('dtype', TOLERANCES, ids=str)

#: As a GPU runs them.
REAL = {name: getattr(triton_plan, name) for name in ('FORWARD', 'BACKWARD', 'KEEP_ONE', 'KEEP_MANY')}

pytestmark = pytest.mark.usefixtures('nan_memory')


@pytest.fixture(autouse=True)
def small_programs():
    small = {
        name: tuple(config._replace(channels=4) for config in getattr(triton_plan, name))
        for name in ('FORWARD', 'BACKWARD')
    }
    with mock.patch.multiple(triton_plan, **small, KEEP_MANY=4, CHUNK=1, SPLIT=False):
        assert backend.choose('cpu') == 'triton'
        yield


@pytest.fixture
def split(request):
    with mock.patch.object(triton_plan, 'SPLIT', request.param):
        yield request.param


def check_scan2d(inputs, groups, summed=False, tolerance=None):
    routes, sizes = encode_groups(groups)
    ours, definition = (partial(f, routes=routes, group_sizes=sizes, summed=summed) for f in (scan2d, reference.scan2d))
    assert_same_results(ours, definition, inputs, SCAN2D_NAMES, tolerance or TOLERANCES[inputs[0].dtype])


def check_selective(inputs, softplus=True, tolerance=None):
    ours, definition = (partial(f, delta_softplus=softplus) for f in (selective_scan, reference.selective_scan))
    assert_same_results(ours, definition, inputs, SELECTIVE_NAMES, tolerance or TOLERANCES[inputs[0].dtype])


small_map = partial(map_inputs, batch=1, height=2, width=3, channels=3, d_state=1, dtype=torch.float32)
small_sequence = partial(selective_inputs, batch=1, channels=6, length=13, d_state=1, dtype=torch.float32)


# ---- scan2d ----


@pytest.mark.parametrize('rank, split', [(None, False), (3, True)], ids=['full', 'low-rank-split'], indirect=['split'])
@pytest.mark.parametrize('groups', GROUPS.values(), ids=GROUPS)
def test_routes(groups, rank, split):
    check_scan2d(small_map(height=2 if split else 3, channels=5, groups=len(groups), rank=rank), groups)


def test_rank_zero():
    """Steps are the bias alone."""
    check_scan2d(small_map(rank=0), [[0]])


@pytest.mark.parametrize('rank, split', [(3, False), (None, True)], ids=['low-rank', 'full-split'], indirect=['split'])
def test_joined_routes(rank, split):
    check_scan2d(small_map(rank=rank), GROUPS['joined'])


@pytest.mark.parametrize('split', [False, True], ids=['whole', 'split'], indirect=True)
@pytest.mark.parametrize('d_state', [2, 4])
def test_states_of_maps(d_state, split):
    check_scan2d(small_map(d_state=d_state, groups=2, channels=3), GROUPS['two-groups'], summed=True)


def test_sums_of_batches():
    check_scan2d(small_map(batch=2, height=1, channels=5), GROUPS['joined'], summed=True)
    check_scan2d(small_map(batch=2, groups=2, channels=3), [[0], [3]], summed=True)


def test_rank_that_is_projected_outside():
    assert not triton_plan.projects(7, 1) and triton_plan.projects(6, 1) and not triton_plan.projects(6, 2)
    check_scan2d(small_map(rank=7, groups=2), [[2], [1]])


@DTYPES
@pytest.mark.parametrize('rank', [None, 2], ids=['full', 'low-rank'])
def test_dtypes_of_maps(dtype, rank):
    inputs = small_map(dtype=dtype, rank=rank, channels=4)
    check_scan2d(inputs, GROUPS['joined'])
    for i in (3, 6, 7):  # parameters stay float32 under mixed precision
        inputs[i] = inputs[i].float()
    check_scan2d(inputs, GROUPS['column'], summed=True)


@pytest.mark.parametrize('height, width', [(1, 1), (1, 11), (11, 1), (2, 5)])
def test_degenerate_maps(height, width):
    check_scan2d(small_map(height=height, width=width, channels=1), GROUPS['joined'])


def test_layouts_of_maps():
    check_scan2d(strided(small_map(batch=2, groups=2)), GROUPS['two-groups'])
    u, dt, *others = small_map()
    check_scan2d([u[:, :1, :1].expand(u.shape), dt, *others], [[0, 3]])


def test_gradient_of_a_permuted_output_gradient():
    inputs = leaves(small_map())
    y = scan2d(*inputs, [1], [1])
    grad = output_gradient(y)
    dense = torch.autograd.grad(y, inputs, grad, retain_graph=True)
    permuted = torch.autograd.grad(y, inputs, grad.permute(4, 1, 3, 0, 2).contiguous().permute(3, 1, 4, 2, 0))
    assert all(torch.equal(a, b) for a, b in zip(dense, permuted, strict=True))


def test_offsets_of_64_bits():
    with mock.patch.object(triton_plan, 'WIDE', 0):
        check_scan2d(small_map(groups=2), GROUPS['two-groups'])
        check_selective(small_sequence(d_state=2, length=6))


def test_more_routes_than_one_launch_takes():
    groups = [[0, 1], [2], [3, 0], [1]]
    check_scan2d(small_map(height=2, width=2, groups=4, channels=1), groups)
    with pytest.raises(ValueError, match='16 routes.*up to 15.*MMMSVMAMBA_BACKEND=torch'):
        scan2d(*small_map(), [0] * 16, [16])
    check_scan2d(small_map(height=1, width=2, groups=17, channels=1), [[i % 4] for i in range(17)])


# ---- selective_scan ----


@pytest.mark.parametrize('split', [False, True], ids=['whole', 'split'], indirect=True)
@pytest.mark.parametrize('d_state, length', [(1, 23), (4, 9), (8, 6), (16, 5), (17, 5), (64, 3)])
def test_states_of_sequences(d_state, length, split):
    check_selective(small_sequence(d_state=d_state, length=length, channels=2))


@pytest.mark.parametrize('softplus', [False, True])
@pytest.mark.parametrize(
    'options',
    [dict(groups=2), dict(groups=3, skip=False), dict(bias=False), dict(skip=False, bias=False, groups=1)],
    ids=str,
)
def test_options_of_sequences(options, softplus):
    check_selective(small_sequence(**options, length=8), softplus)


@DTYPES
@pytest.mark.parametrize('d_state', [1, 3])
def test_dtypes_of_sequences(dtype, d_state):
    check_selective(small_sequence(batch=2, channels=4, length=6, dtype=dtype, d_state=d_state))


def test_two_slices_of_states_in_low_precision():
    check_selective(small_sequence(dtype=torch.bfloat16, d_state=18, length=3, channels=2))


@pytest.mark.parametrize('length', [1, 2, 5, 10, 11])
def test_lengths(length):
    check_selective(small_sequence(length=length, channels=1))


def test_layouts_of_sequences():
    check_selective(strided(small_sequence(batch=2, groups=2, d_state=2, length=6)))


def test_steps_far_from_zero():
    inputs = small_sequence(length=21)
    inputs[1] = torch.linspace(-1000, 1000, 21).expand(inputs[1].shape).contiguous()
    inputs[6] = torch.zeros(6)
    check_selective(inputs)


def test_small_steps_keep_their_digits():
    inputs = small_sequence(length=12)
    raw = torch.linspace(-14, 0, 12)
    inputs = [torch.ones_like(inputs[0]), raw.expand(1, 6, 12).contiguous(), torch.full((6, 1), -1e-6)] + [
        torch.ones(1, 1, 12)
    ] * 2
    y = selective_scan(*inputs, delta_softplus=True)
    expected = reference.selective_scan(*cast(inputs, torch.float64), delta_softplus=True)
    assert ((y - expected).abs() / expected).max() < 1e-6


# ---- as operators ----


def test_programs_as_large_as_they_are():
    # the configurations that a GPU runs: several tiles of the longest block, a block of channels that is not full
    with mock.patch.multiple(triton_plan, **{name: REAL[name] for name in ('FORWARD', 'BACKWARD', 'KEEP_MANY')}):
        check_scan2d(small_map(channels=130, height=2, width=3), [[3]])
        check_selective(small_sequence(d_state=2, length=67, channels=2))
        check_selective(small_sequence(d_state=9, length=5, channels=3))


def test_split_by_occupancy():
    device = torch.device('cpu')
    with (
        mock.patch.multiple(triton_plan, SPLIT=None, CHUNK=256, WARPS=8),
        mock.patch.object(triton_plan, '_processors', return_value=132),
    ):
        assert triton_plan.chunks(6, 12800, 5, device) == (73, 176)  # batch 2, D = 384 of 64,000 tokens
        assert triton_plan.chunks(2000, 627, 5, device) == (627, 1)  # enough programs
        assert triton_plan.chunks(6, 40, 5, device) == (40, 1)  # too short


def test_equal_from_run_to_run():
    with mock.patch.object(triton_plan, 'SPLIT', True):
        function = partial(scan2d, routes=[2, 1, 3], group_sizes=[3])
        y, grads = with_gradients(function, small_map())
        again, grads_again = with_gradients(function, small_map())
    assert torch.equal(y, again)
    assert all(torch.equal(a, b) for a, b in zip(grads, grads_again, strict=True))


def test_twice_in_one_graph():
    def twice(scan, u, dt, dt_weight, dt_bias, B, C, A, D):
        y = scan(u, dt, dt_weight, dt_bias, B, B, A, D, [3, 0], [2], True)
        return scan(y.tanh(), dt, dt_weight, dt_bias, C, B, A, D, [1], [1], True) + y

    inputs = small_map(height=2, width=3)
    assert_same_results(partial(twice, scan2d), partial(twice, reference.scan2d), inputs, SCAN2D_NAMES, 1e-5)


@pytest.mark.parametrize('empty', ['batch', 'height', 'channels'])
def test_nothing(empty):
    inputs = leaves(small_map(**{empty: 0}))
    y = scan2d(*inputs, [0, 3], [2])
    assert y.numel() == 0
    assert all(
        torch.equal(grad, torch.zeros_like(x))
        for x, grad in zip(inputs, torch.autograd.grad(y.sum(), inputs), strict=True)
    )
    inputs = leaves(small_sequence(batch=0))
    assert all((grad == 0).all() for grad in torch.autograd.grad(selective_scan(*inputs).sum(), inputs))


@pytest.mark.parametrize('d_state, at_most', [(1, 1), (16, 1), (4, 0.25)])
def test_bytes_kept_for_the_backward_pass(d_state, at_most):
    with mock.patch.multiple(triton_plan, **{name: REAL[name] for name in ('KEEP_MANY', 'KEEP_ONE')}):
        kept = 4 * d_state * triton_plan.blocks(56 * 56, d_state)
    assert kept <= at_most * 56 * 56


def test_kept_states_are_written_whole():
    _, states = torch.ops.mmmsvmamba.scan2d(*small_map(groups=2), *encode_groups(GROUPS['two-groups']), False, True)
    assert states.numel() > 0 and states.isfinite().all()
    _, states = torch.ops.mmmsvmamba.selective_scan(*small_sequence(groups=2, d_state=3), True, True)
    assert states.numel() > 0 and states.isfinite().all()


def test_float64_is_refused():
    with pytest.raises(ValueError, match='A has dtype torch.float64.*MMMSVMAMBA_BACKEND=torch'):
        inputs = small_map()
        inputs[6] = inputs[6].double()
        scan2d(*inputs, [0], [1])
    with pytest.raises(ValueError, match='u has dtype torch.float64'):
        selective_scan(*small_sequence(dtype=torch.float64))


def test_opcheck():
    inputs = leaves(small_map(height=1, width=2, groups=2, channels=2))
    torch.library.opcheck(torch.ops.mmmsvmamba.scan2d.default, (*inputs, [0, 3, 1], [2, 1], False, True))
    inputs = leaves(small_sequence(length=4, groups=2, skip=False))
    torch.library.opcheck(torch.ops.mmmsvmamba.selective_scan.default, (*inputs, True, True))


def test_compile_without_graph_breaks():
    def model(scan, *inputs):
        return scan(inputs[0].tanh(), *inputs[1:]).sin()

    scan = partial(scan2d, routes=[2, 1], group_sizes=[2])
    torch._dynamo.reset()
    compiled = torch.compile(partial(model, scan), fullgraph=True, backend='aot_eager')
    assert_same_results(
        compiled, partial(model, partial(reference.scan2d, **scan.keywords)), small_map(), SCAN2D_NAMES, 1e-5
    )


def test_fake_tensors():
    with FakeTensorMode() as mode:
        inputs = [mode.from_tensor(x).requires_grad_() for x in small_map(groups=2)]
        y = scan2d(*inputs, *encode_groups(GROUPS['two-groups']))
        assert y.shape == (1, 2, 3, 3, 3)
        y.sum().backward()
        assert all(x.grad.shape == x.shape for x in inputs)


def test_autocast_leaves_the_scan_in_float32():
    scan = partial(scan2d, routes=[1], group_sizes=[1])
    inputs = small_map(rank=8)
    y, grads = with_gradients(scan, inputs)
    with torch.autocast('cpu', torch.bfloat16):
        actual, actual_grads = with_gradients(scan, inputs)
    assert torch.equal(actual, y)
    assert all(torch.equal(a, b) for a, b in zip(actual_grads, grads, strict=True))
