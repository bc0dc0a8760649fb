"""Below torch 2.4 there is no torch.library.custom_op: the same scans through torch.autograd.Function."""

from scan_cases import ROOT, run_python
from test_one_copy import HIDE

OLD_TORCH = """
import torch
if hasattr(torch.library, 'custom_op'):
    del torch.library.custom_op

from functools import partial

from mmmsvmamba.kernels import encode_groups, reference, scan2d, selective_scan
from scan_cases import *
assert not hasattr(torch.ops.mmmsvmamba, 'scan2d')
"""


def run_on_old_torch(script):
    return run_python(HIDE + OLD_TORCH + script, ROOT / 'tests' / 'kernels')


def test_values_gradients_and_meta_tensors():
    run_on_old_torch("""
routes, sizes = encode_groups(GROUPS['two-groups'])
codes = dict(routes=routes, group_sizes=sizes)
for rank, summed in [(2, False), (None, True)]:
    ours, definition = (partial(f, **codes, summed=summed) for f in (scan2d, reference.scan2d))
    with slabs():
        assert_same_results(ours, definition, map_inputs(groups=2, rank=rank), SCAN2D_NAMES, 1e-10)
        assert torch.autograd.gradcheck(ours, leaves(map_inputs(groups=2, rank=rank)), fast_mode=True)
for options, tolerance in [(dict(), 1e-10), (dict(groups=3, skip=False), 1e-10), (dict(dtype=torch.bfloat16), 1e-2)]:
    inputs = selective_inputs(**options)
    assert_same_results(selective_scan, reference.selective_scan, inputs, SELECTIVE_NAMES, tolerance)

inputs = [x.to('meta').requires_grad_() for x in map_inputs(groups=2)]
y = scan2d(*inputs, **codes)
assert y.is_meta and y.shape == (2, 3, 4, 3, 5)
assert all(grad.is_meta for grad in torch.autograd.grad(y.sum(), inputs))
with torch.inference_mode():
    assert scan2d(*map_inputs(groups=2), **codes).is_inference()
""")


def test_second_derivatives_are_refused():
    # as above 2.4: first derivatives with create_graph=True are given, second ones are an error and never wrong
    out = run_on_old_torch("""
inputs = leaves(map_inputs())
(grad,) = torch.autograd.grad(scan2d(*inputs, [0], [1]).square().sum(), inputs[:1], create_graph=True)
try:
    grad.sum().backward()
except RuntimeError as error:
    print('refused:', error)
""")
    assert out.startswith('refused:')
