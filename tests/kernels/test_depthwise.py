"""The depthwise convolutions where Triton does not run: torch operators, on any device."""

import pytest
import torch
import torch.nn.functional as F
from scan_cases import assert_close, with_gradients

from mmmsvmamba.kernels import backend, depthwise_residual_gelu, depthwise_silu, depthwise_silu_pair


def random(*shape):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape)))


def conv(x, weight, bias, stride=1):
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, stride, weight.shape[-1] // 2, groups=x.shape[-1])
    return y.permute(0, 2, 3, 1)


@pytest.mark.parametrize('size', [3, 5, 7])
@pytest.mark.parametrize('bias', [True, False])
def test_values_and_gradients(size, bias):
    x, weight, bias = random(2, 5, 4, 3), random(3, 1, size, size), random(3) if bias else None
    for ours, definition in (
        (depthwise_silu, lambda *args: F.silu(conv(*args))),
        (lambda *args: depthwise_silu(*args, stride=2), lambda *args: F.silu(conv(*args, stride=2))),
        (depthwise_residual_gelu, lambda x, *args: F.gelu(x + conv(x, *args))),
    ):
        y, grads = with_gradients(ours, [x, weight, bias])
        expected, expected_grads = with_gradients(definition, [x, weight, bias])
        assert_close(y, expected, 1e-14)
        for grad, other in zip(grads, expected_grads, strict=True):
            assert grad is None if other is None else torch.allclose(grad, other)


def test_pair():
    x, weight, bias, half_weight = random(2, 5, 4, 3), random(3, 1, 3, 3), random(3), random(3, 1, 7, 7)
    full, half = depthwise_silu_pair(x, weight, bias, half_weight, None)
    assert_close(full, F.silu(conv(x, weight, bias)), 1e-14)
    assert_close(half, F.silu(conv(x, half_weight, None, stride=2)), 1e-14)
    assert full.is_contiguous() and half.is_contiguous()


@pytest.mark.parametrize('name', ['torch', 'reference'])
def test_forced_backends_run_torch(monkeypatch, name):
    x, weight = random(1, 3, 3, 2), random(2, 1, 3, 3)
    default = depthwise_silu(x, weight, None)
    monkeypatch.setenv(backend.VARIABLE, name)
    assert torch.equal(depthwise_silu(x, weight, None), default)


def test_meta_tensors():
    x, weight, half_weight = (y.to('meta') for y in (random(2, 5, 4, 3), random(3, 1, 3, 3), random(3, 1, 7, 7)))
    full, half = depthwise_silu_pair(x, weight, None, half_weight, None)
    assert full.is_meta and full.shape == x.shape and half.shape == (2, 3, 2, 3)


def test_triton_on_a_cpu_says_the_way_on(monkeypatch):
    monkeypatch.setenv(backend.VARIABLE, 'triton')
    with pytest.raises(RuntimeError, match='unset MMMSVMAMBA_BACKEND'):
        depthwise_silu(random(1, 3, 3, 2), random(2, 1, 3, 3), None)


@pytest.mark.skipif(not hasattr(torch.library, 'custom_op'), reason='operators can be seen from torch 2.4 on')
def test_operators_without_kernels():
    """In a graph that was made on a GPU, on a machine that has none."""
    ops = torch.ops.mmmsvmamba
    x, weight, bias, half_weight = random(2, 5, 4, 3), random(3, 1, 3, 3), random(3), random(3, 1, 7, 7)
    args = [y.requires_grad_() for y in (x, weight, bias)]
    for operator, function in (
        (ops.depthwise_silu, depthwise_silu),
        (ops.depthwise_residual_gelu, depthwise_residual_gelu),
        (
            lambda *args: ops.depthwise_silu_pair(*args, half_weight, None)[0],
            lambda *args: depthwise_silu_pair(*args, half_weight, None)[0],
        ),
    ):
        y, grads = with_gradients(operator, args)
        expected, expected_grads = with_gradients(function, args)
        assert_close(y, expected, 1e-14)
        for grad, other in zip(grads, expected_grads, strict=True):
            assert_close(grad, other, 1e-12)
    torch.library.opcheck(ops.depthwise_silu_pair.default, (*args, half_weight, None))
    case = (random(1, 3, 4, 2, 5), random(1, 2, 2, 3, 5), random(5), random(5), 1e-5)
    torch.library.opcheck(ops.merge_norm_bilinear.default, [y.requires_grad_() for y in case[:4]] + [1e-5])
