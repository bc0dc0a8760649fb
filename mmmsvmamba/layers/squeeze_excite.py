"""Channel attention on channels-last maps."""

import torch.nn.functional as F
from torch import Tensor, nn

from mmmsvmamba.kernels import scale_and_gate


class SqueezeExcite(nn.Module):
    """Scales channels by a gate computed from their mean over the map (Hu et al., arXiv:1709.01507); linear layers
    without bias."""

    def __init__(self, dim: int, reduction: int):
        super().__init__()
        self.squeeze = nn.Linear(dim, dim // reduction, bias=False)
        self.excite = nn.Linear(dim // reduction, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, H, W, C) to (B, H, W, C)."""
        return scale_and_gate(x, self.scale(x), None)

    def scale(self, x: Tensor) -> Tensor:
        """The factors (B, C) of a map (B, H, W, C)."""
        return self.excite(F.relu(self.squeeze(x.mean((1, 2))))).sigmoid()
