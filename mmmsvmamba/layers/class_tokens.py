"""Where class tokens stand in a sequence of patches, and position embeddings for other numbers of patches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

#: Kind -> number of class tokens.
KINDS = {None: 0, 'head': 1, 'middle': 1, 'double': 2}


@dataclass(frozen=True)
class ClassTokens:
    """Puts class tokens into sequences and takes them out again.

    Attributes:
        kind: 'head' (before the M patches), 'middle' (at index M // 2), 'double' (one before and one behind them) or
            None.
    """

    kind: str | None

    @property
    def count(self) -> int:
        return KINDS[self.kind]

    def insert(self, patches: Tensor, tokens: Tensor | None) -> Tensor:
        """Patches (B, M, C) and tokens (1, count, C), None for no token, to the sequence (B, M + count, C)."""
        if tokens is None:
            return patches
        tokens = tokens.expand(len(patches), -1, -1)
        before, after = tokens[:, :1], tokens[:, 1:]
        cut = patches.shape[1] // 2 if self.kind == 'middle' else 0
        return torch.cat([patches[:, :cut], before, patches[:, cut:], after], dim=1)

    def patches(self, sequence: Tensor) -> Tensor:
        """The sequence without its class tokens."""
        if self.kind == 'middle':
            cut = self._middle(sequence)
            return torch.cat([sequence[:, :cut], sequence[:, cut + 1 :]], dim=1)
        return {None: sequence, 'head': sequence[:, 1:], 'double': sequence[:, 1:-1]}[self.kind]

    def tokens(self, sequence: Tensor) -> Tensor | None:
        """The class tokens in the sequence, (B, count, C); None where there are none."""
        if self.kind is None:
            return None
        if self.kind == 'double':
            return torch.cat([sequence[:, :1], sequence[:, -1:]], dim=1)
        cut = self._middle(sequence) if self.kind == 'middle' else 0
        return sequence[:, cut : cut + 1]

    def _middle(self, sequence: Tensor) -> int:
        return (sequence.shape[1] - 1) // 2


def resize_positions(positions: Tensor, old: tuple[int, int], new: tuple[int, int], layout: ClassTokens) -> Tensor:
    """Brings position embeddings to another grid of patches: bicubic between patches, class tokens keep theirs.

    Args:
        positions: (1, old rows · old columns + class tokens, C).
        old, new: Rows and columns of patches.
        layout: Where the class tokens stand.

    Returns:
        (1, new rows · new columns + class tokens, C) in the dtype of `positions`; `positions` itself where the grids
        are equal.
    """
    if tuple(old) == tuple(new):
        return positions
    grid = layout.patches(positions).unflatten(1, old).permute(0, 3, 1, 2)
    grid = grid.to(torch.promote_types(grid.dtype, torch.float32))
    grid = F.interpolate(grid, size=tuple(new), mode='bicubic', align_corners=False)
    return layout.insert(grid.flatten(2).transpose(1, 2).to(positions.dtype), layout.tokens(positions))
