"""Triton kernels of the scan's forward pass: a lane owns channels and walks the tokens, the state stays in registers.

Maps are (batch, P pixels, groups or routes, D channels), given by strides: channels-last maps and mamba's (B, D, L) run
through the same code. Nothing is permuted, a token's pixel is computed (`triton_math.tile_pixels`).

A route is cut into blocks of KEEP tokens (the last one may be short); the state before every block can be kept for the
backward pass. A long sequence is split into chunks of blocks: `scan_forward` with ENDS runs every chunk from a
zero state and keeps its end; `pass_states` carries the true states from chunk to chunk; `scan_forward` then runs every
chunk from its true entry state.
"""

import triton
import triton.language as tl

from .triton_math import (
    LOG2E,
    exp2,
    load_channels,
    load_columns,
    load_parameter,
    load_scalars,
    load_state,
    raw_step,
    step_size,
    store_state,
    tile_pixels,
    zero_state,
)

#: Arguments that change from call to call; to compile anew for 1 or for multiples of 16 would gain nothing.
SIZES = ['codes', 'batch', 'groups', 'routes', 'height', 'width', 'd_state', 'chunk', 'chunks']


@triton.jit(do_not_specialize=SIZES)
def scan_forward(
    U,
    DT,
    DT_WEIGHT,
    DT_BIAS,
    A,
    B,
    C,
    SKIP,
    Y,
    STATES,
    ENTRIES,
    SUMS,
    u_b,
    u_p,
    u_g,
    u_d,
    dt_b,
    dt_p,
    dt_g,
    dt_d,
    b_b,
    b_p,
    b_g,
    b_n,
    c_b,
    c_p,
    c_g,
    c_n,
    y_b,
    y_p,
    y_k,
    y_d,
    codes,
    batch,
    groups,
    routes,
    height,
    width,
    channels,
    d_state,
    chunk,
    chunks,
    N: tl.constexpr,
    RANK: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    ENDS: tl.constexpr,
    FAST: tl.constexpr,
    WIDE: tl.constexpr,
    BD: tl.constexpr,
    TILE: tl.constexpr,
    KEEP: tl.constexpr,
):
    """Scans one chunk of one group's sequence for BD channels.

    Grid: (batch · groups, chunks, blocks of channels); without the last chunk if ENDS.

    Args:
        STATES: Takes the state before every block, float32 (groups · routes · blocks, batch, d_state, D), of which the
            launch writes N in a row, or None.
        ENTRIES, SUMS: The states that enter the chunks, float32 (batch · groups, chunks, N, D), of which chunk 0 needs
            none, and the sums of Δ (batch · groups, chunks, D). ENDS writes its results into the next chunk's place.
            None where there is one chunk.
        codes: The routes of all groups, two bits each.
        routes: Routes of a group.
        chunk: Blocks of a chunk.
        TILE: Tokens whose loads are issued together; divides KEEP.
    """
    bg, c = tl.program_id(0), tl.program_id(1)
    b, g = bg // groups, bg % groups
    b64, g64 = b.to(tl.int64), g.to(tl.int64)
    d = tl.program_id(2) * BD + tl.arange(0, BD)
    d_in = d < channels
    lane = d.to(tl.int64) if WIDE else d
    pixels = height * width

    bias = load_parameter(DT_BIAS, g, channels, d, d_in)
    rates = load_columns(A, g, channels, d, d_in, N)
    weights = ()
    if RANK > 0:
        weights = load_columns(DT_WEIGHT, g, channels, d, d_in, RANK)
    if not ENDS:
        skip = load_parameter(SKIP, g, channels, d, d_in)
    decays = ()
    for n in tl.static_range(N):
        decays = decays + (rates[n] * LOG2E,)

    u_row = U + b64 * u_b + g64 * u_g
    dt_row = DT + b64 * dt_b + g64 * dt_g
    b_row = B + b64 * b_b + g64 * b_g
    c_row = C + b64 * c_b + g64 * c_g

    slot = bg.to(tl.int64) * chunks + c
    if ENTRIES is None or ENDS:
        h = zero_state(BD, N)
    else:
        h = load_state(ENTRIES + slot * N * channels, channels, d, tl.where(c > 0, d_in, False), N)
    total = tl.zeros([BD], tl.float32)

    blocks = tl.cdiv(pixels, KEEP)
    for j in range(c * chunk, tl.minimum(c * chunk + chunk, routes * blocks)):
        route = j // blocks
        k = g * routes + route
        start = (j - route * blocks) * KEEP
        y_row = Y + b64 * y_b + k.to(tl.int64) * y_k
        if STATES is not None:
            kept = STATES + ((g64 * routes * blocks + j) * batch + b) * d_state * channels
            store_state(kept, h, channels, d, d_in, N)
        for tile in range(tl.cdiv(tl.minimum(pixels - start, KEEP), TILE) if TILE < KEEP else 1):
            r = start + tile * TILE
            left = pixels - r
            ps = tile_pixels((codes >> tl.minimum(2 * k, 30)) & 3, r, height, width, TILE, WIDE)
            # all loads first: TILE rows are on their way at a time
            us = load_channels(u_row, ps, left, u_p, lane, u_d, d_in, TILE)
            dts, lows, cs = (), (), ()
            if RANK == 0:
                dts = load_channels(dt_row, ps, left, dt_p, lane, dt_d, d_in, TILE)
            else:
                lows = load_scalars(dt_row, ps, left, dt_p, dt_d, TILE, RANK)
            bs = load_scalars(b_row, ps, left, b_p, b_n, TILE, N)
            if not ENDS:
                cs = load_scalars(c_row, ps, left, c_p, c_n, TILE, N)
            for t in tl.static_range(TILE):
                u = us[t].to(tl.float32)
                step = step_size(raw_step(dts, lows, bias, weights, t, RANK), t < left, SOFTPLUS, FAST)
                x = step * u
                new = ()
                if not ENDS:
                    y = skip * u
                for n in tl.static_range(N):
                    state = exp2(step * decays[n], FAST) * h[n] + x * bs[t * N + n]
                    new = new + (state,)
                    if not ENDS:
                        y += state * cs[t * N + n]
                h = new
                if ENDS:
                    total += step
                else:
                    tl.store(y_row + (ps[t] * y_p + lane * y_d), y, mask=tl.where(t < left, d_in, False))

    if ENDS:
        tl.store(SUMS + (slot + 1) * channels + d, total, mask=d_in)
        store_state(ENTRIES + (slot + 1) * N * channels, h, channels, d, d_in, N)


