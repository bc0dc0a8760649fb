"""Makes operators out of functions, on torch releases with and without torch.library.custom_op.

It came with torch 2.4. Below it an operator becomes a torch.autograd.Function: eager mode and meta tensors see no
difference, but torch.compile cannot trace it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch


def define(
    name: str,
    schema: str,
    kernel: Callable,
    fake: Callable,
    setup_context: Callable | None = None,
    backward: Callable | None = None,
) -> Callable:
    """Makes an operator that knows its meta kernel and its gradient; without a gradient, autograd does not see it."""

    def run(*args):
        # the operator keeps its own precision: matrix products inside must not follow the caller's autocast
        with torch.autocast(args[0].device.type, enabled=False):
            return kernel(*args)

    if hasattr(torch.library, 'custom_op'):
        op = torch.library.custom_op(f'mmmsvmamba::{name}', run, mutates_args=(), schema=schema)
        op.register_fake(fake)
        if backward is not None:
            op.register_autograd(backward, setup_context=setup_context)
        return op

    def run_or_fake(*args):
        return (fake if args[0].is_meta else run)(*args)

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
