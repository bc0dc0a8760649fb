"""The public scans as torch.library operators: shape and dtype checks, dispatch, fake (meta) kernels, autograd.

Each scan is two operators, forward and backward, so that autograd, torch.compile(fullgraph=True), torch.export and meta
tensors see them whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from . import backend, reference, slab, triton_plan
from .backend import on_triton
from .checks import check_dim, check_dtypes, check_shape, check_states, refuse_dtype
from .library import define
from .routes import check_groups, decode_groups


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> Tensor:
    """Selective scan (S6) of channel-first sequences, in the layout that mamba-ssm made standard.

    h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t u_t,  y_t = Σ_n C_t h_t + D u_t,  h_0 = 0 (Gu & Dao, arXiv:2312.00752).
    The state and all sums are float32, float64 for float64 inputs, which Triton does not take. First derivatives, by
    backward only.

    Args:
        u: Inputs, (B, D, L).
        delta: Step sizes Δ, (B, D, L).
        A: Decay rates, (D, N).
        B, C: Input and output projections, (B, N, L), or (B, G, N, L) where group g serves D/G neighbouring channels.
        D: Skip weights, (D,).
        delta_bias: Added to delta, (D,).
        delta_softplus: Whether Δ = softplus(delta + delta_bias).

    Returns:
        (B, D, L) in the dtype of `u`.

    Raises:
        ValueError: A shape, dtype or device that does not fit.
        RuntimeError: No implementation for the device (see `backend.choose`).
    """
    check_dim('u', u, 3, '(B, D, L)')
    check_dim('A', A, 2, '(D, N)')
    batch, channels, length = u.shape
    d_state = A.shape[1]
    check_states(d_state)
    float64 = check_dtypes(u=u, delta=delta, A=A, B=B, C=C, D=D, delta_bias=delta_bias)
    check_shape('delta', delta, (batch, channels, length))
    check_shape('A', A, (channels, d_state))
    for name, x in (('B', B), ('C', C)):
        if x.dim() == 3:
            check_shape(name, x, (batch, d_state, length))
        else:
            check_dim(name, x, 4, '(B, N, L) or (B, G, N, L)')
            check_shape(name, x, (batch, x.shape[1], d_state, length))
            if x.shape[1] == 0 or channels % x.shape[1]:
                raise ValueError(f'{name} has {x.shape[1]} groups, which do not divide the {channels} channels of u')
    if B.dim() != C.dim() or (B.dim() == 4 and B.shape[1] != C.shape[1]):
        raise ValueError(f'B and C must have the same groups, got shapes {tuple(B.shape)} and {tuple(C.shape)}')
    for name, x in (('D', D), ('delta_bias', delta_bias)):
        if x is not None:
            check_shape(name, x, (channels,))
    if float64 and on_triton(u.device):
        refuse_dtype(float64, torch.float64)
    keep = _needs_grad(u, delta, A, B, C, D, delta_bias)
    return _selective_scan(u, delta, A, B, C, D, delta_bias, delta_softplus, keep)[0]


def scan2d(
    u: Tensor,
    dt: Tensor,
    dt_weight: Tensor | None,
    dt_bias: Tensor,
    B: Tensor,
    C: Tensor,
    A: Tensor,
    D: Tensor,
    routes: Sequence[int],
    group_sizes: Sequence[int],
    summed: bool = False,
) -> Tensor:
    """Selective scan of a channels-last map along routes; all inputs and outputs are in pixel order.

    A group is one or more routes joined end to end into one sequence with one set of S6 parameters: the state is
    carried across the joins and starts from zero in every group. Δ = softplus(dt · dt_weightᵀ + dt_bias). The state
    and all sums are float32, float64 for float64 inputs, which Triton does not take. First derivatives, by backward
    only.

    Args:
        u: The map, (B, H, W, D).
        dt: Low-rank step sizes, (B, H, W, G, R); of full rank, (B, H, W, G, D), where `dt_weight` is None.
        dt_weight: Projection of dt to channels, (G, D, R), or None.
        dt_bias: (G, D).
        B, C: Input and output projections, (B, H, W, G, N).
        A: Decay rates, (G, D, N).
        D: Skip weights, (G, D).
        routes: Codes of the K routes, group after group (`Route`, `encode_groups`).
        group_sizes: Number of routes of each of the G groups.
        summed: Return the sum over routes instead of one map per route.

    Returns:
        (B, H, W, K, D), or (B, H, W, D) if `summed`, in the dtype of `u`.

    Raises:
        ValueError: A shape, dtype, device or route that does not fit.
        RuntimeError: No implementation for the device (see `backend.choose`).
    """
    check_dim('u', u, 4, '(B, H, W, D)')
    check_dim('A', A, 3, '(G, D, N)')
    check_dim('dt', dt, 5, '(B, H, W, G, R)')
    batch, height, width, channels = u.shape
    groups, d_state = len(group_sizes), A.shape[2]
    check_states(d_state)
    if len(routes) == 0:
        raise ValueError('routes is empty; name at least one route')
    check_groups(routes, group_sizes)
    float64 = check_dtypes(u=u, dt=dt, dt_weight=dt_weight, dt_bias=dt_bias, B=B, C=C, A=A, D=D)
    rank = channels if dt_weight is None else dt.shape[4]
    check_shape('dt', dt, (batch, height, width, groups, rank))
    if dt_weight is not None:
        check_shape('dt_weight', dt_weight, (groups, channels, rank))
    check_shape('dt_bias', dt_bias, (groups, channels))
    check_shape('B', B, (batch, height, width, groups, d_state))
    check_shape('C', C, (batch, height, width, groups, d_state))
    check_shape('A', A, (groups, channels, d_state))
    check_shape('D', D, (groups, channels))
    if float64 and on_triton(u.device):
        refuse_dtype(float64, torch.float64)
    keep = _needs_grad(u, dt, dt_weight, dt_bias, B, C, A, D)
    codes = [int(code) for code in routes]
    return _scan2d(u, dt, dt_weight, dt_bias, B, C, A, D, codes, list(group_sizes), summed, keep)[0]


def _needs_grad(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def _autograd_of_reference(function: Callable, inputs: Sequence[Tensor | None], grad: Tensor) -> list[Tensor]:
    """Gradients of a plain-loop definition; an empty tensor stands for an input that is None."""
    # inside an operator autograd is off, in inference mode even for new tensors
    with torch.inference_mode(False), torch.enable_grad():
        leaves = [None if x is None else x.detach().requires_grad_() for x in inputs]
        present = [x for x in leaves if x is not None]
        found = iter(torch.autograd.grad(function(*leaves), present, grad))
    return [grad.new_empty(0) if x is None else next(found).clone() for x in leaves]


def _upcast(inputs: Sequence[Tensor | None], dtype: torch.dtype) -> list[Tensor | None]:
    return [None if x is None else x.to(dtype) for x in inputs]


def _like(grads: Sequence[Tensor | None], inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """Casts gradients to their inputs' dtypes and shapes; an empty tensor stands for an input that is None."""
    u = inputs[0]
    return tuple(
        u.new_empty(0) if x is None else g.to(x.dtype).reshape(x.shape).contiguous()
        for g, x in zip(grads, inputs, strict=True)
    )


