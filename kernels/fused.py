"""Operators that join a few torch operators: the torch formula is their definition, Triton kernels run it in one pass.

Where the kernels do not run (CPU tensors, meta tensors, MMMSVMAMBA_BACKEND=torch or reference) a call is the formula
itself, which autograd and compilers see through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from .backend import on_triton
from .checks import TRITON_DTYPES, refuse_dtype
from .library import define


def fuse(
    name: str,
    tensors: dict[str, str],
    options: dict[str, str],
    formula: Callable,
    shapes: Callable[..., Sequence[Sequence[int]]],
    kernels: Callable[[], ModuleType],
    check: Callable[..., None],
    outputs: int = 1,
) -> Callable:
    """Makes an operator of first derivatives out of a formula and its kernels.

    Args:
        name: Of the operator, and of the kernels: `<name>` and `<name>_backward` in the module `kernels()`.
        tensors: Name -> 'Tensor' or 'Tensor?' for the leading arguments; the first is a map that names the dtype.
        options: Name -> schema type for the arguments behind them.
        formula: (*tensors, *options) -> one tensor or a tuple of them, in torch operators.
        shapes: (*tensors, *options) -> shapes of the outputs.
        kernels: Imports Triton; called once, when the kernels are about to run.
            `<name>(*tensors, *options)` gives what `formula` gives, new and contiguous;
            `<name>_backward(*gradients of the outputs, *tensors, *options)` one gradient per tensor, or None.
        check: (*tensors, *options); raises ValueError for what the kernels do not take.
        outputs: Number of outputs.

    Returns:
        A function of (*tensors, *options).
    """
    count, kernels = len(tensors), cache(kernels)

    def kernel(*args):
        if on_triton(args[0].device):
            return getattr(kernels(), name)(*args)
        # a formula may overwrite its inputs, an operator must not
        result = formula(*(x.clone() if isinstance(x, Tensor) else x for x in args))
        found = [result] if outputs == 1 else result
        # an operator's outputs are new, and as its fake kernel says
        found = [torch.empty(x.shape, dtype=args[0].dtype, device=x.device).copy_(x) for x in found]
        return found[0] if outputs == 1 else tuple(found)

    def fake(*args):
        found = [args[0].new_empty(shape) for shape in shapes(*args)]
        return found[0] if outputs == 1 else tuple(found)

    def backward_kernel(*args):
        grads, inputs = args[:outputs], args[outputs : outputs + count]
        if on_triton(inputs[0].device):
            found = getattr(kernels(), f'{name}_backward')(*args)
        else:
            found = _autograd(formula, grads, inputs, args[outputs + count :])
        return tuple(
            inputs[0].new_empty(0) if x is None else g.to(x.dtype).reshape(x.shape).contiguous()
            for x, g in zip(inputs, found, strict=True)
        )

    def backward_fake(*args):
        inputs = args[outputs : outputs + count]
        return tuple(inputs[0].new_empty(0) if x is None else x.new_empty(x.shape) for x in inputs)

    def setup(ctx, inputs, output):
        ctx.save_for_backward(*inputs[:count])
        ctx.options = inputs[count:]

    def autograd(ctx, *grads):
        found = backward_operator(*grads, *ctx.saved_tensors, *ctx.options)
        present = [g if x is not None else None for x, g in zip(ctx.saved_tensors, found, strict=True)]
        return (*present, *(None for _ in ctx.options))

    arguments = ', '.join(f'{kind} {arg}' for arg, kind in (tensors | options).items())
    grads = ', '.join(f'Tensor grad{i}' for i in range(outputs))
    backward_operator = define(
        f'{name}_backward',
        f'({grads}, {arguments}) -> ({", ".join(["Tensor"] * count)})',
        backward_kernel,
        backward_fake,
    )
    result = 'Tensor' if outputs == 1 else f'({", ".join(["Tensor"] * outputs)})'
    operator = define(name, f'({arguments}) -> {result}', kernel, fake, setup, autograd)

    def call(*args):
        device, unknown = args[0].device, None
        for other, x in zip(tensors, args, strict=False):
            if x is None:
                continue
            if x.device != device:
                raise ValueError(f'{other} is on {x.device}, but the map is on {device}; move all to one device')
            if x.dtype not in TRITON_DTYPES:
                unknown = unknown or (other, x.dtype)
        if not on_triton(device):
            return formula(*args)
        if unknown:
            refuse_dtype(*unknown)
        check(*args)
        return operator(*args)

    return call


def _autograd(
    formula: Callable, grads: Sequence[Tensor], inputs: Sequence[Tensor | None], options: Sequence
) -> list[Tensor | None]:
    # inside an operator autograd is off, in inference mode even for new tensors
    with torch.inference_mode(False), torch.enable_grad():
        leaves = [None if x is None else x.detach().clone().requires_grad_() for x in inputs]
        result = formula(*leaves, *options)
        results = [result] if isinstance(result, Tensor) else list(result)
        present = [x for x in leaves if x is not None]
        found = iter(
            torch.autograd.grad(results, present, [g.to(y.dtype) for g, y in zip(grads, results, strict=True)])
        )
    return [None if x is None else next(found) for x in leaves]
