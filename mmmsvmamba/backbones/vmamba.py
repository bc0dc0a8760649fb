"""VMamba (Liu et al., arXiv:2401.10166, NeurIPS 2024)."""

from mmengine.registry import MODELS

from .hierarchical import HierarchicalBackbone

#: Cross-scan: four routes with S6 parameters of their own.
_CROSS_SCAN = dict(full_routes=[['row'], ['column'], ['row_reversed'], ['column_reversed']], half_routes=[])

#: The first release: 16 states, a gate, no FFN.
_V0 = dict(
    **_CROSS_SCAN,
    stem='patch',
    downsample='merging',
    full_kernel=3,
    half_kernel=None,
    conv_bias=True,
    d_state=16,
    dt_rank='auto',
    ssm_ratio=2.0,
    merge='nearest+norm',
    gate=True,
    se_reduction=None,
    ffn_ratio=0,
    ffn_norm='pre',
)
#: The later ones: one state, no gate, an MLP.
_V2 = dict(
    _V0, stem='conv', downsample='conv', conv_bias=False, d_state=1, gate=False, ffn='mlp', ffn_ratio=4.0
)  # fmt: skip
_S2, _S1 = dict(_V2, ssm_ratio=2.0), dict(_V2, ssm_ratio=1.0)


@MODELS.register_module()
class VMamba(HierarchicalBackbone):
    """VMamba backbone: four scans of the full-resolution map per block, each with its own S6 parameters.

    `*-v0` are the models of the first release. The names of the later ones give the expansion of the scan's channels
    and the blocks of the third stage, as the authors do: `tiny-s2l5`, `tiny-s1l8` and so on.

    Args: see `HierarchicalBackbone`.

    Example:
        >>> import torch
        >>> from mmmsvmamba import VMamba
        >>> maps = VMamba('tiny-s1l8')(torch.rand(1, 3, 64, 96))
        >>> [tuple(m.shape) for m in maps]
        [(1, 96, 16, 24), (1, 192, 8, 12), (1, 384, 4, 6), (1, 768, 2, 3)]
    """

    arch_settings = {
        'tiny-v0': dict(_V0, depths=[2, 2, 9, 2], dims=96),
        'small-v0': dict(_V0, depths=[2, 2, 27, 2], dims=96),
        'base-v0': dict(_V0, depths=[2, 2, 27, 2], dims=128),
        'tiny-s2l5': dict(_S2, depths=[2, 2, 5, 2], dims=96),
        'small-s2l15': dict(_S2, depths=[2, 2, 15, 2], dims=96),
        'base-s2l15': dict(_S2, depths=[2, 2, 15, 2], dims=128),
        'tiny-s1l8': dict(_S1, depths=[2, 2, 8, 2], dims=96),
        'small-s1l20': dict(_S1, depths=[2, 2, 20, 2], dims=96),
        'base-s1l20': dict(_S1, depths=[2, 2, 20, 2], dims=128),
    }
