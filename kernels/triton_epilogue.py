"""Triton kernels of the merge: norm, sum over routes, upsampling and addition in one pass over each map.

A program holds BP pixels with all their channels, so that a norm is a sum inside the program; the backward pass makes
mean and deviation again from the pixel that it reads anyway, nothing is kept between the passes. Gradients are gathered
by the pixel that receives them. Partial sums of the parameters' gradients go to buffers of their own, which are summed
in a fixed order: results are bitwise equal from run to run.
"""

import triton
import triton.language as tl

#: Arguments that change from call to call; to compile anew for 1 or for multiples of 16 would gain nothing.
SIZES = ['pixels', 'height', 'width', 'half_height', 'half_width', 'tiles']


@triton.jit
def normalise(x, d_in, channels, eps):
    """Each row without its mean and over its deviation, and one over the deviation; zero behind the last channel."""
    x = tl.where(d_in, x, 0.0)
    centred = tl.where(d_in, x - (tl.sum(x, axis=1) / channels)[:, None], 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=1) / channels + eps)
    return centred * scale[:, None], scale


@triton.jit
def norm_gradient(grad, normed, scale, weight, channels):
    """Gradient of the input of a norm, from that of its output; both zero behind the last channel."""
    grad = grad * weight
    along = tl.sum(grad * normed, axis=1) / channels
    mean = tl.sum(grad, axis=1) / channels
    return (grad - normed * along[:, None] - mean[:, None]) * scale[:, None]


