"""Architectures of Vision Mamba as data."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mmmsvmamba.layers.class_tokens import KINDS

from .arch import is_count, is_number


@dataclass(frozen=True)
class VimArch:
    """Fields of a `Vim`.

    Attributes:
        embed_dims: Channels.
        depth: Blocks.
        d_state: States N per channel.
        dt_rank: Rank of the step-size projections; 'auto' is ⌈embed_dims / 16⌉.
        ssm_ratio: Channels of the scans over channels of the block.
        patch_size, patch_stride: Side of a patch and distance between neighbours, in pixels.
        cls_token: 'middle', 'head' or 'double' (before and behind the patches), or None for no class token.
        img_size: Side of the images of the pretraining, which fixes the number of position embeddings.
    """

    embed_dims: int
    depth: int
    d_state: int
    dt_rank: int | str
    ssm_ratio: float
    patch_size: int
    patch_stride: int
    cls_token: str | None
    img_size: int

    def __post_init__(self) -> None:
        for name in ('embed_dims', 'depth', 'd_state', 'patch_size', 'patch_stride', 'img_size'):
            self._require(name, is_count(getattr(self, name)), 'a positive integer')
        self._require('dt_rank', self.dt_rank == 'auto' or is_count(self.dt_rank), "a positive integer or 'auto'")
        fits = is_number(self.ssm_ratio) and int(self.ssm_ratio * self.embed_dims) > 0
        self._require('ssm_ratio', fits, 'a number that leaves the scans at least one channel')
        self._require('patch_stride', self.patch_stride <= self.patch_size, f'at most patch_size, {self.patch_size}')
        self._require('img_size', self.img_size >= self.patch_size, f'at least patch_size, {self.patch_size}')
        fits = isinstance(self.cls_token, str | None) and self.cls_token in KINDS
        self._require('cls_token', fits, f'one of {", ".join(map(repr, KINDS))}')

    def _require(self, name: str, fits: bool, expected: str) -> None:
        if not fits:
            raise ValueError(f'{name} must be {expected}, got {getattr(self, name)!r}')

    @property
    def inner_dims(self) -> int:
        """Channels of the scans."""
        return int(self.ssm_ratio * self.embed_dims)

    @property
    def rank(self) -> int:
        """Rank of the step-size projections."""
        return math.ceil(self.embed_dims / 16) if self.dt_rank == 'auto' else self.dt_rank

    def patches(self, side: int) -> int:
        """Number of patches along a side; what the last one lacks is padded."""
        return max(0, math.ceil((side - self.patch_size) / self.patch_stride)) + 1
