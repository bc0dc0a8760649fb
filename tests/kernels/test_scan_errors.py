"""Every input that cannot be scanned is a ValueError that names the argument."""

import pytest
import torch
from scan_cases import SCAN2D_NAMES, SELECTIVE_NAMES, map_inputs, selective_inputs

from mmmsvmamba.kernels import scan2d, selective_scan

# batch 2, 6 channels, 13 tokens, 2 states
SELECTIVE = [
    ('u', torch.zeros(2, 6), r'u must be \(B, D, L\), got shape \(2, 6\)'),
    ('delta', torch.zeros(2, 6, 12), r'delta must have shape \(2, 6, 13\), got \(2, 6, 12\)'),
    ('delta', torch.zeros(1, 6, 13), 'delta must have shape'),
    ('A', torch.zeros(6), r'A must be \(D, N\)'),
    ('A', torch.zeros(5, 2), r'A must have shape \(6, 2\)'),
    ('B', torch.zeros(2, 3, 13), r'B must have shape \(2, 2, 13\), got \(2, 3, 13\)'),
    ('B', torch.zeros(2, 13), r'B must be \(B, N, L\) or \(B, G, N, L\)'),
    ('C', torch.zeros(6, 2), r'C must be \(B, N, L\) or'),
    ('C', torch.zeros(2, 1, 2, 12), r'C must have shape \(2, 1, 2, 13\)'),
    ('B', torch.zeros(2, 4, 2, 13), 'B has 4 groups, which do not divide the 6 channels'),
    ('C', torch.zeros(2, 0, 2, 13), 'C has 0 groups'),
    ('C', torch.zeros(2, 1, 2, 13), 'B and C must have the same groups'),
    ('D', torch.zeros(5), r'D must have shape \(6,\), got \(5,\)'),
    ('delta_bias', torch.zeros(6, 1), r'delta_bias must have shape \(6,\)'),
]

# batch 2, a map of 3 × 4, 5 channels, one group of rank 2, 2 states
SCAN2D = [
    ('u', torch.zeros(2, 5, 12), r'u must be \(B, H, W, D\)'),
    ('dt', torch.zeros(2, 3, 4, 2), r'dt must be \(B, H, W, G, R\), got shape \(2, 3, 4, 2\)'),
    ('dt', torch.zeros(2, 4, 3, 1, 2), r'dt must have shape \(2, 3, 4, 1, 2\), got \(2, 4, 3, 1, 2\)'),
    ('dt_weight', torch.zeros(1, 5, 3), r'dt_weight must have shape \(1, 5, 2\)'),
    ('dt_weight', None, r'dt must have shape \(2, 3, 4, 1, 5\), got \(2, 3, 4, 1, 2\)'),
    ('dt_bias', torch.zeros(5), r'dt_bias must have shape \(1, 5\)'),
    ('B', torch.zeros(2, 3, 4, 1, 3), r'B must have shape \(2, 3, 4, 1, 2\)'),
    ('C', torch.zeros(2, 3, 4, 2, 2), r'C must have shape \(2, 3, 4, 1, 2\)'),
    ('A', torch.zeros(5, 2), r'A must be \(G, D, N\)'),
    ('A', torch.zeros(1, 4, 2), r'A must have shape \(1, 5, 2\)'),
    ('D', torch.zeros(5), r'D must have shape \(1, 5\)'),
]


def changed(inputs, names, name, value):
    return [value if n == name else x for n, x in zip(names, inputs, strict=True)]


@pytest.mark.parametrize('name, value, message', SELECTIVE, ids=lambda x: x if isinstance(x, str) else '')
def test_shapes_of_selective_scan(name, value, message):
    with pytest.raises(ValueError, match=message):
        selective_scan(*changed(selective_inputs(dtype=torch.float32), SELECTIVE_NAMES, name, value))


@pytest.mark.parametrize('name, value, message', SCAN2D, ids=lambda x: x if isinstance(x, str) else '')
def test_shapes_of_scan2d(name, value, message):
    with pytest.raises(ValueError, match=message):
        scan2d(*changed(map_inputs(dtype=torch.float32), SCAN2D_NAMES, name, value), [0], [1])


@pytest.mark.parametrize('name', SELECTIVE_NAMES)
def test_dtypes_and_devices_of_selective_scan(name):
    inputs = dict(zip(SELECTIVE_NAMES, selective_inputs(), strict=True))
    with pytest.raises(ValueError, match=f'^{name} has dtype torch.int64; the scan takes float32, float64'):
        selective_scan(**inputs | {name: inputs[name].long()})
    other = 'delta is on cpu, but u is on meta' if name == 'u' else f'{name} is on meta, but u is on cpu'
    with pytest.raises(ValueError, match=other):
        selective_scan(**inputs | {name: inputs[name].to('meta')})


@pytest.mark.parametrize('name', SCAN2D_NAMES)
def test_dtypes_and_devices_of_scan2d(name):
    inputs = dict(zip(SCAN2D_NAMES, map_inputs(), strict=True))
    with pytest.raises(ValueError, match=f'^{name} has dtype torch.complex64; the scan takes float32, float64'):
        scan2d(**inputs | {name: inputs[name].to(torch.complex64)}, routes=[0], group_sizes=[1])
    other = 'dt is on cpu, but u is on meta' if name == 'u' else f'{name} is on meta, but u is on cpu'
    with pytest.raises(ValueError, match=other):
        scan2d(**inputs | {name: inputs[name].to('meta')}, routes=[0], group_sizes=[1])


@pytest.mark.parametrize(
    'routes, sizes, message',
    [
        ([4], [1], 'unknown route 4'),
        ([0, 1], [1], 'group_sizes'),
        ([0], [2], 'group_sizes'),
        ([0, 1], [1, 1], r'dt must have shape \(2, 3, 4, 2, 2\)'),  # two groups of routes, one of parameters
    ],
)
def test_routes_of_scan2d(routes, sizes, message):
    with pytest.raises(ValueError, match=message):
        scan2d(*map_inputs(), routes, sizes)


def test_no_states():
    with pytest.raises(ValueError, match='A'):
        selective_scan(*selective_inputs(d_state=0))
    with pytest.raises(ValueError, match='A'):
        scan2d(*map_inputs(d_state=0), [0], [1])


def test_no_routes():
    with pytest.raises(ValueError, match='routes'):
        scan2d(*map_inputs(groups=0), [], [], summed=True)
