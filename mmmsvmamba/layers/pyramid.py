"""Maps of several strides from maps of one."""

from collections.abc import Sequence
from fractions import Fraction

from mmcv.cnn import build_norm_layer
from torch import Tensor, nn


class SimplePyramid(nn.Module):
    """Brings maps of one stride to a stride each, as plain transformers feed detectors (Li et al., arXiv:2203.16527).

    Twice the size is a transposed 2×2 convolution; four times is two of them, with a norm and GELU between; smaller
    maps are the maxima of blocks.

    Args:
        dim: Channels of every map, in and out.
        stride: Of the maps that come in.
        out_strides: One for each map.
        norm_cfg: mmcv config of the norm.

    Raises:
        ValueError: A stride that is neither a quarter of `stride`, nor half of it, nor `stride` times a power of two.
    """

    def __init__(self, dim: int, stride: int, out_strides: Sequence[int], norm_cfg: dict):
        super().__init__()
        self.levels = nn.ModuleList(_level(dim, stride, out_stride, norm_cfg) for out_stride in out_strides)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps (B, C, h, w) each to contiguous (B, C, f·h, f·w), f = stride / out_stride; rounded up where f < 1."""
        return tuple(level(x).contiguous() for level, x in zip(self.levels, maps, strict=True))


def _level(dim: int, stride: int, out_stride: int, norm_cfg: dict) -> nn.Module:
    factor = Fraction(stride, out_stride)
    if factor == 4:
        return nn.Sequential(_double(dim), build_norm_layer(norm_cfg, dim)[1], nn.GELU(), _double(dim))
    if factor == 2:
        return _double(dim)
    if factor == 1:
        return nn.Identity()
    down = factor.denominator
    if factor.numerator == 1 and down & (down - 1) == 0:
        # rounded up: a map of one pixel keeps it
        return nn.MaxPool2d(down, ceil_mode=True)
    raise ValueError(
        f'out_strides: {out_stride} cannot be reached from patches at stride {stride}; possible are a quarter of it, '
        'half of it, and it times 1, 2, 4, 8 …'
    )


def _double(dim: int) -> nn.Module:
    return nn.ConvTranspose2d(dim, dim, kernel_size=2, stride=2)
