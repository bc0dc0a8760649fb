"""Channel attention on channels-last maps."""

import torch.nn.functional as F
from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """Scales channels by a gate computed from their mean over the map (Hu et al., arXiv:1709.01507); linear layers
    without bias."""

    def __init__(self, dim: int, reduction: int):
        super().__init__()
        self.squeeze = nn.Linear(dim, dim // reduction, bias=False)
        self.excite = nn.Linear(dim // reduction, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, H, W, C) to (B, H, W, C)."""
        scale = self.excite(F.relu(self.squeeze(x.mean((1, 2))))).sigmoid()
        return x * scale[:, None, None]
