"""The merge operators against their plain-loop definitions."""

import pytest
import torch
from scan_cases import assert_close, assert_same_results

from mmmsvmamba.kernels import merge_nearest_norm, merge_norm_bilinear, reference

NAMES = ('full', 'half', 'weight', 'bias')
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}
RULES = {
    'norm-bilinear': (merge_norm_bilinear, reference.merge_norm_bilinear, ((2,), (3,))),
    'nearest-norm': (merge_nearest_norm, reference.merge_nearest_norm, ((), ())),
}


def inputs(rule, size, half_size, dtype=torch.float64):
    full_routes, half_routes = RULES[rule][2]
    rand = torch.Generator().manual_seed(0)
    shapes = [(2, *size, *full_routes, 5), (2, *half_size, *half_routes, 5), (5,), (5,)]
    return [torch.randn(shape, generator=rand, dtype=torch.float64).to(dtype) for shape in shapes]


@pytest.mark.parametrize('rule', RULES)
@pytest.mark.parametrize('dtype, tolerance', TOLERANCES.items(), ids=str)
@pytest.mark.parametrize('size', [(6, 8), (7, 5), (1, 9), (9, 1), (1, 1)], ids=str)
def test_values_and_gradients(rule, dtype, tolerance, size):
    half_size = tuple((side + 1) // 2 for side in size)
    ours, definition, _ = RULES[rule]
    assert_same_results(ours, definition, inputs(rule, size, half_size, dtype), NAMES, tolerance)


@pytest.mark.parametrize('side', [57, 113, 200, 255])
def test_nearest_at_the_sides_of_real_maps(side):
    ours, definition, _ = RULES['nearest-norm']
    case = inputs('nearest-norm', (side, 3), ((side + 1) // 2, 2))
    assert_close(ours(*case), definition(*case), 1e-12)


def test_without_half():
    full, half, weight, bias = inputs('norm-bilinear', (3, 4), (2, 2))
    expected = reference.merge_norm_bilinear(full, half[..., :0, :], weight, bias)
    assert_close(merge_norm_bilinear(full, None, weight, bias), expected, 1e-12)
    full, half, weight, bias = inputs('nearest-norm', (3, 4), (2, 2))
    expected = reference.merge_nearest_norm(full, torch.zeros_like(half), weight, bias)
    assert_close(merge_nearest_norm(full, None, weight, bias), expected, 1e-12)


def test_without_full_routes():
    full, half, weight, bias = inputs('norm-bilinear', (4, 6), (2, 3))
    expected = reference.merge_norm_bilinear(full[..., :0, :], half, weight, bias)
    assert_close(merge_norm_bilinear(full[..., :0, :], half, weight, bias), expected, 1e-12)
