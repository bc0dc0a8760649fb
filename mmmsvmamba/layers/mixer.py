"""The token mixer of a block: a scan along routes over one or two resolutions."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from mmmsvmamba.kernels import (
    RouteGroup,
    depthwise_silu,
    depthwise_silu_pair,
    merge_nearest_norm,
    merge_norm_bilinear,
    scale_and_gate,
)

from .cascade import CascadeScan
from .conv import depthwise
from .squeeze_excite import SqueezeExcite
from .ssm import RouteScan

#: Name of a merge rule -> (function, whether it takes the sum over routes).
MERGES = {
    'norm-each+bilinear': (merge_norm_bilinear, False),
    'nearest+norm': (merge_nearest_norm, True),
}


class ScanBranch(nn.Module):
    """Depthwise convolution (None: none), SiLU and scan at one resolution. The mixer runs the convolutions of both at
    once."""

    def __init__(self, conv: nn.Module | None, scan: nn.Module):
        super().__init__()
        self.conv = conv
        self.scan = scan


class ScanMixer(nn.Module):
    """Scans a map at full and at half resolution and merges the two: MS2D of MSVMamba (arXiv:2405.14174, eq. 7–11).

    Both branches start from the projected input; the half-resolution map is a strided convolution of it, of size ⌈H/2⌉
    × ⌈W/2⌉. With four routes at full resolution and none at half it is SS2D of VMamba (arXiv:2401.10166, §4.2).

    Args:
        dim: Channels C of the block.
        inner_dim: Channels D of the scan.
        full_routes, half_routes: Route groups at each resolution; an empty list leaves the resolution out.
        full_kernel, half_kernel: Sizes of the depthwise convolutions; None leaves out the one at full resolution.
        conv_bias: Whether they have a bias.
        d_state: States N per channel.
        dt_rank: Rank of the step-size projection.
        merge: A key of `MERGES`.
        gate: Whether a second projection of the input, after SiLU, multiplies the output.
        se_reduction: Reduction of the channel attention on the merged map; None for none.
        eps: Of the norm.
        cascade: Scan rows, then columns of the full-resolution map (`CascadeScan`) instead of routes; both lists are
            empty then.
        ssm_init: A key of `SSM_INITS`.
    """

    def __init__(
        self,
        dim: int,
        inner_dim: int,
        full_routes: Sequence[RouteGroup],
        half_routes: Sequence[RouteGroup],
        full_kernel: int | None,
        half_kernel: int | None,
        conv_bias: bool,
        d_state: int,
        dt_rank: int,
        merge: str,
        gate: bool,
        se_reduction: int | None,
        eps: float,
        cascade: bool = False,
        ssm_init: str = 'mamba',
    ):
        super().__init__()
        self.merge, self.summed = MERGES[merge]
        self.in_proj = nn.Linear(dim, inner_dim, bias=False)
        self.gate_proj = nn.Linear(dim, inner_dim, bias=False) if gate else None

        def branch(groups: Sequence[RouteGroup], kernel_size: int | None, stride: int) -> ScanBranch | None:
            conv = depthwise(inner_dim, kernel_size, stride, conv_bias) if kernel_size else None
            if cascade and stride == 1:
                return ScanBranch(conv, CascadeScan(inner_dim, d_state, dt_rank, ssm_init, eps))
            return ScanBranch(conv, RouteScan(inner_dim, groups, d_state, dt_rank, ssm_init)) if groups else None

        self.full_res = branch(full_routes, full_kernel, stride=1)
        self.half_res = branch(half_routes, half_kernel, stride=2)
        self.norm = nn.LayerNorm(inner_dim, eps=eps)
        self.se = SqueezeExcite(inner_dim, se_reduction) if se_reduction else None
        self.out_proj = nn.Linear(inner_dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, H, W, C) to (B, H, W, C)."""
        full, half = self._convolve(self.in_proj(x))
        if half is not None:
            half = self.half_res.scan(half, self.summed)
        if full is not None:
            full = self.full_res.scan(full, self.summed)
        else:
            routes = () if self.summed else (0,)
            full = half.new_zeros(*x.shape[:3], *routes, half.shape[-1])
        norm, se, gate_proj = self.norm, self.se, self.gate_proj
        y = self.merge(full, half, norm.weight, norm.bias, norm.eps)
        del full, half  # the largest maps in here; what follows would add to them
        scale = None if se is None else se.scale(y)
        gate = None if gate_proj is None else gate_proj(x)
        y = scale_and_gate(y, scale, gate)
        return self.out_proj(y)

    def _convolve(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The maps that the branches scan, at full and at half resolution; None where there is no branch."""
        if self.full_res is None:
            conv = self.half_res.conv
            return None, depthwise_silu(x, conv.weight, conv.bias, stride=2)
        conv = self.full_res.conv
        if self.half_res is None:
            return F.silu(x) if conv is None else depthwise_silu(x, conv.weight, conv.bias), None
        half_conv = self.half_res.conv
        if conv is None:
            return F.silu(x), depthwise_silu(x, half_conv.weight, half_conv.bias, stride=2)
        return depthwise_silu_pair(x, conv.weight, conv.bias, half_conv.weight, half_conv.bias)
