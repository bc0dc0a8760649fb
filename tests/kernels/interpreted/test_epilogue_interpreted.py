"""The merge kernels, run by Triton's interpreter, against torch operators in float64."""

import pytest
import torch
import torch.nn.functional as F
from scan_cases import assert_close, assert_same_results, with_gradients

from mmmsvmamba.kernels import backend, merge_nearest_norm, merge_norm_bilinear, triton_epilogue_launch

NAMES = ('full', 'half', 'weight', 'bias')
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}
SIZES = [(6, 4), (5, 3), (1, 4), (1, 1)]


@pytest.fixture(autouse=True)
def on_triton(monkeypatch, nan_memory):
    monkeypatch.setenv(backend.VARIABLE, 'triton')


def upsample(x, full, **mode):
    return F.interpolate(x.permute(0, 3, 1, 2), size=full.shape[1:3], **mode).permute(0, 2, 3, 1)


def norm_bilinear(full, half, weight, bias, eps=1e-5):
    y = F.layer_norm(full, weight.shape, weight, bias, eps).sum(3)
    if half is None:
        return y
    low = F.layer_norm(half, weight.shape, weight, bias, eps).sum(3)
    return y + upsample(low, full, mode='bilinear', align_corners=False)


def nearest_norm(full, half, weight, bias, eps=1e-5):
    if half is not None:
        full = full + upsample(half, full, mode='nearest')
    return F.layer_norm(full, weight.shape, weight, bias, eps)


RULES = {
    'norm-bilinear': (merge_norm_bilinear, norm_bilinear),
    'nearest-norm': (merge_nearest_norm, nearest_norm),
}


def inputs(rule, size, channels=5, dtype=torch.float32, routes=(2, 3), half=True):
    rand = torch.Generator().manual_seed(0)
    full_routes, half_routes = ((routes[0],), (routes[1],)) if rule == 'norm-bilinear' else ((), ())
    half_size = tuple((side + 1) // 2 for side in size)
    shapes = [(2, *size, *full_routes, channels), (2, *half_size, *half_routes, channels), (channels,), (channels,)]
    found = [torch.randn(shape, generator=rand, dtype=torch.float64).to(dtype) for shape in shapes]
    found[0] += 0.5  # a mean that is not zero
    if not half:
        found[1] = None
    return found


@pytest.mark.parametrize('rule', RULES)
@pytest.mark.parametrize('dtype, tolerance', TOLERANCES.items(), ids=str)
@pytest.mark.parametrize('size', SIZES, ids=str)
def test_values_and_gradients(rule, dtype, tolerance, size):
    ours, definition = RULES[rule]
    assert_same_results(ours, definition, inputs(rule, size, dtype=dtype), NAMES, tolerance)


@pytest.mark.parametrize('rule', RULES)
@pytest.mark.parametrize('channels', [16, 130, 2050])
def test_channels(rule, channels):
    ours, definition = RULES[rule]
    assert_same_results(ours, definition, inputs(rule, (3, 2), channels), NAMES, 1e-5)


@pytest.mark.parametrize('routes', [(1, 3), (0, 4), (4, 1)], ids=str)
def test_routes(routes):
    assert_same_results(merge_norm_bilinear, norm_bilinear, inputs('norm-bilinear', (5, 4), routes=routes), NAMES, 1e-5)


@pytest.mark.parametrize('rule', RULES)
def test_without_half(rule):
    ours, definition = RULES[rule]
    assert_same_results(ours, definition, inputs(rule, (5, 4), half=False), NAMES, 1e-5)


@pytest.mark.parametrize('rule', RULES)
@pytest.mark.parametrize('size', [(57, 1), (2, 33)], ids=str)
def test_long_sides(rule, size):
    ours, definition = RULES[rule]
    assert_same_results(ours, definition, inputs(rule, size, channels=3), NAMES, 1e-5)


@pytest.mark.parametrize('rule', RULES)
def test_several_blocks_per_program(rule, monkeypatch):
    monkeypatch.setattr(triton_epilogue_launch, '_PROGRAMS', 1)
    ours, definition = RULES[rule]
    assert_same_results(ours, definition, inputs(rule, (9, 6)), NAMES, 1e-5)


@pytest.mark.parametrize('rule', RULES)
def test_strided_inputs_and_gradients(rule):
    ours, definition = RULES[rule]
    case = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs(rule, (5, 4))]
    # the gradient of a sum is one number, expanded
    y, grads = with_gradients(lambda *x: ours(*x).sum((1, 2)), case)
    expected_y, expected = with_gradients(lambda *x: definition(*x).sum((1, 2)), [x.double() for x in case])
    assert_close(y, expected_y, 1e-5)
    for name, grad, other in zip(NAMES, grads, expected, strict=True):
        assert_close(grad, other, 1e-5, name)


