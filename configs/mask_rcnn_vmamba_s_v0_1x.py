"""Mask R-CNN with VMamba-S (first release), COCO, 12 epochs."""

_base_ = ['_base_/mask_rcnn_1x.py']

pretrained = 'https://github.com/MzeroMiko/VMamba/releases/download/%23v0cls/vssmsmall_dp03_ckpt_epoch_238.pth'

model = dict(
    backbone=dict(
        type='VMamba',
        arch='small-v0',
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
