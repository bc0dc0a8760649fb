"""The mixer of Vim against the paper's definition, flips and all, in float64; its norm, pyramid and class tokens."""

import math

import pytest
import torch
from published_vim import mixer as definition
from torch import nn

from mmmsvmamba.layers import BidirectionalMixer, ClassTokens, RMSNorm, SimplePyramid, resize_positions


def make(dim=6, inner_dim=8, d_state=3, dt_rank=2, seed=0) -> BidirectionalMixer:
    torch.manual_seed(seed)
    mixer = BidirectionalMixer(dim, inner_dim, d_state, dt_rank, depth=4).double()
    for parameter in mixer.parameters():  # nothing stays zero or one
        nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.3)
    return mixer


def published_names(mixer: BidirectionalMixer) -> dict[str, torch.Tensor]:
    """The mixer's own parameters, written out by hand under the names of the definition."""
    named = {
        'in_proj.weight': torch.cat([mixer.in_proj.weight, mixer.gate_proj.weight]),
        'out_proj.weight': mixer.out_proj.weight,
    }
    for part, suffix, decay in ((mixer.forwards, '', 'A_log'), (mixer.backwards, '_b', 'A_b_log')):
        named |= {f'conv1d{suffix}.{kind}': getattr(part.conv, kind) for kind in ('weight', 'bias')}
        named |= {
            f'x_proj{suffix}.weight': part.scan.x_proj_weight[0],
            f'dt_proj{suffix}.weight': part.scan.dt_weight[0],
            f'dt_proj{suffix}.bias': part.scan.dt_bias[0],
            decay: part.scan.A_log[0],
            f'D{suffix}': part.scan.D[0],
        }
    return {f'mixer.{key}': value for key, value in named.items()}


