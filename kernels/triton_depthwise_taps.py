"""Triton kernel of the gradients of depthwise convolutions with an activation: through the activation, and of the taps.

A lane owns channels. A program walks along rows of the output, and holds the window of the map under the taps in
registers, as a tuple, column after column: a step reads STRIDE new columns of it, one step ahead. What went into the
activation is computed again, and the taps' gradients gather in registers; every program writes partial sums, which are
summed in a fixed order: results are bitwise equal from run to run.
"""

import triton
import triton.language as tl

from .triton_depthwise import load_taps, load_vector, slope

#: Arguments that change from call to call; to compile anew for 1 or for multiples of 16 would gain nothing.
SIZES = ['height', 'width', 'out_height', 'out_width', 'rows', 'per', 'segment']


@triton.jit
def line(MAP, image, y, height, width, channels, d):
    """Where row y of an image of MAP (B, height, width, D) starts."""
    return MAP + (image * height + y).to(tl.int64) * width * channels + d


@triton.jit
def load_columns(start, y, x, valid, height, width, channels, d_in, SIZE: tl.constexpr, COUNT: tl.constexpr):
    """COUNT columns of SIZE pixels from (y, x) on, as stored, zero outside the map; `start` is the line of row y."""
    columns = ()
    for c in tl.static_range(COUNT):
        column_in = valid & (x + c >= 0) & (x + c < width)
        for r in tl.static_range(SIZE):
            inside = column_in & (y + r >= 0) & (y + r < height)
            value = tl.load(start + (r * width + x + c) * channels, mask=tl.where(inside, d_in, False), other=0.0)
            columns = columns + (value,)
    return columns


@triton.jit
def shifted(window, columns, SIZE: tl.constexpr, COUNT: tl.constexpr):
    """The window without its first COUNT columns and with new ones behind, in float32."""
    moved = ()
    for n in tl.static_range(SIZE * (SIZE - COUNT)):
        moved = moved + (window[SIZE * COUNT + n],)
    for n in tl.static_range(SIZE * COUNT):
        moved = moved + (columns[n].to(tl.float32),)
    return moved


@triton.jit(do_not_specialize=SIZES)
def depthwise_tap_gradients(
    X,
    WEIGHT,
    BIAS,
    GRAD,
    DZ,
    PARTS,
    height,
    width,
    out_height,
    out_width,
    rows,
    per,
    segment,
    channels,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    GELU: tl.constexpr,
    RESIDUAL: tl.constexpr,
    BD: tl.constexpr,
):
    """DZ (B, h, w, D), the gradient of what goes into the activation, and PARTS (programs, KERNEL² + 1, D).

    Grid: (groups of `per` of the B · h rows of the output · blocks of channels, segments of a row).
    """
    blocks = tl.cdiv(channels, BD)
    d = tl.program_id(0) % blocks * BD + tl.arange(0, BD)
    d_in = d < channels
    taps = load_taps(WEIGHT, d, d_in, KERNEL, RESIDUAL)
    bias = load_vector(BIAS, d, d_in)
    sums = ()
    for _ in tl.static_range(KERNEL * KERNEL + 1):
        sums = sums + (tl.zeros([BD], tl.float32),)
    window = ()
    for _ in tl.static_range(KERNEL * KERNEL):
        window = window + (tl.zeros([BD], tl.float32),)
    first = tl.program_id(0) // blocks * per
    start = tl.program_id(1) * segment
    stop = tl.minimum(start + segment, out_width)
    for g in range(first, tl.minimum(first + per, rows)):
        image, i = g // out_height, g % out_height
        y = i * STRIDE - KERNEL // 2
        x_line = line(X, image, y, height, width, channels, d)
        grad_line = line(GRAD, image, i, out_height, out_width, channels, d)
        dz_line = line(DZ, image, i, out_height, out_width, channels, d)
        # fills the window column by column: KERNEL of them shift out what was there
        for c in range(KERNEL):
            column = load_columns(
                x_line, y, start * STRIDE - KERNEL // 2 + c, c < KERNEL, height, width, channels, d_in, KERNEL, 1
            )
            window = shifted(window, column, KERNEL, 1)
        for j in range(start, stop):
            grad = tl.load(grad_line + j * channels, mask=d_in, other=0.0).to(tl.float32)
            ahead = load_columns(
                x_line,
                y,
                j * STRIDE - KERNEL // 2 + KERNEL,
                j + 1 < stop,
                height,
                width,
                channels,
                d_in,
                KERNEL,
                STRIDE,
            )
            z = bias
            for s in tl.static_range(KERNEL):
                for t in tl.static_range(KERNEL):
                    z += window[t * KERNEL + s] * taps[s * KERNEL + t]
            dz = grad * slope(z, GELU)
            tl.store(dz_line + j * channels, dz, mask=d_in)
            more = ()
            for s in tl.static_range(KERNEL):
                for t in tl.static_range(KERNEL):
                    more = more + (sums[s * KERNEL + t] + window[t * KERNEL + s] * dz,)
            sums = more + (sums[KERNEL * KERNEL] + dz,)
            window = shifted(window, ahead, KERNEL, STRIDE)
    part = (tl.program_id(0) // blocks).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    for t in tl.static_range(KERNEL * KERNEL + 1):
        tl.store(PARTS + (part * (KERNEL * KERNEL + 1) + t) * channels + d, sums[t], mask=d_in)
