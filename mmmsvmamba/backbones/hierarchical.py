"""The trunk of the hierarchical scan backbones: stem, four stages, outputs, freezing, activation checkpointing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmsvmamba.checkpoints import fit_backbone_weights
from mmmsvmamba.layers import DOWNSAMPLES, FFNS, STEMS, ScanBlock, ScanMixer

from .arch import Arch, resolve_arch
from .base import Backbone
from .checks import check_images, check_options, refuse_unknown
from .feature_info import FeatureInfo

#: Below this side the stem has no patch to look at; smaller inputs are zero-padded.
MIN_SIDE = 4
NUM_STAGES = 4


class Stage(nn.Module):
    """Blocks of one resolution and the step to the next."""

    def __init__(self, blocks: Sequence[ScanBlock], downsample: nn.Module | None):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample


class HierarchicalBackbone(Backbone):
    """Four stages at strides 4, 8, 16 and 32.

    Args:
        arch: A name in `arch_settings`, or a dict of `Arch` fields (see there); `dict(base='tiny', depths=[2, 2, 9,
            2])` changes a named one.
        out_indices: Stages whose maps are returned, in any order, negatives count from the end; the output is
            ascending.
        drop_path_rate: Stochastic depth of the last block; rises linearly from 0 over the blocks.
        frozen_stages: -1 freezes nothing, 0 the stem, n the stem and the first n stages with their output norms.
        with_cp: Recompute blocks in the backward pass instead of keeping their activations.
        in_channels: Channels of the input.
        out_strides: Strides that the returned maps are brought to, one for each in ascending order of the stages; None
            leaves them at 4, 8, 16 and 32. Heads written for a dilated backbone want (4, 8, 8, 8).
        init_cfg: mmengine initialisation, such as dict(type='Pretrained', checkpoint=…). Published files are converted
            when they are loaded, and a file that does not fit stops the run.

    Raises:
        ValueError: An unknown arch, field or stage, or a number out of range.
    """

    #: Named architectures: name -> fields of `Arch`.
    arch_settings: dict[str, dict] = {}
    #: Options with which it feeds a classifier.
    classifier_options = dict(out_indices=(NUM_STAGES - 1,))

    def __init__(
        self,
        arch: str | Mapping,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        with_cp: bool = False,
        in_channels: int = 3,
        out_strides: Sequence[int] | None = None,
        init_cfg: dict | None = None,
        **unknown: object,
    ):
        refuse_unknown(type(self), HierarchicalBackbone, unknown)
        super().__init__(init_cfg=init_cfg)
        self.arch = resolve_arch(arch, self.arch_settings, Arch)
        self.out_indices = _ascending_stages(out_indices)
        check_options(drop_path_rate, frozen_stages, NUM_STAGES, with_cp, in_channels)
        self.out_strides = _strides(out_strides, self.out_indices)
        self.frozen_stages = frozen_stages
        self.with_cp = with_cp
        self.in_channels = in_channels
        self.norm_eps = 1e-5

        spec = self.arch
        self.stem = STEMS[spec.stem](in_channels, spec.dims[0], self.norm_eps)
        steps = max(1, sum(spec.depths) - 1)
        rates = [drop_path_rate * i / steps for i in range(sum(spec.depths))]
        self.stages = nn.ModuleList()
        # stages that no output needs are not built: their parameters would never receive a gradient
        last = self.out_indices[-1]
        for i, (depth, dim) in enumerate(zip(spec.depths[: last + 1], spec.dims[: last + 1], strict=True)):
            blocks = [_block(spec, dim, rates.pop(0), self.norm_eps) for _ in range(depth)]
            downsample = None
            if i < last:
                downsample = DOWNSAMPLES[spec.downsample](dim, spec.dims[i + 1], self.norm_eps)
            self.stages.append(Stage(blocks, downsample))
        for i in self.out_indices:
            self.add_module(f'norm{i}', nn.LayerNorm(spec.dims[i], eps=self.norm_eps))
        self.apply(_init_linear)
        self._register_load_state_dict_pre_hook(fit_backbone_weights, with_module=True)
        self._freeze()

    @property
    def feature_info(self) -> FeatureInfo:
        """Channels, stride and layer of each returned map."""
        return FeatureInfo(
            dict(num_chs=self.arch.dims[i], reduction=stride, module=f'norm{i}')
            for i, stride in zip(self.out_indices, self.out_strides, strict=True)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Extracts features.

        Args:
            x: Images, (B, in_channels, H, W), any H and W; a side below 4 pixels is zero-padded to 4.

        Returns:
            One contiguous (B, C, h, w) map per stage in `out_indices`, each behind a LayerNorm of its own; maps that
            `out_strides` brings to another stride have ⌈H / stride⌉ × ⌈W / stride⌉ pixels, bilinear between
            those of the stage or the means of several.

        Raises:
            ValueError: An input that is no batch of images with the right channels.
        """
        check_images(x, self.in_channels)
        size = height, width = x.shape[2:]
        if height < MIN_SIDE or width < MIN_SIDE:
            x = F.pad(x, (0, max(0, MIN_SIDE - width), 0, max(0, MIN_SIDE - height)))
        x = self.stem(x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1))
        outs = []
        strides = dict(zip(self.out_indices, self.out_strides, strict=True))
        for i, stage in enumerate(self.stages):
            for block in stage.blocks:
                x = self._run(block, x)
            if i in self.out_indices:
                # RoIAlign and other compiled ops read the raw memory as NCHW
                out = getattr(self, f'norm{i}')(x).permute(0, 3, 1, 2).contiguous()
                outs.append(_resize(out, size, strides[i], _native_stride(i)))
            if stage.downsample is not None:
                x = stage.downsample(x)
        return tuple(outs)

    def _frozen(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        norms = [getattr(self, f'norm{i}') for i in self.out_indices if i < self.frozen_stages]
        return [self.stem, *self.stages[: self.frozen_stages], *norms]

    def _num_blocks(self) -> int:
        return sum(self.arch.depths)

    def _layer(self, parts: Sequence[str]) -> int | None:
        """A step to the next stage belongs to the block before it."""
        if parts[0] == 'stem':
            return 0
        if parts[0] != 'stages':
            return None
        stage = int(parts[1])
        block = int(parts[3]) if parts[2] == 'blocks' else self.arch.depths[stage] - 1
        return sum(self.arch.depths[:stage]) + block + 1


def _block(spec: Arch, dim: int, drop_path_rate: float, eps: float) -> ScanBlock:
    mixer = ScanMixer(
        dim=dim,
        inner_dim=int(spec.ssm_ratio * dim),
        full_routes=spec.full_routes,
        half_routes=spec.half_routes,
        cascade=spec.cascade,
        full_kernel=spec.full_kernel,
        half_kernel=spec.half_kernel,
        conv_bias=spec.conv_bias,
        d_state=spec.d_state,
        dt_rank=spec.rank(dim),
        ssm_init=spec.ssm_init,
        merge=spec.merge,
        gate=spec.gate,
        se_reduction=spec.se_reduction,
        eps=eps,
    )
    ffn = FFNS[spec.ffn](dim, int(spec.ffn_ratio * dim)) if spec.ffn_ratio else None
    return ScanBlock(dim, mixer, ffn, spec.ffn_norm, drop_path_rate, eps)


def _native_stride(stage: int) -> int:
    return 4 * 2**stage


def _resize(x: Tensor, image: tuple[int, int], stride: int, native: int) -> Tensor:
    """Brings a (B, C, h, w) map of an image of the given size from its native stride to another."""
    if stride == native:
        return x
    size = [-(-side // stride) for side in image]
    if stride > native:
        return F.adaptive_avg_pool2d(x, size)
    return F.interpolate(x, size=size, mode='bilinear', align_corners=False)


def _strides(strides: Sequence[int] | None, stages: Sequence[int]) -> tuple[int, ...]:
    if strides is None:
        return tuple(_native_stride(i) for i in stages)
    fits = isinstance(strides, Sequence) and all(isinstance(stride, int) and stride > 0 for stride in strides)
    if not fits or len(strides) != len(stages):
        raise ValueError(
            f'out_strides must give one positive integer for each of the {len(stages)} outputs, got {strides!r}'
        )
    return tuple(strides)


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _ascending_stages(out_indices: Sequence[int]) -> tuple[int, ...]:
    indices = [out_indices] if isinstance(out_indices, int) else out_indices
    if not isinstance(indices, Sequence) or isinstance(indices, str):
        raise ValueError(f'out_indices must be a list of stages, got {out_indices!r}')
    if not indices:
        raise ValueError('out_indices is empty; name at least one stage, such as (3,) for a classifier')
    for i in indices:
        if not isinstance(i, int) or i not in range(-NUM_STAGES, NUM_STAGES):
            raise ValueError(
                f'out_indices must lie between {-NUM_STAGES} and {NUM_STAGES - 1}, got {i!r} in {out_indices!r}'
            )
    stages = sorted({i % NUM_STAGES for i in indices})
    if len(stages) < len(indices):
        raise ValueError(f'out_indices names a stage twice: {out_indices!r}')
    return tuple(stages)
