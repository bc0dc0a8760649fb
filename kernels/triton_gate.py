"""Triton kernels of what scales a merged map: channel attention and the gate, in one pass.

OUT = Y · SCALE · silu(GATE), where SCALE (B, D) or GATE is None: without it. Maps are (B, pixels, D).
"""

import triton
import triton.language as tl

#: Arguments that change from call to call; to compile anew for 1 or for multiples of 16 would gain nothing.
SIZES = ['pixels', 'walks', 'tiles']


@triton.jit
def load_scale(SCALE, image, channels, d, d_in):
    """The image's row of SCALE in float32; ones where there is none."""
    if SCALE is None:
        scale = tl.zeros(d.shape, tl.float32) + 1.0
    else:
        scale = tl.load(SCALE + image * channels + d, mask=d_in, other=0.0).to(tl.float32)
    return scale


@triton.jit
def load_gate(GATE, address, inside):
    """silu(GATE) and its derivative; ones and zeros where there is none."""
    if GATE is None:
        gate = tl.zeros(inside.shape, tl.float32) + 1.0
        slope = tl.zeros(inside.shape, tl.float32)
    else:
        z = tl.load(GATE + address, mask=inside, other=0.0).to(tl.float32)
        share = 1.0 / (1.0 + tl.exp(-z))
        gate = z * share
        slope = share * (1.0 + z * (1.0 - share))
    return gate, slope


@triton.jit(do_not_specialize=SIZES)
def scale_gate(
    Y,
    SCALE,
    GATE,
    OUT,
    pixels,
    walks,
    tiles,
    channels,
    BP: tl.constexpr,
    BD: tl.constexpr,
):
    """Grid: (B · walks · blocks of channels,); a walk is `tiles` blocks of pixels of one image."""
    blocks = tl.cdiv(channels, BD)
    d = (tl.program_id(0) % blocks * BD + tl.arange(0, BD))[None, :]
    d_in = d < channels
    image = (tl.program_id(0) // blocks // walks).to(tl.int64)
    first = tl.program_id(0) // blocks % walks * tiles
    scale = load_scale(SCALE, image, channels, d, d_in)
    for tile in range(first, first + tiles):
        p = tile * BP + tl.arange(0, BP)
        inside = (p < pixels)[:, None] & d_in
        address = (image * pixels + p)[:, None] * channels + d
        y = tl.load(Y + address, mask=inside, other=0.0).to(tl.float32)
        gate, _ = load_gate(GATE, address, inside)
        tl.store(OUT + address, y * scale * gate, mask=inside)


@triton.jit(do_not_specialize=SIZES)
def scale_gate_backward(
    GRAD,
    Y,
    SCALE,
    GATE,
    DY,
    SCALE_PARTS,
    DGATE,
    pixels,
    walks,
    tiles,
    channels,
    BP: tl.constexpr,
    BD: tl.constexpr,
):
    """Gradients DY and DGATE, and partial sums SCALE_PARTS (B, walks, D); the latter two or None. Grid: as above."""
    blocks = tl.cdiv(channels, BD)
    d = (tl.program_id(0) % blocks * BD + tl.arange(0, BD))[None, :]
    d_in = d < channels
    image = (tl.program_id(0) // blocks // walks).to(tl.int64)
    walk = tl.program_id(0) // blocks % walks
    scale = load_scale(SCALE, image, channels, d, d_in)
    d_scale = tl.zeros([BP, BD], tl.float32)
    for tile in range(walk * tiles, walk * tiles + tiles):
        p = tile * BP + tl.arange(0, BP)
        inside = (p < pixels)[:, None] & d_in
        address = (image * pixels + p)[:, None] * channels + d
        grad = tl.load(GRAD + address, mask=inside, other=0.0).to(tl.float32)
        y = tl.load(Y + address, mask=inside, other=0.0).to(tl.float32)
        gate, slope = load_gate(GATE, address, inside)
        tl.store(DY + address, grad * scale * gate, mask=inside)
        if GATE is not None:
            tl.store(DGATE + address, grad * y * scale * slope, mask=inside)
        d_scale += grad * y * gate
    if SCALE is not None:
        d = tl.program_id(0) % blocks * BD + tl.arange(0, BD)
        part = SCALE_PARTS + (image * walks + walk) * channels + d
        tl.store(part, tl.sum(d_scale, axis=0), mask=d < channels)
