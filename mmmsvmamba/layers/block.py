"""The residual block of the hierarchical backbones."""

from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn


class ScanBlock(nn.Module):
    """Mixer and feed-forward network, each on a residual path with the same drop rate.

    Args:
        dim: Channels.
        mixer: Maps (B, H, W, C) to (B, H, W, C); always behind a norm.
        ffn: Likewise, or None.
        ffn_norm: 'pre' (norm before the FFN) or 'post' (norm after it, before the residual addition).
        drop_path_rate: Probability of dropping a residual path for a sample in training.
        eps: Of the norms.
    """

    def __init__(
        self, dim: int, mixer: nn.Module, ffn: nn.Module | None, ffn_norm: str, drop_path_rate: float, eps: float
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.mixer = mixer
        self.norm2 = nn.LayerNorm(dim, eps=eps) if ffn is not None else None
        self.ffn = ffn
        self.pre_norm = ffn_norm == 'pre'
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.mixer(self.norm1(x)))
        if self.ffn is None:
            return x
        y = self.ffn(self.norm2(x)) if self.pre_norm else self.norm2(self.ffn(x))
        return x + self.drop_path(y)
