"""What a mixer and a block do to their maps: no copies between the layers, one projection product per resolution."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmmsvmamba.kernels import Route
from mmmsvmamba.layers import ConvFFN, ScanBlock, ScanMixer

BATCH, HEIGHT, WIDTH, DIM, INNER = 2, 6, 10, 8, 16
#: A map of half the size, of half the channels.
SMALLEST_MAP = BATCH * (HEIGHT // 2) * (WIDTH // 2) * DIM
COPIES = {
    'clone',
    'copy_',
    'contiguous',
    '_to_copy',
    'cat',
    'stack',
    'flip',
    'index_select',
    'index',
    'constant_pad_nd',
}
PRODUCTS = {'mm', 'addmm', 'bmm', 'baddbmm', 'linear'}
#: Operators that may make a copy of a map in an MS2D forward, in inference and in training: none.
ALLOWED = Counter()

RELEASED = dict(full_routes=[(Route.ROW,)], half_routes=[(Route.ROW_REVERSED, Route.COLUMN, Route.COLUMN_REVERSED)])
OWN = dict(full_routes=[(route,) for route in Route], half_routes=[])
FAMILIES = {
    'v1': dict(merge='norm-each+bilinear', gate=True),
    'v3': dict(merge='nearest+norm', gate=False),
}

needs_custom_op = pytest.mark.skipif(
    not hasattr(torch.library, 'custom_op'), reason='before torch 2.4 the recorder looks into the scan'
)


class Recorder(TorchDispatchMode):
    """Counts copies of maps, and products with them; checks that convolutions see and give channels-last maps."""

    def __init__(self):
        super().__init__()
        self.copies, self.products, self.convolutions = Counter(), 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.partition('::')[2]
        is_map = isinstance(out, torch.Tensor) and out.numel() >= SMALLEST_MAP
        if name in COPIES and is_map:
            self.copies[name] += 1
        if name in PRODUCTS and args[-2].numel() >= SMALLEST_MAP:
            self.products += 1
        if name == 'convolution':
            self.convolutions += 1
            # in another layout the convolution itself would copy
            assert args[0].is_contiguous(memory_format=torch.channels_last)
            assert out.is_contiguous(memory_format=torch.channels_last)
        return out


def mixer(**options):
    defaults = dict(full_kernel=3, half_kernel=7, conv_bias=True, d_state=1, dt_rank=2, se_reduction=8, eps=1e-5)
    return ScanMixer(DIM, INNER, **{**RELEASED, **defaults, **options})


def record(module, wants_gradient):
    x = torch.randn(BATCH, HEIGHT, WIDTH, DIM, requires_grad=wants_gradient)
    with torch.set_grad_enabled(wants_gradient), Recorder() as recorder:
        y = module(x)
    assert y.is_contiguous()
    return recorder


@needs_custom_op
@pytest.mark.parametrize('wants_gradient', [False, True])
@pytest.mark.parametrize('family', FAMILIES)
def test_copies_in_a_mixer(family, wants_gradient):
    recorder = record(mixer(**FAMILIES[family]), wants_gradient)
    assert recorder.copies == ALLOWED
    assert recorder.convolutions == 2
    # input, gate, output; Δ, B and C of all routes of a resolution
    assert recorder.products == 2 + FAMILIES[family]['gate'] + 2


@needs_custom_op
@pytest.mark.parametrize('family', FAMILIES)
def test_one_projection_product_for_all_groups(family):
    recorder = record(mixer(**{**FAMILIES[family], **OWN}), False)
    assert recorder.copies == ALLOWED
    assert recorder.products == 2 + FAMILIES[family]['gate'] + 1


@needs_custom_op
@pytest.mark.parametrize('wants_gradient', [False, True])
@pytest.mark.parametrize('ffn_norm', ['pre', 'post'])
def test_copies_in_a_block(ffn_norm, wants_gradient):
    block = ScanBlock(DIM, mixer(**FAMILIES['v1']), ConvFFN(DIM, 2 * DIM), ffn_norm, 0.0, 1e-5)
    recorder = record(block, wants_gradient)
    assert recorder.copies == ALLOWED
    assert recorder.convolutions == 3


def test_the_recorder_sees_copies():
    x = torch.randn(BATCH, HEIGHT, WIDTH, DIM)
    with Recorder() as recorder:
        x.transpose(1, 2).contiguous()
        x.clone()
        x.double()
        torch.zeros_like(x).copy_(x)
    assert recorder.copies == Counter(clone=2, _to_copy=1, copy_=1)