@pytest.mark.parametrize('rule', RULES)
def test_float32_parameters_of_a_bfloat16_map(rule):
    ours, definition = RULES[rule]
    full, half, weight, bias = inputs(rule, (5, 4), dtype=torch.bfloat16)
    case = [full, half, weight.float(), bias.float()]
    assert_same_results(ours, definition, case, NAMES, 1e-2)


@pytest.mark.parametrize('rule', RULES)
def test_empty_batch(rule):
    case = inputs(rule, (3, 4))
    case[:2] = [x[:0] for x in case[:2]]
    y, grads = with_gradients(RULES[rule][0], case)
    assert y.shape == (0, 3, 4, 5)
    assert [grad.shape for grad in grads] == [x.shape for x in case]
    assert not grads[2].any() and not grads[3].any()


@pytest.mark.parametrize('rule', RULES)
def test_half_of_another_size(rule):
    full, half, weight, bias = inputs(rule, (4, 4))
    with pytest.raises(ValueError, match='half the size of full, rounded up.*MMMSVMAMBA_BACKEND=torch'):
        RULES[rule][0](full, half[:, :1], weight, bias)


@pytest.mark.parametrize('rule', RULES)
def test_float64(rule):
    case = inputs(rule, (4, 4), dtype=torch.float64)
    with pytest.raises(ValueError, match='full has dtype torch.float64.*MMMSVMAMBA_BACKEND=torch'):
        RULES[rule][0](*case)


@pytest.mark.parametrize('rule', RULES)
def test_as_an_operator(rule):
    case = [x.requires_grad_() for x in inputs(rule, (3, 4))]
    name = RULES[rule][0].__name__
    operator = getattr(torch.ops.mmmsvmamba, name)
    torch.library.opcheck(operator.default, (*case, 1e-5))
    compiled = torch.compile(RULES[rule][0], fullgraph=True, backend='aot_eager')
    y, grads = with_gradients(compiled, case)
    expected, expected_grads = with_gradients(RULES[rule][0], case)
    assert torch.equal(y, expected)
    assert all(torch.equal(a, b) for a, b in zip(grads, expected_grads, strict=True))
    again = with_gradients(RULES[rule][0], case)[1]
    assert all(torch.equal(a, b) for a, b in zip(again, expected_grads, strict=True))


class Merge(torch.nn.Module):
    def forward(self, *args):
        return merge_norm_bilinear(*args).relu()


def test_export():
    case = inputs('norm-bilinear', (3, 4))
    program = torch.export.export(Merge(), tuple(case))
    assert 'mmmsvmamba.merge_norm_bilinear.default' in program.graph_module.code
    assert torch.equal(program.module()(*case), Merge()(*case))


def test_an_exported_operator_runs_without_kernels(monkeypatch):
    """In a graph that was made on a GPU, on a machine that has none."""
    case = inputs('norm-bilinear', (3, 4))
    operator = torch.ops.mmmsvmamba.merge_norm_bilinear
    y, grads = with_gradients(lambda *x: operator(*x, 1e-5), case)
    monkeypatch.setenv(backend.VARIABLE, 'torch')
    other, other_grads = with_gradients(lambda *x: operator(*x, 1e-5), case)
    assert_close(other, y, 1e-5)
    for grad, other in zip(grads, other_grads, strict=True):
        assert_close(other, grad, 1e-5)
