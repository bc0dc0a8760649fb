"""Stands in for mamba-ssm's compiled module, with its signatures and what it asks of its inputs."""

import torch

from mmmsvmamba.kernels import reference


def fwd(u, delta, A, B, C, D, z, delta_bias, delta_softplus):
    batch, channels, length = u.shape
    assert z is None
    assert u.stride(-1) == delta.stride(-1) == 1
    assert B.shape == C.shape == (batch, 1, A.shape[1], length) and B.stride(-1) == C.stride(-1) == 1
    assert {x.dtype for x in (u, delta, B, C)} == {u.dtype}
    assert {x.dtype for x in (A, D, delta_bias)} == {torch.float32} and D.shape == delta_bias.shape == (channels,)
    return [_defined(u, delta, A, B, C, D, delta_bias, delta_softplus).to(u.dtype), torch.zeros(1)]


def bwd(u, delta, A, B, C, D, z, delta_bias, dout, x, out, dz, delta_softplus, recompute_out_z):
    assert (z, out, dz, recompute_out_z) == (None, None, None, False)
    assert dout.shape == u.shape and dout.dtype == u.dtype and dout.stride(-1) == 1
    assert torch.equal(x, torch.zeros(1))
    inputs = [x.detach().float().requires_grad_() for x in (u, delta, A, B, C, D, delta_bias)]
    with torch.enable_grad():
        y = _defined(*inputs, delta_softplus)
    found = torch.autograd.grad(y, inputs, dout.float())
    return [grad.to(x.dtype) for grad, x in zip(found, (u, delta, A, B, C, D, delta_bias), strict=True)]


def _defined(u, delta, A, B, C, D, bias, softplus):
    return reference.selective_scan(*(x.float() for x in (u, delta, A, B, C, D, bias)), delta_softplus=softplus)
