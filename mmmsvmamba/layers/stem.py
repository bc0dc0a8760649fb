"""From an image to the stride-4 map of stage 1."""

import torch.nn.functional as F
from torch import Tensor, nn

from .conv import Conv2d


class PatchStem(nn.Module):
    """4×4 patches and a norm: (B, H, W, 3) -> (B, ⌊H/4⌋, ⌊W/4⌋, dim). Rows and columns beyond a multiple of 4 are
    dropped."""

    def __init__(self, in_channels: int, dim: int, eps: float):
        super().__init__()
        self.conv = Conv2d(in_channels, dim, kernel_size=4, stride=4)
        self.norm = nn.LayerNorm(dim, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class ConvStem(nn.Module):
    """Two overlapping 3×3 convolutions with stride 2: (B, H, W, 3) -> (B, ⌈H/4⌉, ⌈W/4⌉, dim)."""

    def __init__(self, in_channels: int, dim: int, eps: float):
        super().__init__()
        self.conv1 = Conv2d(in_channels, dim // 2, kernel_size=3, stride=2, padding=1)
        self.norm1 = nn.LayerNorm(dim // 2, eps=eps)
        self.conv2 = Conv2d(dim // 2, dim, kernel_size=3, stride=2, padding=1)
        self.norm2 = nn.LayerNorm(dim, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm2(self.conv2(F.gelu(self.norm1(self.conv1(x)))))


STEMS = {'patch': PatchStem, 'conv': ConvStem}
