"""The scans as operators: opcheck, compile, export, meta and fake tensors, autocast, inference mode."""

import sys
from functools import partial
from pathlib import Path

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
    with_gradients,
)
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from mmmsvmamba.kernels import encode_groups, scan2d, selective_scan

ROUTES, SIZES = encode_groups(GROUPS['two-groups'])
scan_map = partial(scan2d, routes=ROUTES, group_sizes=SIZES)

SCANS = [
    pytest.param(scan_map, partial(map_inputs, groups=2), id='map'),
    pytest.param(partial(selective_scan, delta_softplus=True), selective_inputs, id='sequence'),
]

has_custom_ops = pytest.mark.skipif(
    not hasattr(torch.library, 'custom_op'), reason='torch.compile and torch.export see the scans from torch 2.4 on'
)


@has_custom_ops
@pytest.mark.parametrize('wants_gradient', [False, True])
@pytest.mark.parametrize('rank, summed, dtype', [(2, False, torch.float32), (None, True, torch.float64)], ids=str)
def test_opcheck_of_scan2d(rank, summed, dtype, wants_gradient):
    inputs = map_inputs(groups=2, rank=rank, dtype=dtype)
    inputs = leaves(inputs) if wants_gradient else inputs
    ops = torch.ops.mmmsvmamba
    args = (*inputs, ROUTES, SIZES, summed, wants_gradient)
    torch.library.opcheck(ops.scan2d.default, args)
    if wants_gradient:
        with torch.no_grad():
            y, states = ops.scan2d(*args)
            torch.library.opcheck(
                ops.scan2d_backward.default,
                (output_gradient(y), *(x if x is None else x.detach() for x in inputs), states, ROUTES, SIZES, summed),
            )


@has_custom_ops
@pytest.mark.parametrize('wants_gradient', [False, True])
@pytest.mark.parametrize('options', [dict(groups=3, skip=False, dtype=torch.bfloat16), dict(bias=False)], ids=str)
def test_opcheck_of_selective_scan(options, wants_gradient):
    inputs = selective_inputs(**options)
    inputs = leaves(inputs) if wants_gradient else inputs
    ops = torch.ops.mmmsvmamba
    args = (*inputs, True, wants_gradient)
    torch.library.opcheck(ops.selective_scan.default, args)
    if wants_gradient:
        with torch.no_grad():
            y, states = ops.selective_scan(*args)
            torch.library.opcheck(
                ops.selective_scan_backward.default,
                (output_gradient(y), *(x if x is None else x.detach() for x in inputs), states, True),
            )


@has_custom_ops
@pytest.mark.parametrize('rank', [2, None])
def test_compile_without_graph_breaks(rank):
    def model(scan, *inputs):
        return scan(inputs[0].tanh(), *inputs[1:]).sin()

    torch._dynamo.reset()
    compiled = torch.compile(partial(model, scan_map), fullgraph=True, backend='aot_eager')
    inputs = map_inputs(groups=2, rank=rank)
    assert_same_results(compiled, partial(model, scan_map), inputs, SCAN2D_NAMES, 1e-14)


@has_custom_ops
def test_compile_of_selective_scan():
    torch._dynamo.reset()
    compiled = torch.compile(partial(selective_scan, delta_softplus=True), fullgraph=True, backend='aot_eager')
    inputs = selective_inputs(groups=2)
    y, grads = with_gradients(compiled, inputs)
    expected, expected_grads = with_gradients(partial(selective_scan, delta_softplus=True), inputs)
    assert torch.equal(y, expected)
    assert all(torch.equal(a, b) for a, b in zip(grads, expected_grads, strict=True))


@has_custom_ops
def test_compile_for_many_sizes():
    graphs = []

    def count(graph, _):
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    compiled = torch.compile(scan_map, fullgraph=True, backend=count, dynamic=True)
    for height, width in [(4, 6), (7, 3), (11, 8)]:
        inputs = map_inputs(height=height, width=width, groups=2)
        assert torch.equal(compiled(*inputs), scan_map(*inputs))
    assert len(graphs) == 1


