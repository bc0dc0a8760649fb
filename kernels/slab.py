"""The scan without Triton, written for CPUs: cache-sized slabs, a blocked recurrence, an analytic backward.

A sequence is cut into slabs whose work arrays fit the cache. Inside a slab of S steps the recurrence h_t = a_t h_{t-1}
+ b_t runs over about √S blocks of about √S steps at once: first every block from a zero state, keeping only its end;
then the state is passed from block to block; then every block again, from its true entry state. That is about 3√S
vectorised operations instead of S.

The backward recomputes a slab from its entry state. States are kept every `CHECKPOINT` tokens: N / 16 bytes per
element.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from .routes import Route, RouteGroup

#: Tokens between two kept states.
CHECKPOINT = 64
#: Elements (batch · tokens · channels · states) of a slab; five to ten fp32 arrays of this size are in use at a time.
SLAB_ELEMENTS = 524288
#: From this many states (batch · channels · N) on, single steps are wide enough and blocks would only add work.
WIDE = 4096


def checkpoints(tokens: int) -> int:
    """Number of states kept for a sequence of `tokens` tokens."""
    return -(-tokens // CHECKPOINT)


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of states and sums: float64 for float64 inputs, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class Walk:
    """The tokens of a sequence: rows, in a given order, of a flattened map (batch, rows, …).

    Args:
        order: Row of every token, int64 (tokens,), or None where token t is row t.
        rows: Rows of the map; only used where order is None.
    """

    def __init__(self, order: Tensor | None, rows: int):
        self.order = order
        self.tokens = rows if order is None else len(order)

    @classmethod
    def along(cls, group: RouteGroup, height: int, width: int, device: torch.device) -> Walk:
        """The routes of a group, joined end to end, over a flattened H×W map."""
        if group == (Route.ROW,):
            return cls(None, height * width)
        return cls(torch.cat([route.pixel_order(height, width) for route in group]).to(device), height * width)

    def take(self, x: Tensor, start: int, stop: int) -> Tensor:
        if self.order is None:
            return x[:, start:stop]
        return x.index_select(1, self.order[start:stop])

    def put(self, x: Tensor, start: int, stop: int, value: Tensor) -> None:
        if self.order is None:
            x[:, start:stop] = value
        else:
            x.index_copy_(1, self.order[start:stop], value.to(x.dtype))

    def add(self, x: Tensor, start: int, stop: int, value: Tensor) -> None:
        if self.order is None:
            x[:, start:stop] += value
        else:
            x.index_add_(1, self.order[start:stop], value.to(x.dtype))


@dataclass
class Inputs:
    """What one set of S6 parameters scans, or the gradients of it (P pixels, D channels, N states, R the rank of dt).

    Shapes: u (batch, P, D); dt (batch, P, R), or (batch, P, D) where dt_weight is None; dt_weight (D, R);
    dt_bias (D,) or None; A (D, N); B, C (batch, P, N); D (D,) or None.
    """

    u: Tensor
    dt: Tensor
    dt_weight: Tensor | None
    dt_bias: Tensor | None
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None


class Sequence:
    """Inputs in the order of a walk, with parameters in the accumulation dtype."""

    def __init__(self, inputs: Inputs, walk: Walk, softplus: bool):
        self.x = inputs
        self.walk = walk
        self.softplus = softplus
        self.dtype = accumulation_dtype(inputs.u.dtype)
        self.batch, _, self.channels = inputs.u.shape
        self.d_state = inputs.A.shape[1]
        self.A = inputs.A.to(self.dtype)
        self.dt_weight, self.dt_bias, self.skip = (
            None if p is None else p.to(self.dtype) for p in (inputs.dt_weight, inputs.dt_bias, inputs.D)
        )
        self.dt_projection = None
        if self.dt_weight is not None:
            bias = self.dt_weight.new_zeros(self.channels) if self.dt_bias is None else self.dt_bias
            self.dt_projection = torch.cat([self.dt_weight.t(), bias.unsqueeze(0)])
        per_token = max(1, self.batch * self.channels * self.d_state)
        length = max(1, SLAB_ELEMENTS // per_token // CHECKPOINT) * CHECKPOINT
        self.slabs = [(i, min(walk.tokens, i + length)) for i in range(0, walk.tokens, length)]

    def zero_state(self) -> Tensor:
        return self.x.u.new_zeros(self.batch, self.channels * self.d_state, dtype=self.dtype)


class _Slab:
    """Tokens start … stop of a sequence: u, dt, B, C, raw (dt before softplus), step (after it)."""

    def __init__(self, seq: Sequence, start: int, stop: int):
        self.seq = seq
        self.u, self.dt, self.B, self.C = (
            _rows(seq.walk.take(x, start, stop), seq.dtype) for x in (seq.x.u, seq.x.dt, seq.x.B, seq.x.C)
        )
        if seq.dt_projection is not None:
            # the bias rides along as one more column of dt: cheaper than filling the product with it first
            raw = F.pad(self.dt, (0, 1), value=1.0) @ seq.dt_projection
        else:
            raw = self.dt if seq.dt_bias is None else self.dt + seq.dt_bias
        self.raw = raw
        self.step = _softplus(raw) if seq.softplus else raw

    def scan(self, entry: Tensor) -> tuple[Tensor, Tensor]:
        """Runs the recurrence from the state `entry` (batch, D·N).

        Returns:
            The decays a (batch, S + 1, D·N), the last of them 1, and the states h (batch, S, D·N).
        """
        seq = self.seq
        batch, length, channels = self.u.shape
        decay = self.u.new_empty(batch, length + 1, channels * seq.d_state)
        decay[:, length] = 1
        inner = decay[:, :length].unflatten(2, (channels, seq.d_state))
        torch.mul(self.step.unsqueeze(-1), seq.A, out=inner)
        inner.exp_()
        h = self.step * self.u
        h = h.mul_(self.B) if seq.d_state == 1 else (h.unsqueeze(-1) * self.B.unsqueeze(2)).flatten(2)
        _recur_(decay[:, :length], h, entry)
        return decay, h


def forward(seq: Sequence, output: Tensor, target: Walk, states: Tensor | None, accumulate: bool) -> None:
    """Scans a sequence.

    Args:
        seq: The inputs.
        output: Takes the outputs, (batch, rows, D).
        target: The row of `output` that each token goes to.
        states: (checkpoints, batch, D·N), filled with the state before every `CHECKPOINT`-th token; None keeps nothing.
        accumulate: Add to `output` instead of writing it.
    """
    h = seq.zero_state()
    for start, stop in seq.slabs:
        slab = _Slab(seq, start, stop)
        entry = h
        _, hs = slab.scan(entry)
        h = hs[:, -1]
        if states is not None:
            kept = states[start // CHECKPOINT : checkpoints(stop)]
            kept[0] = entry
            kept[1:] = hs[:, CHECKPOINT - 1 : -1 : CHECKPOINT].transpose(0, 1)
        # writes to a transposed map cost more than a copy
        plain = output.dtype == seq.dtype and output.stride(-1) == 1
        in_place = target.order is None and not accumulate and plain
        y = _over_states(hs, slab.C, out=output[:, start:stop] if in_place else None)
        if seq.skip is not None:
            y.addcmul_(slab.u, seq.skip)
        if not in_place:
            (target.add if accumulate else target.put)(output, start, stop, y)


def backward(seq: Sequence, grad_output: Tensor, source: Walk, states: Tensor, grads: Inputs) -> None:
    """Adds the gradients of a sequence to `grads`, whose tensors are zero-filled and of the accumulation dtype.

    Args:
        seq: As in `forward`.
        grad_output: Gradient of the output, (batch, rows, D).
        source: The row of `grad_output` that belongs to each token.
        states: What `forward` kept.
        grads: Where the gradients go, shaped like the inputs.
    """
    carry = seq.zero_state()
    A, walk = seq.A, seq.walk
    for start, stop in reversed(seq.slabs):
        slab = _Slab(seq, start, stop)
        entry = states[start // CHECKPOINT]
        decay, hs = slab.scan(entry)
        dy = _rows(source.take(grad_output, start, stop), seq.dtype)
        walk.add(grads.C, start, stop, _over_channels(hs, dy, seq.d_state))

        # g_t = dL/dh_t = C_t dy_t + a_{t+1} g_{t+1}; the factor a of the first token crosses into the slab before
        g = (dy.unsqueeze(-1) * slab.C.unsqueeze(2)).flatten(2)
        _recur_(decay[:, 1:], g, carry, reverse=True)
        decay = decay[:, :-1]
        carry = decay[:, 0] * g[:, 0]

        # the decay a = exp(step A) receives g_t h_{t-1}; times a, that is the gradient of step A
        ga = g * decay
        ga[:, 1:] *= hs[:, :-1]
        ga[:, 0] *= entry
        ga = ga.unflatten(2, A.shape)
        gb = _over_states(g, slab.B)
        walk.add(grads.B, start, stop, _over_channels(g, slab.step * slab.u, seq.d_state))
        d_step = ga[..., 0] * A[:, 0] if seq.d_state == 1 else torch.einsum('bsdn,dn->bsd', ga, A)
        d_step.addcmul_(gb, slab.u)
        grads.A += ga.mul_(slab.step.unsqueeze(-1)).sum((0, 1))
        du = gb.mul_(slab.step)
        if seq.skip is not None:
            du.addcmul_(dy, seq.skip)
            grads.D += (dy * slab.u).sum((0, 1))
        walk.add(grads.u, start, stop, du)

        d_raw = d_step.mul_(slab.raw.sigmoid()) if seq.softplus else d_step
        if seq.dt_bias is not None:
            grads.dt_bias += d_raw.sum((0, 1))
        if seq.dt_weight is None:
            walk.add(grads.dt, start, stop, d_raw)
        else:
            walk.add(grads.dt, start, stop, d_raw @ seq.dt_weight)
            grads.dt_weight += d_raw.flatten(0, 1).t() @ slab.dt.flatten(0, 1)


def _softplus(x: Tensor) -> Tensor:
    # log1p(exp(x)) in two passes, which the CPU vectorises better than F.softplus
    if not x.amax() <= 60:  # above, softplus(x) is x to the last digit, and exp would overflow soon; also for a NaN
        return x.clamp_max(60).exp_().log1p_().maximum(x)
    return x.exp().log1p_()


def _rows(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Casts a slab and makes its channels contiguous; a plain slice of a channels-last map passes as it is."""
    x = x.to(dtype)
    return x if x.stride(-1) == 1 else x.contiguous()