@triton.jit
def bilinear_source(i, size, half_size):
    """Half-pixel centres (align_corners=False), exact in integers: two source positions, the weight of the second."""
    ahead = tl.maximum((2 * i + 1) * half_size - size, 0)
    first = tl.minimum(ahead // (2 * size), half_size - 1)
    share = (ahead - first * 2 * size).to(tl.float32) / (2 * size)
    return first, tl.minimum(first + 1, half_size - 1), share


@triton.jit
def bilinear_weight(source, i, size, half_size):
    """How much position `source` of the half map weighs in position i of the map; zero outside."""
    first, second, share = bilinear_source(i, size, half_size)
    weight = tl.where(first == source, 1.0 - share, 0.0) + tl.where(second == source, share, 0.0)
    return tl.where((i >= 0) & (i < size), weight, 0.0)


@triton.jit
def nearest_target(i, size, half_size):
    """The positions of the map, one or two, that take their value from position i of the half map: [start, stop)."""
    return (i * size + half_size - 1) // half_size, ((i + 1) * size + half_size - 1) // half_size


@triton.jit(do_not_specialize=SIZES)
def norm_sum(
    X,
    HALF,
    WEIGHT,
    BIAS,
    OUT,
    pixels,
    height,
    width,
    half_height,
    half_width,
    channels,
    eps,
    ROUTES: tl.constexpr,
    BP: tl.constexpr,
    BD: tl.constexpr,
):
    """OUT (pixels, D) = sum over routes of norm(X (pixels, ROUTES, D)), plus HALF (B, h, w, D) upsampled, or None.

    Grid: (blocks of pixels,).
    """
    p = tl.program_id(0) * BP + tl.arange(0, BP)
    d = tl.arange(0, BD)[None, :]
    d_in = d < channels
    inside = (p < pixels)[:, None] & d_in
    row = p.to(tl.int64)[:, None]
    weight = tl.load(WEIGHT + d, mask=d_in, other=0.0).to(tl.float32)
    bias = tl.load(BIAS + d, mask=d_in, other=0.0).to(tl.float32)

    total = tl.zeros([BP, BD], tl.float32)
    for k in tl.static_range(ROUTES):
        x = tl.load(X + (row * ROUTES + k) * channels + d, mask=inside, other=0.0).to(tl.float32)
        normed, _ = normalise(x, d_in, channels, eps)
        total += normed * weight + bias
    if HALF is not None:
        image = p // (height * width)
        top, bottom, down = bilinear_source(p // width % height, height, half_height)
        left, right, across = bilinear_source(p % width, width, half_width)
        upper = (image * half_height + top).to(tl.int64) * half_width
        lower = (image * half_height + bottom).to(tl.int64) * half_width
        a = tl.load(HALF + (upper + left)[:, None] * channels + d, mask=inside, other=0.0).to(tl.float32)
        b = tl.load(HALF + (upper + right)[:, None] * channels + d, mask=inside, other=0.0).to(tl.float32)
        above = a + (b - a) * across[:, None]
        a = tl.load(HALF + (lower + left)[:, None] * channels + d, mask=inside, other=0.0).to(tl.float32)
        b = tl.load(HALF + (lower + right)[:, None] * channels + d, mask=inside, other=0.0).to(tl.float32)
        below = a + (b - a) * across[:, None]
        total += above + (below - above) * down[:, None]
    tl.store(OUT + row * channels + d, total, mask=inside)


@triton.jit(do_not_specialize=SIZES)
def norm_sum_backward(
    X,
    WEIGHT,
    GRAD,
    DX,
    WEIGHT_PARTS,
    BIAS_PARTS,
    pixels,
    height,
    width,
    half_height,
    half_width,
    tiles,
    channels,
    eps,
    UPSAMPLED: tl.constexpr,
    ROUTES: tl.constexpr,
    BP: tl.constexpr,
    BD: tl.constexpr,
):
    """Gradients DX (pixels, ROUTES, D) of `norm_sum`, and partial sums (programs, D) for weight and bias.

    With UPSAMPLED, X is the half map and its gradient is gathered from the pixels of GRAD (B, H, W, D) that took from
    it; without, it is GRAD (pixels, D). Grid: (groups of `tiles` blocks of pixels,).
    """
    d = tl.arange(0, BD)[None, :]
    d_in = d < channels
    weight = tl.load(WEIGHT + d, mask=d_in, other=0.0).to(tl.float32)
    d_weight = tl.zeros([BP, BD], tl.float32)
    d_bias = tl.zeros([BP, BD], tl.float32)
    for tile in range(tiles):
        p = (tl.program_id(0) * tiles + tile) * BP + tl.arange(0, BP)
        p_in = p < pixels
        inside = p_in[:, None] & d_in
        row = p.to(tl.int64)[:, None]
        if UPSAMPLED:
            image = p // (half_height * half_width)
            i, j = p // half_width % half_height, p % half_width
            # at most these five rows and columns of the map take from row i and column j
            grad = tl.zeros([BP, BD], tl.float32)
            for a in range(5):
                y = 2 * i - 2 + a
                down = tl.where(p_in, bilinear_weight(i, y, height, half_height), 0.0)
                line = (image * height + y).to(tl.int64) * width
                for b in tl.static_range(5):
                    x = 2 * j - 2 + b
                    share = down * bilinear_weight(j, x, width, half_width)
                    taken = (share > 0)[:, None] & d_in
                    g = tl.load(GRAD + (line + x)[:, None] * channels + d, mask=taken, other=0.0)
                    grad += g.to(tl.float32) * share[:, None]
        else:
            grad = tl.load(GRAD + row * channels + d, mask=inside, other=0.0).to(tl.float32)
        for k in tl.static_range(ROUTES):
            address = (row * ROUTES + k) * channels + d
            x = tl.load(X + address, mask=inside, other=0.0).to(tl.float32)
            normed, scale = normalise(x, d_in, channels, eps)
            tl.store(DX + address, norm_gradient(grad, normed, scale, weight, channels), mask=inside)
            d_weight += grad * normed
            d_bias += grad
    part = tl.program_id(0).to(tl.int64) * channels + tl.arange(0, BD)
    tl.store(WEIGHT_PARTS + part, tl.sum(d_weight, axis=0), mask=tl.arange(0, BD) < channels)
    tl.store(BIAS_PARTS + part, tl.sum(d_bias, axis=0), mask=tl.arange(0, BD) < channels)


@triton.jit(do_not_specialize=SIZES)
def nearest_norm(
    FULL,
    HALF,
    WEIGHT,
    BIAS,
    OUT,
    pixels,
    height,
    width,
    half_height,
    half_width,
    channels,
    eps,
    BP: tl.constexpr,
    BD: tl.constexpr,
):
    """OUT (B, H, W, D) = norm(FULL (B, H, W, D) + HALF (B, h, w, D) upsampled).

    A pixel of HALF is read once, by the program that writes the up to four pixels that take from it. `pixels` counts
    those of HALF. Grid: (blocks of pixels,).
    """
    p = tl.program_id(0) * BP + tl.arange(0, BP)
    d = tl.arange(0, BD)[None, :]
    d_in = d < channels
    weight = tl.load(WEIGHT + d, mask=d_in, other=0.0).to(tl.float32)
    bias = tl.load(BIAS + d, mask=d_in, other=0.0).to(tl.float32)
    row = p.to(tl.int64)[:, None]
    low = tl.load(HALF + row * channels + d, mask=(p < pixels)[:, None] & d_in, other=0.0).to(tl.float32)
    image = p // (half_height * half_width)
    top, bottom = nearest_target(p // half_width % half_height, height, half_height)
    left, right = nearest_target(p % half_width, width, half_width)
    for a in tl.static_range(2):
        line = (image * height + top + a).to(tl.int64) * width
        for b in tl.static_range(2):
            taking = (p < pixels) & (top + a < bottom) & (left + b < right)
            inside = taking[:, None] & d_in
            address = (line + left + b)[:, None] * channels + d
            x = low + tl.load(FULL + address, mask=inside, other=0.0).to(tl.float32)
            normed, _ = normalise(x, d_in, channels, eps)
            tl.store(OUT + address, normed * weight + bias, mask=inside)


@triton.jit(do_not_specialize=SIZES)
def nearest_norm_backward(
    FULL,
    HALF,
    WEIGHT,
    GRAD,
    DFULL,
    DHALF,
    WEIGHT_PARTS,
    BIAS_PARTS,
    pixels,
    height,
    width,
    half_height,
    half_width,
    tiles,
    channels,
    eps,
    BP: tl.constexpr,
    BD: tl.constexpr,
):
    """Gradients of `nearest_norm`: DFULL, DHALF, and partial sums (programs, D) for weight and bias.

    Grid: (groups of `tiles` blocks of pixels of HALF,).
    """
    d = tl.arange(0, BD)[None, :]
    d_in = d < channels
    weight = tl.load(WEIGHT + d, mask=d_in, other=0.0).to(tl.float32)
    d_weight = tl.zeros([BP, BD], tl.float32)
    d_bias = tl.zeros([BP, BD], tl.float32)
    for tile in range(tiles):
        p = (tl.program_id(0) * tiles + tile) * BP + tl.arange(0, BP)
        p_in = p < pixels
        row = p.to(tl.int64)[:, None]
        low = tl.load(HALF + row * channels + d, mask=p_in[:, None] & d_in, other=0.0).to(tl.float32)
        image = p // (half_height * half_width)
        top, bottom = nearest_target(p // half_width % half_height, height, half_height)
        left, right = nearest_target(p % half_width, width, half_width)
        d_low = tl.zeros([BP, BD], tl.float32)
        for a in tl.static_range(2):
            line = (image * height + top + a).to(tl.int64) * width
            for b in tl.static_range(2):
                taking = p_in & (top + a < bottom) & (left + b < right)
                inside = taking[:, None] & d_in
                address = (line + left + b)[:, None] * channels + d
                x = low + tl.load(FULL + address, mask=inside, other=0.0).to(tl.float32)
                grad = tl.load(GRAD + address, mask=inside, other=0.0).to(tl.float32)
                normed, scale = normalise(x, d_in, channels, eps)
                dx = norm_gradient(grad, normed, scale, weight, channels)
                tl.store(DFULL + address, dx, mask=inside)
                # where no pixel takes, the gradient that was read is zero, and so is all that follows from it
                d_low += dx
                d_weight += grad * normed
                d_bias += grad
        tl.store(DHALF + row * channels + d, d_low, mask=p_in[:, None] & d_in)
    part = tl.program_id(0).to(tl.int64) * channels + tl.arange(0, BD)
    tl.store(WEIGHT_PARTS + part, tl.sum(d_weight, axis=0), mask=tl.arange(0, BD) < channels)
    tl.store(BIAS_PARTS + part, tl.sum(d_bias, axis=0), mask=tl.arange(0, BD) < channels)
