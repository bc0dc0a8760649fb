"""MSVMamba: Multi-Scale VMamba (Shi, Dong & Xu, arXiv:2405.14174, NeurIPS 2024)."""

from mmengine.registry import MODELS

from .hierarchical import HierarchicalBackbone

_ROUTES = dict(full_routes=[['row']], half_routes=[['row_reversed', 'column', 'column_reversed']])

#: The family of the arXiv release.
_V1 = dict(
    **_ROUTES,
    stem='patch',
    downsample='merging',
    full_kernel=3,
    half_kernel=7,
    conv_bias=True,
    d_state=1,
    dt_rank='auto',
    ssm_ratio=2.0,
    merge='norm-each+bilinear',
    gate=True,
    se_reduction=8,
    ffn_ratio=2.0,
    ffn_norm='pre',
)
#: The family of the NeurIPS release.
_V3 = dict(
    _V1,
    stem='conv',
    downsample='conv',
    ssm_ratio=1.0,
    merge='nearest+norm',
    gate=False,
    ffn_ratio=4.0,
    ffn_norm='post',
)


@MODELS.register_module()
class MSVMamba(HierarchicalBackbone):
    """MSVMamba backbone: one full-resolution and three half-resolution scans per block.

    `nano`, `micro` and `tiny` are the models of the arXiv paper; `tiny-v3`, `small-v3` and `base-v3` those that the
    authors released with the NeurIPS paper. The two families differ in every part but the routes; their weights do not
    mix.

    Args: see `HierarchicalBackbone`.

    Example:
        >>> import torch
        >>> from mmmsvmamba import MSVMamba
        >>> maps = MSVMamba('nano')(torch.rand(1, 3, 64, 96))
        >>> [tuple(m.shape) for m in maps]
        [(1, 48, 16, 24), (1, 96, 8, 12), (1, 192, 4, 6), (1, 384, 2, 3)]
    """

    arch_settings = {
        'nano': dict(_V1, depths=[1, 2, 5, 2], dims=48),
        'micro': dict(_V1, depths=[1, 2, 5, 2], dims=64),
        'tiny': dict(_V1, depths=[1, 2, 9, 2], dims=96),
        'tiny-v3': dict(_V3, depths=[2, 2, 9, 2], dims=96),
        'small-v3': dict(_V3, depths=[2, 3, 20, 2], dims=96),
        'base-v3': dict(_V3, depths=[2, 4, 18, 2], dims=128, gate=True),
    }
