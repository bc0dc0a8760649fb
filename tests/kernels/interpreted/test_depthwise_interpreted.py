"""The kernels of the depthwise convolutions, run by Triton's interpreter, against torch operators in float64."""

import pytest
import torch
import torch.nn.functional as F
from scan_cases import assert_close, with_gradients

from mmmsvmamba.kernels import backend, triton_depthwise_launch
from mmmsvmamba.kernels.depthwise import depthwise_residual_gelu, depthwise_silu, depthwise_silu_pair

TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}
#: The pair runs the kernels of the other two, at more sizes.
SIZES = [('silu', (4, 5)), ('residual-gelu', (5, 4)), *(('pair', size) for size in [(7, 5), (1, 9), (2, 1), (1, 1)])]


@pytest.fixture(autouse=True)
def on_triton(monkeypatch, nan_memory):
    monkeypatch.setenv(backend.VARIABLE, 'triton')


def conv(x, weight, bias, stride=1):
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, stride, weight.shape[-1] // 2, groups=x.shape[-1])
    return y.permute(0, 2, 3, 1)


def joined(outputs):
    """Both maps of a pair as one tensor, for one gradient."""
    return torch.cat([y.flatten(1, 2) for y in outputs], dim=1)


CASES = {
    'silu': (depthwise_silu, lambda x, w, b: F.silu(conv(x, w, b)), ('weight', 'bias')),
    'residual-gelu': (depthwise_residual_gelu, lambda x, w, b: F.gelu(x + conv(x, w, b)), ('weight', 'bias')),
    'pair': (
        lambda *args: joined(depthwise_silu_pair(*args)),
        lambda x, w, b, v, c: joined([F.silu(conv(x, w, b)), F.silu(conv(x, v, c, stride=2))]),
        ('weight', 'bias', 'half_weight', 'half_bias'),
    ),
}


def inputs(case, size, channels=5, dtype=torch.float32, bias=True, batch=2):
    rand = torch.Generator().manual_seed(0)
    shapes = dict(weight=(channels, 1, 3, 3), half_weight=(channels, 1, 7, 7), bias=(channels,), half_bias=(channels,))
    found = [torch.randn(batch, *size, channels, generator=rand)]
    for name in CASES[case][2]:
        x = torch.randn(shapes[name], generator=rand) / max(1, shapes[name][-1] if len(shapes[name]) > 1 else 1)
        found.append(x if bias or 'bias' not in name else None)
    return [None if x is None else x.to(dtype) for x in found]


def assert_same(case, args, tolerance, function=None):
    """The gradients of parameters are sums over the map: their error is taken relative to the largest."""
    ours, definition, names = CASES[case]
    y, grads = with_gradients(function or ours, args)
    expected_y, expected = with_gradients(definition, [None if x is None else x.double() for x in args])
    assert y.dtype == args[0].dtype
    assert_close(y, expected_y, tolerance)
    for name, x, grad, other in zip(('x', *names), args, grads, expected, strict=True):
        if x is not None:
            assert grad.dtype == x.dtype, name
            assert_close(grad, other, tolerance, f'gradient of {name}')


@pytest.mark.parametrize('case, size', SIZES, ids=str)
def test_values_and_gradients(case, size):
    assert_same(case, inputs(case, size), 1e-5)


@pytest.mark.parametrize('case', ['residual-gelu', 'pair'])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(case, dtype):
    # in the backward pass the gradient before the activation is stored once, in the dtype of the map
    assert_same(case, inputs(case, (3, 4), dtype=dtype, batch=1), TOLERANCES[dtype])


@pytest.mark.parametrize('case', ['residual-gelu', 'pair'])
def test_float32_parameters_of_a_bfloat16_map(case):
    x, *parameters = inputs(case, (3, 2))
    assert_same(case, [x.bfloat16(), *parameters], 1e-2)


@pytest.mark.parametrize('case', ['silu', 'pair'])
def test_without_bias(case):
    assert_same(case, inputs(case, (3, 2), bias=False), 1e-5)


@pytest.mark.parametrize('case', CASES)
def test_several_blocks_of_channels(case):
    assert_same(case, inputs(case, (2, 1), channels=70, batch=1), 1e-5)


@pytest.mark.parametrize('case', ['residual-gelu', 'pair'])
def test_several_segments_and_rows_per_program(case, monkeypatch):
    monkeypatch.setattr(triton_depthwise_launch, '_SEGMENT', 3)
    monkeypatch.setattr(triton_depthwise_launch, '_WALK', 6)
    monkeypatch.setattr(triton_depthwise_launch, '_PROGRAMS', 1)
    assert_same(case, inputs(case, (5, 7), channels=2, batch=1), 1e-5)


def test_strided_inputs():
    args = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs('silu', (4, 3))]
    assert_same('silu', args, 1e-5)


@pytest.mark.parametrize('case', CASES)
def test_empty_batch(case):
    args = inputs(case, (3, 4))
    args[0] = args[0][:0]
    y, grads = with_gradients(CASES[case][0], args)
    assert y.shape[0] == 0
    assert [grad.shape for grad in grads] == [x.shape for x in args]
    assert not any(grad.any() for grad in grads)


def test_sizes_without_kernels():
    """Other convolutions than those of the published models are torch's on every device."""
    x = torch.randn(2, 5, 4, 3)
    weight, half_weight, bias = torch.randn(3, 1, 5, 5), torch.randn(3, 1, 3, 3), torch.randn(3)
    full, half = depthwise_silu_pair(x, weight, bias, half_weight, None)
    assert_close(full, F.silu(conv(x.double(), weight.double(), bias.double())), 1e-5)
    assert_close(half, F.silu(conv(x.double(), half_weight.double(), None, stride=2)), 1e-5)
    assert_close(depthwise_residual_gelu(x, weight, bias), F.gelu(x + conv(x, weight, bias)), 1e-5)


@pytest.mark.parametrize('case', CASES)
def test_errors(case):
    x, weight, *others = inputs(case, (3, 4))
    with pytest.raises(ValueError, match=r'weight must have shape \(5, 1, 3, 3\), got \(4, 1, 3, 3\)'):
        CASES[case][0](x, weight[:4], *others)
    with pytest.raises(ValueError, match='x has dtype torch.float64.*MMMSVMAMBA_BACKEND=torch'):
        CASES[case][0](x.double(), weight, *others)


@pytest.mark.parametrize('case', CASES)
def test_as_an_operator(case):
    args = [x.requires_grad_() for x in inputs(case, (2, 1), channels=3, batch=1)]
    name = {'silu': 'depthwise_silu', 'residual-gelu': 'depthwise_residual_gelu', 'pair': 'depthwise_silu_pair'}[case]
    checks = ('test_schema', 'test_autograd_registration', 'test_faketensor')
    torch.library.opcheck(getattr(torch.ops.mmmsvmamba, name).default, tuple(args), test_utils=checks)
    torch._dynamo.reset()
    assert_same(case, args, 1e-5, torch.compile(CASES[case][0], fullgraph=True, backend='aot_eager'))
