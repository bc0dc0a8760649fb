"""The plain-loop definitions against the equations, once more in numpy, and against torch's own norm and resize."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scan_cases import assert_close, map_inputs, selective_inputs

from mmmsvmamba.kernels import Route, encode_groups, reference

# the order in which each route visits a map of two rows and three columns
WALKS = {
    Route.ROW: [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)],
    Route.COLUMN: [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)],
    Route.ROW_REVERSED: [(1, 2), (1, 1), (1, 0), (0, 2), (0, 1), (0, 0)],
    Route.COLUMN_REVERSED: [(1, 2), (0, 2), (1, 1), (0, 1), (1, 0), (0, 0)],
}


def s6(u, step, A, B, C, D):
    """One channel of one sequence: u, step (L,), A (N,), B, C (L, N), D a number."""
    h, y = np.zeros(len(A)), np.zeros(len(u))
    for t in range(len(u)):
        for n in range(len(A)):
            h[n] = np.exp(step[t] * A[n]) * h[n] + step[t] * B[t, n] * u[t]
            y[t] += C[t, n] * h[n]
        y[t] += D * u[t]
    return y


def softplus(x):
    return np.log1p(np.exp(x))


@pytest.mark.parametrize('softplus_on', [False, True])
@pytest.mark.parametrize('groups, skip, bias', [(None, True, True), (1, False, True), (3, True, False)])
def test_selective_scan(groups, skip, bias, softplus_on):
    inputs = selective_inputs(groups=groups, skip=skip, bias=bias)
    u, delta, A, B, C, D, delta_bias = (None if x is None else x.numpy() for x in inputs)
    expected = np.zeros_like(u)
    for b in range(u.shape[0]):
        for d in range(u.shape[1]):
            of_group = (b,) if groups is None else (b, d * groups // u.shape[1])
            step = delta[b, d] + (delta_bias[d] if bias else 0)
            step = softplus(step) if softplus_on else step
            expected[b, d] = s6(u[b, d], step, A[d], B[of_group].T, C[of_group].T, D[d] if skip else 0)
    actual = reference.selective_scan(*inputs, delta_softplus=softplus_on)
    assert_close(actual, torch.from_numpy(expected), 1e-13)


@pytest.mark.parametrize('rank', [None, 2])
@pytest.mark.parametrize(
    'groups', [[[route]] for route in Route] + [[[Route.COLUMN_REVERSED, Route.ROW], [Route.COLUMN]]], ids=str
)
def test_scan2d(groups, rank):
    inputs = map_inputs(height=2, width=3, channels=3, groups=len(groups), rank=rank)
    u, dt, dt_weight, dt_bias, B, C, A, D = (None if x is None else x.numpy() for x in inputs)
    maps = []
    for g, group in enumerate(groups):
        pixels = [pixel for route in group for pixel in WALKS[route]]
        i, j = np.array(pixels).T
        y = np.zeros((len(u), len(pixels), u.shape[3]))
        for b in range(len(u)):
            raw = dt[b, i, j, g] if rank is None else dt[b, i, j, g] @ dt_weight[g].T
            for d in range(u.shape[3]):
                step = softplus(raw[:, d] + dt_bias[g, d])
                y[b, :, d] = s6(u[b, i, j, d], step, A[g, d], B[b, i, j, g], C[b, i, j, g], D[g, d])
        for k in range(len(group)):
            part = slice(6 * k, 6 * (k + 1))
            maps.append(np.zeros_like(u))
            maps[-1][:, i[part], j[part]] = y[:, part]
    expected = torch.from_numpy(np.stack(maps, axis=3))
    codes = encode_groups(groups)
    assert_close(reference.scan2d(*inputs, *codes), expected, 1e-13)
    assert_close(reference.scan2d(*inputs, *codes, summed=True), expected.sum(3), 1e-13)


# full and half sizes: even, odd, one pixel wide, the same, and a factor that is not two
SIZES = [((6, 8), (3, 4)), ((7, 5), (4, 3)), ((1, 9), (1, 5)), ((4, 4), (4, 4)), ((7, 8), (3, 2))]


@pytest.mark.parametrize('size, half_size', SIZES, ids=str)
def test_merge_norm_bilinear(size, half_size):
    torch.manual_seed(0)
    full, half = torch.randn(2, *size, 2, 5).double(), torch.randn(2, *half_size, 3, 5).double()
    weight, bias = torch.randn(2, 5).double()
    low = F.layer_norm(half, (5,), weight, bias, 1e-3).sum(3).permute(0, 3, 1, 2)
    low = F.interpolate(low, size=size, mode='bilinear', align_corners=False).permute(0, 2, 3, 1)
    expected = F.layer_norm(full, (5,), weight, bias, 1e-3).sum(3) + low
    assert_close(reference.merge_norm_bilinear(full, half, weight, bias, 1e-3), expected, 1e-13)


@pytest.mark.parametrize('size, half_size', SIZES, ids=str)
def test_merge_nearest_norm(size, half_size):
    torch.manual_seed(0)
    full, half = torch.randn(2, *size, 5).double(), torch.randn(2, *half_size, 5).double()
    weight, bias = torch.randn(2, 5).double()
    low = F.interpolate(half.permute(0, 3, 1, 2), size=size, mode='nearest').permute(0, 2, 3, 1)
    expected = F.layer_norm(full + low, (5,), weight, bias, 1e-3)
    assert_close(reference.merge_nearest_norm(full, half, weight, bias, 1e-3), expected, 1e-13)