def _over_states(h: Tensor, weight: Tensor, out: Tensor | None = None) -> Tensor:
    """Σ_n h[b, s, d, n] weight[b, s, n] for h (batch, S, D·N), weight (batch, S, N)."""
    d_state = weight.shape[-1]
    if d_state == 1:
        return torch.mul(h, weight, out=out)
    y = (h.unflatten(2, (-1, d_state)) @ weight.unsqueeze(-1)).squeeze(-1)
    return y if out is None else out.copy_(y)


def _over_channels(h: Tensor, weight: Tensor, d_state: int) -> Tensor:
    """Σ_d h[b, s, d, n] weight[b, s, d] for h (batch, S, D·N), weight (batch, S, D)."""
    if d_state == 1:
        return (h * weight).sum(-1, keepdim=True)
    return (weight.unsqueeze(2) @ h.unflatten(2, (-1, d_state))).squeeze(2)


def _recur_(a: Tensor, b: Tensor, h: Tensor, reverse: bool = False) -> None:
    """h_t = a_t h_{t-1} + b_t (h_{t+1} if reverse) along dim 1 of (batch, S, E); overwrites b with h, starts from h
    (batch, E)."""
    length = b.shape[1]
    size = length if h.numel() >= WIDE else max(1, isqrt(length))
    cut = length - length % size
    parts = [(0, cut, size)] + ([(cut, length, length - cut)] if cut < length else [])
    for start, stop, size in reversed(parts) if reverse else parts:
        h = _recur_blocks_(a[:, start:stop], b[:, start:stop], h, size, reverse)


def _recur_blocks_(a: Tensor, b: Tensor, h: Tensor, size: int, reverse: bool) -> Tensor:
    a, b = a.unflatten(1, (-1, size)), b.unflatten(1, (-1, size))
    way = -1 if reverse else 1
    a_steps, b_steps = a.unbind(2)[::way], b.unbind(2)[::way]
    state = h.unsqueeze(1)
    if b.shape[1] > 1:
        end = b_steps[0].clone()
        for a_t, b_t in zip(a_steps[1:], b_steps[1:], strict=True):
            torch.addcmul(b_t, a_t, end, out=end)
        entries = []
        for end_k, decay_k in zip(end.unbind(1)[::way], a.prod(2).unbind(1)[::way], strict=True):
            entries.append(h)
            h = torch.addcmul(end_k, decay_k, h)
        state = torch.stack(entries[::way], dim=1)
    for a_t, b_t in zip(a_steps, b_steps, strict=True):
        state = b_t.addcmul_(a_t, state)
    return state[:, 0 if reverse else -1]
