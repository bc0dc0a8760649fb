"""What the results say of a model beside its times."""

from __future__ import annotations

from torch import nn

from mmmsvmamba.analysis import count_flops


def counts(model: nn.Module, side: int) -> dict[str, float]:
    """Number of parameters, and GFLOPs of one square RGB image by the rule of `mmmsvmamba.analysis`."""
    count = count_flops(model, (1, 3, side, side))
    return {'parameters': count.parameters, 'gflops': count.total / 1e9}
