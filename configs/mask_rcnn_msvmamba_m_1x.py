"""Mask R-CNN with MSVMamba-M, COCO, 12 epochs."""

_base_ = ['_base_/mask_rcnn_1x.py']

pretrained = 'checkpoints/vssm_micro_ms_e300.pth'
pretrained_source = (
    'https://drive.google.com/drive/folders/1jfl2GmuKcUB8sPwRlyHK_wT0MjqgljYk (save the file there under this name)'
)

model = dict(
    backbone=dict(
        arch='micro',
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
