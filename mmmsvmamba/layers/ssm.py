"""The selective state-space model (S6) of a map: parameters, projections, initialisation, and the scan along routes."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmsvmamba.kernels import RouteGroup, encode_groups, scan2d


class RouteScan(nn.Module):
    """Scans a map along route groups, each with its own S6 parameters.

    Projections act on single positions, so one matrix product on the map in pixel order serves all groups and routes.

    Args:
        dim: Channels D of the map.
        groups: Routes that share parameters and, joined end to end, the state.
        d_state: States N per channel.
        dt_rank: Rank R of the step-size projection.
    """

    def __init__(self, dim: int, groups: Sequence[RouteGroup], d_state: int, dt_rank: int):
        super().__init__()
        self.routes, self.group_sizes = encode_groups(groups)
        self.split = (dt_rank, d_state, d_state)
        n = len(self.group_sizes)
        self.x_proj_weight = nn.Parameter(torch.empty(n, sum(self.split), dim))
        self.dt_weight = nn.Parameter(torch.empty(n, dim, dt_rank))
        self.dt_bias = nn.Parameter(torch.empty(n, dim))
        self.A_log = nn.Parameter(torch.empty(n, dim, d_state))
        self.D = nn.Parameter(torch.empty(n, dim))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, dt_min: float = 1e-3, dt_max: float = 1e-1, dt_floor: float = 1e-4) -> None:
        """Initialises as Mamba does (arXiv:2312.00752, §3.6).

        Steps are log-uniform in [dt_min, dt_max], A = -(1 … N), D = 1.
        """
        n, dim, rank = self.dt_weight.shape
        for weight in self.x_proj_weight:
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        nn.init.uniform_(self.dt_weight, -(rank**-0.5), rank**-0.5)
        step = torch.exp(torch.rand(n, dim) * math.log(dt_max / dt_min) + math.log(dt_min)).clamp_min(dt_floor)
        self.dt_bias.copy_(step + torch.log(-torch.expm1(-step)))  # inverse softplus
        self.A_log.copy_(torch.arange(1, self.A_log.shape[2] + 1).log().expand_as(self.A_log))
        nn.init.ones_(self.D)

    def forward(self, x: Tensor, summed: bool = False) -> Tensor:
        """Maps (B, H, W, D) to one map per route, (B, H, W, K, D), or to their sum, (B, H, W, D)."""
        projected = F.linear(x, self.x_proj_weight.flatten(0, 1)).unflatten(-1, (len(self.group_sizes), -1))
        dt, B, C = projected.split(self.split, dim=-1)
        A = -self.A_log.float().exp() if self.A_log.dtype != torch.float64 else -self.A_log.exp()
        return scan2d(x, dt, self.dt_weight, self.dt_bias, B, C, A, self.D, self.routes, self.group_sizes, summed)
