"""Makes operators out of functions, on torch releases with and without torch.library.register_autograd.

It came, as custom_op did, with torch 2.4. Below it an operator becomes a torch.autograd.Function: eager mode and meta
tensors see no difference, but torch.compile cannot trace it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch.autograd import forward_ad
from torch.overrides import has_torch_function

NAMESPACE = 'mmmsvmamba'

# custom_op registers the same, and adds checks to every call that take as long as the launch of a kernel
_LIBRARY = torch.library.Library(NAMESPACE, 'FRAGMENT') if hasattr(torch.library, 'custom_op') else None


def define(
    name: str,
    schema: str,
    kernel: Callable,
    fake: Callable,
    setup_context: Callable | None = None,
    backward: Callable | None = None,
) -> Callable:
    """Makes an operator that knows its meta kernel and its gradient; without one, autograd refuses it by its name.

    What `kernel` returns must be new tensors, never its arguments nor views of them.
    """
    if _LIBRARY is None:
        return _function(name, kernel, fake, setup_context, backward)
    qualified = f'{NAMESPACE}::{name}'
    _LIBRARY.define(name + schema, tags=torch.Tag.pt2_compliant_tag)
    _LIBRARY.impl(name, _without_autocast(kernel), 'CompositeExplicitAutograd')
    torch.library.register_fake(qualified, fake, lib=_LIBRARY)
    # without an autograd kernel of its own, autograd would look inside of an operator, and find in-place arithmetic
    torch.library.register_autograd(
        qualified, backward or _refuse_gradient(qualified), setup_context=setup_context, lib=_LIBRARY
    )
    return _called(getattr(getattr(torch.ops, NAMESPACE), name).default)


def _called(operator: Callable) -> Callable:
    """The operator as a function, which refuses forward-mode derivatives, where torch would lose them.

    Where no gradient is wanted it leaves out the operator's autograd kernel, which takes as long as a launch.
    """

    def call(*args):
        if torch.compiler.is_compiling():
            return operator(*args)
        if forward_ad._current_level >= 0:
            _refuse_tangents(operator, args)
        # what overrides torch's functions may turn gradients on again
        if torch.is_grad_enabled() or has_torch_function(args):
            return operator(*args)
        with torch._C._AutoDispatchBelowAutograd():
            return operator(*args)

    return call


def _refuse_tangents(operator: Callable, args: tuple) -> None:
    for x in args:
        if isinstance(x, torch.Tensor) and forward_ad.unpack_dual(x).tangent is not None:
            raise RuntimeError(f'{operator.name()} has no forward-mode derivative: use torch.autograd.grad')


def _refuse_gradient(qualified: str) -> Callable:
    def backward(ctx, *grads):
        raise RuntimeError(f'{qualified} has no gradient: the operators of {NAMESPACE} have first derivatives only')

    return backward


def _without_autocast(kernel: Callable) -> Callable:
    """The operator keeps its own precision: matrix products and sums inside must not follow the caller's autocast."""

    def keep_precision(*args):
        kind = args[0].device.type
        if not torch.is_autocast_enabled(kind):
            return kernel(*args)
        torch.set_autocast_enabled(kind, False)
        try:
            return kernel(*args)
        finally:
            torch.set_autocast_enabled(kind, True)

    opaque = None

    def run(*args):
        nonlocal opaque
        # a call from a function that torch.compile runs in parts must not be compiled in its turn
        if 'torch._dynamo' not in sys.modules:
            return keep_precision(*args)
        if opaque is None:
            opaque = torch.compiler.disable(keep_precision)
        return opaque(*args)

    return run


def _function(
    name: str, kernel: Callable, fake: Callable, setup_context: Callable | None, backward: Callable | None
) -> Callable:
    def run_or_fake(*args):
        if args[0].is_meta:
            return fake(*args)
        with torch.autocast(args[0].device.type, enabled=False):
            return kernel(*args)

    if backward is None:
        return run_or_fake
    members = {
        'forward': run_or_fake,
        'setup_context': setup_context,
        # without an operator's own gradient a second derivative would be silently wrong
        'backward': torch.autograd.function.once_differentiable(backward),
    }
    function = type(name, (torch.autograd.Function,), {k: staticmethod(f) for k, f in members.items()})
    return function.apply
