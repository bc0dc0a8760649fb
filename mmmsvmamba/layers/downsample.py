"""From one stage to the next: half the size (rounding up), other channels."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conv import Conv2d


class PatchMerging(nn.Module):
    """Concatenates 2×2 pixels, norm, linear (Swin Transformer, arXiv:2103.14030, §3.1); odd sides are zero-padded
    before the norm.

    The published weights expect the pixels in the order (0, 0), (1, 0), (0, 1), (1, 1) of (row, column).
    """

    def __init__(self, in_dim: int, out_dim: int, eps: float):
        super().__init__()
        self.norm = nn.LayerNorm(4 * in_dim, eps=eps)
        self.reduction = nn.Linear(4 * in_dim, out_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        if height % 2 or width % 2:
            x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        corners = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.reduction(self.norm(torch.cat(corners, dim=-1)))


class ConvDownsample(nn.Module):
    """3×3 convolution with stride 2, norm."""

    def __init__(self, in_dim: int, out_dim: int, eps: float):
        super().__init__()
        self.conv = Conv2d(in_dim, out_dim, kernel_size=3, stride=2, padding=1)
        self.norm = nn.LayerNorm(out_dim, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


DOWNSAMPLES = {'merging': PatchMerging, 'conv': ConvDownsample}
