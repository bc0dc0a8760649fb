"""What goes in and what comes out: sizes, layouts, dtypes, selected stages, maps as compiled operators read them."""

import math

import numpy as np
import pytest
import torch
from mmcv.ops import RoIAlign

from mmmsvmamba import MSVMamba

#: Few blocks and channels of each family.
SMALL = {
    'v1': dict(base='nano', depths=[1, 2, 1, 1], dims=16),
    'v3': dict(base='tiny-v3', depths=[1, 2, 1, 1], dims=16),
    'v3 gated': dict(base='base-v3', depths=[1, 2, 1, 1], dims=16),
}


def small(family='v1', seed=0, **kwargs) -> MSVMamba:
    torch.manual_seed(seed)
    return MSVMamba(SMALL[family], **kwargs).eval()


def image(*shape, seed=0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stage_sizes(family: str, side: int) -> list[int]:
    """The arXiv family drops what is beyond a multiple of four in its stem; every other halving rounds up."""
    side = max(side, 4)
    sizes = [side // 4 if family == 'v1' else math.ceil(math.ceil(side / 2) / 2)]
    for _ in range(3):
        sizes.append(math.ceil(sizes[-1] / 2))
    return sizes


@pytest.mark.parametrize(
    'size', [(97, 131), (200, 304), (36, 100), (16, 20), (8, 8), (4, 4), (13, 9), (1, 1), (3, 50), (224, 224)], ids=str
)
@pytest.mark.parametrize('family', SMALL)
def test_sizes(family, size):
    with torch.device('meta'):
        outs = MSVMamba(SMALL[family])(torch.empty(2, 3, *size))
    expected = zip(*(stage_sizes(family, side) for side in size), strict=True)
    assert [tuple(out.shape) for out in outs] == [(2, 16 * 2**i, *hw) for i, hw in enumerate(expected)]


def test_sizes_that_the_authors_code_gives():
    with torch.device('meta'):
        v1 = [tuple(out.shape[2:]) for out in MSVMamba('nano')(torch.empty(1, 3, 97, 131))]
        v3 = [tuple(out.shape[2:]) for out in MSVMamba('tiny-v3')(torch.empty(1, 3, 97, 131))]
    assert v1 == [(24, 32), (12, 16), (6, 8), (3, 4)]
    assert v3 == [(25, 33), (13, 17), (7, 9), (4, 5)]


@pytest.mark.parametrize('size', [(1, 1), (2, 9), (11, 3)], ids=str)
@pytest.mark.parametrize('family', ['v1', 'v3'])
def test_sides_below_four_pixels_are_zero_padded(family, size):
    x = image(2, 3, *size)
    padded = torch.zeros(2, 3, max(4, size[0]), max(4, size[1]))
    padded[:, :, : size[0], : size[1]] = x
    model = small(family)
    for out, expected in zip(model(x), model(padded), strict=True):
        assert torch.equal(out, expected)


@pytest.mark.parametrize('family', SMALL)
def test_layout_of_the_input_does_not_matter(family, nan_memory):
    model, x = small(family), image(2, 3, 37, 50)
    every_second = torch.stack([x, torch.full_like(x, torch.nan)], dim=4).flatten(3)[..., ::2]
    assert torch.equal(every_second, x) and not every_second.is_contiguous()
    expanded = x[:1].expand(2, -1, -1, -1)
    variants = [x.contiguous(memory_format=torch.channels_last), every_second, x.mT.contiguous().mT]
    for variant in variants:
        for out, expected in zip(model(variant), model(x), strict=True):
            torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)
    for out in model(expanded):
        torch.testing.assert_close(out[0], out[1], atol=1e-5, rtol=0)


def test_samples_of_a_batch_do_not_mix(nan_memory):
    for family in SMALL:
        model, x = small(family), image(3, 3, 33, 40)
        together = model(x)
        for i in range(3):
            for out, alone in zip(together, model(x[i : i + 1]), strict=True):
                torch.testing.assert_close(out[i : i + 1], alone, atol=1e-5, rtol=0)


def test_an_empty_batch_gives_empty_maps():
    assert [tuple(out.shape) for out in small()(torch.zeros(0, 3, 32, 64))] == [
        (0, 16, 8, 16), (0, 32, 4, 8), (0, 64, 2, 4), (0, 128, 1, 2)
    ]  # fmt: skip


@pytest.mark.parametrize('family', SMALL)
def test_evaluation_is_deterministic_and_leaves_the_input_alone(family):
    model, x = small(family, drop_path_rate=0.5), image(2, 3, 33, 40)
    before = x.clone()
    first, second = model(x), model(x)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(x, before)


@pytest.mark.parametrize('family', SMALL)
def test_float64_is_close_to_float32_and_bfloat16_is_finite(family):
    model, x = small(family), image(2, 3, 33, 40)
    outs = model(x)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        mixed = model(x)
        sum(out.float().square().mean() for out in mixed).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    model.double()
    for out, low, high in zip(outs, mixed, model(x.double()), strict=True):
        assert high.dtype == torch.float64
        torch.testing.assert_close(out.double(), high, atol=2e-5, rtol=0)
        torch.testing.assert_close(low.double(), high, atol=0.2, rtol=0)


def test_other_numbers_of_channels():
    outs = small(in_channels=5)(image(1, 5, 32, 32))
    assert outs[0].shape == (1, 16, 8, 8)


@pytest.mark.parametrize(
    'x, said',
    [
        (torch.zeros(1, 4, 32, 32), r'\(B, 3, H, W\), got shape \(1, 4, 32, 32\)'),
        (torch.zeros(3, 32, 32), r'\(B, 3, H, W\), got shape \(3, 32, 32\)'),
        (torch.zeros(1, 32, 32, 3), r'\(B, 3, H, W\), got shape \(1, 32, 32, 3\)'),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), 'floating-point.*torch.uint8; normalise'),
        (torch.zeros(1, 3, 0, 32), r'no pixels: shape \(1, 3, 0, 32\)'),
    ],
)
def test_an_input_that_cannot_work(x, said):
    with pytest.raises(ValueError, match=said):
        small()(x)