@has_custom_ops
def test_compile_with_inductor():
    torch._dynamo.reset()
    compiled = torch.compile(scan_map, fullgraph=True, backend='inductor')
    assert_same_results(compiled, scan_map, map_inputs(groups=2), SCAN2D_NAMES, 1e-14)


class ScanMap(torch.nn.Module):
    def forward(self, *inputs):
        return scan_map(*inputs).relu()


class ScanSequence(torch.nn.Module):
    def forward(self, *inputs):
        return selective_scan(*inputs, delta_softplus=True)


@has_custom_ops
def test_export_with_dynamic_batch_and_height():
    batch, height = torch.export.Dim('batch', max=64), torch.export.Dim('height', max=999)
    maps = {0: batch, 1: height}
    program = torch.export.export(
        ScanMap(), tuple(map_inputs(groups=2)), dynamic_shapes=((maps, maps, None, None, maps, maps, None, None),)
    )
    assert 'mmmsvmamba.scan2d.default' in program.graph_module.code
    for batch, height in [(1, 5), (3, 2)]:
        inputs = map_inputs(batch=batch, height=height, groups=2)
        assert torch.equal(program.module()(*inputs), scan_map(*inputs).relu())


@has_custom_ops
def test_export_with_dynamic_length():
    length = {2: torch.export.Dim('length', max=4096)}
    program = torch.export.export(
        ScanSequence(),
        tuple(selective_inputs()),
        dynamic_shapes=((length, length, None, length, length, None, None),),
    )
    inputs = selective_inputs(length=150)
    assert torch.equal(program.module()(*inputs), ScanSequence()(*inputs))


@pytest.mark.parametrize('summed', [False, True])
def test_meta_tensors(summed):
    inputs = [x.to('meta').requires_grad_() for x in map_inputs(groups=2, dtype=torch.bfloat16)]
    y = scan_map(*inputs, summed=summed)
    assert y.is_meta and y.dtype == torch.bfloat16
    assert y.shape == ((2, 3, 4, 5) if summed else (2, 3, 4, 3, 5))
    for x, grad in zip(inputs, torch.autograd.grad(y.sum(), inputs), strict=True):
        assert grad.is_meta and grad.shape == x.shape and grad.dtype == x.dtype


def test_meta_tensors_of_selective_scan():
    inputs = [None if x is None else x.to('meta').requires_grad_() for x in selective_inputs(groups=3, skip=False)]
    y = selective_scan(*inputs)
    assert y.is_meta and y.shape == inputs[0].shape
    y.sum().backward()
    assert all(x is None or x.grad.shape == x.shape for x in inputs)


@has_custom_ops
def test_fake_tensors():
    with FakeTensorMode() as mode:
        inputs = [mode.from_tensor(x).requires_grad_() for x in map_inputs(groups=2)]
        y = scan_map(*inputs)
        assert y.shape == (2, 3, 4, 3, 5)
        y.sum().backward()
        assert all(x.grad.shape == x.shape for x in inputs)


def test_autocast_leaves_the_scan_in_float32():
    inputs = map_inputs(channels=16, groups=2, rank=3, d_state=3, dtype=torch.float32)
    y, grads = with_gradients(scan_map, inputs)
    with torch.autocast('cpu', torch.bfloat16):
        actual, actual_grads = with_gradients(scan_map, inputs)
    assert torch.equal(actual, y)
    for name, actual, expected in zip(SCAN2D_NAMES, actual_grads, grads, strict=True):
        assert torch.equal(actual, expected), name

    inputs = selective_inputs(d_state=3, dtype=torch.float32)
    y, grads = with_gradients(selective_scan, inputs)
    with torch.autocast('cpu', torch.bfloat16):
        actual, actual_grads = with_gradients(selective_scan, inputs)
    assert torch.equal(actual, y)
    assert all(torch.equal(a, b) for a, b in zip(actual_grads, grads, strict=True))


