"""Feed-forward networks of a block, on channels-last maps."""

import torch.nn.functional as F
from torch import Tensor, nn

from mmmsvmamba.kernels import depthwise_residual_gelu

from .conv import depthwise


class ConvFFN(nn.Module):
    """Linear, residual 3×3 depthwise convolution, GELU, linear: mixes neighbours between the two linear layers
    (arXiv:2405.14174, Fig. 5)."""

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__()
        self.linear1 = nn.Linear(dim, hidden_dim)
        self.dwconv = depthwise(hidden_dim, kernel_size=3)
        self.linear2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(depthwise_residual_gelu(self.linear1(x), self.dwconv.weight, self.dwconv.bias))


class MLP(nn.Module):
    """Linear, GELU, linear: each pixel by itself."""

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__()
        self.linear1 = nn.Linear(dim, hidden_dim)
        self.linear2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(F.gelu(self.linear1(x)))


FFNS = {'conv': ConvFFN, 'mlp': MLP}
