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
    if hasattr(torch.library, 'custom_op'):
        op = torch.library.custom_op(f'mmmsvmamba::{name}', kernel, mutates_args=(), schema=schema)
        op.register_fake(fake)
        if backward is not None:
            op.register_autograd(backward, setup_context=setup_context)
        return op

    def run(*args):
        return (fake if args[0].is_meta else kernel)(*args)

    if backward is None:
        return run
    members = {'forward': run, 'setup_context': setup_context, 'backward': backward}
    function = type(name, (torch.autograd.Function,), {k: staticmethod(f) for k, f in members.items()})
    return function.apply