@triton.jit(do_not_specialize=['groups', 'first', 'way', 'chunks', 'd_state'])
def pass_states(A, ENTRIES, SUMS, groups, first, way, chunks, channels, d_state, BD: tl.constexpr):
    """Makes entry states out of the chunks' ends, in place; in the other direction for the adjoint of the backward.

    Grid: (batch · groups, d_state, blocks of channels).

    Args:
        ENTRIES, SUMS: As in `scan_forward`.
        first, way: The first chunk with an entry state, and the step (1 or -1) to the next one.
    """
    bg, n = tl.program_id(0), tl.program_id(1)
    d = tl.program_id(2) * BD + tl.arange(0, BD)
    d_in = d < channels
    rate = tl.load(A + (bg % groups * channels + d) * d_state + n, mask=d_in, other=0.0).to(tl.float32) * LOG2E
    h = tl.zeros([BD], tl.float32)
    for i in range(chunks - 1):
        slot = bg.to(tl.int64) * chunks + first + i * way
        entry = ENTRIES + (slot * d_state + n) * channels + d
        total = tl.load(SUMS + slot * channels + d, mask=d_in, other=0.0)
        h = tl.exp2(rate * total) * h + tl.load(entry, mask=d_in, other=0.0)
        tl.store(entry, h, mask=d_in)
