"""A whole block on the Triton kernels, in the interpreter, against the same block on the CPU path."""

import pytest
import torch
from scan_cases import assert_close, output_gradient

from mmmsvmamba.kernels import Route, backend
from mmmsvmamba.layers import ConvFFN, ScanBlock, ScanMixer

ROUTES = dict(full_routes=[(Route.ROW,)], half_routes=[(Route.ROW_REVERSED, Route.COLUMN, Route.COLUMN_REVERSED)])
FAMILIES = {'v1': dict(merge='norm-each+bilinear', gate=True), 'v3': dict(merge='nearest+norm', gate=False)}


@pytest.mark.parametrize('family', FAMILIES)
def test_values_and_gradients(monkeypatch, family):
    torch.manual_seed(0)
    options = dict(full_kernel=3, half_kernel=7, conv_bias=True, d_state=1, dt_rank=2, se_reduction=2, eps=1e-5)
    block = ScanBlock(4, ScanMixer(4, 6, **ROUTES, **options, **FAMILIES[family]), ConvFFN(4, 8), 'pre', 0.0, 1e-5)
    x = torch.randn(1, 3, 2, 4)

    def run(name):
        monkeypatch.setenv(backend.VARIABLE, name)
        y = block(x)
        return y.detach(), torch.autograd.grad(y, list(block.parameters()), output_gradient(y))

    y, grads = run('triton')
    expected, expected_grads = run('torch')
    assert_close(y, expected, 1e-5)
    for (name, _), grad, other in zip(block.named_parameters(), grads, expected_grads, strict=True):
        assert_close(grad, other, 1e-4, name)