@pytest.mark.parametrize(
    'given, built', [((3,), (3,)), ((2, 0), (0, 2)), ((-1, -4), (0, 3)), (1, (1,)), ([0, 1], (0, 1))]
)
@pytest.mark.parametrize('family', ['v1', 'v3'])
def test_selected_stages_are_those_of_the_full_output(family, given, built):
    model, part = small(family, seed=1), small(family, seed=2, out_indices=given)
    assert part.out_indices == built
    with torch.no_grad():
        for i in range(4):
            getattr(model, f'norm{i}').weight.normal_()
    part.load_state_dict(model.state_dict())
    x = image(1, 3, 45, 32)
    full = model(x)
    outs = part(x)
    assert isinstance(outs, tuple) and len(outs) == len(built)
    for i, out in zip(built, outs, strict=True):
        assert torch.equal(out, full[i])
    assert part.feature_info == [dict(num_chs=16 * 2**i, reduction=4 * 2**i, module=f'norm{i}') for i in built]


def test_stages_that_no_output_needs_are_not_built():
    model = small(out_indices=(0, 1))
    assert len(model.stages) == 2
    assert model.stages[1].downsample is None
    assert not any(name.startswith(('norm2', 'norm3')) for name, _ in model.named_parameters())


@pytest.mark.parametrize('out_indices', [(0, 1, 2, 3), (0, 1), (3,)], ids=str)
@pytest.mark.parametrize('family', SMALL)
def test_every_parameter_receives_a_gradient(family, out_indices):
    """Otherwise distributed training stops with unused parameters."""
    model = small(family, out_indices=out_indices).train()
    outs = model(image(2, 3, 64, 96))
    sum((out * image(*out.shape, seed=3)).sum() for out in outs).backward()
    unused = [name for name, p in model.named_parameters() if p.grad is None]
    assert not unused
    # the channel attention is left out: few channels may all end behind its ReLU
    zero = [name for name, p in model.named_parameters() if '.se.' not in name and not p.grad.abs().sum() > 0]
    assert not zero


