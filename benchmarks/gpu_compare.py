"""What the checks of the kernels have in common: inputs, forced backends and splits, and the comparison."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from mmmsvmamba.kernels import encode_groups, reference, scan2d, selective_scan, triton_plan

sys.path.append(str(Path(__file__).parents[1] / 'tests' / 'kernels'))

# the inputs of the kernels' own tests, which need torch alone
from scan_cases import SCAN2D_NAMES, SELECTIVE_NAMES, Inputs, cast, with_gradients  # noqa: E402

#: Largest error, relative to the largest expected value, which counts as 1 at least.
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}


def split(on: bool | None) -> mock._patch:
    """A context in which sequences are split (True), are not (False), or as the occupancy says (None)."""
    # one block is enough for a chunk: short sequences are split too
    return mock.patch.multiple(triton_plan, SPLIT=on, CHUNK=1 if on else triton_plan.CHUNK)


def on_device(function: Callable[..., Tensor], device: torch.device) -> Callable[..., Tensor]:
    """`function` of tensors of the CPU, run on a device; gradients pass."""

    def moved(*inputs: Tensor | None) -> Tensor:
        return function(*(None if x is None else x.to(device) for x in inputs)).cpu()

    return moved


def error(actual: Tensor, expected: Tensor) -> float:
    """The largest error over the largest expected value, which counts as 1 at least; NaN is infinite."""
    if actual.shape != expected.shape:
        raise AssertionError(f'the shape is {tuple(actual.shape)} and should be {tuple(expected.shape)}')
    if not expected.numel():
        return 0.0
    found = (actual.double() - expected.double()).abs().max() / expected.double().abs().max().clamp_min(1)
    return found.item() if found.isfinite() else float('inf')


def far(actual: Tensor, expected: Tensor, norm: float = 2.0) -> float:
    """The norm of the error over that of what is expected, by default the Euclidean one; `inf` is that of the largest
    value. NaN is infinite, and so is anything in place of zeros."""
    if actual.shape != expected.shape:
        raise AssertionError(f'the shape is {tuple(actual.shape)} and should be {tuple(expected.shape)}')
    actual, expected = actual.double(), expected.double()
    off, size = (torch.linalg.vector_norm(x, norm) for x in (actual - expected, expected))
    if off == 0:
        return 0.0
    found = off / size
    return found.item() if found.isfinite() else float('inf')


class Errors:
    """Collects errors, by name the largest; `figures` raises AssertionError if one is too large."""

    def __init__(self) -> None:
        self.largest: dict[str, float] = {}
        self.wrong: list[str] = []

    def add(self, name: str, found: float, tolerance: float, case: str = '') -> None:
        self.largest[name] = max(found, self.largest.get(name, 0.0))
        if not found <= tolerance:
            self.wrong.append(f'{case}{": " if case else ""}{name} is off by {found:.2e}, more than {tolerance:.0e}')

    def figures(self) -> dict:
        if self.wrong:
            raise AssertionError('; '.join(self.wrong))
        return {'largest_error': max(self.largest.values(), default=0.0), 'errors': self.largest}


def compare(
    errors: Errors,
    function: Callable[..., Tensor],
    definition: Callable[..., Tensor],
    inputs: Inputs,
    names: Sequence[str],
    device: torch.device,
    case: str = '',
    tolerance: float | None = None,
) -> None:
    """Values and all gradients of `function` on a device against `definition` in float64 on the CPU."""
    tolerance = tolerance or TOLERANCES[inputs[0].dtype]
    y, grads = with_gradients(on_device(function, device), inputs)
    expected, expected_grads = with_gradients(definition, cast(inputs, torch.float64))
    if y.dtype != inputs[0].dtype:
        raise AssertionError(f'{case}: the output is {y.dtype}, the input {inputs[0].dtype}')
    errors.add('output', error(y, expected), tolerance, case)
    for name, grad, other in zip(names, grads, expected_grads, strict=True):
        if grad is not None:
            errors.add(f'd{name}', error(grad, other), tolerance, case)


def compare_maps(
    errors: Errors, inputs: Inputs, groups: Sequence, device: torch.device, case: str = '', summed: bool = False
) -> None:
    routes, sizes = encode_groups(groups)
    options = dict(routes=routes, group_sizes=sizes, summed=summed)
    ours, definition = partial(scan2d, **options), partial(reference.scan2d, **options)
    compare(errors, ours, definition, inputs, SCAN2D_NAMES, device, case)


def compare_sequences(
    errors: Errors, inputs: Inputs, device: torch.device, case: str = '', softplus: bool = True
) -> None:
    ours = partial(selective_scan, delta_softplus=softplus)
    definition = partial(reference.selective_scan, delta_softplus=softplus)
    compare(errors, ours, definition, inputs, SELECTIVE_NAMES, device, case)