def test_inputs_made_under_autocast():
    # what a layer does: the projection comes out in bfloat16, the parameters are float32
    u, dt, dt_weight, dt_bias, B, C, A, D = map_inputs(channels=16, groups=2, dtype=torch.float32)
    with torch.autocast('cpu', torch.bfloat16):
        projected = torch.nn.functional.linear(u, torch.eye(16))
        y = scan_map(projected, dt.bfloat16(), dt_weight, dt_bias, B.bfloat16(), C.bfloat16(), A, D)
    assert projected.dtype == y.dtype == torch.bfloat16
    assert_close(y, scan_map(u, dt, dt_weight, dt_bias, B, C, A, D), 2e-2)


@has_custom_ops
@pytest.mark.parametrize('scan, make', SCANS)
def test_autograd_is_left_out_where_no_gradient_is_wanted(scan, make):
    """Its kernel is Python, and would cost every operator of an inference as much as a launch."""
    inputs = leaves(make())

    def called():
        files = set()
        sys.setprofile(lambda frame, event, _: files.add(Path(frame.f_code.co_filename).stem))
        try:
            y = scan(*inputs)
        finally:
            sys.setprofile(None)
        return 'autograd' in files, y

    found, expected = called()
    assert found and expected.requires_grad
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            found, y = called()
        assert not found and not y.requires_grad and torch.equal(y, expected)


@has_custom_ops
def test_overridden_functions_see_autograd():
    """What a mode or a subclass runs around a call is not below autograd."""
    found = []

    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            with torch.enable_grad():
                found.append((torch.ones(1, requires_grad=True) * 2).requires_grad)
            return function(*args, **(kwargs or {}))

    with torch.no_grad(), Mode():
        scan_map(*map_inputs(groups=2))
    assert found and all(found)


@has_custom_ops
@pytest.mark.parametrize('scan, make', SCANS)
def test_a_program_of_inference_keeps_nothing_for_a_backward_pass(scan, make):
    inputs = make()
    traced = make_fx(scan)(*inputs)
    u = inputs[0].clone().requires_grad_()
    y = traced(u, *inputs[1:])
    assert torch.equal(y, scan(*inputs))
    with pytest.raises(RuntimeError, match='kept no states for a backward pass: it ran, or was traced'):
        y.sum().backward()


@has_custom_ops
@pytest.mark.parametrize('scan, make', SCANS)
def test_forward_mode_is_refused(scan, make):
    """torch itself would drop the tangent and say nothing."""
    inputs = make()

    def along(u):
        return scan(u, *inputs[1:])

    for grad in (True, False):
        with torch.set_grad_enabled(grad), pytest.raises(RuntimeError, match='scan.* has no forward-mode derivative'):
            torch.func.jvp(along, (inputs[0],), (torch.ones_like(inputs[0]),))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(inputs[0], torch.ones_like(inputs[0]))
        with pytest.raises(RuntimeError, match='scan.* has no forward-mode derivative'):
            along(dual)
        assert torch.equal(along(inputs[0]), scan(*inputs))


@has_custom_ops
def test_compile_where_no_gradient_is_wanted():
    inputs = leaves(map_inputs(height=7, groups=2))
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(scan_map, fullgraph=True, backend='aot_eager')
        assert torch.equal(compiled(*inputs), scan_map(*inputs))
        program = make_fx(scan_map)(*inputs)
    assert 'mmmsvmamba.scan2d.default' in program.code


def test_inference_mode_then_training():
    inputs = map_inputs(height=13, groups=2)  # a size of its own: what is cached is cached in inference mode
    with torch.inference_mode():
        y = scan_map(*inputs)
        z = scan_map(*(x.clone() for x in inputs))
    assert y.is_inference()
    trained, grads = with_gradients(scan_map, inputs)
    assert torch.equal(trained, y) and torch.equal(trained, z)
    assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_outputs_are_contiguous_and_new(dtype):
    inputs = map_inputs(groups=2, dtype=dtype)
    for summed in (False, True):
        y = scan_map(*(x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs), summed=summed)
        assert y.is_contiguous() and y.dtype == dtype