@pytest.mark.parametrize('with_cp', [False, True])
@pytest.mark.parametrize('family', SMALL)
def test_maps_are_contiguous(family, with_cp):
    model = small(family, with_cp=with_cp).train()
    for x in (image(2, 3, 64, 48), image(2, 3, 64, 48).contiguous(memory_format=torch.channels_last)):
        for out in model(x):
            assert out.is_contiguous()
            assert out.stride() == (math.prod(out.shape[1:]), math.prod(out.shape[2:]), out.shape[3], 1)


def roi_align(x: np.ndarray, rois: np.ndarray, scale: float, size: int, samples: int) -> np.ndarray:
    """RoIAlign with half-pixel alignment (He et al., arXiv:1703.06870), sample by sample."""
    pooled = np.zeros((len(rois), x.shape[1], size, size))
    height, width = x.shape[2:]

    def at(feature, row, column):
        if row < -1 or row > height or column < -1 or column > width:
            return np.zeros(len(feature))
        row, column = min(max(row, 0), height - 1), min(max(column, 0), width - 1)
        top, left = int(row), int(column)
        bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
        down, across = row - top, column - left
        upper = feature[:, top, left] * (1 - across) + feature[:, top, right] * across
        lower = feature[:, bottom, left] * (1 - across) + feature[:, bottom, right] * across
        return upper * (1 - down) + lower * down

    for r, (index, *box) in enumerate(rois):
        x1, y1, x2, y2 = (side * scale - 0.5 for side in box)
        for i in range(size):
            for j in range(size):
                for a in range(samples):
                    for b in range(samples):
                        row = y1 + (i + (a + 0.5) / samples) * (y2 - y1) / size
                        column = x1 + (j + (b + 0.5) / samples) * (x2 - x1) / size
                        pooled[r, :, i, j] += at(x[int(index)], row, column) / samples**2
    return pooled


@pytest.mark.parametrize('family', ['v1', 'v3'])
def test_roi_align_reads_the_maps_right(family):
    """mmcv's operators read the raw memory as (B, C, H, W)."""
    rois = torch.tensor([[0, 3.0, 5.0, 60.5, 44.0], [1, 20.0, 0.0, 95.0, 63.0], [1, -4.0, 10.0, 30.0, 80.0]])
    for level, out in enumerate(small(family)(image(2, 3, 64, 96))):
        scale = 1 / (4 * 2**level)
        pooled = RoIAlign(3, spatial_scale=scale, sampling_ratio=2, aligned=True)(out.detach(), rois)
        expected = roi_align(out.detach().double().numpy(), rois.double().numpy(), scale, size=3, samples=2)
        np.testing.assert_allclose(pooled.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize('size', [(64, 64), (50, 71)], ids=str)
def test_maps_at_other_strides(size):
    model, moved = small(seed=1), small(seed=1, out_strides=(2, 8, 8, 64))
    x = image(1, 3, *size)
    maps, out = model(x), moved(x)
    height, width = size
    for i, stride in {0: 2, 2: 8, 3: 64}.items():
        assert tuple(out[i].shape[2:]) == (math.ceil(height / stride), math.ceil(width / stride))
    assert torch.equal(out[1], maps[1])
    assert moved.feature_info.reduction() == [2, 8, 8, 64]
    assert moved.feature_info.channels() == model.feature_info.channels() == [16, 32, 64, 128]
    if size == (64, 64):
        expected = torch.nn.functional.interpolate(maps[2], scale_factor=2, mode='bilinear')
        torch.testing.assert_close(out[2], expected)
        torch.testing.assert_close(out[3], maps[3].mean(dim=(2, 3), keepdim=True))
    assert all(m.is_contiguous() for m in out)


@pytest.mark.parametrize('strides', [(4, 8), (4, 8, 16, 0), 8, (4, 8, 16, 2.5)], ids=str)
def test_strides_that_cannot_be(strides):
    with pytest.raises(ValueError, match='out_strides must give one positive integer for each of the 4 outputs'):
        small(out_strides=strides)
