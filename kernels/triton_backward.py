"""Triton kernels of the scan's backward pass.

With g the gradient of the state h and r = a g what crosses to the token before (a = exp(Δ A)):

    g_t = C_t dy_t + r_{t+1}      dC_t = Σ_d dy_t h_t                dB_t = Σ_d g_t Δ_t u_t
    r_t = a_t g_t                 dΔ_t = Σ_n r_t h_{t-1} A + g_t B_t u_t        dA = Σ_t r_t h_{t-1} Δ_t
    du_t = Σ_n g_t B_t Δ_t + D dy_t                                  dD = Σ_t dy_t u_t

`scan_backward` walks the blocks of `triton_forward` backwards. It recomputes a tile of states from the state that was
kept before the block; a block of several tiles is walked twice, first forwards to note the states before its tiles.
Sums over channels are partial sums of a program, sums over tokens those of a chunk: nothing is added atomically.
For a split, `adjoint_ends` finds what leaves each chunk, as `scan_forward` does with ENDS.
"""

import triton
import triton.language as tl

from .triton_forward import SCALARS, SIZES
from .triton_math import (
    LN2,
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


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=SCALARS)
def adjoint_ends(
    DT,
    DT_WEIGHT,
    DT_BIAS,
    A,
    C,
    GRAD,
    ADJOINTS,
    SUMS,
    dt_b,
    dt_p,
    dt_g,
    dt_d,
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
):
    """Runs the adjoint of every chunk but the first from zero; what leaves it goes to the place of the chunk before.

    Grid: (batch · groups, chunks - 1, blocks of channels).
    """
    bg, c = tl.program_id(0), tl.program_id(1) + 1
    b, g = bg // groups, bg % groups
    b64, g64 = b.to(tl.int64), g.to(tl.int64)
    d = tl.program_id(2) * BD + tl.arange(0, BD)
    d_in = d < channels
    lane = d.to(tl.int64) if WIDE else d
    dt_lane, y_lane = lane_offsets(lane, dt_d, UNIT), lane_offsets(lane, y_d, UNIT)
    pixels = height * width

    bias = load_parameter(DT_BIAS, g, channels, d, d_in)
    rates = load_columns(A, g, channels, d, d_in, N)
    weights = ()
    if RANK > 0:
        weights = load_columns(DT_WEIGHT, g, channels, d, d_in, RANK)
    dt_row = DT + (b64 * dt_b + g64 * dt_g) * (STEP if RANK == 0 else 1)
    c_row = C + b64 * c_b + g64 * c_g
    decays = ()
    for n in tl.static_range(N):
        decays = decays + (rates[n] * LOG2E,)
    adjoint = zero_state(BD, N)
    total = tl.zeros([BD], tl.float32)

    blocks = tl.cdiv(pixels, KEEP)
    first, stop = c * chunk, tl.minimum(c * chunk + chunk, routes * blocks)
    for i in range(stop - first):
        j = stop - 1 - i
        route = j // blocks
        k = g * routes + route
        start = (j - route * blocks) * KEEP
        grad_row = GRAD + (b64 * y_b + k.to(tl.int64) * y_k) * STEP
        tiles = tl.cdiv(tl.minimum(pixels - start, KEEP), TILE) if TILE < KEEP else 1
        for tile in range(tiles):
            r = start + (tiles - 1 - tile) * TILE
            left = pixels - r
            ps = tile_pixels((codes >> tl.minimum(2 * k, 30)) & 3, r, height, width, TILE, WIDE)
            grads = load_channels(grad_row, ps, left, y_p, y_lane, d_in, TILE, STEP)
            dts, lows = (), ()
            if RANK == 0:
                dts = load_channels(dt_row, ps, left, dt_p, dt_lane, d_in, TILE, STEP)
            else:
                lows = load_scalars(dt_row, ps, left, dt_p, dt_d, TILE, RANK)
            cs = load_scalars(c_row, ps, left, c_p, c_n, TILE, N)
            for s in tl.static_range(TILE):
                raw = raw_step(dts, lows, bias, weights, TILE - 1 - s, RANK)
                step = step_size(raw, TILE - 1 - s < left, SOFTPLUS, FAST)
                total += step
                new = ()
                for n in tl.static_range(N):
                    g_n = grads[TILE - 1 - s].to(tl.float32) * cs[(TILE - 1 - s) * N + n] + adjoint[n]
                    new = new + (exp2(step * decays[n], FAST) * g_n,)
                adjoint = new

    slot = bg.to(tl.int64) * chunks + c - 1
    tl.store(SUMS + slot * channels + d, total, mask=d_in)
    store_state(ADJOINTS + slot * N * channels, adjoint, channels, d, d_in, N)


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=SCALARS)
def scan_backward(
    U,
    DT,
    DT_WEIGHT,
    DT_BIAS,
    A,
    B,
    C,
    SKIP,
    GRAD,
    STATES,
    ADJOINTS,
    SCRATCH,
    DU,
    DDT,
    BY_TOKEN,
    BY_CHUNK,
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
    du_b,
    du_p,
    du_k,
    du_d,
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
):
    """Gradients of one chunk of one group's sequence for BD channels.

    Grid: (batch · groups, chunks, blocks of channels). K = groups · routes; buffers are contiguous and float32 unless
    they are given by strides.

    Args:
        STATES: What `scan_forward` kept.
        ADJOINTS: What enters the chunks from behind, (batch · groups, chunks, N, D); that of the last is never read.
        SCRATCH: (batch · groups, chunks, KEEP // TILE, N, D), or None where KEEP = TILE.
        DU: By strides.
        DDT: Gradient of dt as it is after the projection, contiguous (batch, P, K, D), any dtype.
        BY_TOKEN: Partial sums of dB, then of dC, (2, blocks of channels, batch, P, K, N).
        BY_CHUNK: Partial sums of dA, N rows, of dbias and of dskip, (batch · groups, chunks, N + 2, D).
    """
    bg, c = tl.program_id(0), tl.program_id(1)
    b, g = bg // groups, bg % groups
    b64, g64 = b.to(tl.int64), g.to(tl.int64)
    d = tl.program_id(2) * BD + tl.arange(0, BD)
    d_in = d < channels
    lane = d.to(tl.int64) if WIDE else d
    u_lane, dt_lane = lane_offsets(lane, u_d, UNIT), lane_offsets(lane, dt_d, UNIT)
    y_lane, du_lane = lane_offsets(lane, y_d, UNIT), lane_offsets(lane, du_d, UNIT)
    pixels = height * width

    bias = load_parameter(DT_BIAS, g, channels, d, d_in)
    skip = load_parameter(SKIP, g, channels, d, d_in)
    # A / ln 2, for exponentials of base 2; A itself would take N registers more
    columns = load_columns(A, g, channels, d, d_in, N)
    rates = ()
    for n in tl.static_range(N):
        rates = rates + (columns[n] * LOG2E,)
    weights = ()
    if RANK > 0:
        weights = load_columns(DT_WEIGHT, g, channels, d, d_in, RANK)

    u_row = U + (b64 * u_b + g64 * u_g) * STEP
    dt_row = DT + (b64 * dt_b + g64 * dt_g) * (STEP if RANK == 0 else 1)
    b_row = B + b64 * b_b + g64 * b_g
    c_row = C + b64 * c_b + g64 * c_g
    maps = groups * routes
    ddt_row = DDT + b64 * pixels * maps * channels
    image = pixels.to(tl.int64) * maps * N
    b_part = BY_TOKEN + (tl.program_id(2) * batch + b) * image
    c_part = b_part + tl.num_programs(2) * batch * image

    slot = bg.to(tl.int64) * chunks + c
    behind = tl.where(c < chunks - 1, d_in, False)
    adjoint = load_state(ADJOINTS + slot * N * channels, channels, d, behind, N)
    dA = zero_state(BD, N)
    d_bias = tl.zeros([BD], tl.float32)
    d_skip = tl.zeros([BD], tl.float32)

    blocks = tl.cdiv(pixels, KEEP)
    first, stop = c * chunk, tl.minimum(c * chunk + chunk, routes * blocks)
    for i in range(stop - first):
        j = stop - 1 - i
        route = j // blocks
        k = g * routes + route
        code = (codes >> tl.minimum(2 * k, 30)) & 3
        start = (j - route * blocks) * KEEP
        grad_row = GRAD + (b64 * y_b + k.to(tl.int64) * y_k) * STEP
        du_row = DU + (b64 * du_b + k.to(tl.int64) * du_k) * STEP
        kept = STATES + ((g64 * routes * blocks + j) * batch + b) * d_state * channels
        entry = load_state(kept, channels, d, d_in, N)

        tiles = tl.cdiv(tl.minimum(pixels - start, KEEP), TILE) if TILE < KEEP else 1
        if TILE < KEEP:
            # forwards: the states before the tiles
            h = entry
            for tile in range(tiles):
                noted = SCRATCH + (slot * (KEEP // TILE) + tile) * N * channels
                store_state(noted, h, channels, d, d_in, N)
                left = pixels - start - tile * TILE
                ps = tile_pixels(code, start + tile * TILE, height, width, TILE, WIDE)
                us = load_channels(u_row, ps, left, u_p, u_lane, d_in, TILE, STEP)
                dts, lows = (), ()
                if RANK == 0:
                    dts = load_channels(dt_row, ps, left, dt_p, dt_lane, d_in, TILE, STEP)
                else:
                    lows = load_scalars(dt_row, ps, left, dt_p, dt_d, TILE, RANK)
                bs = load_scalars(b_row, ps, left, b_p, b_n, TILE, N)
                for t in tl.static_range(TILE):
                    step = step_size(raw_step(dts, lows, bias, weights, t, RANK), t < left, SOFTPLUS, FAST)
                    x = step * us[t].to(tl.float32)
                    new = ()
                    for n in tl.static_range(N):
                        new = new + (exp2(step * rates[n], FAST) * h[n] + x * bs[t * N + n],)
                    h = new
            tl.debug_barrier()

        for tile in range(tiles):
            r = start
            # hs: the N states before the tile, then N after each of its tokens
            hs = entry
            if TILE < KEEP:
                r = start + (tiles - 1 - tile) * TILE
                noted = SCRATCH + (slot * (KEEP // TILE) + tiles - 1 - tile) * N * channels
                hs = load_state(noted, channels, d, d_in, N)
            left = pixels - r
            ps = tile_pixels(code, r, height, width, TILE, WIDE)
            us = load_channels(u_row, ps, left, u_p, u_lane, d_in, TILE, STEP)
            grads = load_channels(grad_row, ps, left, y_p, y_lane, d_in, TILE, STEP)
            dts, lows = (), ()
            if RANK == 0:
                dts = load_channels(dt_row, ps, left, dt_p, dt_lane, d_in, TILE, STEP)
            else:
                lows = load_scalars(dt_row, ps, left, dt_p, dt_d, TILE, RANK)
            bs = load_scalars(b_row, ps, left, b_p, b_n, TILE, N)
            cs = load_scalars(c_row, ps, left, c_p, c_n, TILE, N)
            steps, raws, decays = (), (), ()
            for t in tl.static_range(TILE):
                raw = raw_step(dts, lows, bias, weights, t, RANK)
                step = step_size(raw, t < left, SOFTPLUS, FAST)
                x = step * us[t].to(tl.float32)
                raws = raws + (raw,)
                steps = steps + (step,)
                for n in tl.static_range(N):
                    decay = exp2(step * rates[n], FAST)
                    decays = decays + (decay,)
                    hs = hs + (decay * hs[t * N + n] + x * bs[t * N + n],)

            for s in tl.static_range(TILE):
                valid = TILE - 1 - s < left
                lanes = tl.where(valid, d_in, False)
                u = us[TILE - 1 - s].to(tl.float32)
                dy = grads[TILE - 1 - s].to(tl.float32)
                step = steps[TILE - 1 - s]
                x = step * u
                row = ps[TILE - 1 - s] * maps + k
                d_step = tl.zeros([BD], tl.float32)
                d_input = tl.zeros([BD], tl.float32)
                new, new_dA = (), ()
                for n in tl.static_range(N):
                    g_n = dy * cs[(TILE - 1 - s) * N + n] + adjoint[n]
                    r_n = decays[(TILE - 1 - s) * N + n] * g_n
                    new = new + (r_n,)
                    rh = r_n * hs[(TILE - 1 - s) * N + n]
                    new_dA = new_dA + (dA[n] + rh * step,)
                    d_step += rh * rates[n]
                    d_input += g_n * bs[(TILE - 1 - s) * N + n]
                    tl.store(b_part + (row * N + n), tl.sum(g_n * x, axis=0), mask=valid)
                    tl.store(c_part + (row * N + n), tl.sum(dy * hs[(TILE - s) * N + n], axis=0), mask=valid)
                adjoint = new
                dA = new_dA
                tl.store(
                    du_row + (ps[TILE - 1 - s] * du_p * STEP + du_lane),
                    d_input * step + skip * dy,
                    mask=lanes,
                )
                d_raw = d_step * LN2 + d_input * u
                if SOFTPLUS:
                    # the derivative of softplus is exp(x - softplus(x))
                    d_raw *= exp2((raws[TILE - 1 - s] - step) * LOG2E, FAST)
                d_raw = tl.where(valid, d_raw, 0.0)
                d_bias += d_raw
                d_skip += dy * u
                tl.store(ddt_row + (row * channels + d), d_raw, mask=lanes)
        if TILE < KEEP:
            tl.debug_barrier()

    by_chunk = BY_CHUNK + slot * (N + 2) * channels
    store_state(by_chunk, dA, channels, d, d_in, N)
    tl.store(by_chunk + N * channels + d, d_bias, mask=d_in)
    tl.store(by_chunk + (N + 1) * channels + d, d_skip, mask=d_in)
