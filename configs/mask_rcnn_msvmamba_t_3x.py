"""Mask R-CNN with MSVMamba-T (arXiv), COCO, 36 epochs."""

_base_ = ['_base_/mask_rcnn_3x.py']

pretrained = 'checkpoints/vssm_tiny_ms_e300.pth'
pretrained_source = (
    'https://drive.google.com/drive/folders/1ddNWk89ohcxxMuVEaJ2Y5A6xeBKgA7lU (save the file there under this name)'
)

model = dict(
    backbone=dict(
        arch='tiny',
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
