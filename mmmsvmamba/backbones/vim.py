"""Vim: Vision Mamba (Zhu et al., arXiv:2401.09417, ICML 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmmsvmamba.checkpoints import fit_vim_weights
from mmmsvmamba.layers import (
    BidirectionalBlock,
    BidirectionalMixer,
    ClassTokens,
    RMSNorm,
    SimplePyramid,
    resize_positions,
)

from .arch import resolve_arch
from .base import Backbone
from .checks import check_images, check_options, refuse_unknown
from .feature_info import FeatureInfo
from .vim_arch import VimArch

OUT_TYPES = ('pyramid', 'cls_token', 'mean', 'max')
FEATURES = ('block', 'mixer')
EPS = 1e-5

_PUBLISHED = dict(
    depth=24,
    d_state=16,
    dt_rank='auto',
    ssm_ratio=2.0,
    patch_size=16,
    patch_stride=16,
    cls_token='middle',
    img_size=224,
)


@MODELS.register_module()
class Vim(Backbone):
    """Vision Mamba backbone: patches as one sequence, scanned in both directions by every block.

    `tiny`, `small` and `base` are the models of the paper; with `-stride8` their patches overlap by half, as in the
    paper's long-sequence fine-tuning. Every image size is taken: images are zero-padded to whole patches, at the right
    and at the bottom, and position embeddings are interpolated (bicubic).

    The residual stream is float32 under autocast and in models of half precision. Weights start as in the published
    code but for the backward step sizes, see `BidirectionalMixer`.

    Args:
        arch: A name in `arch_settings`, or a dict of `VimArch` fields (see there); `dict(base='tiny', depth=12)`
            changes a named one.
        out_type: 'pyramid' for four maps, as detectors and segmentors take them; 'cls_token', 'mean' or 'max' for one
            vector behind the final norm, for a classifier without neck. Mean and maximum are those of the patches;
            of two class tokens the mean is taken.
        out_indices: Blocks whose output becomes a map of the pyramid, in any order, negatives count from the end; the
            output is ascending. By default the last of each quarter: (5, 11, 17, 23) of 24. Blocks behind the last one
            named are not built.
        features: 'block' takes the stream behind the block and gives each map an RMSNorm; 'mixer' takes what the block
            adds to the stream, without a norm. The latter is what the authors' segmentor does, so compare with their
            41.0 and 44.9 mIoU (tiny and small, ADE20K) there. By default 'block'.
        out_strides: Stride of each map of the pyramid, in the order of the blocks: a quarter of patch_stride, half of
            it, or it times 1, 2, 4 …. By default (4, 8, 16, 32) at every patch_stride, where there are four maps.
        norm_cfg: mmcv config of the norm between two transposed convolutions of the pyramid. By default
            dict(type='GN', num_groups=32), which depends on no batch; the authors had dict(type='SyncBN').
        drop_path_rate: Stochastic depth of the last block; rises linearly from 0 over the blocks.
        frozen_stages: -1 freezes nothing, 0 patch embedding, class tokens and position embeddings, n also the first n
            blocks with the norms of their outputs.
        with_cp: Recompute blocks in the backward pass instead of keeping their activations.
        in_channels: Channels of the input.
        init_cfg: mmengine initialisation, such as dict(type='Pretrained', checkpoint=…). Published files are converted
            when they are loaded, position embeddings are interpolated, and a file that does not fit stops the run.

    Raises:
        TypeError: An unknown option.
        ValueError: An unknown arch, field or block, a number out of range, or an option of the pyramid without one.

    Example:
        >>> import torch
        >>> from mmmsvmamba import Vim
        >>> maps = Vim(dict(base='tiny', depth=4))(torch.rand(1, 3, 64, 96))
        >>> [tuple(m.shape) for m in maps]
        [(1, 192, 16, 24), (1, 192, 8, 12), (1, 192, 4, 6), (1, 192, 2, 3)]
    """

    #: Options with which it feeds a classifier.
    classifier_options = dict(out_type='cls_token')
    #: Named architectures: name -> fields of `VimArch`.
    arch_settings: dict[str, dict] = {
        'tiny': dict(_PUBLISHED, embed_dims=192),
        'small': dict(_PUBLISHED, embed_dims=384),
        'base': dict(_PUBLISHED, embed_dims=768),
        'tiny-stride8': dict(_PUBLISHED, embed_dims=192, patch_stride=8),
        'small-stride8': dict(_PUBLISHED, embed_dims=384, patch_stride=8),
        'base-stride8': dict(_PUBLISHED, embed_dims=768, patch_stride=8),
    }

    def __init__(
        self,
        arch: str | Mapping,
        out_type: str = 'pyramid',
        out_indices: Sequence[int] | None = None,
        features: str | None = None,
        out_strides: Sequence[int] | None = None,
        norm_cfg: dict | None = None,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        with_cp: bool = False,
        in_channels: int = 3,
        init_cfg: dict | None = None,
        **unknown: object,
    ):
        refuse_unknown(type(self), Vim, unknown)
        super().__init__(init_cfg=init_cfg)
        self.arch = spec = resolve_arch(arch, self.arch_settings, VimArch)
        _require('out_type', out_type, OUT_TYPES)
        if out_type == 'cls_token' and spec.cls_token is None:
            raise ValueError("out_type='cls_token' needs a class token, but arch has cls_token=None; take 'mean'")
        of_pyramid = dict(out_indices=out_indices, features=features, out_strides=out_strides, norm_cfg=norm_cfg)
        if out_type != 'pyramid' and (given := [name for name, value in of_pyramid.items() if value is not None]):
            raise ValueError(f"{', '.join(given)} can be given for out_type='pyramid' only, not for {out_type!r}")
        self.out_type = out_type
        self.features = 'block' if features is None else features
        _require('features', self.features, FEATURES)
        self.out_indices = _blocks(out_indices, spec.depth) if out_type == 'pyramid' else (spec.depth - 1,)
        check_options(drop_path_rate, frozen_stages, spec.depth, with_cp, in_channels)
        self.frozen_stages = frozen_stages
        self.with_cp = with_cp
        self.in_channels = in_channels

        self.layout = ClassTokens(spec.cls_token)
        self.grid = (spec.patches(spec.img_size),) * 2
        dim = spec.embed_dims
        self.patch_embed = nn.Conv2d(in_channels, dim, spec.patch_size, spec.patch_stride)
        self.cls_token = nn.Parameter(torch.empty(1, self.layout.count, dim)) if self.layout.count else None
        self.pos_embed = nn.Parameter(torch.empty(1, self.grid[0] ** 2 + self.layout.count, dim))
        # blocks that no output needs are not built: their parameters would never receive a gradient
        self.blocks = nn.ModuleList(
            BidirectionalBlock(
                dim,
                BidirectionalMixer(dim, spec.inner_dims, spec.d_state, spec.rank, spec.depth),
                drop_path_rate * i / max(1, spec.depth - 1),
                EPS,
            )
            for i in range(self.out_indices[-1] + 1)
        )
        if out_type != 'pyramid':
            self.final_norm = RMSNorm(dim, EPS)
        else:
            if self.features == 'block':
                for i in self.out_indices:
                    self.add_module(f'norm{i}', RMSNorm(dim, EPS))
            self.out_strides = _strides(out_strides, self.out_indices)
            norm_cfg = dict(type='GN', num_groups=32) if norm_cfg is None else norm_cfg
            self.pyramid = SimplePyramid(dim, spec.patch_stride, self.out_strides, norm_cfg)
        self._init_embeddings()
        self._register_load_state_dict_pre_hook(fit_vim_weights, with_module=True)
        self._freeze()

    @property
    def feature_info(self) -> FeatureInfo:
        """Channels, stride (None for a vector) and layer of each output."""
        dim = self.arch.embed_dims
        if self.out_type != 'pyramid':
            return FeatureInfo([dict(num_chs=dim, reduction=None, module='final_norm')])
        return FeatureInfo(
            dict(num_chs=dim, reduction=stride, module=f'pyramid.levels.{i}')
            for i, stride in enumerate(self.out_strides)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Extracts features.

        Args:
            x: Images, (B, in_channels, H, W), any H and W; zero-padded to whole patches, at least one.

        Returns:
            For 'pyramid', one contiguous (B, embed_dims, h, w) map per block in `out_indices`: h = factor · number of
            patches along H, where the factor is patch_stride / stride of the map, rounded up where it is below 1. With
            patches of 16 pixels at stride 16 that is ⌈H / 16⌉ · 16 / stride, not ⌈H / stride⌉. Else one (B,
            embed_dims) vector, in a tuple.

        Raises:
            ValueError: An input that is no batch of images with the right channels.
        """
        check_images(x, self.in_channels)
        patches = self.patch_embed(self._pad(x))
        grid = patches.shape[2:]
        x = self.layout.insert(patches.flatten(2).transpose(1, 2), self.cls_token)
        x = x + resize_positions(self.pos_embed, self.grid, grid, self.layout)
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        maps = []
        for i, block in enumerate(self.blocks):
            y = self._run(block, x)
            x = x + block.drop_path(y)
            if self.out_type == 'pyramid' and i in self.out_indices:
                out = getattr(self, f'norm{i}')(x) if self.features == 'block' else y
                maps.append(self.layout.patches(out).transpose(1, 2).unflatten(2, grid).contiguous())
        if self.out_type == 'pyramid':
            return self.pyramid(maps)
        return (self._pool(self.final_norm(x)),)

    def _pad(self, x: Tensor) -> Tensor:
        spec = self.arch
        missing = [
            (spec.patches(side) - 1) * spec.patch_stride + spec.patch_size - side for side in (x.shape[3], x.shape[2])
        ]
        return F.pad(x, (0, missing[0], 0, missing[1])) if any(missing) else x

    def _pool(self, x: Tensor) -> Tensor:
        if self.out_type == 'cls_token':
            return self.layout.tokens(x).mean(1)
        patches = self.layout.patches(x)
        return patches.mean(1) if self.out_type == 'mean' else patches.amax(1)

    @torch.no_grad()
    def _init_embeddings(self) -> None:
        fan_in = self.patch_embed.weight[0].numel()
        # LeCun's normal: a normal that is cut at two deviations has 0.88 of its deviation left
        std = fan_in**-0.5 / 0.87962566103423978
        nn.init.trunc_normal_(self.patch_embed.weight, std=std, a=-2 * std, b=2 * std)
        nn.init.zeros_(self.patch_embed.bias)
        for tokens in (self.cls_token, self.pos_embed):
            if tokens is not None:
                nn.init.trunc_normal_(tokens, std=0.02)

    def _frozen(self) -> list[nn.Module | nn.Parameter]:
        if self.frozen_stages < 0:
            return []
        tokens = [part for part in (self.cls_token, self.pos_embed) if part is not None]
        names = [f'norm{i}' if self.out_type == 'pyramid' else 'final_norm' for i in self.out_indices]
        norms = [
            getattr(self, name)
            for i, name in zip(self.out_indices, names, strict=True)
            if i < self.frozen_stages and hasattr(self, name)
        ]
        return [self.patch_embed, *tokens, *self.blocks[: self.frozen_stages], *norms]

    def _num_blocks(self) -> int:
        return self.arch.depth

    def _layer(self, parts: Sequence[str]) -> int | None:
        if parts[0] in ('patch_embed', 'cls_token', 'pos_embed'):
            return 0
        return int(parts[1]) + 1 if parts[0] == 'blocks' else None


