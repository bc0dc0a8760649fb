"""The models of the papers' ablations: one backbone each, which the configs `ablation_*` train.

Depths are recovered: the authors print parameters and operations alone, and these fit best. docs/ablations.md compares
them. There are no weights: a detector starts from the classifier of the same name, `--pretrained FILE`.
"""

__vmamba, __msvmamba = dict(type='VMamba', drop_path_rate=0.2), dict(type='MSVMamba', drop_path_rate=0.2)
__nano_v0 = dict(base='tiny-v0', depths=[1, 2, 4, 2], dims=48, d_state=8)
__ms2d = dict(base='nano', depths=[2, 2, 6, 2], d_state=8, se_reduction=None, ffn_ratio=0)
__row, __column, __row_reversed, __column_reversed = [['row'], ['column'], ['row_reversed'], ['column_reversed']]
__uni = dict(__nano_v0, full_routes=[__row] * 4)
__bi = dict(__nano_v0, full_routes=[__row, __row, __row_reversed, __row_reversed])
__cascade = dict(__nano_v0, full_routes=[], cascade=True)

ablations = dict(
    # From VMamba-Nano to MSVMamba-Nano (Table 4 of arXiv:2405.14174); the last, with one state, is
    # `nano`.
    vmamba_n=dict(__vmamba, arch=__nano_v0),
    ms2d=dict(__msvmamba, arch=__ms2d),
    ms2d_se=dict(__msvmamba, arch=dict(__ms2d, se_reduction=8)),
    ms2d_se_convffn=dict(__msvmamba, arch=dict(base='nano', depths=[1, 2, 4, 2], d_state=8)),
    # How many routes run at full and at half resolution (Table 5); one and three are `ms2d`. Each full-resolution route
    # has its own S6 parameters, those at half resolution share one set.
    full2_half2=dict(
        __msvmamba,
        arch=dict(__ms2d, full_routes=[__row, __column], half_routes=[[*__row_reversed, *__column_reversed]]),
    ),
    full3_half1=dict(
        __msvmamba, arch=dict(__ms2d, full_routes=[__row, __column, __row_reversed], half_routes=[__column_reversed])
    ),
    full4_half0=dict(__vmamba, arch=dict(__nano_v0, depths=[2, 2, 6, 2])),
    # four sets of parameters, and the convolution of the full resolution
    full0_half4=dict(
        __msvmamba,
        arch=dict(
            __ms2d, full_routes=[], half_routes=[__row, __column, __row_reversed, __column_reversed], half_kernel=3
        ),
    ),
    # Models of the slides that no release has: Tiny with MS2D alone, and the base model.
    tiny_ms2d=dict(__msvmamba, arch=dict(__ms2d, depths=[2, 2, 12, 2], dims=96, d_state=16)),
    base_slides=dict(__msvmamba, arch=dict(base='base-v3', depths=[2, 3, 20, 2], gate=False), drop_path_rate=0.5),
    # Scan patterns, with four sets of S6 parameters each; cross-scan with the convolution is `vmamba_n`.
    scan_uni=dict(__vmamba, arch=__uni),
    scan_bi=dict(__vmamba, arch=__bi),
    scan_cascade=dict(__vmamba, arch=__cascade),
    scan_uni_no_dwconv=dict(__vmamba, arch=dict(__uni, full_kernel=None)),
    scan_bi_no_dwconv=dict(__vmamba, arch=dict(__bi, full_kernel=None)),
    scan_cascade_no_dwconv=dict(__vmamba, arch=dict(__cascade, full_kernel=None)),
    scan_cross_no_dwconv=dict(__vmamba, arch=dict(__nano_v0, full_kernel=None)),
    # Initialisations of the S6 parameters; v0 is `vmamba_n`.
    init_v1=dict(__vmamba, arch=dict(__nano_v0, ssm_init='normal')),
    init_v2=dict(__vmamba, arch=dict(__nano_v0, ssm_init='uniform')),
)
