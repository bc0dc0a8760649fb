"""The published fp32 test of mamba-ssm's `selective_scan_fn`: its inputs, lengths and tolerances, a float64 reference.

Source: github.com/state-spaces/mamba, tests/ops/test_selective_scan.py. Its scan also gates the output by z and returns
the last state; the first is done here around ours, the second is no part of ours.
"""

import pytest
import torch
import torch.nn.functional as F

from mmmsvmamba.kernels import reference, selective_scan

RTOL, ATOL = 6e-4, 2e-3
RTOL_WEIGHTS, ATOL_WEIGHTS = 1e-3, 2e-3  # with z the larger of 1e-3 and the above
#: Argument -> (rtol, atol) of its gradient.
TOLERANCES = {
    'u': (2 * RTOL, 2 * ATOL),
    'delta': (5 * RTOL, 10 * ATOL),
    'A': (RTOL_WEIGHTS, 5 * ATOL_WEIGHTS),
    'B': (RTOL, ATOL),
    'C': (RTOL, ATOL),
    'D': (RTOL_WEIGHTS, ATOL_WEIGHTS),
    'z': (RTOL_WEIGHTS, ATOL_WEIGHTS),
    'delta_bias': (RTOL_WEIGHTS, ATOL_WEIGHTS),
}


def gated(scan, z=None, softplus=True, **inputs):
    y = scan(**inputs, delta_softplus=softplus)
    return y if z is None else y * F.silu(z)


def check(length, groups, softplus=True, without=()):
    batch, channels, d_state = 2, 4, 8
    torch.manual_seed(0)
    shared = (batch, d_state, length) if groups == 1 else (batch, groups, d_state, length)
    inputs = dict(
        A=-0.5 * torch.rand(channels, d_state),
        B=torch.randn(shared),
        C=torch.randn(shared),
        D=torch.randn(channels),
        z=torch.randn(batch, channels, length),
        delta_bias=0.5 * torch.rand(channels),
        u=torch.randn(batch, channels, length),
        delta=0.5 * torch.rand(batch, channels, length),
    )
    inputs = {name: x.requires_grad_() for name, x in inputs.items() if name not in without}
    exact = {name: x.detach().double().requires_grad_() for name, x in inputs.items()}
    y = gated(selective_scan, softplus=softplus, **inputs)
    expected = gated(reference.selective_scan, softplus=softplus, **exact)
    torch.testing.assert_close(y.double(), expected, rtol=RTOL, atol=ATOL)

    grad = torch.randn_like(y)
    grads = torch.autograd.grad(y, inputs.values(), grad)
    expected_grads = torch.autograd.grad(expected, exact.values(), grad.double())
    for name, actual, expected in zip(inputs, grads, expected_grads, strict=True):
        rtol, atol = TOLERANCES[name]
        assert torch.allclose(actual.double(), expected, rtol=rtol, atol=atol), name


@pytest.mark.parametrize('groups', [1, 2])
@pytest.mark.parametrize('length', [128, 256, 512, 1024, 2048, 4096])
def test_selective_scan_fn(length, groups):
    check(length, groups)


@pytest.mark.parametrize('softplus', [False, True])
@pytest.mark.parametrize('without', [('D',), ('z',), ('delta_bias',), ('D', 'z', 'delta_bias')], ids='-'.join)
def test_options_of_selective_scan_fn(without, softplus):
    check(372, 2, softplus, without)