def _check_kept(states: Tensor, expected: Sequence[int]) -> None:
    """Refuses a backward pass for which the forward pass kept nothing: the kernels would read what is not there."""
    if states.shape != tuple(expected):
        raise RuntimeError(
            'the scan kept no states for a backward pass: it ran, or was traced, exported or scripted, where no input '
            'wanted a gradient. Trace it with inputs or parameters that want one'
        )


def _fake_grads(inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    u = inputs[0]
    return tuple(u.new_empty(0) if x is None else x.new_empty(x.shape) for x in inputs)


def _zeros(x: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if x is None else torch.zeros(x.shape, dtype=dtype, device=x.device)


@cache
def _triton_scan() -> ModuleType:
    # imported where it is needed: Triton is large, and a CPU does without
    from . import triton_scan

    return triton_scan


def _kept_states(tokens: Sequence[int], d_state: int, device: torch.device) -> int:
    """Number of states that are kept of one group's routes, of so many tokens each."""
    if on_triton(device):
        return sum(triton_plan.blocks(count, d_state) for count in tokens)
    return slab.checkpoints(sum(tokens))


# ---- scan2d ----

_SCAN2D_INPUTS = 'Tensor u, Tensor dt, Tensor? dt_weight, Tensor dt_bias, Tensor B, Tensor C, Tensor A, Tensor D'


def _scan2d_part(tensors, group: int) -> slab.Inputs:
    """Inputs (or gradients) of one group over flattened maps; views, if the maps are contiguous."""
    u, dt, dt_weight, dt_bias, B, C, A, D = tensors
    dt, B, C = (x[..., group, :].flatten(1, 2) for x in (dt, B, C))
    weight = None if dt_weight is None else dt_weight[group]
    return slab.Inputs(u.flatten(1, 2), dt, weight, dt_bias[group], A[group], B, C, D[group])


def _scan2d_walks(u: Tensor, routes, group_sizes, summed: bool):
    """For each group: its walk over the pixels, its walk over the rows of the output, its slice of the kept states."""
    height, width = u.shape[1:3]
    pixels, maps = height * width, len(routes)
    first, kept = 0, 0
    for group in decode_groups(routes, group_sizes):
        walk = slab.Walk.along(group, height, width, u.device)
        rows = walk
        if not summed and maps > 1:
            # row of the output (batch, P · K, D): pixel · K + route
            order = torch.arange(pixels, device=u.device) if walk.order is None else walk.order
            number = torch.arange(first, first + len(group), device=u.device).repeat_interleave(pixels)
            rows = slab.Walk(order * maps + number, pixels * maps)
        count = slab.checkpoints(walk.tokens)
        yield walk, rows, slice(kept, kept + count)
        first, kept = first + len(group), kept + count


def _scan2d_kernel(u, dt, dt_weight, dt_bias, B, C, A, D, routes, group_sizes, summed, keep_states):
    inputs = (u, dt, dt_weight, dt_bias, B, C, A, D)
    y, states = _scan2d_fake(*inputs, routes, group_sizes, summed, keep_states)
    if y.numel() == 0:
        return y, states
    chosen = backend.choose(u.device)
    if chosen == 'reference':
        upcast = _upcast(inputs, slab.accumulation_dtype(u.dtype))
        return reference.scan2d(*upcast, routes, group_sizes, summed).to(u.dtype), states
    if chosen == 'triton':
        y = _triton_scan().scan2d(inputs, routes, group_sizes, summed, y, states if keep_states else None)
        return y, states
    # a sum over routes is kept in the accumulation dtype until it is complete
    add = summed and len(routes) > 1
    maps = y.new_zeros(y.shape, dtype=slab.accumulation_dtype(u.dtype)) if add else y
    rows = maps.view(u.shape[0], -1, u.shape[3])
    for g, (walk, target, kept) in enumerate(_scan2d_walks(u, routes, group_sizes, summed)):
        seq = slab.Sequence(_scan2d_part(inputs, g), walk, softplus=True)
        slab.forward(seq, rows, target, states[kept] if keep_states else None, accumulate=add)
    return maps.to(u.dtype), states


def _scan2d_fake(u, dt, dt_weight, dt_bias, B, C, A, D, routes, group_sizes, summed, keep_states):
    batch, height, width, channels = u.shape
    shape = (batch, height, width, channels) if summed else (batch, height, width, len(routes), channels)
    kept = _scan2d_kept(u, A, group_sizes if keep_states else ())
    return u.new_empty(shape), u.new_empty(kept, dtype=slab.accumulation_dtype(u.dtype))


def _scan2d_kept(u: Tensor, A: Tensor, group_sizes: Sequence[int]) -> tuple[int, int, int]:
    """Shape of what the forward pass keeps of these groups."""
    batch, height, width, channels = u.shape
    count = sum(_kept_states([height * width] * size, A.shape[2], u.device) for size in group_sizes)
    return count, batch, channels * A.shape[2]


def _scan2d_backward_kernel(grad, u, dt, dt_weight, dt_bias, B, C, A, D, states, routes, group_sizes, summed):
    inputs = (u, dt, dt_weight, dt_bias, B, C, A, D)
    dtype = slab.accumulation_dtype(u.dtype)
    chosen = backend.choose(u.device)
    if chosen == 'reference':
        grads = _autograd_of_reference(
            lambda *leaves: reference.scan2d(*leaves, routes, group_sizes, summed),
            _upcast(inputs, dtype),
            grad.to(dtype),
        )
        return _like(grads, inputs)
    _check_kept(states, _scan2d_kept(u, A, group_sizes))
    if chosen == 'triton' and u.numel():
        return _like(_triton_scan().scan2d_backward(grad, inputs, states, routes, group_sizes, summed), inputs)
    grads = [_zeros(x, dtype) for x in inputs]
    if u.numel():
        rows = grad.reshape(u.shape[0], -1, u.shape[3])
        for g, (walk, source, kept) in enumerate(_scan2d_walks(u, routes, group_sizes, summed)):
            seq = slab.Sequence(_scan2d_part(inputs, g), walk, softplus=True)
            slab.backward(seq, rows, source, states[kept], _scan2d_part(grads, g))
    return _like(grads, inputs)


def _scan2d_backward_fake(grad, u, dt, dt_weight, dt_bias, B, C, A, D, states, routes, group_sizes, summed):
    return _fake_grads((u, dt, dt_weight, dt_bias, B, C, A, D))


_scan2d_backward = define(
    'scan2d_backward',
    f'(Tensor grad, {_SCAN2D_INPUTS}, Tensor states, int[] routes, int[] group_sizes, bool summed)'
    ' -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)',
    _scan2d_backward_kernel,
    _scan2d_backward_fake,
)


def _scan2d_setup(ctx, inputs, output):
    *tensors, routes, group_sizes, summed, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, output[1])
    ctx.static = (list(routes), list(group_sizes), summed)
    ctx.has_dt_weight = tensors[2] is not None


def _scan2d_autograd(ctx, grad, _):
    if grad is None:
        return (None,) * 12
    grads = list(_scan2d_backward(grad, *ctx.saved_tensors, *ctx.static))
    if not ctx.has_dt_weight:
        grads[2] = None
    return (*grads, None, None, None, None)


_scan2d = define(
    'scan2d',
    f'({_SCAN2D_INPUTS}, int[] routes, int[] group_sizes, bool summed, bool keep_states) -> (Tensor, Tensor)',
    _scan2d_kernel,
    _scan2d_fake,
    _scan2d_setup,
    _scan2d_autograd,
)


# ---- selective_scan ----

_SELECTIVE_INPUTS = 'Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? delta_bias'


def _selective_parts(tensors, groups: int):
    """Inputs (or gradients) of each channel group as views (batch, L, channels), with the slice of its channels."""
    u, delta, A, B, C, D, bias = tensors
    if B.dim() == 3:
        B, C = B.unsqueeze(1), C.unsqueeze(1)
    size = u.shape[1] // groups
    for g in range(groups):
        part = slice(g * size, (g + 1) * size)
        u_g, delta_g, B_g, C_g = (x.transpose(1, 2) for x in (u[:, part], delta[:, part], B[:, g], C[:, g]))
        D_g, bias_g = (None if x is None else x[part] for x in (D, bias))
        yield part, slab.Inputs(u_g, delta_g, None, bias_g, A[part], B_g, C_g, D_g)


def _selective_groups(B: Tensor) -> int:
    return B.shape[1] if B.dim() == 4 else 1


def _selective_kernel(u, delta, A, B, C, D, delta_bias, delta_softplus, keep_states):
    inputs = (u, delta, A, B, C, D, delta_bias)
    y, states = _selective_fake(*inputs, delta_softplus, keep_states)
    if y.numel() == 0:
        return y, states
    chosen = backend.choose(u.device)
    if chosen == 'reference':
        upcast = _upcast(inputs, slab.accumulation_dtype(u.dtype))
        return reference.selective_scan(*upcast, delta_softplus).to(u.dtype), states
    if chosen == 'triton':
        groups = _selective_groups(B)
        _triton_scan().selective_scan(inputs, groups, delta_softplus, y, states if keep_states else None)
        return y, states
    d_state = A.shape[1]
    walk = slab.Walk(None, u.shape[2])
    for part, tensors in _selective_parts(inputs, _selective_groups(B)):
        kept = states[..., part.start * d_state : part.stop * d_state] if keep_states else None
        seq = slab.Sequence(tensors, walk, delta_softplus)
        slab.forward(seq, y[:, part].transpose(1, 2), walk, kept, accumulate=False)
    return y, states


def _selective_fake(u, delta, A, B, C, D, delta_bias, delta_softplus, keep_states):
    kept = _selective_kept(u, A) if keep_states else (0, u.shape[0], u.shape[1] * A.shape[1])
    return u.new_empty(u.shape), u.new_empty(kept, dtype=slab.accumulation_dtype(u.dtype))


def _selective_kept(u: Tensor, A: Tensor) -> tuple[int, int, int]:
    """Shape of what the forward pass keeps."""
    batch, channels, length = u.shape
    return _kept_states([length], A.shape[1], u.device), batch, channels * A.shape[1]


def _selective_backward_kernel(grad, u, delta, A, B, C, D, delta_bias, states, delta_softplus):
    inputs = (u, delta, A, B, C, D, delta_bias)
    dtype = slab.accumulation_dtype(u.dtype)
    chosen = backend.choose(u.device)
    if chosen == 'reference':
        grads = _autograd_of_reference(
            lambda *leaves: reference.selective_scan(*leaves, delta_softplus), _upcast(inputs, dtype), grad.to(dtype)
        )
        return _like(grads, inputs)
    _check_kept(states, _selective_kept(u, A))
    if chosen == 'triton' and u.numel():
        groups = _selective_groups(B)
        return _like(_triton_scan().selective_scan_backward(grad, inputs, states, groups, delta_softplus), inputs)
    grads = [_zeros(x, dtype) for x in inputs]
    if u.numel():
        d_state, groups = A.shape[1], _selective_groups(B)
        walk = slab.Walk(None, u.shape[2])
        for (part, tensors), (_, targets) in zip(
            _selective_parts(inputs, groups), _selective_parts(grads, groups), strict=True
        ):
            kept = states[..., part.start * d_state : part.stop * d_state]
            seq = slab.Sequence(tensors, walk, delta_softplus)
            slab.backward(seq, grad[:, part].transpose(1, 2), walk, kept, targets)
    return _like(grads, inputs)


def _selective_backward_fake(grad, u, delta, A, B, C, D, delta_bias, states, delta_softplus):
    return _fake_grads((u, delta, A, B, C, D, delta_bias))


_selective_scan_backward = define(
    'selective_scan_backward',
    f'(Tensor grad, {_SELECTIVE_INPUTS}, Tensor states, bool delta_softplus)'
    ' -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)',
    _selective_backward_kernel,
    _selective_backward_fake,
)


def _selective_setup(ctx, inputs, output):
    *tensors, softplus, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, output[1])
    ctx.softplus = softplus
    ctx.missing = [i for i, x in enumerate(tensors) if x is None]


def _selective_autograd(ctx, grad, _):
    if grad is None:
        return (None,) * 9
    grads = list(_selective_scan_backward(grad, *ctx.saved_tensors, ctx.softplus))
    for i in ctx.missing:
        grads[i] = None
    return (*grads, None, None)


_selective_scan = define(
    'selective_scan',
    f'({_SELECTIVE_INPUTS}, bool delta_softplus, bool keep_states) -> (Tensor, Tensor)',
    _selective_kernel,
    _selective_fake,
    _selective_setup,
    _selective_autograd,
)
