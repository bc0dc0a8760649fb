"""Operations of a forward pass, counted by running it on tensors without data.

The rule is the one behind the published figures of MSVMamba and VMamba: fvcore's, with their count of the scan.

| operator                              | operations                                                              |
|---------------------------------------|-------------------------------------------------------------------------|
| conv                                  | multiply-adds                                                           |
| matmul (linear layers and the like)   | multiply-adds                                                           |
| scan                                  | 9·B·L·D·N, and B·D·L for the skip D·u                                   |
| layer_norm, group_norm                | 5 per element, 4 without affine weights                                 |
| batch_norm                            | 2 per element, 1 without affine weights; 5 and 4 with batch statistics  |
| bilinear                              | 4 per output element                                                    |
| nearest                               | 1 per output element                                                    |
| avg_pool, also where it is a mean     | 1 per input element                                                     |
| all else (sums, biases, activations)  | 0                                                                       |

L is the length of one scanned sequence: routes joined into a group and groups of their own count alike,
(9·N + 1)·B·H·W·D per route. `scan2d` projects the step sizes, of rank R, at every step of a route: B·H·W·R·D
multiply-adds per route, counted as matmul.

Against the authors' own counts this gives up to 0.7 % less for MSVMamba, and the difference is known to the unit. They
project the half-resolution map to Δ, B and C once for each of its three scans; here it is projected once, which saves
2·h·w·(R + 2·N)·D per block. And their counter rounds an einsum, which the arXiv family uses for the projections, to
four digits. So do those of VMamba's first release; for the later VMamba the counts are equal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

from mmmsvmamba.engine.errors import UserError
from mmmsvmamba.kernels import ops


@dataclass(frozen=True)
class FlopCount:
    """Operations of one forward pass and parameters of a model.

    Attributes:
        by_operator: Operations of each kind of operator, see the table above.
        parameters: Number of parameters, frozen ones included.
    """

    by_operator: dict[str, int]
    parameters: int

    @property
    def total(self) -> int:
        """Operations of all operators."""
        return sum(self.by_operator.values())


def count_flops(model: nn.Module, input_shape: Sequence[int]) -> FlopCount:
    """Counts the operations of `model(x)` in evaluation mode, by the rule of this module.

    Nothing is computed and no memory is taken: parameters, buffers and the input are replaced by meta tensors for the
    time of the call. So the model may be on any device, or on none (built under `torch.device('meta')`), and an input
    of any size takes about a second.

    Args:
        model: Takes one tensor. Backbones, classifiers, segmentors and single-stage detectors do; the heads of a
            two-stage detector work on boxes chosen by their values, which only data would give.
        input_shape: Shape of the input with its batch dimension, such as (1, 3, 224, 224).

    Raises:
        UserError: A shape that is none or does not fit the model, or a model that needs more than one tensor, the
            values of a tensor, or an operator without a meta kernel (as those of mmcv.ops).
    """
    shape = tuple(input_shape) if isinstance(input_shape, Sequence) else ()
    if not shape or any(type(n) is not int or n < 1 for n in shape):
        raise UserError(f'input_shape must be positive integers such as (1, 3, 224, 224), got {input_shape!r}')
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.get_default_dtype())
    tensors = {
        name: torch.empty_like(x, device='meta')
        for named in (model.named_parameters(), model.named_buffers())
        for name, x in named
    }
    x = torch.empty(shape, dtype=dtype, device='meta')
    with torch.no_grad(), _evaluating(model), _Counter() as counter, _visible_scans(counter):
        try:
            functional_call(model, tensors, (x,))
        # how torch and OpenMMLab's models refuse an input; TypeError where they want more than an image
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:
            reason = f'{type(error).__name__}: {error}'.partition('\n')[0]
            raise UserError(f'{type(model).__name__} does not run on a dataless input {shape}: {reason}') from error
    return FlopCount(dict(counter.operations), sum(p.numel() for p in model.parameters()))


class _Counter(TorchDispatchMode):
    """Adds up the operations of all operators that run under it."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        on_meta = {x.is_meta for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)}
        if len(on_meta) == 2:  # a model may keep tensors that are neither parameter nor buffer
            args, kwargs = tree_map_only(Tensor, lambda x: x.to('meta'), (args, kwargs))
        out = func(*args, **kwargs)
        self.count(func._schema.name, args, out)
        return out

    def count(self, name: str, args: Sequence[Any], out: Any) -> None:
        rule = _RULES.get(name)
        if rule is not None:
            self.operations.update(rule(args, out))


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Puts a model into evaluation mode and every part of it back into its own mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _visible_scans(counter: _Counter) -> Iterator[None]:
    """Shows the scans to the counter where they are no operators: below torch 2.4, for want of `custom_op`."""
    if hasattr(torch.library, 'custom_op'):
        yield
        return

    def shown(name: str, run: Callable) -> Callable:
        def call(*args):
            out = run(*args)
            counter.count(f'mmmsvmamba::{name}', args, out)
            return out

        return call

    scans = {f'_{name}': shown(name, getattr(ops, f'_{name}')) for name in ('scan2d', 'selective_scan')}
    with mock.patch.multiple(ops, **scans):
        yield


# ---- rules: (arguments, output) of an operator -> operations, by kind ----

Rule = Callable[[Sequence[Any], Any], dict[str, int]]


def _conv(args, out: Tensor) -> dict[str, int]:
    x, weight, transposed = args[0], args[1], args[6]
    positions = x if transposed else out
    return {'conv': weight.numel() * positions.shape[0] * prod(positions.shape[2:])}


def _product(left: int) -> Rule:
    """A matrix product whose left factor is argument number `left`."""
    return lambda args, out: {'matmul': out.numel() * args[left].shape[-1]}


def _norm(kind: str, weight: int) -> Rule:
    return lambda args, out: {kind: args[0].numel() * (4 if args[weight] is None else 5)}


def _batch_norm(args, out) -> dict[str, int]:
    x, weight, batch_statistics = args[0], args[1], args[5]
    return {'batch_norm': x.numel() * ((4 if batch_statistics else 1) + (weight is not None))}


def _per_output(kind: str, operations: int) -> Rule:
    return lambda args, out: {kind: operations * out.numel()}


def _average(args, out: Tensor) -> dict[str, int]:
    return {'avg_pool': args[0].numel()}


def _scan2d(args, out) -> dict[str, int]:
    u, dt_weight, A, routes = args[0], args[2], args[6], args[8]
    steps = u.numel() * len(routes)
    rank = 0 if dt_weight is None else dt_weight.shape[2]
    return {'scan': (9 * A.shape[2] + 1) * steps, 'matmul': rank * steps}


def _selective_scan(args, out) -> dict[str, int]:
    u, A, D = args[0], args[2], args[5]
    return {'scan': (9 * A.shape[1] + (D is not None)) * u.numel()}


_RULES: dict[str, Rule] = {
    'aten::convolution': _conv,
    'aten::mm': _product(0),
    'aten::addmm': _product(1),
    'aten::bmm': _product(0),
    'aten::baddbmm': _product(1),
    'aten::native_layer_norm': _norm('layer_norm', 2),
    'aten::native_group_norm': _norm('group_norm', 1),
    'aten::native_batch_norm': _batch_norm,
    'aten::upsample_bilinear2d': _per_output('bilinear', 4),
    'aten::upsample_nearest2d': _per_output('nearest', 1),
    'aten::mean': _average,
    'aten::avg_pool2d': _average,
    'aten::_adaptive_avg_pool2d': _average,
    'mmmsvmamba::scan2d': _scan2d,
    'mmmsvmamba::selective_scan': _selective_scan,
}
