"""Mask R-CNN with MSVMamba-N, COCO, 12 epochs."""

_base_ = ['_base_/mask_rcnn_1x.py']

pretrained = 'checkpoints/vssm_nano_ms_e300.pth'
pretrained_source = (
    'https://drive.google.com/drive/folders/1J41w3ApitQhp2O3wHmJoOs4U032uqebK (save the file there under this name)'
)

model = dict(
    backbone=dict(
        arch='nano',
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    neck=dict(in_channels=[48, 96, 192, 384]),
)