@pytest.mark.parametrize('length', [1, 2, 3, 4, 5, 17])
def test_equals_its_definition(length, nan_memory):
    mixer = make()
    x = torch.randn(2, length, 6, dtype=torch.float64)
    torch.testing.assert_close(mixer(x), definition(x, published_names(mixer)), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize('options', [dict(d_state=1), dict(d_state=16, dt_rank=1), dict(dim=4, inner_dim=12)], ids=str)
def test_every_size_equals_its_definition(options):
    mixer = make(**options)
    x = torch.randn(1, 7, options.get('dim', 6), dtype=torch.float64)
    torch.testing.assert_close(mixer(x), definition(x, published_names(mixer)), atol=1e-10, rtol=1e-10)


def test_gradients_are_those_of_the_definition():
    mixer = make()
    x = torch.randn(2, 6, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 6, 6, dtype=torch.float64)
    inputs = [x, *mixer.parameters()]
    expected = torch.autograd.grad((definition(x, published_names(mixer)) * weight).sum(), inputs)
    for gradient, other in zip(torch.autograd.grad((mixer(x) * weight).sum(), inputs), expected, strict=True):
        torch.testing.assert_close(gradient, other, atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize('part, seen', [('forwards', range(4, 8)), ('backwards', range(1, 5))])
def test_a_convolution_sees_four_positions_on_its_side(part, seen):
    conv = getattr(make(), part).conv
    x = torch.zeros(1, 1, 12, 8, dtype=torch.float64)
    x[:, :, 4] = 1
    changed = (conv(x) - conv(torch.zeros_like(x))).abs().sum((0, 1, 3)) > 0
    assert changed.nonzero().flatten().tolist() == list(seen)


def test_the_last_projection_starts_smaller_in_deeper_networks():
    bounds = []
    for depth in (1, 24):
        torch.manual_seed(0)
        bounds.append(BidirectionalMixer(64, 128, 16, 4, depth).out_proj.weight.abs().max().item())
    assert bounds[0] == pytest.approx(128**-0.5, rel=0.01)  # as torch has it
    assert bounds[1] == pytest.approx(bounds[0] / math.sqrt(24))


def test_the_steps_of_both_directions_start_as_mamba_has_them():
    mixer = BidirectionalMixer(64, 512, 16, 4, depth=24)
    for part in (mixer.forwards, mixer.backwards):
        step = nn.functional.softplus(part.scan.dt_bias)
        assert step.min() >= 1e-3 * 0.999 and step.max() <= 1e-1 * 1.001
        assert step.max() / step.min() > 30


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_rms_norm(dtype):
    norm = RMSNorm(5, eps=1e-2).to(dtype)
    nn.init.normal_(norm.weight)
    x = torch.randn(3, 4, 5, dtype=dtype)
    expected = x / (x.pow(2).mean(2, keepdim=True) + 1e-2) ** 0.5 * norm.weight
    torch.testing.assert_close(norm(x), expected)
    if hasattr(nn, 'RMSNorm'):
        torch.testing.assert_close(norm(x), nn.functional.rms_norm(x, (5,), norm.weight, 1e-2))


def test_rms_norm_of_half_precision_computes_in_float32():
    norm = RMSNorm(4).half()
    x = torch.full((1, 4), 3000.0)  # the square is beyond float16
    assert norm(x.half()).dtype == norm(x).dtype == torch.float16
    assert torch.equal(norm(x.half()), torch.ones(1, 4, dtype=torch.float16))


@pytest.mark.parametrize(
    'kind, patches, places', [('head', 5, [0]), ('middle', 5, [2]), ('middle', 6, [3]), ('double', 5, [0, 6])]
)
def test_where_class_tokens_stand(kind, patches, places):
    layout = ClassTokens(kind)
    x = torch.arange(2 * patches * 3.0).view(2, patches, 3)
    tokens = -torch.arange(1.0, 1 + 3 * layout.count).view(1, -1, 3)
    sequence = layout.insert(x, tokens)
    assert torch.equal(sequence[:, places], tokens.expand(2, -1, -1))
    assert torch.equal(layout.patches(sequence), x)
    assert torch.equal(layout.tokens(sequence), tokens.expand(2, -1, -1))


def test_without_class_tokens_nothing_is_inserted():
    layout, x = ClassTokens(None), torch.rand(1, 3, 2)
    assert layout.insert(x, None) is x and layout.patches(x) is x and layout.tokens(x) is None


@pytest.mark.parametrize('kind', [None, 'head', 'middle', 'double'])
def test_position_embeddings_of_another_grid(kind):
    layout = ClassTokens(kind)
    patches = torch.randn(1, 9, 4)
    tokens = torch.randn(1, layout.count, 4) if layout.count else None
    given = layout.insert(patches, tokens)
    assert resize_positions(given, (3, 3), (3, 3), layout) is given
    resized = resize_positions(given, (3, 3), (4, 7), layout)
    grid = nn.functional.interpolate(patches.mT.reshape(1, 4, 3, 3), size=(4, 7), mode='bicubic').flatten(2).mT
    torch.testing.assert_close(layout.patches(resized), grid)
    if tokens is not None:
        assert torch.equal(layout.tokens(resized), tokens)


@pytest.mark.parametrize(
    'stride, out_strides, sizes',
    [
        (16, (4, 8, 16, 32), [(20, 28), (10, 14), (5, 7), (3, 4)]),
        (8, (4, 8, 16, 32), [(10, 14), (5, 7), (3, 4), (2, 2)]),
        (16, (16, 64), [(5, 7), (2, 2)]),
    ],
)
def test_sizes_of_a_pyramid(stride, out_strides, sizes):
    pyramid = SimplePyramid(8, stride, out_strides, dict(type='GN', num_groups=4))
    maps = [torch.randn(2, 8, 5, 7).to(memory_format=torch.channels_last) for _ in out_strides]
    outs = pyramid(maps)
    assert [tuple(out.shape) for out in outs] == [(2, 8, *size) for size in sizes]
    assert all(out.is_contiguous() for out in outs)


def test_parts_of_a_pyramid():
    levels = SimplePyramid(8, 16, (4, 8, 16, 32), dict(type='BN')).levels
    assert [type(part) for part in levels[0]] == [nn.ConvTranspose2d, nn.BatchNorm2d, nn.GELU, nn.ConvTranspose2d]
    assert [type(level) for level in levels[1:]] == [nn.ConvTranspose2d, nn.Identity, nn.MaxPool2d]
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert torch.equal(levels[3](x), torch.tensor([[[[5.0, 7.0], [13.0, 15.0]]]]))
    assert levels[3](x[..., :1, :1]).item() == 0  # a single pixel is kept


@pytest.mark.parametrize('out_stride', [2, 12, 48])
def test_a_stride_out_of_reach(out_stride):
    with pytest.raises(ValueError, match=f'{out_stride} cannot be reached from patches at stride 16'):
        SimplePyramid(8, 16, (out_stride,), dict(type='BN'))
