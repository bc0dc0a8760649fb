"""What all backbones do alike: recomputing blocks, and keeping frozen parts frozen."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Backbone(BaseModule):
    """Base of the backbones.

    Attributes:
        with_cp: Whether blocks are computed anew in the backward pass.
    """

    with_cp: bool

    def _run(self, block: nn.Module, x: Tensor) -> Tensor:
        if self.with_cp and torch.is_grad_enabled():
            return checkpoint(block, x, use_reentrant=False)
        return block(x)

    def _frozen(self) -> Iterable[nn.Module | nn.Parameter]:
        """The parts that `frozen_stages` freezes."""
        raise NotImplementedError

    def _freeze(self) -> None:
        for part in self._frozen():
            part.requires_grad_(False)
            if isinstance(part, nn.Module):
                part.eval()

    def train(self, mode: bool = True) -> Backbone:
        super().train(mode)
        if mode:
            self._freeze()
        return self
