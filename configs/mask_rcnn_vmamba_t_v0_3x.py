"""Mask R-CNN with VMamba-T (first release), COCO, 36 epochs."""

_base_ = ['_base_/mask_rcnn_3x.py']

pretrained = 'https://github.com/MzeroMiko/VMamba/releases/download/%23v0cls/vssmtiny_dp01_ckpt_epoch_292.pth'

model = dict(
    backbone=dict(
        type='VMamba',
        arch='tiny-v0',
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
