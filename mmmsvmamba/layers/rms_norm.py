"""Normalisation by the root mean square."""

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """x / √(mean(x²) + eps) · weight over the last dimension (Zhang & Sennrich, arXiv:1910.07467).

    torch has it since 2.4 only. The mean is taken in float32 at least; the result has the dtype of the weight, so that
    a residual stream in float32 leaves a model in half precision as its layers expect it.

    Args:
        dim: Size of the last dimension.
        eps: Added to the mean of the squares.
    """

    def __init__(self, dim: int, eps: float = 1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Maps (…, dim) to (…, dim)."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)
        return (x * scale * self.weight).to(self.weight.dtype)

    def extra_repr(self) -> str:
        return f'{self.weight.numel()}, eps={self.eps}'
