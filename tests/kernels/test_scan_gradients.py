"""Gradients beyond their values: exact, equal from run to run, one at a time, without a trace of unwritten memory."""

from functools import partial

import pytest
import torch
from scan_cases import (
    GROUPS,
    SCAN2D_NAMES,
    assert_close,
    assert_same_results,
    leaves,
    map_inputs,
    output_gradient,
    selective_inputs,
    slabs,
    with_gradients,
)

from mmmsvmamba.kernels import encode_groups, reference, scan2d, selective_scan


def scan_along(groups, summed=False):
    routes, sizes = encode_groups(groups)
    return partial(scan2d, routes=routes, group_sizes=sizes, summed=summed)


@pytest.mark.parametrize('rank', [None, 1])
@pytest.mark.parametrize('groups', GROUPS.values(), ids=GROUPS)
def test_gradcheck_of_scan2d(groups, rank):
    inputs = leaves(map_inputs(batch=1, height=2, width=3, channels=2, groups=len(groups), rank=rank))
    with slabs():
        assert torch.autograd.gradcheck(scan_along(groups), inputs)
        assert torch.autograd.gradcheck(scan_along(groups, summed=True), inputs, fast_mode=True)


@pytest.mark.parametrize('softplus', [False, True])
@pytest.mark.parametrize('options', [dict(), dict(groups=2, skip=False), dict(d_state=1, bias=False)], ids=str)
def test_gradcheck_of_selective_scan(options, softplus):
    inputs = leaves(selective_inputs(batch=2, channels=2, length=7, **options))
    with slabs():
        assert torch.autograd.gradcheck(partial(selective_scan, delta_softplus=softplus), inputs)


def test_equal_from_run_to_run():
    inputs = map_inputs(batch=2, height=23, width=31, channels=96, groups=2, dtype=torch.float32)
    runs = [with_gradients(scan_along(GROUPS['two-groups']), inputs) for _ in range(3)]
    for y, grads in runs[1:]:
        assert torch.equal(y, runs[0][0])
        for name, grad, first in zip(SCAN2D_NAMES, grads, runs[0][1], strict=True):
            assert torch.equal(grad, first), name


def test_no_trace_of_unwritten_memory(nan_memory):
    assert torch.ones(1).new_empty(2).isnan().all()
    for summed in (False, True):
        for elements, checkpoint in [(1, 4), (10**6, 5)]:
            with slabs(elements, checkpoint):
                groups = GROUPS['two-groups']
                ours = scan_along(groups, summed)
                definition = partial(reference.scan2d, **ours.keywords)
                assert_same_results(ours, definition, map_inputs(groups=2), SCAN2D_NAMES, 1e-10)
                y, grads = with_gradients(selective_scan, selective_inputs(groups=3))
                assert all(x.isfinite().all() for x in (y, *grads))


@pytest.mark.skipif(not hasattr(torch.library, 'custom_op'), reason='operators can be called from torch 2.4 on')
def test_kept_states_are_written_whole(nan_memory):
    inputs = map_inputs(groups=2, height=5)
    _, states = torch.ops.mmmsvmamba.scan2d(*inputs, *encode_groups(GROUPS['two-groups']), False, True)
    assert states.numel() > 0
    assert states.isfinite().all()


def test_inputs_stay_as_they_are():
    inputs = map_inputs(groups=2)
    copies = [x.clone() for x in inputs]
    with_gradients(scan_along(GROUPS['two-groups']), inputs)
    for name, x, copy in zip(SCAN2D_NAMES, inputs, copies, strict=True):
        assert torch.equal(x, copy), name


def test_twice_in_one_graph():
    def twice(scan, u, dt, dt_weight, dt_bias, B, C, A, D):
        # one tensor as two arguments, one output as the next input, shared parameters
        y = scan(u, dt, dt_weight, dt_bias, B, B, A, D, [3, 0], [2], True)
        return scan(y.tanh(), dt, dt_weight, dt_bias, C, B, A, D, [1], [1], True) + y

    assert_same_results(partial(twice, scan2d), partial(twice, reference.scan2d), map_inputs(), SCAN2D_NAMES, 1e-10)


@pytest.mark.parametrize('wanted', range(len(SCAN2D_NAMES)), ids=SCAN2D_NAMES)
def test_of_one_input_alone(wanted):
    inputs = map_inputs()
    _, expected = with_gradients(scan_along([[0, 3]]), inputs)
    inputs[wanted].requires_grad_()
    y = scan_along([[0, 3]])(*inputs)
    y.backward(output_gradient(y))
    assert_close(inputs[wanted].grad, expected[wanted], 1e-14)
    assert all(x.grad is None for i, x in enumerate(inputs) if i != wanted)


def test_of_an_expanded_output_gradient():
    inputs = leaves(map_inputs())
    expanded = torch.autograd.grad(scan_along([[1]])(*inputs).sum(), inputs)
    dense = torch.autograd.grad(scan_along([[1]])(*inputs), inputs, torch.ones(2, 3, 4, 1, 5, dtype=torch.float64))
    for name, x, y in zip(SCAN2D_NAMES, expanded, dense, strict=True):
        assert torch.equal(x, y), name


def test_of_a_permuted_output_gradient():
    inputs = leaves(map_inputs())
    y = scan_along([[1]])(*inputs)
    grad = output_gradient(y)
    dense = torch.autograd.grad(y, inputs, grad, retain_graph=True)
    permuted = torch.autograd.grad(y, inputs, grad.permute(4, 1, 3, 0, 2).contiguous().permute(3, 1, 4, 2, 0))
    for name, x, y in zip(SCAN2D_NAMES, permuted, dense, strict=True):
        assert torch.equal(x, y), name


def test_second_derivatives_are_refused():
    inputs = leaves(map_inputs())
    (grad,) = torch.autograd.grad(scan_along([[0]])(*inputs).square().sum(), inputs[:1], create_graph=True)
    # below torch 2.4 the scan has no name of its own to refuse under
    refused = 'scan2d_backward' if hasattr(torch.library, 'custom_op') else 'once_differentiable'
    with pytest.raises(RuntimeError, match=refused):
        grad.sum().backward()


def test_nothing_is_kept_where_no_gradient_is_wanted():
    sizes = []

    def pack(x):
        sizes.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        scan_along([[0]])(*map_inputs())
        assert not sizes
        y = scan_along([[0]])(*leaves(map_inputs()))
    assert sizes and y.requires_grad
