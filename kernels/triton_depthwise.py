"""Triton kernels of depthwise convolutions with what follows them, on channels-last maps: forward, and input gradient.

A program works on TILE × TILE blocks of 2 × 2 pixels for BD channels: block (i, j) yields four pixels of the 3×3
convolution and, where HALF is its size, pixel (i, j) of the second convolution, of stride 2. The windows of neighbours
overlap: a program's reads meet in the first cache, those of programs in the second.

WEIGHT is (D, 9), as torch stores it: a program reads it once. HALF_WEIGHT is (taps, D): it is read in a loop, row by
row. With RESIDUAL the map is added to its 3×3 convolution: one more in the middle tap. The gradients of the weights are
in `triton_depthwise_taps`.
"""

import triton
import triton.language as tl

#: Arguments that change from call to call; to compile anew for 1 or for multiples of 16 would gain nothing.
SIZES = ['height', 'width', 'half_height', 'half_width']


@triton.jit
def activate(z, GELU: tl.constexpr):
    """GELU (the exact one) or SiLU."""
    return 0.5 * z * (1.0 + tl.erf(z * 0.7071067811865476)) if GELU else z / (1.0 + tl.exp(-z))


@triton.jit
def slope(z, GELU: tl.constexpr):
    """The derivative of `activate`."""
    if GELU:
        found = 0.5 * (1.0 + tl.erf(z * 0.7071067811865476)) + z * 0.3989422804014327 * tl.exp(-0.5 * z * z)
    else:
        share = 1.0 / (1.0 + tl.exp(-z))
        found = share * (1.0 + z * (1.0 - share))
    return found


@triton.jit
def load_vector(VECTOR, d, d_in):
    """A parameter (D,) in float32; zeros where there is none."""
    if VECTOR is None:
        vector = tl.zeros(d.shape, tl.float32)
    else:
        vector = tl.load(VECTOR + d, mask=d_in, other=0.0).to(tl.float32)
    return vector


@triton.jit
def load_taps(WEIGHT, d, d_in, KERNEL: tl.constexpr, RESIDUAL: tl.constexpr):
    """The weights (D, KERNEL²) of a convolution as a tuple of vectors over channels."""
    taps = ()
    for t in tl.static_range(KERNEL * KERNEL):
        tap = tl.load(WEIGHT + d * (KERNEL * KERNEL) + t, mask=d_in, other=0.0).to(tl.float32)
        if RESIDUAL and t == KERNEL * KERNEL // 2:
            tap += 1.0
        taps = taps + (tap,)
    return taps


@triton.jit
def place(half_height, half_width, channels, TILE: tl.constexpr, BD: tl.constexpr):
    """What a program works on: its image, rows and columns of blocks (BP,), channels (1, BD), and which are there."""
    blocks, across, down = tl.cdiv(channels, BD), tl.cdiv(half_width, TILE), tl.cdiv(half_height, TILE)
    # neighbours in channels and columns run at the same time and share what is cached
    number = tl.program_id(0) // blocks
    p = tl.arange(0, TILE * TILE)
    i = number // across % down * TILE + p // TILE
    j = number % across * TILE + p % TILE
    d = (tl.program_id(0) % blocks * BD + tl.arange(0, BD))[None, :]
    return number // (across * down), i, j, d, (i < half_height) & (j < half_width), d < channels


@triton.jit
def line(MAP, image, y, height, width, channels, d):
    """Where rows y of images of MAP (B, height, width, D) start, for every channel."""
    return MAP + ((image * height + y).to(tl.int64) * width * channels)[:, None] + d


@triton.jit
def load_pixels(start, x, inside, width, channels, d_in):
    """Pixels x of the lines `start`, (BP, BD) in float32; zero outside."""
    inside = inside & (x >= 0) & (x < width)
    return tl.load(start + (x * channels)[:, None], mask=inside[:, None] & d_in, other=0.0).to(tl.float32)


@triton.jit
def store_pixels(start, value, x, inside, width, channels, d_in):
    tl.store(start + (x * channels)[:, None], value, mask=(inside & (x < width))[:, None] & d_in)


@triton.jit
def load_window(MAP, image, i, j, there, height, width, channels, d, d_in):
    """The 4 × 4 pixels from (2i - 1, 2j - 1) on, as a tuple, row after row."""
    window = ()
    for r in tl.static_range(4):
        y = 2 * i + (r - 1)
        start = line(MAP, image, y, height, width, channels, d)
        inside = there & (y >= 0) & (y < height)
        for c in tl.static_range(4):
            window = window + (load_pixels(start, 2 * j + (c - 1), inside, width, channels, d_in),)
    return window


