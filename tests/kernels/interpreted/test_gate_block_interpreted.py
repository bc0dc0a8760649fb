"""The kernels of channel attention and gate, run by Triton's interpreter, against torch operators in float64."""

import pytest
import torch
import torch.nn.functional as F
from scan_cases import assert_same_results, with_gradients

from mmmsvmamba.kernels import backend, scale_and_gate

NAMES = ('y', 'scale', 'gate')


@pytest.fixture(autouse=True)
def on_triton(monkeypatch, nan_memory):
    monkeypatch.setenv(backend.VARIABLE, 'triton')


def definition(y, scale, gate):
    if scale is not None:
        y = y * scale[:, None, None]
    return y if gate is None else y * F.silu(gate)


def inputs(size=(5, 3), channels=5, dtype=torch.float32, scale=True, gate=True):
    rand = torch.Generator().manual_seed(0)
    y, z = (torch.randn(2, *size, channels, generator=rand).to(dtype) for _ in range(2))
    return [y, torch.rand(2, channels, generator=rand).to(dtype) if scale else None, z if gate else None]


@pytest.mark.parametrize('options', [{}, dict(scale=False), dict(gate=False)], ids=str)
@pytest.mark.parametrize('dtype, tolerance', [(torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 1e-2)])
def test_values_and_gradients(options, dtype, tolerance):
    assert_same_results(scale_and_gate, definition, inputs(dtype=dtype, **options), NAMES, tolerance)


@pytest.mark.parametrize('size, channels', [((1, 1), 130), ((13, 11), 16), ((1, 70), 3)], ids=str)
def test_sizes(size, channels):
    assert_same_results(scale_and_gate, definition, inputs(size, channels), NAMES, 1e-5)


def test_strided_inputs():
    args = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs()]
    assert_same_results(scale_and_gate, definition, args, NAMES, 1e-5)


def test_empty_batch():
    y, grads = with_gradients(scale_and_gate, [x[:0] for x in inputs()])
    assert y.shape == (0, 5, 3, 5)
    assert grads[1].shape == (0, 5)


def test_errors():
    y, scale, gate = inputs()
    with pytest.raises(ValueError, match=r'scale must have shape \(2, 5\), got \(2, 4\)'):
        scale_and_gate(y, scale[:, :4], gate)
    with pytest.raises(ValueError, match='gate has dtype torch.float64'):
        scale_and_gate(y, scale, gate.double())


@pytest.mark.parametrize('options', [{}, dict(gate=False)], ids=str)
def test_as_an_operator(options):
    args = [None if x is None else x.requires_grad_() for x in inputs(**options)]
    torch.library.opcheck(torch.ops.mmmsvmamba.scale_and_gate.default, tuple(args))
    torch._dynamo.reset()
    compiled = torch.compile(scale_and_gate, fullgraph=True, backend='aot_eager')
    assert_same_results(compiled, definition, args, NAMES, 1e-5)


@pytest.mark.parametrize('forced', ['triton', 'torch'])
def test_the_operator_leaves_its_inputs(monkeypatch, forced):
    monkeypatch.setenv(backend.VARIABLE, forced)
    args = inputs()
    before = [x.clone() for x in args]
    torch.ops.mmmsvmamba.scale_and_gate(*args)
    assert all(torch.equal(a, b) for a, b in zip(args, before, strict=True))
