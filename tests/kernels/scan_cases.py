"""Random inputs for the two scans, and the one comparison that the tests of `kernels` make."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from mmmsvmamba.kernels import Route, slab

ROOT = Path(__file__).parents[2]
SELECTIVE_NAMES = ('u', 'delta', 'A', 'B', 'C', 'D', 'delta_bias')
SCAN2D_NAMES = ('u', 'dt', 'dt_weight', 'dt_bias', 'B', 'C', 'A', 'D')
#: Route groups worth a test of their own: every route alone, the published model's joined group, several groups.
GROUPS = {
    **{route.name.lower(): [[route]] for route in Route},
    'joined': [[Route.ROW_REVERSED, Route.COLUMN, Route.COLUMN_REVERSED]],
    'two-groups': [[Route.COLUMN_REVERSED, Route.ROW], [Route.ROW_REVERSED]],
}

Inputs = list[Tensor | None]


def selective_inputs(
    batch: int = 2,
    channels: int = 6,
    length: int = 13,
    d_state: int = 2,
    groups: int | None = None,
    skip: bool = True,
    bias: bool = True,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Inputs:
    """Inputs of `selective_scan` in the order of its arguments; `groups` None gives B and C of three dimensions."""
    rand = torch.Generator().manual_seed(seed)
    shared = (batch, d_state, length) if groups is None else (batch, groups, d_state, length)
    inputs = [
        torch.randn(batch, channels, length, generator=rand, dtype=torch.float64),
        0.5 * torch.rand(batch, channels, length, generator=rand, dtype=torch.float64),
        -0.1 - torch.rand(channels, d_state, generator=rand, dtype=torch.float64),
        torch.randn(shared, generator=rand, dtype=torch.float64),
        torch.randn(shared, generator=rand, dtype=torch.float64),
        torch.randn(channels, generator=rand, dtype=torch.float64) if skip else None,
        torch.rand(channels, generator=rand, dtype=torch.float64) if bias else None,
    ]
    return cast(inputs, dtype)


def map_inputs(
    batch: int = 2,
    height: int = 3,
    width: int = 4,
    channels: int = 5,
    groups: int = 1,
    rank: int | None = 2,
    d_state: int = 2,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Inputs:
    """Inputs of `scan2d` up to `D`, in the order of its arguments; `rank` None gives dt of full rank, no dt_weight."""
    rand = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rand, dtype=torch.float64)

    inputs = [
        randn(batch, height, width, channels),
        randn(batch, height, width, groups, channels if rank is None else rank),
        None if rank is None else randn(groups, channels, rank) * max(rank, 1) ** -0.5,
        randn(groups, channels) - 1,
        randn(batch, height, width, groups, d_state),
        randn(batch, height, width, groups, d_state),
        -0.1 - torch.rand(groups, channels, d_state, generator=rand, dtype=torch.float64),
        randn(groups, channels),
    ]
    return cast(inputs, dtype)


def cast(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    return [None if x is None else x.to(dtype) for x in inputs]


def strided(inputs: Inputs) -> Inputs:
    """The same values with another memory layout: the first dimension moves fastest."""
    return [None if x is None else x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs]


def leaves(inputs: Inputs) -> Inputs:
    """Copies, in the same memory layout, that want a gradient."""
    return [None if x is None else x.detach().clone().requires_grad_() for x in inputs]


def output_gradient(y: Tensor) -> Tensor:
    """Random multiples of 1/8, which every dtype holds exactly."""
    rand = torch.Generator().manual_seed(1)
    return (torch.randint(-16, 17, y.shape, generator=rand) / 8).to(y.dtype)


def with_gradients(function: Callable[..., Tensor], inputs: Inputs) -> tuple[Tensor, Inputs]:
    """The output of `function`, and the gradient of every input for `output_gradient`."""
    inputs = leaves(inputs)
    y = function(*inputs)
    found = iter(torch.autograd.grad(y, [x for x in inputs if x is not None], output_gradient(y)))
    return y.detach(), [None if x is None else next(found) for x in inputs]


def assert_close(actual: Tensor, expected: Tensor, tolerance: float, name: str = 'output') -> None:
    """The largest error is at most `tolerance` times the largest expected value, which counts as 1 at least; NaN fails.

    Sums of terms of size 1 may cancel: a smaller scale would ask more of a float32 sum than its terms hold.
    """
    assert actual.shape == expected.shape, name
    if expected.numel() == 0:
        return
    actual, expected = actual.double(), expected.double()
    error = (actual - expected).abs().max() / expected.abs().max().clamp_min(1)
    assert error <= tolerance, f'{name}: relative error {error:.2e} is above {tolerance:.0e}'


def assert_same_results(
    function: Callable[..., Tensor],
    reference: Callable[..., Tensor],
    inputs: Inputs,
    names: Sequence[str],
    tolerance: float,
) -> None:
    """`function` agrees with `reference` of the same inputs in float64, in value and in every gradient."""
    y, grads = with_gradients(function, inputs)
    expected_y, expected_grads = with_gradients(reference, cast(inputs, torch.float64))
    assert y.dtype == inputs[0].dtype
    assert_close(y, expected_y, tolerance)
    for name, x, grad, expected in zip(names, inputs, grads, expected_grads, strict=True):
        if x is not None:
            assert grad.dtype == x.dtype, name
            assert_close(grad, expected, tolerance, f'gradient of {name}')


@contextmanager
def slabs(elements: int = 1, checkpoint: int = 4) -> Iterator[None]:
    """Cuts sequences into slabs of about `elements` elements and keeps a state every `checkpoint` tokens."""
    with mock.patch.multiple(slab, SLAB_ELEMENTS=elements, CHECKPOINT=checkpoint):
        yield


def run_python(script: str, *path: Path) -> str:
    """Runs a script in a fresh interpreter with `path` in front of its module path, and returns what it prints."""
    lines = ['import sys', f'sys.path[:0] = {[str(p) for p in path]}', script]
    done = subprocess.run([sys.executable, '-c', '\n'.join(lines)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout
