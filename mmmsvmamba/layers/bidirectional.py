"""The bidirectional mixer of Vision Mamba, and its block."""

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from mmmsvmamba.kernels import Route, scale_and_gate

from .rms_norm import RMSNorm
from .ssm import RouteScan


class CausalConv(nn.Conv1d):
    """Depthwise convolution of a sequence over a position and those before it, or, backwards, those after it.

    The backward kernel is stored as for a flipped sequence, as published; what is flipped is the kernel, when it is
    applied.

    Args:
        dim: Channels D.
        kernel_size: Positions that are seen.
        backward: Whether these are the following ones.
    """

    def __init__(self, dim: int, kernel_size: int, backward: bool):
        super().__init__(dim, dim, kernel_size, groups=dim)
        self.backward_in_time = backward

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, 1, L, D) to (B, 1, L, D)."""
        reach = self.kernel_size[0] - 1
        weight = self.weight.flip(-1) if self.backward_in_time else self.weight
        y = F.conv2d(x.permute(0, 3, 1, 2), weight.unsqueeze(2), self.bias, padding=(0, reach), groups=self.groups)
        # padded on both sides, so `reach` positions too long
        y = y[..., reach:] if self.backward_in_time else y[..., : x.shape[2]]
        return y.permute(0, 2, 3, 1)


class ScanDirection(nn.Module):
    """Causal convolution, SiLU and scan of a sequence, all in one direction."""

    def __init__(self, dim: int, d_state: int, dt_rank: int, kernel_size: int, backward: bool):
        super().__init__()
        self.conv = CausalConv(dim, kernel_size, backward)
        self.scan = RouteScan(dim, [(Route.ROW_REVERSED if backward else Route.ROW,)], d_state, dt_rank)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, 1, L, D) to (B, 1, L, D)."""
        return self.scan(F.silu(self.conv(x)), summed=True)


class BidirectionalMixer(nn.Module):
    """Scans a sequence forwards and backwards, each behind a causal convolution of its own, and gates the mean of the
    two: Vision Mamba (Zhu et al., arXiv:2401.09417, Algorithm 1).

    The published code flips the sequence for the second direction and flips the result back. Here convolution and scan
    run backwards over the sequence as it is. The gate acts on single positions, so it is applied to the mean once.

    Linear layers start as torch has them, the last one divided by √depth. The step sizes of both directions start as
    Mamba has them: the published code sets the bias of the backward ones to zero after that, by an oversight (a flag
    that protects the forward bias is missing from the backward one), which makes them steps of about 0.7.

    Args:
        dim: Channels C of the sequence.
        inner_dim: Channels D of the scans.
        d_state: States N per channel.
        dt_rank: Rank of the step-size projections.
        depth: Blocks of the network, for the initialisation.
        kernel_size: Of the convolutions.
    """

    def __init__(self, dim: int, inner_dim: int, d_state: int, dt_rank: int, depth: int, kernel_size: int = 4):
        super().__init__()
        self.in_proj = nn.Linear(dim, inner_dim, bias=False)
        self.gate_proj = nn.Linear(dim, inner_dim, bias=False)
        self.forwards = ScanDirection(inner_dim, d_state, dt_rank, kernel_size, backward=False)
        self.backwards = ScanDirection(inner_dim, d_state, dt_rank, kernel_size, backward=True)
        self.out_proj = nn.Linear(inner_dim, dim, bias=False)
        with torch.no_grad():
            self.out_proj.weight.div_(depth**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, L, C) to (B, L, C)."""
        x = x.unsqueeze(1)
        inner = self.in_proj(x)
        y = scale_and_gate(self.forwards(inner) + self.backwards(inner), None, self.gate_proj(x))
        return self.out_proj(y).squeeze(1) / 2  # the mean of the directions, taken where there are fewest channels


class BidirectionalBlock(nn.Module):
    """Norm and mixer on a residual path.

    `forward` gives the path alone, and `drop_path` is for who adds it: some read it before the addition.

    Args:
        dim: Channels.
        mixer: Maps (B, L, C) to (B, L, C).
        drop_path_rate: Probability of dropping the path for a sample in training.
        eps: Of the norm.
    """

    def __init__(self, dim: int, mixer: nn.Module, drop_path_rate: float, eps: float):
        super().__init__()
        self.norm = RMSNorm(dim, eps)
        self.mixer = mixer
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        return self.mixer(self.norm(x))
