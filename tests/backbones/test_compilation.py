"""The forward and the backward pass as one graph."""

import pytest
import torch

from mmmsvmamba import MSVMamba

needs_custom_op = pytest.mark.skipif(
    not hasattr(torch.library, 'custom_op'), reason='before torch 2.4 the scan is no operator that can be traced'
)


def small(base: str) -> MSVMamba:
    torch.manual_seed(0)
    return MSVMamba(dict(base=base, depths=[1, 1, 1, 1], dims=16), out_indices=(0, 1)).eval()


def image() -> torch.Tensor:
    return torch.randn(2, 3, 36, 52, generator=torch.Generator().manual_seed(0))


def assert_same(outs, expected) -> None:
    for out, other in zip(outs, expected, strict=True):
        torch.testing.assert_close(out, other, atol=1e-5, rtol=0)


@needs_custom_op
@pytest.mark.parametrize('base', ['nano', 'tiny-v3'])
def test_compiles_to_one_graph(base):
    model, x = small(base), image()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    outs, expected = compiled(x), model(x)
    assert_same(outs, expected)
    sum(out.square().sum() for out in outs).backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    sum(out.square().sum() for out in expected).backward()
    for p, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(gradient, p.grad, atol=1e-4, rtol=1e-4)
