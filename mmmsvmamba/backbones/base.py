"""What all backbones do alike: recomputing blocks, keeping frozen parts frozen, numbering layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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

    def _num_blocks(self) -> int:
        """Blocks of the architecture, whether or not all are built."""
        raise NotImplementedError

    def _layer(self, parts: Sequence[str]) -> int | None:
        """Layer of a parameter, whose name in the backbone is split at its dots; None for the last."""
        raise NotImplementedError

    def get_layer_depth(self, param_name: str, prefix: str = 'backbone.') -> tuple[int, int]:
        """Depth of a parameter for layer-wise learning-rate decay, as mmpretrain's
        LearningRateDecayOptimWrapperConstructor asks for it.

        Args:
            param_name: Full name of the parameter.
            prefix: Name of this backbone in the model.

        Returns:
            Layer of the parameter (0: what comes before the blocks, k: k-th block, with a step to the next stage behind
            it; norms of the outputs, a pyramid and everything outside: last) and the number of layers.
        """
        num_layers = self._num_blocks() + 2
        layer = None
        if param_name.startswith(prefix):
            layer = self._layer(param_name[len(prefix) :].split('.'))
        return num_layers - 1 if layer is None else layer, num_layers
