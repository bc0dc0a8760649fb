"""UperNet with VMamba-T (first release), ADE20K, 160,000 iterations."""

_base_ = ['_base_/upernet_160k_ade20k.py']

pretrained = 'https://github.com/MzeroMiko/VMamba/releases/download/%23v0cls/vssmtiny_dp01_ckpt_epoch_292.pth'

model = dict(
    backbone=dict(
        type='VMamba',
        arch='tiny-v0',
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