@triton.jit(do_not_specialize=SIZES)
def depthwise(
    X,
    WEIGHT,
    BIAS,
    HALF_WEIGHT,
    HALF_BIAS,
    OUT,
    HALF_OUT,
    height,
    width,
    half_height,
    half_width,
    channels,
    HALF: tl.constexpr,
    GELU: tl.constexpr,
    RESIDUAL: tl.constexpr,
    TILE: tl.constexpr,
    BD: tl.constexpr,
):
    """OUT (B, H, W, D) and HALF_OUT (B, ⌈H/2⌉, ⌈W/2⌉, D): activations of the convolutions of X (B, H, W, D).

    Grid: (B · rows of tiles · columns of tiles · blocks of channels,).
    """
    image, i, j, d, there, d_in = place(half_height, half_width, channels, TILE, BD)
    if HALF > 0:
        z = tl.zeros([TILE * TILE, BD], tl.float32) + load_vector(HALF_BIAS, d, d_in)
        for s in range(HALF):
            y = 2 * i + (s - HALF // 2)
            start = line(X, image, y, height, width, channels, d)
            inside = there & (y >= 0) & (y < height)
            for t in tl.static_range(HALF):
                tap = tl.load(HALF_WEIGHT + (s * HALF + t) * channels + d, mask=d_in, other=0.0).to(tl.float32)
                z += load_pixels(start, 2 * j + (t - HALF // 2), inside, width, channels, d_in) * tap
        start = line(HALF_OUT, image, i, half_height, half_width, channels, d)
        store_pixels(start, activate(z, GELU), j, there, half_width, channels, d_in)
    taps = load_taps(WEIGHT, d, d_in, 3, RESIDUAL)
    bias = load_vector(BIAS, d, d_in)
    window = load_window(X, image, i, j, there, height, width, channels, d, d_in)
    for a in tl.static_range(2):
        start = line(OUT, image, 2 * i + a, height, width, channels, d)
        inside = there & (2 * i + a < height)
        for b in tl.static_range(2):
            z = tl.zeros([TILE * TILE, BD], tl.float32) + bias
            for s in tl.static_range(3):
                for t in tl.static_range(3):
                    z += window[(a + s) * 4 + b + t] * taps[3 * s + t]
            store_pixels(start, activate(z, GELU), 2 * j + b, inside, width, channels, d_in)


@triton.jit
def with_tap(dx, dz, WEIGHT, s, t: tl.constexpr, s_in, channels, d, d_in, KERNEL: tl.constexpr):
    """Adds what a pixel gave to the convolution through tap (s, t), if there is one."""
    if t >= 0 and t < KERNEL:
        dx += dz * tl.load(WEIGHT + (s * KERNEL + t) * channels + d, mask=s_in & d_in, other=0.0).to(tl.float32)
    return dx


@triton.jit(do_not_specialize=SIZES)
def depthwise_input_gradient(
    DZ,
    HALF_DZ,
    WEIGHT,
    HALF_WEIGHT,
    DX,
    height,
    width,
    half_height,
    half_width,
    channels,
    HALF: tl.constexpr,
    RESIDUAL: tl.constexpr,
    TILE: tl.constexpr,
    BD: tl.constexpr,
):
    """The gradient DX of the map, from DZ and HALF_DZ, those of what goes into the activations.

    Grid: as of `depthwise`.
    """
    image, i, j, d, there, d_in = place(half_height, half_width, channels, TILE, BD)
    window = load_window(DZ, image, i, j, there, height, width, channels, d, d_in)
    taps = load_taps(WEIGHT, d, d_in, 3, RESIDUAL)
    # a pixel went into the 3 × 3 pixels around it, into each through the tap of the other side
    dx = ()
    for a in tl.static_range(2):
        for b in tl.static_range(2):
            total = tl.zeros([TILE * TILE, BD], tl.float32)
            for s in tl.static_range(3):
                for t in tl.static_range(3):
                    total += window[(a + 2 - s) * 4 + b + 2 - t] * taps[3 * s + t]
            dx = dx + (total,)
    for a in tl.static_range(2):
        left, right = dx[2 * a], dx[2 * a + 1]
        if HALF > 0:
            # and into those pixels of the strided convolution whose taps reach it
            for r in range(HALF // 4 + (HALF + 1) // 4 + 1):
                tap_row = a + HALF // 2 - 2 * (r - HALF // 4)
                row_in = (tap_row >= 0) & (tap_row < HALF)
                y = i + r - HALF // 4
                start = line(HALF_DZ, image, y, half_height, half_width, channels, d)
                inside = there & row_in & (y >= 0) & (y < half_height)
                for c in tl.static_range(HALF // 4 + (HALF + 1) // 4 + 1):
                    dz = load_pixels(start, j + (c - HALF // 4), inside, half_width, channels, d_in)
                    tap = HALF // 2 - 2 * (c - HALF // 4)
                    left = with_tap(left, dz, HALF_WEIGHT, tap_row, tap, row_in, channels, d, d_in, HALF)
                    right = with_tap(right, dz, HALF_WEIGHT, tap_row, tap + 1, row_in, channels, d, d_in, HALF)
        start = line(DX, image, 2 * i + a, height, width, channels, d)
        inside = there & (2 * i + a < height)
        store_pixels(start, left, 2 * j, inside, width, channels, d_in)
        store_pixels(start, right, 2 * j + 1, inside, width, channels, d_in)
