"""Convolution of channels-last maps."""

from torch import Tensor, nn


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` whose input and output are (B, H, W, C).

    A permuted channels-last map is a tensor in torch's channels_last memory format, so nothing is copied.
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def depthwise(channels: int, kernel_size: int, stride: int = 1, bias: bool = True) -> Conv2d:
    """A depthwise convolution that keeps the size of the map, or halves it (rounding up) with stride 2."""
    return Conv2d(channels, channels, kernel_size, stride, padding=kernel_size // 2, groups=channels, bias=bias)
