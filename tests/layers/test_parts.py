"""Stems, steps between stages, ConvFFN, channel attention and the residual block against their formulas, in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmmsvmamba.layers import MLP, ConvDownsample, ConvFFN, ConvStem, PatchMerging, PatchStem, ScanBlock, SqueezeExcite

EPS = 1e-5


def built(module: nn.Module) -> nn.Module:
    """With parameters among which none is zero or one."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.double()


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def random(*shape) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def norm(x, module):
    return F.layer_norm(x, x.shape[-1:], module.weight, module.bias, EPS)


def pixel(x: torch.Tensor, i: int, j: int) -> torch.Tensor:
    """The channels of a pixel; outside the map they are zero."""
    inside = 0 <= i < x.shape[1] and 0 <= j < x.shape[2]
    return x[:, i, j] if inside else x.new_zeros(x.shape[0], x.shape[3])


def convolution(x: torch.Tensor, module: nn.Conv2d, stride: int, size: tuple[int, int]) -> torch.Tensor:
    """A dense 3×3 convolution of (B, H, W, C) as a sum over taps."""
    rows = []
    for i in range(size[0]):
        row = []
        for j in range(size[1]):
            taps = [(a, b) for a in range(3) for b in range(3)]
            terms = [pixel(x, i * stride + a - 1, j * stride + b - 1) @ module.weight[:, :, a, b].t() for a, b in taps]
            row.append(sum(terms) + module.bias)
        rows.append(torch.stack(row, dim=1))
    return torch.stack(rows, dim=1)


@pytest.mark.parametrize('size', [(8, 12), (11, 6), (4, 4)], ids=str)
def test_patch_stem(size):
    stem, x = built(PatchStem(3, 5, EPS)), random(2, *size, 3)
    rows, columns = size[0] // 4, size[1] // 4
    patches = x[:, : rows * 4, : columns * 4].reshape(2, rows, 4, columns, 4, 3)
    flat = patches.permute(0, 1, 3, 5, 2, 4).flatten(
        3
    )  # channel, row and column within the patch, as the weights have them
    expected = norm(flat @ stem.conv.weight.flatten(1).t() + stem.conv.bias, stem.norm)
    torch.testing.assert_close(stem(x), expected)


@pytest.mark.parametrize('size', [(8, 12), (9, 7), (4, 5)], ids=str)
def test_conv_stem(size):
    stem, x = built(ConvStem(3, 6, EPS)), random(2, *size, 3)
    halves = [math.ceil(side / 2) for side in size]
    quarters = [math.ceil(side / 2) for side in halves]
    y = norm(convolution(x, stem.conv1, 2, halves), stem.norm1)
    y = y * 0.5 * (1 + torch.erf(y / math.sqrt(2)))
    expected = norm(convolution(y, stem.conv2, 2, quarters), stem.norm2)
    torch.testing.assert_close(stem(x), expected)


@pytest.mark.parametrize('size', [(4, 6), (5, 6), (4, 3), (3, 5), (1, 1)], ids=str)
def test_patch_merging(size):
    """Order of the pixels: down first, then right; what is missing is zero before the norm."""
    merging, x = built(PatchMerging(3, 7, EPS)), random(2, *size, 3)
    rows, columns = math.ceil(size[0] / 2), math.ceil(size[1] / 2)
    expected = torch.zeros(2, rows, columns, 7, dtype=torch.float64)
    for i in range(rows):
        for j in range(columns):
            corners = [pixel(x, 2 * i + a, 2 * j + b) for a, b in ((0, 0), (1, 0), (0, 1), (1, 1))]
            expected[:, i, j] = norm(torch.cat(corners, dim=-1), merging.norm) @ merging.reduction.weight.t()
    torch.testing.assert_close(merging(x), expected)
    assert merging.reduction.bias is None


@pytest.mark.parametrize('size', [(4, 6), (5, 3), (1, 1)], ids=str)
def test_conv_downsample(size):
    step, x = built(ConvDownsample(3, 7, EPS)), random(2, *size, 3)
    halves = [math.ceil(side / 2) for side in size]
    torch.testing.assert_close(step(x), norm(convolution(x, step.conv, 2, halves), step.norm))


def test_conv_ffn():
    """The residual goes around the depthwise convolution, inside the GELU; GELU is the exact one."""
    ffn, x = built(ConvFFN(3, 5)), random(2, 4, 3, 3)
    hidden = x @ ffn.linear1.weight.t() + ffn.linear1.bias
    mixed = torch.zeros_like(hidden)
    for i in range(4):
        for j in range(3):
            for a in range(3):
                for b in range(3):
                    mixed[:, i, j] += pixel(hidden, i + a - 1, j + b - 1) * ffn.dwconv.weight[:, 0, a, b]
    hidden = hidden + mixed + ffn.dwconv.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    torch.testing.assert_close(ffn(x), hidden @ ffn.linear2.weight.t() + ffn.linear2.bias)


def test_squeeze_excite():
    attention, x = built(SqueezeExcite(8, 4)), random(2, 4, 3, 8)
    hidden = (x.mean((1, 2)) @ attention.squeeze.weight.t()).clamp_min(0)
    scale = 1 / (1 + torch.exp(-(hidden @ attention.excite.weight.t())))
    torch.testing.assert_close(attention(x), x * scale[:, None, None, :])
    assert attention.squeeze.weight.shape == (2, 8)
    assert attention.squeeze.bias is None and attention.excite.bias is None


class Square(nn.Module):
    """Tells an argument that is normalised from one that is not."""

    def forward(self, x):
        return x.square() + 2 * x


@pytest.mark.parametrize('ffn_norm', ['pre', 'post', None])
def test_block(ffn_norm):
    ffn = Square() if ffn_norm else None
    block, x = built(ScanBlock(6, Square(), ffn, ffn_norm or 'pre', 0.0, EPS)), random(2, 4, 3, 6)
    inner = norm(x, block.norm1)
    y = x + inner.square() + 2 * inner
    if ffn_norm == 'pre':
        inner = norm(y, block.norm2)
        y = y + inner.square() + 2 * inner
    elif ffn_norm == 'post':
        y = y + norm(y.square() + 2 * y, block.norm2)
    else:
        assert block.norm2 is None
    torch.testing.assert_close(block(x), y)


def test_dropped_paths_are_drawn_by_sample_and_by_path():
    rate = 0.4
    block = built(ScanBlock(6, Square(), Square(), 'pre', rate, EPS)).train()
    x = random(400, 2, 1, 6)
    y = block(x)
    inner = norm(x, block.norm1)
    mixed = x + (inner.square() + 2 * inner) / (1 - rate)
    outcomes = {'both dropped': x, 'mixer alone': mixed}
    shares = {}
    for name, expected in outcomes.items():
        same = (y - expected).abs().flatten(1).amax(1) < 1e-9
        shares[name] = same.double().mean().item()
    assert shares['both dropped'] == pytest.approx(rate**2, abs=0.06)
    assert shares['mixer alone'] == pytest.approx((1 - rate) * rate, abs=0.08)


def test_mlp():
    """Each pixel by itself, with the exact GELU."""
    ffn, x = built(MLP(3, 7)), random(2, 3, 4, 3)
    hidden = x @ ffn.linear1.weight.t() + ffn.linear1.bias
    gelu = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    torch.testing.assert_close(ffn(x), gelu @ ffn.linear2.weight.t() + ffn.linear2.bias, atol=1e-12, rtol=1e-12)
