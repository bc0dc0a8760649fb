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
    lane_offsets,
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

#: Sizes for which nothing is compiled anew, be they 1 or multiples of 16: all but the number of channels. What is to be
#: known of strides is in the constants UNIT and STEP.
SIZES = ['codes', 'batch', 'groups', 'routes', 'height', 'width', 'd_state', 'chunk', 'chunks']
SIZES += [f'{x}_{i}' for x in ('u', 'dt', 'y', 'du') for i in 'bpgkd'] + [f'{x}_{i}' for x in 'bc' for i in 'bpgn']
#: Pointers to values that are loaded one by one, from wherever they stand in a row of projections.
SCALARS = ['B', 'C']


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=SCALARS)
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
    WIDE: tl.constexpr,
    UNIT: tl.constexpr,
    STEP: tl.constexpr,
    FAST: tl.constexpr,
    BD: tl.constexpr,
    TILE: tl.constexpr,
    KEEP: tl.constexpr,
    ENDS: tl.constexpr,
):
    """Scans one chunk of one group's sequence for BD channels.

    Grid: (batch · groups, chunks, blocks of channels); without the last chunk if ENDS.

    Args:
        STATES: Takes the state before every block, float32 (groups · routes · blocks, batch, d_state, D), of which the
            launch writes N in a row, or None.
        ENTRIES: The states that enter the chunks, float32 (batch · groups, chunks, N, D); that of chunk 0 is never
            read. ENDS writes its results into the next chunk's place.
        SUMS: Takes the sums of Δ if ENDS, float32 (batch · groups, chunks, D), in the next chunk's place; else None.
        codes: The routes of all groups, two bits each.
        routes: Routes of a group.
        chunk: Blocks of a chunk.
        UNIT: Whether neighbouring channels of all maps are neighbours in memory.
        STEP: 16 where all other strides of the maps are multiples of it, else 1; those strides are given in STEPs, so
            that the compiler knows of the alignment, and still compiles nothing anew for other sizes. Both without B, C
            and a dt of low rank.
        TILE: Tokens whose loads are issued together; divides KEEP.
    """
    bg, c = tl.program_id(0), tl.program_id(1)
    b, g = bg // groups, bg % groups
    b64, g64 = b.to(tl.int64), g.to(tl.int64)
    d = tl.program_id(2) * BD + tl.arange(0, BD)
    d_in = d < channels
    lane = d.to(tl.int64) if WIDE else d
    u_lane, dt_lane, y_lane = (
        lane_offsets(lane, u_d, UNIT),
        lane_offsets(lane, dt_d, UNIT),
        lane_offsets(lane, y_d, UNIT),
    )
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

    u_row = U + (b64 * u_b + g64 * u_g) * STEP
    dt_row = DT + (b64 * dt_b + g64 * dt_g) * (STEP if RANK == 0 else 1)
    b_row = B + b64 * b_b + g64 * b_g
    c_row = C + b64 * c_b + g64 * c_g

    slot = bg.to(tl.int64) * chunks + c
    if ENDS:
        h = zero_state(BD, N)
    else:
        h = load_state(ENTRIES + slot * N * channels, channels, d, tl.where(c > 0, d_in, False), N)
    total = tl.zeros([BD], tl.float32)

    blocks = tl.cdiv(pixels, KEEP)
    for j in range(c * chunk, tl.minimum(c * chunk + chunk, routes * blocks)):
        route = j // blocks
        k = g * routes + route
        start = (j - route * blocks) * KEEP
        y_row = Y + (b64 * y_b + k.to(tl.int64) * y_k) * STEP
        if STATES is not None:
            kept = STATES + ((g64 * routes * blocks + j) * batch + b) * d_state * channels
            store_state(kept, h, channels, d, d_in, N)
        for tile in range(tl.cdiv(tl.minimum(pixels - start, KEEP), TILE) if TILE < KEEP else 1):
            r = start + tile * TILE
            left = pixels - r
            ps = tile_pixels((codes >> tl.minimum(2 * k, 30)) & 3, r, height, width, TILE, WIDE)
            # all loads first: TILE rows are on their way at a time
            us = load_channels(u_row, ps, left, u_p, u_lane, d_in, TILE, STEP)
            dts, lows, cs = (), (), ()
            if RANK == 0:
                dts = load_channels(dt_row, ps, left, dt_p, dt_lane, d_in, TILE, STEP)
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
                    tl.store(y_row + (ps[t] * y_p * STEP + y_lane), y, mask=tl.where(t < left, d_in, False))

    if ENDS:
        tl.store(SUMS + (slot + 1) * channels + d, total, mask=d_in)
        store_state(ENTRIES + (slot + 1) * N * channels, h, channels, d, d_in, N)


@triton.jit(do_not_specialize=['groups', 'first', 'way', 'chunks', 'd_state'])
def pass_states(A, ENTRIES, SUMS, groups, first, way, chunks, channels, d_state, BD: tl.constexpr, AHEAD: tl.constexpr):
    """Makes entry states out of the chunks' ends, in place; in the other direction for the adjoint of the backward.

    Grid: (batch · groups, d_state, blocks of channels).

    Args:
        ENTRIES, SUMS: As in `scan_forward`.
        first, way: The first chunk with an entry state, and the step (1 or -1) to the next one.
        AHEAD: Chunks whose loads are issued together: one trip to memory for all of them.
    """
    bg, n = tl.program_id(0), tl.program_id(1)
    d = tl.program_id(2) * BD + tl.arange(0, BD)
    d_in = d < channels
    rate = tl.load(A + (bg % groups * channels + d) * d_state + n, mask=d_in, other=0.0).to(tl.float32) * LOG2E
    h = tl.zeros([BD], tl.float32)
    # steps from chunk to chunk
    step, state_step = way * channels, way * channels * d_state
    for start in range(0, chunks - 1, AHEAD):
        slot = bg.to(tl.int64) * chunks + first + start * way
        total = SUMS + slot * channels + d
        entry = ENTRIES + (slot * d_state + n) * channels + d
        totals, ends = (), ()
        for i in tl.static_range(AHEAD):
            inside = tl.where(start + i < chunks - 1, d_in, False)
            totals = totals + (tl.load(total + i * step, mask=inside, other=0.0),)
            ends = ends + (tl.load(entry + i * state_step, mask=inside, other=0.0),)
        for i in tl.static_range(AHEAD):
            h = tl.exp2(rate * totals[i]) * h + ends[i]
            tl.store(entry + i * state_step, h, mask=tl.where(start + i < chunks - 1, d_in, False))