def _require(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f'{name} must be one of {", ".join(known)}, got {value!r}')


def _blocks(out_indices: Sequence[int] | None, depth: int) -> tuple[int, ...]:
    if out_indices is None:
        if depth < 4:
            raise ValueError(f'out_indices must be given for depth={depth}: there are no four blocks')
        return tuple(depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4))
    indices = [out_indices] if isinstance(out_indices, int) else out_indices
    if not isinstance(indices, Sequence) or isinstance(indices, str) or not indices:
        raise ValueError(f'out_indices must be a list of blocks, at least one, got {out_indices!r}')
    for i in indices:
        if not isinstance(i, int) or i not in range(-depth, depth):
            raise ValueError(f'out_indices must lie between {-depth} and {depth - 1}, got {i!r} in {out_indices!r}')
    blocks = sorted({i % depth for i in indices})
    if len(blocks) < len(indices):
        raise ValueError(f'out_indices names a block twice: {out_indices!r}')
    return tuple(blocks)


def _strides(strides: Sequence[int] | None, blocks: Sequence[int]) -> tuple[int, ...]:
    given = (4, 8, 16, 32) if strides is None else strides
    fits = isinstance(given, Sequence) and all(isinstance(stride, int) and stride > 0 for stride in given)
    if not fits or len(given) != len(blocks):
        raise ValueError(
            f'out_strides must give one positive integer for each of the {len(blocks)} outputs, got {given!r}'
            + (' by default' if strides is None else '')
        )
    return tuple(given)
