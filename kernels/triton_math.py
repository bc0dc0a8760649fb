"""What every Triton kernel of the scan shares: softplus and exponentials, routes as index arithmetic, loads of a tile.

A jitted function has one `return`, its last line: Triton's compiler visits what stands behind an early one too, and the
interpreter does not.

Names in the kernels: upper case for pointers and constexprs, `b g k c` for batch, group, route and chunk, `p` for a
pixel, `d n q` for a channel, a state and a rank of dt. Tuples are register arrays, unrolled by `tl.static_range`.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def exp2(x, FAST: tl.constexpr):
    """2^x. FAST takes one instruction of NVIDIA's special function unit; there results below 2^-126 are 0."""
    if FAST:
        power = tl.inline_asm_elementwise('ex2.approx.ftz.f32 $0, $1;', '=f,f', [x], tl.float32, is_pure=True, pack=1)
    else:
        power = tl.exp2(x)
    return power


@triton.jit
def softplus(x, FAST: tl.constexpr):
    """log(1 + exp(x)), which is x above 20 and keeps its digits where exp(x) is small; a NaN stays one."""
    e = exp2(x * LOG2E, FAST)
    one_more = 1.0 + e
    if FAST:
        # tl.log2 is a polynomial of about 23 instructions
        log = tl.inline_asm_elementwise(
            'lg2.approx.ftz.f32 $0, $1;', '=f,f', [one_more], tl.float32, is_pure=True, pack=1
        )
    else:
        log = tl.log2(one_more)
    # 1 + e rounds the digits of a small e away: the series of log(1 + e) instead, to 2e-7 of its value
    series = e * (1.0 - e * (0.5 - e * (1 / 3 - e * (0.25 - e * 0.2))))
    return tl.where(x > 20.0, x, tl.where(e < 0.0625, series, log * LN2))


@triton.jit
def step_size(raw, valid, SOFTPLUS: tl.constexpr, FAST: tl.constexpr):
    """Δ of a token; 0 behind the end of a route, where the state then stays as it is."""
    step = raw
    if SOFTPLUS:
        step = softplus(raw, FAST)
    return tl.where(valid, step, 0.0)


@triton.jit
def raw_step(stored, low, bias, weights, t: tl.constexpr, RANK: tl.constexpr):
    """dt of token t before softplus: as stored, or its low rank `low[t, :]` projected to channels; plus the bias."""
    raw = bias
    if RANK == 0:
        raw += stored[t].to(tl.float32)
    else:
        for q in tl.static_range(RANK):
            raw += weights[q] * low[t * RANK + q]
    return raw


@triton.jit
def tile_pixels(code, r, height, width, TILE: tl.constexpr, WIDE: tl.constexpr):
    """The pixels of TILE tokens of a route from token r on, for the code of a `Route`; one division in all."""
    by_column = (code & 1) == 1
    length = tl.where(by_column, height, width)
    token = tl.where(by_column, width, 1)
    line = tl.where(by_column, 1, width)
    number = r // length
    position = r - number * length
    pixel = number * line + position * token
    # from the end of a line (row or column) to the start of the next
    to_next = line - (length - 1) * token
    is_reversed = (code & 2) == 2
    pixel = tl.where(is_reversed, height * width - 1 - pixel, pixel)
    token = tl.where(is_reversed, -token, token)
    to_next = tl.where(is_reversed, -to_next, to_next)
    found = ()
    for _ in tl.static_range(TILE):
        found = found + (pixel.to(tl.int64) if WIDE else pixel,)
        position += 1
        wraps = position == length
        pixel += tl.where(wraps, to_next, token)
        position = tl.where(wraps, 0, position)
    return found


@triton.jit
def lane_offsets(lane, stride, UNIT: tl.constexpr):
    """Offsets of channels in a map; UNIT says that neighbours are neighbours in memory too."""
    return lane if UNIT else lane * stride


@triton.jit
def load_channels(ROW, ps, left, stride_p, lane, d_in, TILE: tl.constexpr, STEP: tl.constexpr):
    """A block of channels of TILE pixels, of which `left` are valid; in the dtype of the memory, zeros elsewhere.

    `stride_p` counts STEPs.
    """
    rows = ()
    for t in tl.static_range(TILE):
        address = ROW + (ps[t] * stride_p * STEP + lane)
        rows = rows + (tl.load(address, mask=tl.where(t < left, d_in, False), other=0.0),)
    return rows


@triton.jit
def load_scalars(ROW, ps, left, stride_p, stride_i, TILE: tl.constexpr, COUNT: tl.constexpr):
    """COUNT values of each of TILE pixels, of which `left` are valid, in float32: value i of pixel t at t·COUNT + i."""
    values = ()
    for t in tl.static_range(TILE):
        for i in tl.static_range(COUNT):
            value = tl.load(ROW + (ps[t] * stride_p + i * stride_i), mask=t < left, other=0.0)
            values = values + (value.to(tl.float32),)
    return values


@triton.jit
def load_parameter(P, g, channels, d, d_in):
    """A parameter (G, D) of a block of channels in float32; zeros where there is none."""
    if P is None:
        parameter = tl.zeros(d.shape, tl.float32)
    else:
        parameter = tl.load(P + g * channels + d, mask=d_in, other=0.0).to(tl.float32)
    return parameter


@triton.jit
def load_columns(P, g, channels, d, d_in, COUNT: tl.constexpr):
    """A parameter (G, D, COUNT) as a tuple of COUNT vectors over channels in float32."""
    columns = ()
    for i in tl.static_range(COUNT):
        address = P + (g * channels + d) * COUNT + i
        columns = columns + (tl.load(address, mask=d_in, other=0.0).to(tl.float32),)
    return columns


@triton.jit
def load_state(P, channels, d, inside, N: tl.constexpr):
    """A state (N, D) of a block of channels from float32 memory; zeros where not `inside`."""
    state = ()
    for n in tl.static_range(N):
        state = state + (tl.load(P + n * channels + d, mask=inside, other=0.0),)
    return state


@triton.jit
def store_state(P, state, channels, d, d_in, N: tl.constexpr):
    """Inverse of `load_state`."""
    for n in tl.static_range(N):
        tl.store(P + n * channels + d, state[n], mask=d_in)


@triton.jit
def zero_state(BD: tl.constexpr, N: tl.constexpr):
    """N vectors of zeros."""
    state = ()
    for _ in tl.static_range(N):
        state = state + (tl.zeros([BD], tl.float32),)
    return state
