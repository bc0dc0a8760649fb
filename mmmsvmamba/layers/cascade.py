"""The scan of rows, then of columns, each by itself."""

import torch.nn.functional as F
from torch import Tensor, nn

from mmmsvmamba.kernels import Route

from .ssm import RouteScan

_BOTH_WAYS = [[Route.ROW], [Route.ROW_REVERSED]]


class CascadeScan(nn.Module):
    """Scans every row from both ends, then every column of the sum from both ends; each line starts from a zero state.

    The cascade-scan that VMamba (arXiv:2401.10166, appendix on scanning patterns) compares its cross-scan with: four
    sets of S6 parameters like it. Before each of the two passes the map is normalised over channels, without affine
    parameters.

    Args:
        dim: Channels D of the map.
        d_state: States N per channel.
        dt_rank: Rank R of the step-size projection.
        init: A key of `SSM_INITS`.
        eps: Of the norms.
    """

    def __init__(self, dim: int, d_state: int, dt_rank: int, init: str, eps: float):
        super().__init__()
        self.rows = RouteScan(dim, _BOTH_WAYS, d_state, dt_rank, init)
        self.columns = RouteScan(dim, _BOTH_WAYS, d_state, dt_rank, init)
        self.eps = eps

    def forward(self, x: Tensor, summed: bool = True) -> Tensor:
        """Maps (B, H, W, D) to (B, H, W, D), or to (B, H, W, 1, D) where maps are to be told apart: here is one."""
        y = self._lines(x, self.rows)
        y = self._lines(y.transpose(1, 2), self.columns).transpose(1, 2)
        return y if summed else y.unsqueeze(3)

    def _lines(self, x: Tensor, scan: RouteScan) -> Tensor:
        x = F.layer_norm(x, x.shape[-1:], eps=self.eps)
        # a line of its own is a map of height 1
        return scan(x.flatten(0, 1).unsqueeze(1), summed=True).squeeze(1).unflatten(0, x.shape[:2])
