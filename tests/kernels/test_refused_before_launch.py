"""What the Triton kernels do not take is refused with one clear error, before one of them is launched."""

from functools import partial

import pytest
import torch
from scan_cases import SCAN2D_NAMES, SELECTIVE_NAMES, map_inputs, selective_inputs

from mmmsvmamba.kernels import (
    depthwise_residual_gelu,
    depthwise_silu,
    depthwise_silu_pair,
    merge_nearest_norm,
    merge_norm_bilinear,
    scale_and_gate,
    scan2d,
    selective_scan,
)

pytest.importorskip('triton', '3.3', reason='the Triton kernels are tested where Triton is installed')

from driver_stand_in import stand_in  # noqa: E402

X, HALF, VECTOR = torch.zeros(2, 5, 6, 4), torch.zeros(2, 3, 3, 4), torch.zeros(4)
KERNEL, HALF_KERNEL = torch.zeros(4, 1, 3, 3), torch.zeros(4, 1, 7, 7)
#: Operator -> function, its inputs by name.
OPERATORS = {
    'selective_scan': (selective_scan, dict(zip(SELECTIVE_NAMES, selective_inputs(dtype=torch.float32), strict=True))),
    'scan2d': (
        partial(scan2d, routes=[0], group_sizes=[1]),
        dict(zip(SCAN2D_NAMES, map_inputs(dtype=torch.float32), strict=True)),
    ),
    'depthwise_silu': (depthwise_silu, dict(x=X, weight=KERNEL, bias=VECTOR)),
    'depthwise_residual_gelu': (depthwise_residual_gelu, dict(x=X, weight=KERNEL, bias=VECTOR)),
    'depthwise_silu_pair': (
        depthwise_silu_pair,
        dict(x=X, weight=KERNEL, bias=VECTOR, half_weight=HALF_KERNEL, half_bias=VECTOR),
    ),
    'merge_norm_bilinear': (
        merge_norm_bilinear,
        dict(full=X.unsqueeze(3), half=HALF.unsqueeze(3), weight=VECTOR, bias=VECTOR),
    ),
    'merge_nearest_norm': (merge_nearest_norm, dict(full=X, half=HALF, weight=VECTOR, bias=VECTOR)),
    'scale_and_gate': (scale_and_gate, dict(y=X, scale=torch.zeros(2, 4), gate=X)),
}
ARGUMENTS = [(operator, name) for operator, (_, inputs) in OPERATORS.items() for name in inputs]


@pytest.fixture(autouse=True)
def nothing_is_launched():
    with stand_in() as noted:
        yield
    assert noted.launches == 0


@pytest.mark.parametrize('operator, name', ARGUMENTS)
def test_float64(operator, name):
    function, inputs = OPERATORS[operator]
    with pytest.raises(ValueError, match=f'^{name} has dtype torch.float64; the Triton kernels take float32'):
        function(**inputs | {name: inputs[name].double()})


@pytest.mark.parametrize('dtype', [torch.int32, torch.bool, torch.complex64, torch.float8_e4m3fn], ids=str)
@pytest.mark.parametrize('operator, name', ARGUMENTS)
def test_other_dtypes(operator, name, dtype):
    function, inputs = OPERATORS[operator]
    with pytest.raises(ValueError, match=f'^{name} has dtype {dtype}; the (Triton kernels take|scan takes) float32'):
        function(**inputs | {name: inputs[name].to(dtype)})


def test_float64_in_an_exported_program():
    """It calls the operator, not the function that looks at dtypes."""
    _, inputs = OPERATORS['scan2d']
    inputs = dict(inputs, A=inputs['A'].double())
    with pytest.raises(ValueError, match='^A has dtype torch.float64; the Triton kernels take float32'):
        torch.ops.mmmsvmamba.scan2d(*inputs.values(), [0], [1], False, False)


@pytest.mark.parametrize('operator, name', ARGUMENTS)
def test_an_input_elsewhere(operator, name):
    function, inputs = OPERATORS[operator]
    others = [n for n in inputs if n != name]
    first = next(iter(inputs)) == name
    found = f'{others[0]} is on cpu, but (u|the map) is on meta' if first else f'{name} is on meta, but .* is on cpu'
    with pytest.raises(ValueError, match=found):
        function(**inputs | {name: inputs[name].to('meta')})


def test_too_many_routes():
    function, inputs = OPERATORS['scan2d']
    with pytest.raises(ValueError, match='a group of 16 routes; the Triton kernels join up to 15'):
        scan2d(**inputs, routes=[0] * 16, group_sizes=[16])


def test_channels_of_the_merge():
    wide = torch.zeros(1, 1, 1, 8193)
    with pytest.raises(ValueError, match='full has 8193 channels; the Triton kernels of the merge take up to 8192'):
        merge_nearest_norm(wide, None, wide[0, 0, 0], wide[0, 0, 0])


def test_half_maps_of_another_size():
    with pytest.raises(ValueError, match='half has shape .* the Triton kernels take a map of half the size of full'):
        merge_nearest_norm(X, X, VECTOR, VECTOR)
