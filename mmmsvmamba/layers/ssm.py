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
        init: A key of `SSM_INITS`.
    """

    def __init__(self, dim: int, groups: Sequence[RouteGroup], d_state: int, dt_rank: int, init: str = 'mamba'):
        super().__init__()
        self.routes, self.group_sizes = encode_groups(groups)
        self.split = (dt_rank, d_state, d_state)
        n = len(self.group_sizes)
        self.x_proj_weight = nn.Parameter(torch.empty(n, sum(self.split), dim))
        self.dt_weight = nn.Parameter(torch.empty(n, dim, dt_rank))
        self.dt_bias = nn.Parameter(torch.empty(n, dim))
        self.A_log = nn.Parameter(torch.empty(n, dim, d_state))
        self.D = nn.Parameter(torch.empty(n, dim))
        self.init = init
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draws all parameters anew, by the rule that `init` names."""
        for weight in self.x_proj_weight:
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        nn.init.ones_(self.D)
        SSM_INITS[self.init](self.dt_weight, self.dt_bias, self.A_log)

    def forward(self, x: Tensor, summed: bool = False) -> Tensor:
        """Maps (B, H, W, D) to one map per route, (B, H, W, K, D), or to their sum, (B, H, W, D)."""
        projected = F.linear(x, self.x_proj_weight.flatten(0, 1))
        projected = projected.view(*x.shape[:-1], len(self.group_sizes), sum(self.split))
        dt, B, C = projected.split_with_sizes(self.split, dim=-1)
        A_log = self.A_log
        A = -(A_log if A_log.dtype in (torch.float32, torch.float64) else A_log.float()).exp()
        return scan2d(x, dt, self.dt_weight, self.dt_bias, B, C, A, self.D, self.routes, self.group_sizes, summed)


def _mamba(
    dt_weight: Tensor, dt_bias: Tensor, A_log: Tensor, dt_min: float = 1e-3, dt_max: float = 1e-1, floor: float = 1e-4
) -> None:
    """Steps log-uniform in [dt_min, dt_max], A = -(1 … N): Mamba's (arXiv:2312.00752, §3.6)."""
    rank = dt_weight.shape[2]
    nn.init.uniform_(dt_weight, -(rank**-0.5), rank**-0.5)
    step = torch.exp(torch.rand(dt_bias.shape) * math.log(dt_max / dt_min) + math.log(dt_min)).clamp_min(floor)
    dt_bias.copy_(step + torch.log(-torch.expm1(-step)))  # inverse softplus
    A_log.copy_(torch.arange(1, A_log.shape[2] + 1).log().expand_as(A_log))


def _normal(dt_weight: Tensor, dt_bias: Tensor, A_log: Tensor) -> None:
    """Logarithms of -A standard normal, step-size projection a tenth of that."""
    nn.init.normal_(dt_weight, std=0.1)
    nn.init.normal_(dt_bias, std=0.1)
    nn.init.normal_(A_log)


def _uniform(dt_weight: Tensor, dt_bias: Tensor, A_log: Tensor) -> None:
    """A = -1, step-size projection uniform in [0, 0.1)."""
    nn.init.uniform_(dt_weight, 0, 0.1)
    nn.init.uniform_(dt_bias, 0, 0.1)
    nn.init.zeros_(A_log)


#: Initialisations of the step sizes and of A: 'mamba', 'normal' and 'uniform' are v0, v1 and v2 of VMamba's ablation
#: (arXiv:2401.10166).
SSM_INITS = {'mamba': _mamba, 'normal': _normal, 'uniform': _uniform}
